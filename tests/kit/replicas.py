"""Scenarios in which something about a replica changes: its account, the app's tables, its line, its clock; and an edit
that the server will not have.

Knows: what clients must survive, by docs/clients.md. Must not know: which client it is.
"""

from __future__ import annotations

import random
import time

from .suite import Device, Kit, pair

_HOUR_MS = 3_600_000


def account_change(kit: Kit) -> None:
    """Somebody else logs in on a device: nothing goes from one account to the other, and unsent edits wait for theirs."""
    assert kit.server
    account, other = kit.account(), kit.account()
    other.put("end_user", {"id": "of-other", "name": "of the other account"})
    device = kit.device(account)
    device.put("account-sent", name="sent")
    device.put("account-deleted", name="sent, and deleted")
    device.sync()
    device.delete("account-deleted")
    device.put("account-unsent", name="not sent when the other logged in")
    assert device.log_in(other) == "wrong_account"
    assert device.log_in(other) == "wrong_account", "the second time it was let in"
    assert other.rows()[0].keys() == {("end_user", "of-other")}, "rows went into another account"
    assert device.log_in(account) is None
    kit.check(account, device)
    assert device.rows().keys() == {"account-sent", "account-unsent"}


def new_table(kit: Kit) -> None:
    """A new version of the app syncs a table and a column more: both are filled with what was there long before."""
    account = kit.account()
    account.put(
        "end_user", *({"id": f"new-{number}", "name": "there", "note": f"note {number}"} for number in range(5))
    )
    account.put("interactions", *({"id": f"new-{number}", "title": f"title {number}"} for number in range(5)))
    device = kit.device(account, app={"tables": ["end_user"], "lacks": {"end_user": ["note"]}})
    device.sync()
    device.put("new-1", name="changed by the old version")
    device.sync()
    device.put("new-2", name="not sent when the new version came")
    account.put("interactions", {"id": "new-5", "title": "made later"})
    device.reopen()
    device.put("new-made", "interactions", title="made by the new version before it synced")
    kit.check(account, device)
    assert len(device.rows("interactions")) == 7 and device.rows()["new-1"]["note"] == "note 1"


def refused_create(kit: Kit) -> None:
    """A new row has a value that the server does not take, and is edited further: it arrives whole, or not at all."""
    account = kit.account()
    first, second = pair(kit, account)
    first.put("refused-mended", "interactions", title="whole", type="telegram")
    first.put("refused-mended", "interactions", description="typed after it")
    first.put("refused-mended", "interactions", type="call")
    first.put("refused-never", "interactions", title="whole", type="telegram")
    first.put("refused-never", "interactions", description="typed after it")
    first.put("refused-good", "interactions", title="of no fault")
    for _ in range(3):
        first.try_sync()
    account.forget("interactions", "refused-never")
    account.typed = [one for one in account.typed if one.value != "telegram"]
    kit.check(account, first, second)
    rows = second.rows("interactions")
    mended = rows["refused-mended"]
    assert (mended["title"], mended["description"], mended["type"]) == ("whole", "typed after it", "call")
    never = rows.get("refused-never")
    assert never is None or (never["title"], never["description"]) == ("whole", "typed after it"), f"torn: {never}"


def id_taken(kit: Kit) -> None:
    """New rows get other ids than they were made with: another device has the id, or had made the row. Edits and deletes
    that were typed before anybody said so follow, what refers to the row is mended when the app is told, and nobody
    else's row is touched."""
    account, proxy = kit.account(), kit.proxy()
    first, second = kit.device(account, proxy.url), kit.device(account)
    first.sync()
    second.put("taken-1", Unique_id="second: 1", name="second: its own", note="second: its own")
    second.put("taken-2", Unique_id="second: 2", name="second: to stay")
    second.put("taken-tea", Unique_id="tea", note="second: made the row")
    second.sync()
    first.put("taken-1", Unique_id="first: 1", name="first: its own")
    first.put("taken-1", phone="first: typed after it")
    first.put("taken-2", Unique_id="first: 2", name="first: to be deleted")
    first.put("taken-too", Unique_id="tea", phone="first: made it too")
    first.put("taken-about", "interactions", title="about it", client_user_id="taken-1")
    proxy.fail("answer_dropped", "/push", times=1000)
    first.try_sync()
    proxy.fail("none", "/push")
    first.put("taken-1", email="first: typed before it was told")
    first.delete("taken-2")
    first.sync()
    names = {one["from"]: one["to"] for one in first.ask("renamed")}
    assert names.keys() >= {"taken-1", "taken-too"} and names["taken-too"] == "taken-tea", f"the app is told {names}"
    first.put(names["taken-1"], status="first: typed under its new id")
    first.put("taken-about", "interactions", client_user_id=names["taken-1"])
    account.renamed("end_user", names, "first: ")
    for row_id in ("taken-2", "taken-too"):
        account.forget("end_user", row_id)
    kit.check(account, first, second)
    rows = second.rows()
    assert _filled(rows["taken-1"]) == {"Unique_id": "second: 1", "name": "second: its own", "note": "second: its own"}
    assert _filled(rows[names["taken-1"]]) == {
        "Unique_id": "first: 1",
        "name": "first: its own",
        "phone": "first: typed after it",
        "email": "first: typed before it was told",
        "status": "first: typed under its new id",
    }
    assert rows["taken-2"]["name"] == "second: to stay" and len(rows) == 4, "another row was deleted than was meant"
    assert _filled(rows["taken-tea"]) == {
        "Unique_id": "tea",
        "note": "second: made the row",
        "phone": "first: made it too",
    }
    assert second.rows("interactions")["taken-about"]["client_user_id"] == names["taken-1"]


def _filled(row: dict[str, object]) -> dict[str, object]:
    """Give what was typed into a row."""
    names = ("Unique_id", "name", "note", "phone", "email", "status")
    return {name: row[name] for name in names if row.get(name)}


def clock_off(kit: Kit) -> None:
    """The clock of one device is an hour slow, of another an hour fast: who typed last wins, also after a new start."""
    kit.needs("clock")
    account = kit.account()
    account.put("end_user", *({"id": f"clock-{name}", "name": "before"} for name in ("slow", "fast", "again")))
    slow = kit.device(account, app={"clockOffsetMs": -_HOUR_MS})
    fast = kit.device(account, app={"clockOffsetMs": _HOUR_MS})
    exact = kit.device(account)
    for device in (slow, fast, exact):
        device.sync()
    _type_one_after_the_other(exact, slow, "clock-slow")
    _type_one_after_the_other(fast, exact, "clock-fast")
    slow.reopen(clockOffsetMs=-_HOUR_MS)
    _type_one_after_the_other(exact, slow, "clock-again")
    kit.check(account, exact, fast, slow)
    assert {row["name"] for row in slow.rows().values()} == {"typed last"}


def _type_one_after_the_other(first: Device, second: Device, row_id: str) -> None:
    """Let two devices type into one field offline, and the later one send first; ``Date`` tells whole seconds only."""
    first.put(row_id, name="typed first")
    time.sleep(1.6)
    second.put(row_id, name="typed last")
    second.sync()
    first.sync()


def slow_line(kit: Kit) -> None:
    """A line on which large answers stop on their way, and one that is slow: a first sync of either comes to its end."""
    account, proxy = kit.account(), kit.proxy()
    rng = random.Random(7)  # What can't be compressed.
    for start in (0, 700):
        rows = ({"id": f"slow-{start + number}", "note": rng.randbytes(300).hex()} for number in range(700))
        account.put("end_user", *rows)
    app = {"timeoutSeconds": 2}
    stalled, slow = kit.device(account, proxy.url, app=app), kit.device(account, proxy.url, app=app)
    proxy.stalls_after_bytes = 40_000
    stalled.put("slow-made", name="made meanwhile")
    stalled.sync()
    proxy.stalls_after_bytes, proxy.bytes_per_second = 0, 60_000
    slow.sync()
    proxy.bytes_per_second = 0
    kit.check(account, stalled, slow)
