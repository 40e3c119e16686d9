"""The log in a file: rotated by size, by several processes, beside logrotate; a disk that fails harms nobody."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from operations import log_files
from server.log_file import LogFile, RotatedFile, rotated
from tests.conftest import ROOT, wait_for

WRITER = """
import sys
from pathlib import Path
from server.log_file import RotatedFile
file = RotatedFile(Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4]))
for number in range(int(sys.argv[5])):
    file.append(f"{sys.argv[2]} {number:06} {'x' * 60}\\n".encode())
"""


def texts(path: Path, number: int = 0) -> list[str]:
    return rotated(path, number).read_text().splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "syncapp.log"


def test_file_is_rotated_before_it_is_too_large_and_the_oldest_goes(path: Path) -> None:
    file = RotatedFile(path, 20, 3)
    for number in range(8):
        file.append(f"line {number:03}\n".encode())
    assert [texts(path, number) for number in range(3)] == [
        ["line 006", "line 007"],
        ["line 004", "line 005"],
        ["line 002", "line 003"],
    ]
    assert not rotated(path, 3).exists() and path.stat().st_mode & 0o777 == 0o600


def test_batch_that_is_larger_than_a_file_is_written_whole(path: Path) -> None:
    file = RotatedFile(path, 20, 2)
    file.append(b"a\n")
    file.append(b"b" * 50 + b"\n")
    assert texts(path) == ["b" * 50] and texts(path, 1) == ["a"]


def test_file_that_others_move_or_remove_begins_again(path: Path) -> None:
    file = RotatedFile(path, 0, 2)
    file.append(b"a\n")
    path.rename(path.with_name("moved"))
    file.append(b"b\n")
    path.unlink()
    file.append(b"c\n")
    assert texts(path) == ["c"]


def test_half_a_line_does_not_spoil_the_next(path: Path) -> None:
    path.write_bytes(b'{"half')
    RotatedFile(path, 0, 2).append(b"whole\n")
    assert texts(path) == ['{"half', "whole"]


def writing(path: Path, name: str, *numbers: int) -> subprocess.Popen[bytes]:
    """Begin a process that writes lines: how large files may be, how many there are, how many lines."""
    return subprocess.Popen([sys.executable, "-c", WRITER, path, name, *map(str, numbers)], cwd=ROOT)


def test_processes_that_rotate_at_once_lose_nothing(path: Path) -> None:
    """Fault: the lock left out: one renamed what another had just renamed."""
    for writer in [writing(path, name, 100, 200, 50) for name in "abc"]:
        assert writer.wait() == 0
    found = sorted(line.decode().split()[:2] for line in log_files.lines(path, 0, lambda: False))
    assert found == [[name, f"{number:06}"] for name in "abc" for number in range(50)]


def test_follower_gets_all_lines_of_two_processes_that_rotate_meanwhile(path: Path) -> None:
    """Fault: the oldest file opened first."""
    writers = [writing(path, name, 4_096, 100, 1_000) for name in "ab"]
    is_last_look = False

    def goes_on() -> bool:
        nonlocal is_last_look
        if is_last_look:
            return False
        is_last_look = all(one.poll() is not None for one in writers)
        time.sleep(0.005)
        return True

    wait_for(path.exists, "the first line")
    found = [line.decode().split()[:2] for line in log_files.lines(path, 0, goes_on)]
    for name in "ab":
        assert [number for writer, number in found if writer == name] == [f"{number:06}" for number in range(1_000)]
    assert rotated(path, 20).exists()


# --- the handler -----------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(options, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def write() -> Iterator[Callable[[Path], LogFile]]:
    made: list[LogFile] = []

    def begin(path: Path) -> LogFile:
        made.append(LogFile(RotatedFile(path, 0, 2), retry_seconds=0))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def test_full_disk_is_told_once_and_what_is_missing_is_counted(
    disk: Path, write: Callable[[Path], LogFile], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "syncapp.log_file")
    file = write(disk / "log")
    (disk / "ballast").write_bytes(b"x" * 56 * 1024)
    for _ in range(10):
        for _ in range(100):
            file.take([(logging.INFO, json.dumps({"message": "m" * 50}))])
        file.flush()
    (disk / "ballast").unlink()
    file.take([(logging.INFO, '{"message": "last"}')])
    file.flush()
    gevent.sleep(0.01)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "No space left" in caplog.messages[0]
    *_, note, last = [json.loads(line) for line in texts(disk / "log") if line.endswith("}")]
    whole = len(texts(disk / "log")) - 2
    assert last == {"message": "last"} and note["message"] == "lines are missing here"
    assert note["missing_lines"] >= 1_000 - whole > 0


@pytest.mark.parametrize("place", ["missing/log", "", "pipe"])
def test_place_that_takes_no_file_is_told_and_harms_nothing(
    tmp_path: Path, write: Callable[[Path], LogFile], caplog: pytest.LogCaptureFixture, place: str
) -> None:
    if place == "pipe":
        os.mkfifo(tmp_path / place)
    file = write(tmp_path / place)
    file.take([(logging.INFO, "{}")])
    file.flush()
    gevent.sleep(0.01)
    assert len(caplog.messages) == 1 and "standard error alone" in caplog.messages[0]


def test_disk_that_hangs_costs_lines_and_no_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.log_file._MOST_WAITING", 3)
    monkeypatch.setattr("server.log_file._TOGETHER_SECONDS", 0.1)
    file = LogFile(RotatedFile(path, 0, 2))
    for number in range(10):
        file.take([(logging.INFO, str(number))])
    file.flush()
    file.take([(logging.INFO, "last")])
    file.flush()
    file.close()
    note, *others, last = [text for text in texts(path) if text]
    assert last == "last" and len(others) == 10 - json.loads(note)["missing_lines"] and others[0] == "0"
