"""Commands that the console runs: how their folders come and go."""

from __future__ import annotations

import os
import time
from pathlib import Path

from operations.command_jobs import CommandJobs

JOB = "0" * 32


def job(folder: Path, process_id: int, code: str = "") -> Path:
    """Lay a job out that was begun two hours ago."""
    made = folder / JOB
    made.mkdir(parents=True)
    (made / "pid").write_text(str(process_id))
    for name in ("output", "errors"):
        (made / name).write_text("said")
    if code:
        (made / "code").write_text(code)
    os.utime(made, (time.time() - 7200,) * 2)
    return made


def test_job_that_ended_is_removed_in_time_and_one_that_runs_is_not(tmp_path: Path) -> None:
    running, over = job(tmp_path / "a", os.getpid()), job(tmp_path / "b", os.getpid(), "0")
    for folder in (running.parent, over.parent):
        CommandJobs(folder)
    assert running.exists() and not over.exists()


def test_job_that_was_killed_has_ended_without_a_word(tmp_path: Path) -> None:
    jobs = CommandJobs(tmp_path)
    job(tmp_path, 2**22 + 1)  # Beyond the greatest ID of a process.
    state = jobs.state(JOB)
    assert state is not None and (state.exit_code, state.output) == (-1, "said")
    assert jobs.state("..") is None and jobs.result_of("../..") is None
