"""The tutorial is walked by a newcomer who does only what it says, from a clone on, and the time it takes is told.

With ``NEWCOMER=fresh`` everything is installed anew, as a newcomer must; else the packages that are here are lent to the
clone, and only the commands are timed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT, needs, wait_for
from tests.ports import free_port

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
EXAMPLE = ROOT / "examples" / "field-service"
FRESH = os.environ.get("NEWCOMER", "") == "fresh"
STEP_SECONDS = 600.0 if FRESH else 60.0
_BLOCK = re.compile(r"^(?P<before>[^\n]*)\n\n```sh\n(?P<command>.*?)^```\n(?:```\n(?P<shown>.*?)^```\n)?", re.M | re.S)


class Step(NamedTuple):
    """One block of commands; ``shown`` is what it prints. One with a terminal of its own does not end by itself."""

    command: str
    shown: str
    has_terminal: bool


def steps() -> list[Step]:
    found = [match.groupdict() for match in _BLOCK.finditer(TUTORIAL)]
    return [Step(one["command"], one["shown"] or "", "terminal of its own:" in one["before"]) for one in found]


def is_shown(shown: str, printed: str) -> bool:
    """Tell whether what was printed holds the lines that are shown, in their order, with anything for ``…``."""
    form = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    return re.search(form, printed, re.DOTALL) is not None


class Newcomer:
    """Somebody with one terminal, and others for what does not end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.began = time.monotonic()
        self.terminals: dict[str, subprocess.Popen[bytes]] = {}
        self.outputs: dict[str, Path] = {}
        url = f"http://localhost:{self.port}"
        self.environ = {**os.environ, "PORT": str(self.port), "SYNCAPP_URL": url, "SYNCCLIENT_URL": url}
        self.environ |= {"BCRYPT_ROUNDS": "10", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.environ = {name: value for name, value in self.environ.items() if name not in ("DATA_DIR", "PYTHONPATH")}
        self.shell = subprocess.Popen(
            ["bash", "-eu"], cwd=folder, env=self.environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def types(self, command: str) -> str:
        """Run a command in the one terminal, which keeps its variables and its folder, and give what it prints."""
        assert self.shell.stdin and self.shell.stdout
        self.shell.stdin.write(f"{self.personal(command)}\necho; echo THE-END\n")
        self.shell.stdin.flush()
        printed = ""
        while not printed.endswith("\nTHE-END\n"):
            line = self.shell.stdout.readline()
            assert line, f"{command}\nended the shell with:\n{printed}"
            printed += line
        return printed.removesuffix("\nTHE-END\n")

    def personal(self, command: str) -> str:
        return command.replace("localhost:3000", f"localhost:{self.port}").replace("<this repository>", str(ROOT))

    def opens_terminal(self, command: str) -> Path:
        """Run what does not end in a terminal of its own; the same again is stopped by Ctrl-C before."""
        if command in self.terminals:
            self.stops(command)
        path = self.folder / f"terminal-{len(self.outputs)}"
        with path.open("wb") as output:
            self.terminals[command] = subprocess.Popen(
                ["bash", "-euc", self.personal(command)], cwd=self.folder / "syncapp", env=self.environ,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self.outputs[command] = path
        return path

    def stops(self, command: str) -> None:
        """Press Ctrl-C: what runs in that terminal gets it."""
        terminal = self.terminals.pop(command)
        os.killpg(terminal.pid, signal.SIGINT)
        terminal.wait(timeout=60)

    def follows(self, step: Step) -> float:
        """Do a step, see what it shows, and give the seconds it took."""
        began = time.monotonic()
        if not step.has_terminal:
            printed = self.types(step.command)
            assert is_shown(step.shown, printed), f"{step.command}\nprinted:\n{printed}\ninstead of:\n{step.shown}"
            return time.monotonic() - began
        output = self.opens_terminal(step.command)
        if step.shown:
            wait_for(lambda: is_shown(step.shown, output.read_text()), f"{step.shown}", STEP_SECONDS)
        else:
            wait_for(lambda: "serving on port" in output.read_text(), "the server", STEP_SECONDS)
        return time.monotonic() - began

    def leaves(self) -> None:
        for command in list(self.terminals):
            self.stops(command)
        assert self.shell.stdin and self.shell.stdout
        self.shell.stdin.close()
        self.shell.wait(timeout=20)
        self.shell.stdout.close()


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    newcomer = Newcomer(tmp_path)
    yield newcomer
    newcomer.leaves()


def lend(clone: Path) -> None:
    """Let a clone have the packages that are installed here."""
    venv.create(clone / ".venv", with_pip=True, symlinks=True)
    site = Path("lib") / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (clone / ".venv" / site / "lent.pth").write_text(f"{Path(sys.prefix) / site}\n")
    (clone / ".venv" / "installed").touch()
    (clone / "node_modules").symlink_to(ROOT / "node_modules")
    for name in ("requirements.txt", "package.json"):
        os.utime(clone / name, (0, 0))


@pytest.mark.slow
@pytest.mark.timeout(1200 if FRESH else 240)
@needs("git", "bash", "curl", "node", "npm", "python3", "make")
def test_newcomer_who_does_only_what_the_tutorial_says_syncs_two_devices(
    newcomer: Newcomer, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = steps()
    assert first.command.startswith("git clone") and len(others) >= 8
    took = [newcomer.follows(first)]
    lent_seconds = 0.0
    if not FRESH:
        began = time.monotonic()
        lend(newcomer.folder / "syncapp")
        lent_seconds = time.monotonic() - began
    two_devices_seconds = 0.0
    for step in others:
        try:
            took.append(newcomer.follows(step))
        except AssertionError as error:
            if "pip install" in step.command and "No matching distribution" in str(error) and not os.environ.get("CI"):
                pytest.skip("needs setuptools from PyPI: give pip a network, or an index")
            raise
        if "rows job" in step.command:
            two_devices_seconds = time.monotonic() - newcomer.began - lent_seconds
    with capsys.disabled():
        how = "all installed anew" if FRESH else "packages lent"
        print(f"\na newcomer's time ({how}): two devices synced after {two_devices_seconds:.1f} s, all after", end=" ")
        print(f"{sum(took):.1f} s; by step " + ", ".join(f"{seconds:.1f}" for seconds in took))


@pytest.mark.parametrize(("language", "name"), [("toml", "tables.toml"), ("python", "van.py"), ("js", "office.mjs")])
def test_tutorial_shows_the_files_as_they_are(language: str, name: str) -> None:
    shown = re.findall(rf"^```{language}\n(.*?)^```", TUTORIAL, re.MULTILINE | re.DOTALL)
    assert shown == [(EXAMPLE / name).read_text()]


def test_every_command_of_the_tutorial_is_a_step() -> None:
    assert len(steps()) == TUTORIAL.count("```sh\n")
    assert sum(step.has_terminal for step in steps()) == TUTORIAL.count("erminal of its own:")
    assert shutil.which("bash") is None or all("…" not in step.command for step in steps())


def test_shown_output_is_found_in_what_was_printed_and_nothing_else_is() -> None:
    assert is_shown("a … c\n", "x\na b c\n") and is_shown("…\nb\n…", "a\nb\n")
    assert not is_shown("a … c\n", "a b\n") and not is_shown("a\nb", "a\nc\nb")
