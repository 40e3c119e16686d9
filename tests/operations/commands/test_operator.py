"""What an operator is told: which settings are wrong, what a start would refuse, where it serves, how a command ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import settings
from operations.checks import misspelled_settings
from operations.commands.command_line import counted
from tests import forking
from tests.conftest import FAST, ROOT, Server, wait_for
from tests.server.http.test_lifecycle import procfile_command
from version import VERSION

StartServer = Callable[..., Server]
KNOWN = [name for name, _ in settings.effective(settings.Settings())]


def run(tmp_path: Path, *arguments: str, command: Sequence[str] = forking.PLAIN, **env: str) -> Any:
    """Run a command of the operator's, or a start that is to end by itself."""
    environ = {**os.environ, **FAST, "DATA_DIR": str(tmp_path / "data"), "PORT": "0", **env}
    if command == forking.PLAIN:
        return forking.run([*arguments], environ, "password123\n")
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=environ,
        input="password123\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(params=["python syncapp.py", "Procfile"])
def either_command(request: pytest.FixtureRequest) -> list[str]:
    return procfile_command() if request.param == "Procfile" else forking.PLAIN


# --- values ----------------------------------------------------------------------------------------------------------

WRONG = {"PORT": "three", "MAX_PUSH_ROWS": "0", "REGISTRATION": "opn\x1b[2J", "JWT_SECRET_KEY": "hunter2"}


def test_all_wrong_values_are_named_at_once_with_the_value_and_without_a_traceback(
    tmp_path: Path, either_command: list[str]
) -> None:
    """Fault: only the first was named, without its value; under gunicorn the end of a traceback said it."""
    ended = run(tmp_path, command=either_command, **WRONG)
    lines = ended.stderr.strip().removeprefix("syncapp: ").splitlines()
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert lines[0] == 'PORT must be a whole number from 0 to 65,535, not "three".'
    assert sorted(line.split()[0] for line in lines) == sorted(WRONG)
    assert "hunter2" not in ended.stderr + ended.stdout and "\x1b" not in ended.stderr
    assert not (tmp_path / "data").exists()


def test_values_that_are_wrong_together_are_told_beside_those_wrong_by_themselves() -> None:
    environ = {"MAX_BODY_BYTES": "1G", "TENANT_BYTES": "1M per minute", "PING_TIMEOUT_SECONDS": "45", "PORT": "-1"}
    with pytest.raises(settings.SettingError) as caught:
        settings.load(environ)
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        "PORT", "PING_INTERVAL_SECONDS", "TENANT_BYTES", "MAX_TENANT_BODY_BYTES"
    ]  # fmt: skip
    with pytest.raises(settings.SettingError) as caught:
        settings.load({"MAX_BODY_BYTES": "much", "TENANT_BYTES": "1M per minute"})
    assert str(caught.value).count("\n") == 0, "what depends on a value that is none is not told"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16777216", 16_777_216), ("16M", 16_777_216), ("16MiB", 16_777_216), ("16m", 16_777_216), ("16 MiB", 16_777_216),
        ("16MB", 16_000_000), ("1G", 2**30), ("1GiB", 2**30), ("1GB", 10**9), ("2048K", 2_097_152), ("4096B", 4_096),
    ],
)  # fmt: skip
def test_byte_sizes_take_units(text: str, size: int) -> None:
    room = {"MAX_TENANT_BODY_BYTES": "60G", "TENANT_BYTES": "60G per minute"}
    assert settings.load({"MAX_BODY_BYTES": text, **room}).max_body_bytes == size


@pytest.mark.parametrize(
    "text", ["M", "16X", "16iB", "1.5M", "-1M", "16MM", "1 6M", "16M ,", "9T", "\u0661\u0666M", "0x10"]
)
def test_what_is_no_byte_size_is_refused(text: str) -> None:
    with pytest.raises(settings.SettingError, match=r"MAX_BODY_BYTES must be a number of bytes from 1,024 to"):
        settings.load({"MAX_BODY_BYTES": text})


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1G per minute", "1073741824 per minute"),
        ("512M/10 seconds", "536870912/10 seconds"),
        ("2GB per hour", "2000000000 per hour"),
        ("134217728 per minute", "134217728 per minute"),
    ],
)
def test_rates_of_bytes_take_units(text: str, rate: str) -> None:
    assert settings.load({"TENANT_BYTES": text}).tenant_bytes == rate
    assert settings.load({"SOCKET_BYTES": text}).socket_bytes == rate


def test_rates_of_other_things_take_none() -> None:
    for name in ("TENANT_ROWS", "SOCKET_EVENTS", "RATE_LIMIT_LOGIN"):
        with pytest.raises(settings.SettingError, match=name):
            settings.load({name: "1M per minute"})


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("REGISTRATON", "REGISTRATION"), ("REGISTARTION", "REGISTRATION"), ("DATADIR", "DATA_DIR"), ("port", "PORT"),
        ("Data_Dir", "DATA_DIR"), ("JWT_SECRET", "JWT_SECRET_KEY"), ("CORS_ORIGIN", "CORS_ORIGINS"),
        ("SYNCAPP_REGISTRATION", "REGISTRATION"), ("SYNC_APP_LOG_FORMAT", "LOG_FORMAT"),
        ("SYNCAPP_REGISTRATON", "REGISTRATION"),
        ("SYNCAPP_PORT", "PORT"), ("EXPECTED_DATA", "EXPECT_DATA"), ("BYCRYPT_ROUNDS", "BCRYPT_ROUNDS"),
        ("TRUSTED_PROXY", "TRUSTED_PROXIES"), ("RATE_LIMITS_LOGIN", "RATE_LIMIT_LOGIN"),
    ],
)  # fmt: skip
def test_variable_that_is_nearly_a_setting_is_warned_of(name: str, meant: str) -> None:
    assert list(misspelled_settings.sentences({name: "x"}, KNOWN)) == [f"{name} is no setting; {meant} is."]


def test_variable_of_ours_that_is_like_no_setting_is_warned_of() -> None:
    assert list(misspelled_settings.sentences({"SYNCAPP_COLOUR": "x"}, KNOWN)) == ["SYNCAPP_COLOUR is no setting."]


PLATFORMS = """
    HOME HOSTNAME HOSTTYPE PATH PWD OLDPWD POSTGRES_PORT PORT0 PORTS SHELL SHLVL TERM USER LANG LC_ALL TZ TMPDIR LOGNAME
    DYNO DYNO_RAM WEB_CONCURRENCY DATABASE_URL REDIS_URL HEROKU_APP_NAME K_SERVICE K_REVISION K_CONFIGURATION GAE_ENV
    KUBERNETES_PORT KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_PORT_443_TCP_ADDR SYNCAPP_SERVICE_HOST
    SYNCAPP_SERVICE_PORT SYNCAPP_SERVICE_PORT_HTTP SYNCAPP_PORT_3000_TCP SYNCAPP_PORT_3000_TCP_PROTO
    FLY_APP_NAME FLY_REGION RENDER RENDER_SERVICE_ID RAILWAY_ENVIRONMENT INVOCATION_ID JOURNAL_STREAM LISTEN_FDS LISTEN_PID
    NOTIFY_SOCKET XDG_DATA_DIRS XDG_DATA_HOME DATA_ROOT LOG_LEVEL SERVER_PORT SSH_CLIENT SSH_TTY VIRTUAL_ENV PYTHONPATH
    GUNICORN_CMD_ARGS HTTP_PROXY HTTPS_PROXY NO_PROXY CI GITHUB_ACTIONS RUNNER_TEMP WEBSITE_INSTANCE_ID VERCEL LD_PRELOAD
"""


@pytest.mark.parametrize("name", PLATFORMS.split())
def test_variable_of_a_platform_is_left_alone(name: str) -> None:
    assert list(misspelled_settings.sentences({name: "1"}, KNOWN)) == []


def test_port_that_kubernetes_tells_of_a_service_is_left_alone() -> None:
    assert list(misspelled_settings.sentences({"SYNCAPP_PORT": "tcp://10.0.0.1:3000"}, KNOWN)) == []


def test_misnamed_variable_is_warned_of_at_the_start(start_server: StartServer) -> None:
    server = start_server(REGISTRATON="closed")
    (line,) = [line for line in server.log if "REGISTRATON" in line["message"]]
    assert line["level"] == "warning" and "REGISTRATION is." in line["message"]


# --- doctor ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, start_server: StartServer) -> Iterator[Path]:
    """A data folder of a server that ended, with a customer who has a row of a declared table."""
    (tmp_path / "tables.toml").write_text('[orders.columns]\ntotal = "integer"\n')
    server = start_server(TABLES_FILE=str(tmp_path / "tables.toml"))
    server.register().device().create("orders", id="a", total=7)
    server.stop()
    yield server.data


def in_use(_: Path) -> dict[str, str]:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    TAKEN.append(taken)
    return {"PORT": str(taken.getsockname()[1])}


TAKEN: list[socket.socket] = []


def broken_main(data: Path) -> dict[str, str]:
    (data / "main.db").write_bytes(b"this is no database. " * 500)
    return {}


def torn_main(data: Path) -> dict[str, str]:
    whole = (data / "main.db").read_bytes()
    (data / "main.db").write_bytes(whole[:100] + os.urandom(len(whole) - 100))
    return {}


def undeclared(data: Path) -> dict[str, str]:
    (data.parent / "tables.toml").write_text('[orders.columns]\ntotal = "date"\n')
    return {}


def empty_key(data: Path) -> dict[str, str]:
    (data / "jwt_secret_key").write_bytes(b"")
    return {}


def no_folder(data: Path) -> dict[str, str]:
    (data.parent / "file").touch()
    return {"DATA_DIR": str(data.parent / "file")}


REFUSED: dict[str, Callable[[Path], dict[str, str]]] = {
    "a port that is taken": in_use,
    "a host that is none": lambda _: {"HOST": "203.0.113.77"},
    "a file of tables that is not there": lambda data: {"TABLES_FILE": str(data / "none.toml")},
    "a declaration that rows do not allow": undeclared,
    "a main database that is none": broken_main,
    "a main database that is torn": torn_main,
    "an empty signing key": empty_key,
    "a data folder that is a file": no_folder,
    "a setting that is none": lambda _: {"MAX_PUSH_ROWS": "many"},
    "data that is expected": lambda data: {"EXPECT_DATA": "yes", "DATA_DIR": str(data.parent / "empty")},
}


@pytest.mark.files("the folder of a server")
@pytest.mark.parametrize("name", REFUSED)
def test_doctor_finds_what_a_start_refuses_and_both_say_the_same(tmp_path: Path, data: Path, name: str) -> None:
    env = {"TABLES_FILE": str(tmp_path / "tables.toml"), **REFUSED[name](data)}
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.suffix != ".lock"}
    told = run(tmp_path, "doctor", command=forking.PLAIN, **env)
    assert told.returncode == 1 and told.stderr == "", told.stderr
    refusals = [line.partition(": ")[2] for line in told.stdout.splitlines() if line.startswith("refused: ")]
    assert len(refusals) == 1, told.stdout
    started = run(tmp_path, command=forking.PLAIN, **env)
    assert started.returncode == 1 and "Traceback" not in started.stderr, started.stderr
    assert refusals[0].split(". ")[0] in started.stderr
    after = {path: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert {path: after[path] for path in before if not path.name.endswith(("-wal", "-shm"))} == {
        path: content for path, content in before.items() if not path.name.endswith(("-wal", "-shm"))
    }


def test_doctor_lists_its_checks_and_the_settings_in_force_without_secrets(tmp_path: Path) -> None:
    secret = "a-secret-that-nobody-may-see-0123456789"
    told = run(tmp_path, "doctor", JWT_SECRET_KEY=secret, MAX_BODY_BYTES="8M", BCRYPT_ROUNDS="12", PORT="0")
    assert told.returncode == 0, told.stdout
    lines = told.stdout.splitlines()
    assert lines[0] == f"data folder: {tmp_path / 'data'} (no data is there: a start would begin without data)"
    assert sum(line.startswith("ok: checked whether ") for line in lines) >= 15
    assert "ok: checked whether main.db is missing, or emptied, beside files of tenants" in lines
    said = dict(line.split("=", 1) for line in lines if "=" in line and line.split("=")[0].isupper())
    assert said.keys() == set(KNOWN)
    assert said["MAX_BODY_BYTES"] == "8388608" and said["REGISTRATION"] == "open (default)"
    assert said["JWT_SECRET_KEY"] == f"one of {len(secret)} bytes" and secret not in told.stdout
    assert lines[-1].endswith("0 refusals, 0 warnings.")
    assert not (tmp_path / "data").exists(), "looking makes nothing"


@pytest.mark.files("the folder of a server")
def test_doctor_beside_a_running_server_refuses_nothing(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    server.register().device().create(id="a")
    told = run(tmp_path, "doctor", PORT=str(server.port))
    assert told.returncode == 0, told.stdout
    assert server.is_up()


# --- starting and ending ---------------------------------------------------------------------------------------------


def test_place_where_it_serves_is_said(tmp_path: Path, either_command: list[str]) -> None:
    """Fault: under gunicorn, and so under honcho and on Heroku, nothing was said until the end."""
    server = Server(tmp_path / "data", command=either_command).start()
    said = [line["message"] for line in server.log if line["message"].startswith("serving on")]
    assert said == [f"serving on port {server.port}: http://localhost:{server.port}"]
    assert server.stop() == 0


@pytest.mark.files("a folder has one server")
def test_second_server_says_at_once_that_it_waits_and_takes_over(start_server: StartServer, tmp_path: Path) -> None:
    first = start_server()
    second = Server(tmp_path / "data", {})
    environ = {**os.environ, **FAST, "DATA_DIR": str(first.data), "PORT": str(second.port)}
    log = tmp_path / "second.log"
    with log.open("wb") as file:
        second.process = subprocess.Popen(second.command, cwd=ROOT, env=environ, stderr=file)
    wait_for(lambda: "another server is running in" in log.read_text(), "the second server's word")
    assert second.process.poll() is None and first.is_up()
    assert first.stop() == 0
    wait_for(second.is_up, "the second server")
    assert second.stop() == 0


def test_start_that_is_refused_is_not_tried_again_and_again_under_gunicorn(tmp_path: Path) -> None:
    """Fault: gunicorn began another worker twice a second, for ever."""
    ended = run(tmp_path, command=procfile_command(), TABLES_FILE=str(tmp_path / "none.toml"))
    assert ended.returncode == 3
    assert ended.stderr.count("syncapp: TABLES_FILE can't be read") == 1 and "Traceback" not in ended.stderr


SEEDED = {"SEEDED": "yes"}
"""In a data folder with a customer."""

CODES: list[tuple[int, list[str], dict[str, str]]] = [
    (0, ["--version"], {}),
    (0, ["--help"], {}),
    (0, ["doctor"], {}),
    (0, ["register", "--first-name", "A", "--last-name", "B", "--email", "b@example.com", "--password-stdin"], SEEDED),
    (0, ["migrate", "--check"], SEEDED),
    (0, ["migrate"], SEEDED),
    (0, ["backup", "--to", "{tmp}/backups"], SEEDED),
    (1, ["migrate"], {}),
    (1, ["backup", "--to", "{tmp}/backups"], {}),
    (1, ["doctor"], {"EXPECT_DATA": "yes"}),
    (1, ["migrate"], {"PORT": "x"}),
    (1, ["migrate", "--check"], {"TABLES_FILE": "/nowhere.toml"}),
    (1, ["register", "--first-name", "A", "--last-name", "B", "--email", "none", "--password-stdin"], {}),
    (1, ["backup", "--to", "{tmp}/backups", "--tenant", "none"], {}),
    (1, ["restore", "--yes", "{tmp}"], SEEDED),
    (2, ["restore", "{tmp}"], SEEDED),
    (1, ["backup", "verify", "{tmp}"], {}),
    (1, [], {"REGISTRATION": "x"}),
    (2, ["no-such-command"], {}),
    (2, ["register"], {}),
    (2, ["backup"], {}),
    (2, ["backup", "--keep", "0", "--to", "x"], {}),
    (2, ["backup", "--to", "/etc/passwd"], SEEDED),
    (1, ["backup", "--to", "{tmp}/backups", "--tenant", ""], SEEDED),
    (2, ["backup", "--to", "{tmp}/backups", "--tenant", "", "--keep", "1"], SEEDED),
    (2, ["restore", "{tmp}/not-there"], {}),
    (2, ["doctor", "--fix"], {}),
]


@pytest.mark.parametrize(
    ("code", "arguments", "env"), CODES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_exit_code_tells_how_a_command_ended(
    tmp_path: Path, code: int, arguments: list[str], env: dict[str, str]
) -> None:
    if env == SEEDED:
        new = ["register", "--first-name", "A", "--last-name", "B", "--email", "a@example.com", "--password-stdin"]
        assert run(tmp_path, *new).returncode == 0
    ended = run(tmp_path, *[argument.format(tmp=tmp_path) for argument in arguments], command=forking.PLAIN, **env)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    assert code == 0 or ended.stderr or "refused: " in ended.stdout


def test_backup_that_lacks_a_customer_ends_with_3(tmp_path: Path) -> None:
    for email in ("a@example.com", "b@example.com"):
        new = ["register", "--first-name", "A", "--last-name", "B", "--email", email, "--password-stdin"]
        assert run(tmp_path, *new).returncode == 0
    file, _ = (tmp_path / "data" / "tenants").glob("*.db")
    file.unlink()
    ended = run(tmp_path, "backup", "--to", str(tmp_path / "backups"))
    assert ended.returncode == 3 and "not in this backup: 1 customer, whose" in ended.stderr


def test_version_is_said() -> None:
    ended = subprocess.run(
        [sys.executable, "syncapp.py", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == f"syncapp, version {VERSION}"


def test_password_that_is_no_text_is_refused_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "syncapp.py", "register", "--first-name", "A", "--last-name", "B", "--email", "a@b.c"]
    environ = {**os.environ, **FAST, "DATA_DIR": str(tmp_path / "data"), "LC_ALL": "C"}
    ended = subprocess.run(
        [*command, "--password-stdin"],
        cwd=ROOT,
        env=environ,
        input=b"pass\xffword123\n",
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 1 and ended.stderr.startswith(b"Error: The password must be UTF-8")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 warnings"), (1, "1 warning"), (2, "2 warnings"), (1_000, "1,000 warnings")]
)
def test_counts_are_told_in_plain_english(count: int, text: str) -> None:
    assert counted(count, "warning") == text
