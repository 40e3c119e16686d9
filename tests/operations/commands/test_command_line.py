"""What the operator's commands share: who is asked, an output that nobody reads, options that would do nothing."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from operations.commands import command_line
from operations.commands.commands import commands
from operations.commands.tenant_commands import print_json, print_table
from tests import forking
from tests.conftest import ROOT

HOSTILE = "Asha \x9b2J \u202eevil"
"""A terminal would take the first for a command, and write what comes after the second from right to left."""


@pytest.fixture(params=["none", "at its end", "answers", "answers at last", "declines"])
def standard_input(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    typed = {"at its end": "", "answers": "YES\n", "answers at last": "perhaps\ny\n", "declines": "\n"}
    if request.param == "none":
        monkeypatch.setattr(sys, "stdin", None)
        yield request.param
        return
    (tmp_path / "typed").write_text(typed[request.param])
    with (tmp_path / "typed").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        yield request.param


def test_question_that_nobody_answers_says_how_to_go_on_without(standard_input: str) -> None:
    """Fault: without a standard input it ended in a traceback, and at its end with "Aborted!" alone."""
    if standard_input.startswith("answers"):
        command_line.confirm("Go on?")
    elif standard_input == "declines":
        with pytest.raises(click.Abort):
            command_line.confirm("Go on?")
    else:
        with pytest.raises(click.UsageError, match="--yes"):
            command_line.confirm("Go on?")


def test_password_without_a_standard_input_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(click.UsageError, match="--password-stdin"):
        command_line.password_asked(from_stdin=False)
    assert command_line.password_asked(from_stdin=True) == ""


def test_output_that_nobody_reads_any_more_is_no_failure_to_be_told() -> None:
    """Fault: ``… | head -1`` said "Error: [Errno 32] Broken pipe"."""
    with pytest.raises(BrokenPipeError), command_line.failures():
        raise BrokenPipeError(32, "Broken pipe")


def test_what_customers_chose_reaches_no_terminal_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Fault: an address or a name with a control character of Latin-1 did, and one could be written backwards."""
    print_table(("NAME", "ROWS"), [[HOSTILE, "1"]])
    print_json({"name": HOSTILE})
    command_line.progress("asked")
    out = capsys.readouterr().out
    assert "evil" in out and all(line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("doctor --jobs 2", "work only with --all"),
        ("doctor --json", "work only with --all"),
        ("doctor --all --url http://localhost", "two different checks"),
        ("migrate --check --canary 1", "leave them out"),
        ("migrate --check --jobs 4", "leave them out"),
        ("migrate --status --no-copy", "leave them out"),
        ("migrate --status --remove-copies", "each go alone"),
        ("migrate --remove-copies --retire job", "each go alone"),
        ("migrate --json", "only with --status"),
        ("migrate --canary 1 --no-copy", "leave out --no-copy"),
    ],
)
def test_options_that_would_do_nothing_are_refused(words: str, sentence: str) -> None:
    ended = CliRunner().invoke(commands, shlex.split(words))
    assert ended.exit_code == 2 and sentence in ended.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("move --to '' --yes", "--to must be a folder"),
        ("restore --from '' --yes", "BACKUP_TO"),
        ("usage ''", "There is no customer"),
        ("actions --tenant ''", "There is no customer"),
        ("log --tenant nobody --stdin", "There is no customer"),
        ("migrate --check --retire nosuch", "--retire 'nosuch'"),
    ],
)
def test_argument_that_a_script_left_empty_or_mistyped_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str, sentence: str
) -> None:
    """Fault: ``move --to "$TARGET"``, where that is not set, began to move everything into the current folder, and
    ``restore --from "$NAME"`` did nothing and ended with 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BCRYPT_ROUNDS", "8")
    assert CliRunner().invoke(commands, REGISTER, "password123\n").exit_code == 0
    ended = CliRunner().invoke(commands, shlex.split(words))
    assert ended.exit_code in (1, 2) and sentence in ended.stderr, ended.output
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


REGISTER = ["register", "--first-name", "A", "--last-name", "R", "--email", "a@example.com", "--password-stdin"]


def test_registration_says_that_it_begins_an_installation_and_does_not_where_data_is_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fault: with a mistyped DATA_DIR it made a new installation without a word, with EXPECT_DATA=yes too."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BCRYPT_ROUNDS", "8")
    monkeypatch.setenv("EXPECT_DATA", "yes")
    ended = CliRunner().invoke(commands, REGISTER, "password123\n")
    assert ended.exit_code == 1 and "There is no data in" in ended.stderr and not (tmp_path / "data").exists()
    monkeypatch.setenv("EXPECT_DATA", "no")
    ended = CliRunner().invoke(commands, REGISTER, "password123\n")
    assert ended.exit_code == 0 and "a new installation begins there" in ended.stderr
    monkeypatch.setenv("EXPECT_DATA", "yes")
    ended = CliRunner().invoke(commands, [*REGISTER[:-2], "b@example.com", "--password-stdin"], "password123\n")
    assert ended.exit_code == 0 and "begins" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_can_not_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Fault: ``tenants > list`` on a full disk ended in a traceback."""
    environ = {**os.environ, "DATA_DIR": str(tmp_path)}
    errors = tmp_path / "errors"
    ended = forking.Forked(["support"], environ, os.devnull, "/dev/full", errors)
    assert ended.wait(60) == 1 and errors.read_text() == "Error: No space left on device.\n"


def test_interrupt_amid_imports_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    """Of the imports, which are most of what a short command takes."""
    (tmp_path / "peewee.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "syncapp.py", "tenants"]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")
