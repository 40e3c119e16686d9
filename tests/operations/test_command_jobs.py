"""Commands that the console runs: how their folders come and go."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from api.admin.server_parts import JOBS_FOLDER
from operations import command_jobs
from operations.command_jobs import CommandJobs
from tests.conftest import Server, wait_for

JOB = "0" * 32


def job(folder: Path, code: str = "") -> Path:
    """Lay a job out that was begun two hours ago, and whose process is gone."""
    made = folder / JOB
    made.mkdir(parents=True)
    for name in ("begun", "output", "errors"):
        (made / name).write_text("said")
    if code:
        (made / "code").write_text(code)
    os.utime(made, (time.time() - 7200,) * 2)
    return made


def test_job_that_ended_is_removed_in_time_and_one_that_runs_is_not(tmp_path: Path) -> None:
    running, over = job(tmp_path / "a"), job(tmp_path / "b", "0")
    with (running / "output").open("rb") as output:
        fcntl.flock(output, fcntl.LOCK_EX)
        for folder in (running.parent, over.parent):
            CommandJobs(folder)
    assert running.exists() and not over.exists()
    CommandJobs(running.parent)  # Fault: that its process had ended was not seen once another had its number.
    assert not running.exists()


def test_job_that_was_killed_has_ended_without_a_word(tmp_path: Path) -> None:
    jobs = CommandJobs(tmp_path)
    job(tmp_path)
    state = jobs.state(JOB)
    assert state is not None and (state.exit_code, state.output) == (-1, "said")
    assert jobs.state("..") is None and jobs.result_of("../..") is None


def test_archive_is_removed_in_time_though_nobody_asks_for_another_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has all that is held of a customer."""
    monkeypatch.setattr(command_jobs, "_PROGRAM", tmp_path / "writes.py")
    monkeypatch.setattr(command_jobs, "_KEPT_SECONDS", -0.9)  # It is looked at a second after that.
    (tmp_path / "writes.py").write_text("import sys, time; time.sleep(0.3); open(sys.argv[1], 'w')")
    CommandJobs(tmp_path / "jobs").start("console 1", "{result}")
    assert list((tmp_path / "jobs").iterdir())
    wait_for(lambda: not list((tmp_path / "jobs").iterdir()), "its removal")


def test_archive_of_before_a_restart_is_removed_though_nobody_signs_in(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    left = job(tmp_path / "data" / JOBS_FOLDER)
    (left / "begun").unlink()  # As a crash leaves it.
    os.utime(left, (time.time() - 7200,) * 2)
    start_server()
    assert not left.exists()
