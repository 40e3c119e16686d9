"""An accident undone by the operator's command, beside a running server: devices hear of it and pull it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.codec import format_time
from storage.positions import now_ms
from tests import forking
from tests.backing_up import operating
from tests.conftest import Device, Listener, Run, Server, Tenant


@pytest.fixture
def accident(tenant: Tenant, device: Device) -> Device:
    """Change 3 is how it was; then one row was deleted, one edited, one made."""
    device.push({"changes": {"end_user": [{"id": row_id, "name": row_id, "of the app": [1]} for row_id in "abc"]}})
    device.catch_up()
    device.delete(id="a")
    device.update(id="b", name="accident")
    device.create(id="new")
    return device


def names(device: Device) -> dict[str, str]:
    return {row["id"]: row["name"] for row in device.pull({"cursor": None})["data"]["end_user"]}


def test_devices_hear_of_a_rewind_and_pull_it_from_their_cursor(
    tenant: Tenant, accident: Device, listen: Callable[..., Listener], operate: Run
) -> None:
    heard, cursor = listen(), accident.pull({"cursor": None})["cursor"]
    said = operate("rewind", tenant.email, "--to", "3", "--yes")
    assert "3 rows written, as changes 7 to 9." in said.stdout and "end_user b changes: name" in said.stdout
    assert heard.wait_note("data_available")["cursor"] == cursor.replace("-6", "-9")
    pulled = accident.pull({"cursor": cursor})["data"]["end_user"]
    assert [(row["id"], row["name"], row["is_deleted"], row["version"]) for row in pulled] == [
        ("a", "a", 0, 3),
        ("b", "b", 0, 3),
        ("new", None, 1, 2),
    ]
    assert pulled[0]["of the app"] == [1]
    assert "Nothing differs" in operate("rewind", tenant.id, "--to", "3", "--yes").stdout
    done = json.loads(operate("actions", "--tenant", tenant.id, "--json").stdout)
    assert [(one["action"], one["about"].split(",")[0]) for one in done] == [
        ("rewound", "changes 7 to 9"),
        ("rewind", "to change 3"),
    ]


def test_json_alone_shows_the_difference_and_writes_nothing(tenant: Tenant, accident: Device, operate: Run) -> None:
    before, now = names(accident), format_time(now_ms())
    shown = json.loads(operate("rewind", tenant.id, "--to", "3", "--json").stdout)
    assert shown["tables"] == {"end_user": {"added": 1, "changed": 1, "gone": 1}} and shown["written"] is None
    changed = {"table": "end_user", "id": "b", "kind": "changed", "fields": {"name": {"now": "accident", "then": "b"}}}
    assert changed in shown["rows"] and names(accident) == before
    (looked,) = json.loads(operate("actions", "--tenant", tenant.id, "--json").stdout)
    assert (looked["action"], looked["about"]) == ("show-rows", "that differ from change 3")
    page = json.loads(operate("rewind", tenant.id, "--to", "3", "--json", "--skip", "1", "--limit", "1").stdout)
    assert page["rows"] == shown["rows"][1:2] and page["tables"] == shown["tables"]
    by_time = json.loads(operate("rewind", tenant.id, "--to", now.removesuffix("Z"), "--json").stdout)
    assert by_time["to"]["change"] == 6 and by_time["to"]["utcTaken"] and by_time["tables"] == {}
    done = json.loads(
        operate("rewind", tenant.id, "--to", "3", "--table", "end_user", "--row", "a", "--yes", "--json").stdout
    )
    assert done["written"] == {"rows": 1, "left": 0, "first": 7, "last": 7}
    assert names(accident) == {**before, "a": "a"}


def test_file_of_a_moment_is_restored_under_a_new_epoch(
    tenant: Tenant, accident: Device, operate: Run, tmp_path: Path
) -> None:
    file, before = tmp_path / "then.db", names(accident)
    assert operate("rewind", tenant.id, "--to", "3", "--to-file", file).stdout.splitlines()[-1] == str(file)
    assert names(accident) == before and list(tmp_path.glob("*.db*")) == [file]
    assert "such a file" in operate("rewind", tenant.id, "--to", "3", "--to-file", file, code=1).stderr
    operate("restore", "--file", file, "--tenant", tenant.id, "--yes")
    assert names(accident) == {"a": "a", "b": "b", "c": "c"}
    assert accident.pull_raw({"cursor": accident.cursor}).status_code == 410


def test_backup_tells_a_moment_and_whose_it_is(
    tenant: Tenant, other_tenant: Tenant, accident: Device, operate: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path(operate("backup", "--to", folder, "--tenant", tenant.id).stdout.strip())
    monkeypatch.setenv("BACKUP_TO", str(folder / "kept"))
    operate("backup", "run")
    accident.delete(id="c")
    accident.create(id="later")
    assert (
        "This copy ends"
        in operate("rewind", tenant.id, "--to", format_time(now_ms()), "--backup", made, "--yes", code=1).stderr
    )
    operate("rewind", tenant.id, "--to", "3", "--backup", made, "--yes")
    assert names(accident) == {"a": "a", "b": "b", "c": "c"}
    shown = json.loads(operate("rewind", tenant.id, "--to", "6", "--from", "latest", "--json").stdout)
    assert shown["tables"] == {"end_user": {"added": 1, "changed": 1, "gone": 1}}
    (file,) = (made / "tenants").glob(f"*{tenant.id.replace('-', '')}*")
    told = operate("rewind", other_tenant.id, "--to", "3", "--backup", file, "--yes", code=1)
    assert "is of another customer" in told.stderr
    assert "no backup" in operate("rewind", tenant.id, "--to", "3", "--backup", folder, "--yes", code=1).stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--to", "3"], 2, "there is no terminal to ask"),
        (["--to", "99", "--yes"], 1, "no change 99 yet"),
        (["--to", "3", "--row", "a", "--yes"], 1, "of one table"),
    ],
)
def test_what_can_not_be_done_is_one_sentence_and_changes_nothing(
    tenant: Tenant, accident: Device, operate: Run, words: list[Any], code: int, sentence: str
) -> None:
    before = accident.pull({"cursor": None})["cursor"]
    assert sentence in operate("rewind", tenant.id, *words, code=code).stderr
    assert accident.pull({"cursor": None})["cursor"] == before


def test_command_with_other_tables_than_the_server_changes_no_tenant(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """It would migrate the tenant that it opens, though a start refuses these tables for the rows there are."""
    tables, archive = tmp_path / "tables.toml", tmp_path / "a.zip"
    tables.write_text("[job]\ncolumns.title = 'text'\n")
    server = start_server(TABLES_FILE=str(tables))
    tenant = server.register()
    tenant.device().create("job", id="j", title="words")
    environ = operating(server.data) | {"TABLES_FILE": str(tables)}
    made = forking.run(["backup", "--to", str(tmp_path / "backups")], environ).stdout.strip()
    assert forking.run(["export", tenant.id, "--to", str(archive)], environ).returncode == 0
    tables.write_text("[job]\ncolumns.title = 'integer'\n")
    for command in (
        ["rewind", tenant.id, "--to", "0", "--json"],
        ["import", str(archive), "--tenant", tenant.id, "--dry-run"],
        ["restore", made, "--tenant", tenant.id, "--yes"],
    ):
        ended = forking.run(command, environ)
        assert (
            ended.returncode == 1 and "not those of the server (job.title: type text becomes integer)" in ended.stderr
        )
        assert [(row["title"], row["version"]) for row in tenant.device().rows("job")] == [("words", 1)]
