"""Random stories: a list of steps made from a seed, played, and if it fails made as short as it still fails.

Knows: what steps there are. Must not know: which client plays. What failed once is kept in ``cases/`` and played first.
"""

from __future__ import annotations

import json
import os
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .proxy import Proxy
from .suite import Device, Kit

CASES = Path(__file__).parent / "cases"
_DEVICES, _ROWS = 3, 4
_TRIES = 40

Step = list[Any]
"""What happens, to which device, and more: ``["put", 0, "r1", "name", "0.17"]``."""


def random_interleavings(kit: Kit) -> None:
    """Edits, syncs, lost answers, kills and restarts in random order; then all equal, and nothing is lost."""
    for path in sorted(CASES.glob("*.json")):
        play(kit, json.loads(path.read_text())["steps"])
    for _ in range(int(os.environ.get("STORIES", "3"))):
        steps = story(kit, random.Random(kit.rng.randrange(10**9)))
        try:
            play(kit, steps)
        except AssertionError as error:
            if _fails(kit, []):
                raise  # Nothing of the story's making.
            shortest = shrink(steps, lambda fewer: _fails(kit, fewer))
            raise AssertionError(f"{error}\nThe shortest story that fails is kept in {keep(shortest)}") from error


def keep(steps: list[Step]) -> Path:
    """Keep a story among the cases that are played first from now on."""
    lines = ",\n  ".join(json.dumps(step) for step in steps)
    path = CASES / f"{zlib.crc32(lines.encode()):08x}.json"
    path.write_text(f'{{"steps": [\n  {lines}\n]}}\n')
    return path


def story(kit: Kit, rng: random.Random, length: int = 30) -> list[Step]:
    """Make a story for what this client and this place can do."""
    weights = {"put": 12, "delete": 2, "sync": 6, "elsewhere": 3, "gone": 1}
    weights |= {"lose": 3, "cut": 2} if not kit.url.startswith("https") else {}
    weights |= {"kill": 2} if kit.has("persists") else {}
    weights |= {"restart": 1, "restore": 1} if kit.is_ours else {}
    kinds = rng.choices(list(weights), list(weights.values()), k=length)
    return [_step(kind, number, rng) for number, kind in enumerate(kinds)]


def _step(kind: str, number: int, rng: random.Random) -> Step:
    device, row_id = rng.randrange(_DEVICES), f"random-{rng.randrange(_ROWS)}"
    if kind in ("put", "elsewhere"):
        return [kind, device, row_id, rng.choice(("name", "phone", "note")), f"{kind} {number} of {device}"]
    if kind == "kill":
        return [kind, device, round(rng.uniform(0, 0.15), 3)]
    return [kind, device, row_id]


def play(kit: Kit, steps: list[Step]) -> None:
    """Play a story on new devices of an account, and check how it ends."""
    account = kit.account()
    is_plain = kit.url.startswith("https")
    proxies = [None if is_plain else kit.proxy() for _ in range(_DEVICES)]
    devices = [kit.device(account, proxy.url if proxy else None) for proxy in proxies]
    backup = kit.server.backup(kit.folder / f"backups-{account.id}") if _has(steps, "restore") else None
    for kind, number, *about in steps:
        device, proxy = devices[number], proxies[number]
        if kind == "put":
            device.put(about[0], **{about[1]: about[2]})
        elif kind == "elsewhere":
            account.put("end_user", {"id": about[0], about[1]: about[2]})
        elif kind == "gone":
            account.delete("end_user", about[0])
        elif kind == "restart":
            kit.server.kill()
            kit.server.start()
        elif kind == "restore" and backup:
            # What is then only in the server's history is nobody's to bring back.
            account.typed = [one for one in account.typed if _is_held(devices, one.table, one.row_id, one)]
            kit.server.restore(backup, account.id)
            account.at_risk = set(account.typed)
        else:
            _device_step(kind, device, proxy, about)
            if kind == "sync" and account.at_risk:
                account.at_risk -= {one for one in account.at_risk if _is_held([device], one.table, one.row_id, one)}
    kit.check(account, *devices)
    kit.release()


def _device_step(kind: str, device: Device, proxy: Proxy | None, about: list[Any]) -> None:
    if kind == "delete":
        device.delete(about[0])
    elif kind == "sync":
        device.sync()
    elif kind == "kill":  # In the middle of a sync, or soon after it.
        device.driver.send("sync")
        time.sleep(about[0])
        device.kill()
    elif proxy:
        fault = ("answer_dropped", "/push", 3) if kind == "lose" else ("answer_cut", "/sync/", 2)
        proxy.fail(*fault)
        device.try_sync()
        proxy.fail("none", "", 0)


def _has(steps: list[Step], kind: str) -> bool:
    return any(step[0] == kind for step in steps)


def _is_held(devices: list[Device], table: str, row_id: str, typed: Any) -> bool:
    return any(device.rows(table).get(row_id, {}).get(typed.field) == typed.value for device in devices)


def _fails(kit: Kit, steps: list[Step]) -> bool:
    try:
        play(kit, steps)
    except AssertionError:
        return True
    return False


def shrink(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """Leave out what a failure does not need, in ever smaller parts."""
    size, tries = len(steps) // 2, 0
    while size and tries < _TRIES:
        for start in range(0, len(steps), size):
            tries += 1
            fewer = steps[:start] + steps[start + size :]
            if fails(fewer):
                steps = fewer
                break
        else:
            size //= 2
    return steps
