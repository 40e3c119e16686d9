"""What ``export`` wrote comes back, as a new customer or merged into one; an archive that is not whole is refused."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from operations.archive import ArchiveError
from operations.import_archive import read
from tests import forking
from tests.conftest import FAST, JSON, Device, Listener, Run, Server, Tenant
from tests.operating import command, done, refused
from tests.postgres import environ_of

PASSWORD = "another-password-1"


def in_use(server: Server) -> Tenant:
    """A tenant with rows in two tables, one of them deleted, an edit that lost, and a device that named itself."""
    tenant = server.register(firstName="Zoë")
    device = tenant.device(X_Device_Id="till-1")
    device.create(id="kept", name="Größe 😀", Unique_id="u", extra={"of": ["an", "app", 1.0, 2**53]})
    device.create(id="gone", name="n")
    device.delete(id="gone")
    device.create("interactions", id="kept", title="t")
    device.update(id="kept", name="first")
    lost = {"table": "end_user", "operation": "update", "baseVersion": 1, "data": {"id": "kept", "name": "second"}}
    tenant.device(X_Device_Id="till-2").push(lost)
    assert told(tenant, "devices"), "which brings them to the disk"
    return tenant


def exported(tenant: Tenant, folder: Path) -> Path:
    done(tenant.server, "export", tenant.email, "--to", str(folder / "tenant.zip"))
    return folder / "tenant.zip"


@pytest.fixture(scope="module")
def used(server: Server) -> Tenant:
    """One for the tests that leave it as it is."""
    return in_use(server)


@pytest.fixture(scope="module")
def archive(used: Tenant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(used, tmp_path_factory.mktemp("export"))


def log_in(server: Server, email: str) -> Tenant:
    answer = server.post("/api/customers/login", {"email": email, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    return Tenant(server, data["customer"]["id"], email, PASSWORD, data["token"], data["refreshToken"])


def told(tenant: Tenant, path: str) -> Any:
    return tenant.server.call("GET", f"/api/client/{path}", token=tenant.token).json()["data"]


def held(device: Device) -> dict[str, list[JSON]]:
    found: dict[str, list[JSON]] = device.pull({"cursor": None})["data"]
    return found


def test_new_customer_has_all_rows_with_their_history_and_conflicts(
    server: Server, used: Tenant, archive: Path
) -> None:
    email = f"copy-of-{used.email}"
    shown = json.loads(done(server, "import", str(archive), "--email", email, "--dry-run", "--json"))
    assert (shown["isNew"], shown["written"], shown["changes"]) == (True, False, 6)
    assert server.post("/api/customers/login", {"email": email, "password": PASSWORD}).status_code == 401
    words = "import", str(archive), "--email", email, "--password-stdin"
    tenant_id = done(server, *words, typed=f"{PASSWORD}\n").strip()
    tenant = log_in(server, email)
    assert tenant.id == tenant_id != used.id
    assert held(tenant.device()) == held(used.device())
    for path in ("sync/history/end_user/kept", "sync/history/end_user/gone", "sync/conflicts"):
        assert told(tenant, path) == told(used, path)
    assert {one["deviceId"] for one in told(tenant, "devices")} == {"till-1", "till-2"}
    answer = tenant.device().pull({"cursor": None, "digest": True})
    assert answer["digest"] == used.device().pull({"cursor": None, "digest": True})["digest"]
    tenant.device().update(id="kept", name="goes on")
    assert json.loads(done(server, "rewind", tenant_id, "--to", "2", "--json"))["tables"].keys() == {
        "end_user",
        "interactions",
    }
    recorded = json.loads(done(server, "actions", "--tenant", tenant_id, "--json"))
    assert [one["action"] for one in recorded] == ["show-rows", "import"]
    assert "give another address by --email" in refused(server, *words, typed=f"{PASSWORD}\n")


def test_new_customer_of_another_installation_keeps_its_id(
    used: Tenant, archive: Path, operate: Run, tmp_path: Path
) -> None:
    """So that apps which hold its data go on with it."""
    data = tmp_path / "other"
    names = ["--first-name", "A", "--last-name", "B", "--email", "a@example.com", "--password-stdin"]
    forking.run(["register", *names], {**os.environ, **FAST, **environ_of(data), "DATA_DIR": str(data)}, PASSWORD)
    shown = json.loads(operate("import", archive, "--dry-run", "--json", data=data).stdout)
    assert (shown["tenant"], shown["email"]) == (used.id, used.email)


def test_import_into_the_same_tenant_changes_nothing(server: Server, used: Tenant, archive: Path) -> None:
    before = used.device().pull({"cursor": None})
    shown = json.loads(done(server, "import", str(archive), "--tenant", used.id, "--yes", "--json"))
    assert shown["tables"]["end_user"] == {"added": 0, "changed": 0, "deleted": 0, "conflict": 0, "unchanged": 2}
    assert not shown["written"] and used.device().pull({"cursor": None}) == before


def test_rows_are_merged_by_the_rules_of_a_push_and_listeners_told(
    server: Server, used: Tenant, archive: Path, tenant: Tenant, listen: Callable[..., Listener]
) -> None:
    """The other tenant has a row of its own under the same ID, and one of the same name under another."""
    device = tenant.device()
    device.create("interactions", id="kept", title="older", last_updated="2020-01-01T00:00:00.001Z")
    device.create(id="mine", Unique_id="u", note="mine", last_updated="2020-01-01T00:00:00.001Z")
    device.create(id="kept", Unique_id="another", name="not the same")
    heard, before = listen(), held(device)
    words = "import", str(archive), "--tenant", tenant.email
    shown = json.loads(done(server, *words, "--dry-run", "--json"))
    assert held(device) == before and not shown["written"]
    done(server, *words, "--yes")
    heard.wait_note("data_available")
    rows = {row["id"]: row for row in held(device)["end_user"]}
    assert rows["kept"]["name"] == "not the same" and rows["mine"]["name"] == "second"
    assert rows["mine"]["extra"] == {"of": ["an", "app", 1.0, 2**53]} and "gone" not in rows
    assert held(device)["interactions"][0]["title"] == "t"
    again = json.loads(done(server, *words, "--yes", "--json"))
    assert not again["written"]
    assert [one["action"] for one in json.loads(done(server, "actions", "--tenant", tenant.id, "--json"))] == [
        "imported",
        "import",
    ]


def test_what_was_edited_and_deleted_here_since_stays(server: Server, tmp_path: Path) -> None:
    used = in_use(server)
    archive, device = exported(used, tmp_path), used.device()
    device.update(id="kept", name="later")
    device.delete("interactions", id="kept")
    shown = json.loads(done(server, "import", str(archive), "--tenant", used.id, "--yes", "--json"))
    assert not shown["written"], "the archive is what it was before"
    assert {row["id"]: row["name"] for row in held(device)["end_user"]} == {"kept": "later"}
    assert held(device)["interactions"] == []


# --- archives that are none ------------------------------------------------------------------------------------------


def rewritten(archive: Path, **parts: bytes | None) -> Path:
    """Write the archive with some parts otherwise, or without them; ``_`` stands for what a name can't have."""
    made = archive.with_name("bad.zip")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if (content := parts.pop(name, old.read(name))) is not None:
                new.writestr(name, content)
        for name, content in parts.items():
            new.writestr(name, content or b"")
    return made


def packed_otherwise(archive: Path) -> Path:
    made = archive.with_name("bad.zip")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_LZMA) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return made


def changed(archive: Path, name: str, old: bytes, new: bytes) -> Path:
    with zipfile.ZipFile(archive) as opened:
        content = opened.read(name)
    assert old in content
    return rewritten(archive, **{name: content.replace(old, new, 1)})


def with_bytes(archive: Path, change: Callable[[bytearray], object]) -> Path:
    made, content = archive.with_name("bad.zip"), bytearray(archive.read_bytes())
    change(content)
    made.write_bytes(content)
    return made


def flip(content: bytearray) -> None:
    """Damage a byte of the history, of which its checksum tells."""
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        content[opened.getinfo(HISTORY).header_offset + 150] ^= 255


HISTORY = "history.jsonl"
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no archive": (lambda it: with_bytes(it, bytearray.clear), "no archive"),
    "cut": (lambda it: with_bytes(it, lambda content: content.__delitem__(slice(-200, None))), "cut off"),
    "a byte": (lambda it: with_bytes(it, flip), "history.jsonl"),
    "a path": (lambda it: rewritten(it, **{"../../etc/cron.d/x": b"x"}), "which no export has"),
    "a bomb": (packed_otherwise, "compressed in a way"),
    "a part missing": (lambda it: rewritten(it, **{HISTORY: None}), "it has no history.jsonl"),
    "a table": (lambda it: rewritten(it, **{"rows/nobody.jsonl": b""}), "no synced table here"),
    "a long line": (lambda it: rewritten(it, **{HISTORY: b'"' + b"x" * (1 << 21)}), "longer than"),
    "no newline": (lambda it: rewritten(it, **{HISTORY: b'{"sequence": 1'}), "line 1: it is cut off"),
    "no JSON": (lambda it: rewritten(it, **{HISTORY: b"{]\n"}), "line 1: The body is not valid JSON"),
    "depth": (lambda it: rewritten(it, **{HISTORY: b"[" * 90_000 + b"\n"}), "nested deeper"),
    "a version": (lambda it: changed(it, HISTORY, b'"version":2', b'"version":9'), "line 3: "),
    "an order": (lambda it: changed(it, HISTORY, b'"sequence":2', b'"sequence":1'), "order of their commits"),
    "a row": (lambda it: changed(it, "rows/end_user.jsonl", b"second", b"forged"), "not what the history says"),
    "a row less": (lambda it: rewritten(it, **{"rows/interactions.jsonl": b""}), "not among them"),
    "an id": (lambda it: changed(it, HISTORY, b'"id":"gone"', b'"id":"../x"'), "line 2: it is no change of a row"),
    "a time": (lambda it: changed(it, HISTORY, b'"committedAt":"2', b'"committedAt":"x'), "line 1: a time"),
    "a conflict": (lambda it: rewritten(it, **{"conflicts.jsonl": b'{"fields": 5}\n'}), "it is no conflict"),
    "a winner": (lambda it: changed(it, "conflicts.jsonl", b'"winner":"client"', b'"winner":"nobody"'), "no conflict"),
    "a number": (lambda it: changed(it, "conflicts.jsonl", b'"version":', b'"version":1e30,"v":'), "it is no conflict"),
    "a state": (lambda it: changed(it, "conflicts.jsonl", b'"state":"open"', b'"state":"resolved"'), "no conflict"),
    "a device": (lambda it: rewritten(it, **{"devices.jsonl": b'{"deviceId": "a b"}\n'}), "it is no device"),
    "an account": (lambda it: rewritten(it, **{"account.json": b"[]"}), "it is no object"),
}


@pytest.mark.parametrize("what", BAD)
def test_archive_that_is_not_whole_says_what_is_wrong(archive: Path, what: str) -> None:
    make, sentence = BAD[what]
    with pytest.raises(ArchiveError, match=re.escape(sentence)) as caught, read(make(archive), 65_536):
        pass
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_bad_archive_is_one_sentence_of_the_command_and_changes_nothing(
    server: Server, tenant: Tenant, archive: Path
) -> None:
    bad = str(changed(archive, "rows/end_user.jsonl", b"second", b"forged"))
    assert "rows/end_user.jsonl, line 2" in refused(server, "import", bad, "--tenant", tenant.id, "--yes")
    assert held(tenant.device()) == {"end_user": [], "interactions": []}


@pytest.mark.parametrize("words", [("--tenant", "{id}"), ("--yes",)])
def test_import_that_nobody_agreed_to_is_wrong_usage(
    server: Server, tenant: Tenant, archive: Path, words: tuple[str, ...]
) -> None:
    ended = command(server, "import", str(archive), *(word.format(id=tenant.id) for word in words))
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
