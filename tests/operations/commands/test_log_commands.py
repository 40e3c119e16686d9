"""The operator's command that reads the log: from rotated files while the server writes them, and from what is piped in."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from operations import log_lines
from operations.log_lines import Filter
from tests import forking
from tests.conftest import FAST, JSON, Server, Tenant, wait_for

NOW = datetime(2026, 11, 29, 14, 30, tzinfo=UTC)


def environ_of(server: Server) -> dict[str, str]:
    from tests import postgres

    return {**os.environ, **FAST, **postgres.environ_of(server.data), **server.env, "DATA_DIR": str(server.data)}


def log(server: Server, *arguments: str, typed: str = "", code: int = 0) -> Any:
    ended = forking.run(["log", *arguments], environ_of(server), typed)
    assert ended.returncode == code and "Traceback" not in ended.stderr, ended.stderr
    return ended


def found(server: Server, *arguments: str) -> list[JSON]:
    return [json.loads(line) for line in log(server, *arguments, "--json").stdout.splitlines()]


@pytest.fixture(scope="module")
def logging_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that begins another file every few requests."""
    folder = tmp_path_factory.mktemp("logging")
    env = {"LOG_FILE": str(folder / "syncapp.log"), "LOG_FILE_BYTES": "4096", "LOG_FILES": "100"}
    server = Server(folder / "data", env).start()
    yield server
    if server.process and server.process.poll() is None:
        server.kill()


@pytest.fixture(scope="module")
def used(logging_server: Server) -> Tenant:
    return logging_server.register()


def test_lines_of_a_tenant_and_of_a_request_are_found(logging_server: Server, used: Tenant) -> None:
    other = logging_server.register()
    for number in range(20):
        used.device(X_Request_ID=f"r-{number}").create(id=f"a{number}", name="n")
    other.device(X_Request_ID="of-another").create(id="b", name="n")
    wait_for(lambda: found(logging_server, "--request", "of-another"), "the last line")
    lines = found(logging_server, "--tenant", used.email)
    assert [line["request_id"] for line in lines] == [f"r-{number}" for number in range(20)]
    (line,) = found(logging_server, "--tenant", used.id, "--request", "r-7")
    assert line["path"] == "/api/client/sync/push" and line["status"] == 200
    assert [line["request_id"] for line in found(logging_server, "--tenant", used.id, "--last", "2")] == [
        "r-18",
        "r-19",
    ]
    assert found(logging_server, "--tenant", other.id, "--since", "1h") and not found(
        logging_server, "--level", "error"
    )
    assert Path(logging_server.env["LOG_FILE"] + ".1").exists()


def test_follower_sees_what_comes_through_rotations(logging_server: Server, used: Tenant, tmp_path: Path) -> None:
    out = tmp_path / "followed"
    process = forking.begin(["log", "--follow", "--json", "--tenant", used.id], environ_of(logging_server), out)
    device = used.device()
    device.headers["X-Request-ID"] = "before"
    device.create(id="c", name="n")
    wait_for(lambda: "before" in out.read_text(), "the follower")
    for number in range(60):
        device.headers["X-Request-ID"] = f"f-{number}"
        device.update(id="c", name=f"n{number}")
    wait_for(lambda: "f-59" in out.read_text(), "the last line")
    process.send_signal(9)
    process.wait()
    seen = [json.loads(line)["request_id"] for line in out.read_text().splitlines()]
    assert seen[seen.index("before") + 1 :] == [f"f-{number}" for number in range(60)]


def test_nothing_from_outside_becomes_a_command_to_the_terminal(logging_server: Server) -> None:
    logging_server.call("GET", "/%1b[2J%c2%9b2J%0a%7f", X_Request_ID="hostile")
    wait_for(lambda: found(logging_server, "--request", "hostile"), "the line")
    for form in ((), ("--json",)):
        text = log(logging_server, "--request", "hostile", *form).stdout
        assert text.count("\n") == 1 and text.rstrip("\n").isprintable() and "2J" in text


def test_file_has_what_standard_error_has_to_the_last_line(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", {"LOG_FILE": str(tmp_path / "log")}).start()
    server.register()
    server.stop()
    lines = found(server)
    assert sorted(map(str, lines)) == sorted(map(str, server.log)) and lines[-1]["message"] == "stopped"


# --- from elsewhere --------------------------------------------------------------------------------------------------

LINE = {"time": "2026-11-29T14:03:05.120Z", "level": "info", "logger": "l", "message": "m", "tenant": "t"}


def test_what_is_piped_in_is_read_and_lines_of_others_too(server: Server) -> None:
    typed = f"web-1  | {json.dumps(LINE)}\nno line of ours \x1b[2J {{\n"
    assert log(server, typed=typed).stdout.splitlines() == [
        "2026-11-29T14:03:05.120Z INFO    m tenant=t",
        r"no line of ours \x1b[2J {",
    ]
    assert json.loads(log(server, "--json", "--level", "info", typed=typed).stdout) == LINE


@pytest.mark.parametrize(
    "before",
    ["", "Nov 29 14:03:05 host syncapp[7]: ", "syncapp-1  | ", "2026-11-29T14:03:05.120+00:00 app[web.1]: "],
    ids=["bare", "journald", "compose", "heroku"],
)
def test_what_others_put_before_a_line_is_left_out(before: str) -> None:
    assert log_lines.parse(f"{before}{json.dumps(LINE)}\n".encode()) == LINE


def test_standard_input_is_read_beside_a_file_if_asked_for(logging_server: Server) -> None:
    assert json.loads(log(logging_server, "--stdin", "--json", typed=json.dumps(LINE)).stdout) == LINE


def test_without_a_file_it_says_where_the_log_is(server: Server, tmp_path: Path) -> None:
    terminal, other_end = pty.openpty()
    out, err = tmp_path / "out", tmp_path / "err"
    assert forking.Forked(["log"], environ_of(server), os.ttyname(other_end), out, err).wait() == 1
    os.close(terminal)
    os.close(other_end)
    assert out.read_text() == ""
    for word in ("LOG_FILE", "journalctl -u syncapp", "docker compose logs", "heroku logs"):
        assert word in err.read_text()


def test_file_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    one = Server(server.data, {"LOG_FILE": str(tmp_path / "none")})
    assert "none: No such file" in log(one, code=1).stderr


def test_time_that_is_none_is_told(server: Server) -> None:
    assert "--since" in log(server, "--since", "soon", code=2).stderr


# --- a line ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-29T14:03", "2026-11-29T14:03:00.000Z"),
        ("2026-11-29 14:03:05", "2026-11-29T14:03:05.000Z"),
        ("2026-11-29", "2026-11-29T00:00:00.000Z"),
        ("2026-11-29T14:03+05:30", "2026-11-29T08:33:00.000Z"),
        ("30m", "2026-11-29T14:00:00.000Z"),
        ("2d", "2026-11-27T14:30:00.000Z"),
    ],
)
def test_time_is_read(text: str, moment: str) -> None:
    assert log_lines.parse_since(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "soon", "5", "999999999d", "2026-13-01", "0001-01-01T00:00+23:59"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time"):
        log_lines.parse_since(text, NOW)


def test_line_of_an_unknown_level_or_form_harms_nothing() -> None:
    line = LINE | {"level": 7, "exception": "Traceback\n  \x1b[2J", "n": [1]}
    assert not Filter(level="error").takes(line)
    assert log_lines.as_text(line).splitlines()[1:] == ["    Traceback", r"      \x1b[2J"]
    assert log_lines.parse(b"[" * 100_000 + b'{"a":' * 100_000)["message"]
    assert log_lines.parse(b"\xff{")["message"] == r"\xff{"
