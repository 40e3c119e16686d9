"""Scenarios in which the server is not what a device knew: it was restored, or has purged what the device missed.

Knows: what clients must survive, by docs/clients.md. Must not know: which client it is.
"""

from __future__ import annotations

import time

from .suite import Device, Kit, pair


def restore_from_older_backup(kit: Kit) -> None:
    """The operator puts back a backup; devices hold later edits, some answered and some not sent."""
    server, account = kit.server, kit.account()
    for number in range(7):
        account.put("end_user", {"id": f"restore-{number}", "name": "before the backup"})
    first, second = pair(kit, account)
    behind = kit.device(account)
    behind.sync()
    account.put("end_user", {"id": "restore-5", "name": "seen by two of three"})
    backup = server.backup(kit.folder / f"backups-{account.id}")
    before = len(account.typed)
    first.put("restore-0", name="answered after the backup")
    first.put("restore-new", name="made after the backup")
    first.delete("restore-1")
    first.sync()
    second.put("restore-2", name="answered too")
    second.put("restore-6", name="answered, and then it grew apart")
    second.sync()
    answered_after = list(account.typed[before:])
    second.put("restore-3", name="not sent")
    second.put("restore-0", phone="not sent either")
    behind.put("restore-2", note="not sent, of the one behind")
    server.restore(backup, account.id)
    account.put("end_user", {"id": "restore-4", "name": "after the restore"})
    account.put("end_user", {"id": "restore-6", "name": "grown apart after the restore"})
    if not kit.has("returns"):
        account.typed = [one for one in account.typed if one not in answered_after]
    kit.check(account, first, second, behind)
    if kit.has("returns"):
        rows = behind.rows()
        assert "restore-1" not in rows and rows["restore-0"]["name"] == "answered after the backup"
        assert rows["restore-5"]["name"] == "seen by two of three"


def edits_around_a_restore(kit: Kit) -> None:
    """Three devices edit the same rows before a backup is put back and after it: by field, what was typed last wins."""
    server, account, proxy = kit.server, kit.account(), kit.proxy()
    names = [
        "held",
        "waiting",
        "late",
        "beaten",
        "fields",
        "cleared",
        "deleted",
        "edited",
        "gone",
        "theirs",
        "overtaken",
    ]
    account.put("end_user", *({"id": f"around-{name}", "name": "before the backup", "note": "n"} for name in names))
    first, second = pair(kit, account)
    third = kit.device(account, proxy.url)
    third.sync()
    backup = server.backup(kit.folder / f"backups-{account.id}")
    third.put("around-overtaken", name="typed before the second's, not sent")
    _edit_after_the_backup(first, second)
    proxy.fail("refused", "/push", 1000)
    third.try_sync()
    first.put("around-waiting", name="typed last, and not sent")
    first.put("around-late", name="not sent, and typed before the second's")
    first.put("around-new", note="not sent either")
    _pause()
    server.restore(backup, account.id)
    _edit_after_the_restore(second)
    proxy.fail("none", "", 0)
    if not kit.has("returns"):
        account.typed = [one for one in account.typed if one.value != "n" and "answered" not in str(one.value)]
    kit.check(account, first, second, third)
    if kit.has("returns") and kit.has("merges"):
        _last_typed_won(second)


def _edit_after_the_backup(first: Device, second: Device) -> None:
    """Edit what the restore will take from the server."""
    _pause()
    second.put("around-theirs", name="of the second, answered")
    second.put("around-overtaken", name="of the second, answered, typed last")
    second.sync()  # It holds nothing of what the first does from here on.
    for name in ("held", "waiting", "beaten"):
        first.put(f"around-{name}", name=f"{name}, answered")
    first.put("around-fields", phone="answered")
    first.put("around-cleared", note=None)
    first.put("around-gone", phone="answered, in a row that is deleted later")
    first.put("around-new", name="made and answered")
    first.delete("around-deleted")
    first.delete("around-edited")
    first.sync()
    _pause()


def _edit_after_the_restore(second: Device) -> None:
    second.sync()
    for name in ("beaten", "fields"):
        second.put(f"around-{name}", name="after the restore")
        for number in range(3):  # More versions than the lost row had, which are not the same ones.
            second.put(f"around-{name}", note=f"after the restore {number}")
            second.sync()
    second.put("around-edited", note="after the restore, by one who knows of no deletion")
    second.put("around-late", name="after the restore")
    second.delete("around-gone")
    second.sync()
    _pause()


def _last_typed_won(device: Device) -> None:
    rows = device.rows()
    assert not {"around-deleted", "around-gone"} & rows.keys(), "a row that was deleted last is back"
    found = {row_id.removeprefix("around-"): row for row_id, row in rows.items()}
    assert found["held"]["name"] == "held, answered"
    assert found["theirs"]["name"] == "of the second, answered"
    assert found["waiting"]["name"] == "typed last, and not sent"
    assert found["beaten"]["name"] == found["late"]["name"] == "after the restore"
    assert found["overtaken"]["name"] == "of the second, answered, typed last"
    assert (found["fields"]["name"], found["fields"]["phone"]) == ("after the restore", "answered")
    assert found["cleared"].get("note") is None, "a field that was cleared has its old value"
    assert found["edited"]["note"].startswith("after the restore")
    assert (found["new"]["name"], found["new"]["note"]) == ("made and answered", "not sent either")


def _pause() -> None:
    """Let the next edit be later by every clock."""
    time.sleep(0.02)


def purged_past_a_device(kit: Kit) -> None:
    """A device is away for so long that deletions it missed are gone; it has edits of its own, one of a deleted row."""
    server, account = kit.server, kit.account()
    account.put("end_user", *({"id": f"purge-{number}", "name": "before"} for number in range(5)))
    first, away = pair(kit, account)
    away.put("purge-0", note="typed while away, into a row that was deleted")
    away.put("purge-1", note="typed while away")
    away.put("purge-new", name="made while away")
    for row_id in ("purge-0", "purge-2", "purge-3"):
        account.delete("end_user", row_id)
    account.put("end_user", {"id": "purge-4", "name": "after"})
    first.sync()
    server.age(account.id, days=200)
    account.typed = [one for one in account.typed if one.value != "before"]  # What it was is no longer held.
    kit.check(account, first, away)
    rows = first.rows()
    assert {"purge-2", "purge-3"}.isdisjoint(rows) and rows["purge-1"]["note"] == "typed while away"


def purged_mid_first_sync(kit: Kit) -> None:
    """A first sync breaks off, and before it goes on a row that it has is deleted and purged: the row must not return."""
    server, account, proxy = kit.server, kit.account(), kit.proxy()
    account.put("end_user", *({"id": f"mid-{number}", "name": f"there {number}"} for number in range(1500)))
    first, other = kit.device(account, proxy.url), kit.device(account)
    passed = iter(["none"])
    proxy.fault_of = lambda address: next(passed, "refused") if "/pull" in address else "none"
    first.try_sync()
    account.delete("end_user", "mid-3", "mid-1400")
    other.sync()
    server.age(account.id, days=200)
    for row_id in ("mid-3", "mid-1400"):
        account.forget("end_user", row_id)
    proxy.fail("none", "", 0)
    kit.check(account, first, other)
    assert not {"mid-3", "mid-1400"} & other.rows().keys(), "a row that was deleted is back"
