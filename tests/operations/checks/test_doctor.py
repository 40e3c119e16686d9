"""What a start looks at: each finding in one clear sentence with what to do."""

from __future__ import annotations

import errno
import functools
import os
import resource
import subprocess
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations.checks import doctor, trial_start
from operations.checks.doctor import CHECKS, Check, Finding, Machine
from settings import Settings
from storage.sqlite import connections
from tests import forking, postgres
from tests.conftest import FAST
from tests.ports import free_port
from tests.storage.engine.installations import PostgresInstallation, create

EXT4 = "/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n"


@pytest.fixture(scope="module")
def found() -> set[str]:
    """The names of the checks that found something in this module."""
    return set()


@pytest.fixture(autouse=True)
def noted(found: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Note which checks find something."""

    def noting(check: Check) -> Check:
        @functools.wraps(check)
        def look(machine: Machine) -> Finding | None:
            finding = check(machine)
            found.update({check.__name__} if finding else ())
            return finding

        return look

    monkeypatch.setattr(doctor, "CHECKS", tuple(map(noting, CHECKS)))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine in which nothing is wrong."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "main.db").write_bytes(b"SQLite format 3\0")
    return Machine(Settings(data_dir=tmp_path / "data"), {}, EXT4)


def mounted(machine: Machine, kind: str) -> Machine:
    return replace(machine, mounts=EXT4 + f"x {machine.folder} {kind} rw 0 0\n")


def with_settings(machine: Machine, **settings: Any) -> Machine:
    return replace(machine, settings=replace(machine.settings, **settings))


def test_good_machine_has_no_findings(machine: Machine) -> None:
    assert doctor.findings(machine) == []


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_network_filesystem_is_refused(machine: Machine, kind: str) -> None:
    (finding,) = doctor.findings(mounted(machine, kind))
    assert finding.refuses and kind in finding.sentence


@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_filesystem_that_a_restart_may_empty_is_warned_of(machine: Machine, kind: str) -> None:
    (finding,) = doctor.findings(mounted(machine, kind))
    assert not finding.refuses and "persistent disk" in finding.remedy


def test_innermost_mount_counts(machine: Machine) -> None:
    inner = replace(machine, mounts=f"{EXT4}x {machine.folder.parent} nfs4 rw 0 0\ny {machine.folder} ext4 rw 0 0\n")
    assert doctor.findings(inner) == []


def test_mount_whose_name_has_a_space_is_found(tmp_path: Path) -> None:
    """The kernel writes the space in octal digits (proc(5)), as it does a tab, a line feed and a backslash."""
    mounts = f"{EXT4}x {tmp_path}/two\\040words\\134 nfs4 rw 0 0\n"
    machine = Machine(Settings(data_dir=tmp_path / "two words\\" / "data"), {}, mounts)
    assert machine.filesystem == "nfs4"


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\rb", b"\xe2\x80\xa8"])
def test_mount_with_an_odd_name_hinders_no_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: bytes) -> None:
    """Seen to fail: a name that is no UTF-8, and those with what Python takes for the end of a line."""
    mounts = tmp_path / "mounts"
    mounts.write_bytes(EXT4.encode() + b"x /mnt/" + name + b" ext4 rw 0 0\n")
    monkeypatch.setattr(doctor, "_MOUNTS", mounts)
    assert doctor.this_machine(Settings(data_dir=tmp_path)).filesystem == "ext4"


def test_platform_with_an_ephemeral_disk_is_named(machine: Machine) -> None:
    (finding,) = doctor.findings(replace(machine, environ={"DYNO": "web.1"}))
    assert finding.sentence.startswith("Heroku removes the data folder at each restart")
    (machine.folder / "main.db").unlink()
    (finding,) = doctor.findings(replace(machine, environ={"DYNO": "web.1"}))
    assert "that has just happened" in finding.sentence


def test_files_of_tenants_without_the_main_database_are_warned_of(machine: Machine) -> None:
    (machine.folder / "tenants").mkdir()
    (machine.folder / "tenants" / "tenant_1030070f982449b3b53b8013e2eb363e.db").touch()
    assert doctor.findings(machine) == []
    for lose in ((machine.folder / "main.db").unlink, (machine.folder / "main.db").touch):
        lose()
        (finding,) = doctor.findings(machine)
        assert not finding.refuses and "main.db" in finding.sentence and "restore" in finding.remedy


def test_expected_data_that_is_not_there_is_refused(machine: Machine) -> None:
    expecting = with_settings(machine, expect_data="yes")
    assert doctor.findings(expecting) == []
    (machine.folder / "main.db").unlink()
    (finding,) = doctor.findings(expecting)
    assert finding.refuses and "did not survive the last restart" in finding.sentence


def test_folder_that_others_can_read_is_warned_of(machine: Machine) -> None:
    machine.folder.chmod(0o755)
    (finding,) = doctor.findings(machine)
    assert f"chmod -R go= {machine.folder}" in finding.remedy


def test_folder_that_can_not_be_written_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    (finding,) = doctor.findings(machine)
    assert finding.refuses and "can't be written" in finding.sentence


def test_redis_address_that_is_none_is_refused_and_its_password_not_shown(machine: Machine) -> None:
    assert doctor.findings(with_settings(machine, redis_url="redis://:secret@localhost")) == []
    (finding,) = doctor.findings(with_settings(machine, redis_url="redis://:hush/more@localhost"))
    assert finding.refuses and str(finding).startswith("REDIS_URL must be an address") and "hush" not in str(finding)


@pytest.mark.parametrize("secret", ["a" * 40, "abab" * 10, "123456789" * 5])
def test_secret_that_is_easy_to_guess_is_refused(machine: Machine, secret: str) -> None:
    (finding,) = doctor.findings(with_settings(machine, jwt_secret_key=secret))
    assert finding.refuses


def test_cheap_hashes_are_warned_of(machine: Machine) -> None:
    (finding,) = doctor.findings(with_settings(machine, bcrypt_rounds=8))
    assert "tests only" in finding.sentence


def test_links_past_tls_are_warned_of(machine: Machine) -> None:
    (finding,) = doctor.findings(with_settings(machine, public_url="http://sync.example.com"))
    assert "PUBLIC_URL" in str(finding) and not finding.refuses
    for fine in ("https://sync.example.com", "http://localhost:3000", "http://[::1]:3000"):
        assert doctor.findings(with_settings(machine, public_url=fine)) == []


def test_backups_on_the_disk_of_the_data_are_warned_of(machine: Machine, tmp_path: Path) -> None:
    (finding,) = doctor.findings(with_settings(machine, backup_to=str(tmp_path / "not" / "yet")))
    assert not finding.refuses and "another disk" in finding.remedy
    for apart in ("/proc/backups", "s3://bucket/prefix", ""):
        assert doctor.findings(with_settings(machine, backup_to=apart)) == []


def test_folder_that_may_not_be_looked_at_is_a_finding(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: a volume that belongs to root ended a start with an errno, and doctor with a traceback."""

    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(doctor, "is_filled", refuse)
    monkeypatch.setattr(Path, "stat", lambda path, **_: refuse(path))
    assert not machine.is_new
    found = [finding for _, finding in doctor.run_checks(machine, [doctor.clock, doctor.free_space]) if finding]
    assert found and all(one.refuses and "may not look" in one.sentence for one in found)


def test_too_few_descriptors_are_warned_of(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    (finding,) = doctor.findings(machine)
    assert "256 open files are too few" in finding.sentence


def test_soft_limit_is_raised_before_it_is_complained_of(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 65_536))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    assert doctor.findings(machine) == [] and raised == [(65_536, 65_536)]


def test_sqlite_with_the_wal_reset_bug_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connections.sqlite_version() >= (3, 51, 3)
    monkeypatch.setattr(connections, "sqlite_version", lambda: (3, 40, 1))
    (finding,) = doctor.findings(machine)
    assert finding.refuses and "SQLite 3.40.1" in finding.sentence


def test_missing_monkey_patch_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gevent.monkey.is_module_patched", lambda _: False)
    (finding,) = doctor.findings(machine)
    assert finding.refuses and "gevent" in finding.sentence


def test_full_disk_and_clock_that_went_back_are_warned_of(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_WARNED_FREE_BYTES", 2**62)
    os.utime(machine.folder / "main.db", (time.time() + 200_000,) * 2)
    assert ["are free on the disk" in str(finding) for finding in doctor.findings(machine)] == [True, False]
    assert "clock" in str(doctor.findings(machine)[1])


def test_damaged_signing_key_is_refused(machine: Machine) -> None:
    (machine.folder / "jwt_secret_key").write_text("short")
    (finding,) = doctor.findings(machine)
    assert finding.refuses and "jwt_secret_key" in finding.sentence


def test_variable_that_is_nearly_a_setting_is_warned_of(machine: Machine) -> None:
    (finding,) = doctor.findings(replace(machine, environ={"REGISTRATON": "closed"}))
    assert not finding.refuses and "REGISTRATION" in finding.sentence


def test_log_file_that_can_not_be_written_is_warned_of(machine: Machine, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "log"):
        finding = trial_start.log_file(with_settings(machine, log_file=path))
        assert finding and str(path) in finding.sentence and not finding.refuses
    assert trial_start.log_file(with_settings(machine, log_file=tmp_path / "log")) is None


def test_declaration_with_a_mistake_is_refused_with_its_line(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "tables.toml").write_text("[job]\ntitle = nonsense")
    (finding,) = doctor.findings(with_settings(machine, tables_file=tmp_path / "tables.toml"))
    assert finding.refuses and "tables.toml:2:" in str(finding)


def run(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **FAST, "DATA_DIR": str(tmp_path / "data"), **env}
    return forking.run([*arguments], environ)


def test_doctor_prints_all_with_what_to_do_and_a_start_refuses_in_one_sentence(tmp_path: Path) -> None:
    sick = {"EXPECT_DATA": "yes", "DYNO": "web.1", "JWT_SECRET_KEY": "a" * 40, "PORT": str(free_port())}
    told = run(tmp_path, "doctor", **sick)
    assert told.returncode == 1
    kinds = [line.partition(":")[0] for line in told.stdout.splitlines()[1:] if not line.startswith("ok: ")]
    assert kinds[:4] == ["refused", "warning", "refused", "warning"] and told.stdout.count("refused: ") == 2
    started = run(tmp_path, **sick)
    assert started.returncode == 1 and started.stderr.startswith("syncapp: EXPECT_DATA is yes")
    assert len(started.stderr.strip().splitlines()) == 1
    well = run(tmp_path, "doctor", BCRYPT_ROUNDS="12", PORT=sick["PORT"])
    assert well.returncode == 0 and well.stdout.strip().endswith("0 warnings.")


# --- the tests are complete ------------------------------------------------------------------------------------------


def test_every_check_has_found_something_above(found: set[str], request: pytest.FixtureRequest) -> None:
    """Runs last in this module, if the whole of it runs."""
    if request.config.option.keyword or any("::" in argument for argument in request.config.args):
        pytest.skip("only some of the tests of this module run")
    missing = {check.__name__ for check in CHECKS} - found
    assert not missing, f"test_doctor.py must show what {missing} of doctor.py finds"


@pytest.mark.server
def test_customer_whose_rows_are_not_in_postgresql_is_named(tmp_path: Path) -> None:
    if not postgres.is_there():
        pytest.skip(postgres.MISSING)
    installation = PostgresInstallation(tmp_path)
    machine = Machine(Settings(data_dir=tmp_path / "data", database_url=installation.address), {}, EXT4)
    assert trial_start.customers_rows(machine) is None, "no data yet"
    engine = installation.open()
    gone, kept = (create(engine, str(uuid.uuid4())) for _ in range(2))
    assert trial_start.customers_rows(machine) is None
    engine.remove(gone)
    found = trial_start.customers_rows(machine)
    assert found is not None and gone in found.sentence and kept not in found.sentence and not found.refuses
    engine.close()
    installation.end()
