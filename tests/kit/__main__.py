"""Runs the suite: ``python -m tests.kit`` in the repository's folder; ``make kit`` does."""

from __future__ import annotations

import argparse
import os
import random
import shlex
import sys
import tempfile
import time
import traceback
from pathlib import Path

from .scenarios import SCENARIOS
from .server import ROOT
from .suite import Kit, LeftOut

_PYTHON_CLIENT = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'clients/python/tests/driver.py'))}"


def main() -> int:
    """Run the scenarios that are asked for; give 1 if one failed."""
    asked = _arguments()
    print(f"SEED={asked.seed}")
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        kit = Kit(shlex.split(asked.driver), Path(folder), random.Random(asked.seed), asked.url or None)
        print(f"{kit.hello['client']} ({', '.join(kit.hello['features'])}) against {kit.url}")
        if asked.email:
            kit.use(asked.email, asked.password)
        try:
            results = [
                _run(kit, name, asked.seed) for name in SCENARIOS if not asked.only or name in asked.only.split(",")
            ]
        finally:
            kit.close()
    print(f"{results.count('ok')} passed, {results.count('failed')} failed, {results.count('left out')} left out")
    return 1 if "failed" in results else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kit", description="Hold a client, or a deployment, to the scenario suite.")
    parser.add_argument("--driver", default=os.environ.get("DRIVER") or _PYTHON_CLIENT, help="command of the driver")
    parser.add_argument("--url", default=os.environ.get("URL"), help="a deployment; default: start a server")
    parser.add_argument("--only", default=os.environ.get("ONLY"), help="names of scenarios, separated by commas")
    parser.add_argument("--email", default=os.environ.get("EMAIL"), help="an empty account, if registration is closed")
    parser.add_argument("--password", default=os.environ.get("PASSWORD"))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or random.randrange(10**9)))
    return parser.parse_args()


def _run(kit: Kit, name: str, seed: int) -> str:
    kit.rng = random.Random(f"{seed} {name}")  # So that one scenario alone does what it did among all.
    started = time.monotonic()
    try:
        kit.run(SCENARIOS[name])
        result, why = "ok", ""
    except LeftOut as reason:
        result, why = "left out", f": {reason}"
    except Exception:
        result, why = "failed", f", again with ONLY={name} SEED={seed}\n{traceback.format_exc()}"
    print(f"{name} … {result}{why} ({time.monotonic() - started:.1f} s)", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
