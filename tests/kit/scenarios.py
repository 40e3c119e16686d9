"""The scenarios, each a plain story: what happens, and then ``kit.check``.

Knows: what clients must survive. Must not know: which client it is. What a place or a client can't do leaves a scenario
out (``LeftOut``), by its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .randoms import random_interleavings
from .replicas import account_change, clock_off, id_taken, new_table, refused_create, slow_line
from .restores import (
    edits_around_a_restore,
    purged_mid_first_sync,
    purged_past_a_device,
    restore_from_older_backup,
)
from .server import wait_for
from .suite import Device, Kit, once, pair


def empty_first_sync(kit: Kit) -> None:
    """A tenant in which there is nothing."""
    account = kit.account()
    first, second = kit.device(account), kit.device(account)
    first.sync()
    assert first.rows() == {} and first.ask("pending") == 0
    kit.check(account, first, second)


def edits_on_both_sides(kit: Kit) -> None:
    """Two devices create rows and change different fields of one row, offline."""
    account = kit.account()
    account.put("end_user", {"id": "both-1", "name": "Asha", "phone": "1"})
    first, second = pair(kit, account)
    first.put("both-1", name="Asha R")
    first.put("both-2", name="made by the first")
    second.put("both-1", phone="2")
    second.put("both-3", "interactions", title="made by the second", metadata={"deep": [1, {"a": None}]})
    assert first.rows()["both-1"]["name"] == "Asha R", "an unsent edit is not to be seen"
    kit.check(account, first, second)
    if kit.has("merges"):
        row = first.rows()["both-1"]
        assert (row["name"], row["phone"]) == ("Asha R", "2"), f"fields of both sides are not both kept: {row}"


def conflict(kit: Kit) -> None:
    """Two devices change the same field, offline: one wins, the other is kept where people find it."""
    account = kit.account()
    account.put("end_user", {"id": "conflict-1", "name": "before", "note": "of nobody"})
    first, second = pair(kit, account)
    first.put("conflict-1", name="of the first")
    time.sleep(0.05)
    second.put("conflict-1", name="of the second")
    second.sync()
    kit.check(account, first, second)
    if kit.has("merges"):
        assert first.rows()["conflict-1"]["name"] == "of the second", "the later edit did not win"
    if kit.has("conflicts") and kit.has("merges"):
        assert {"table": "end_user", "id": "conflict-1"} in first.ask("conflicts"), "the client kept no record"


def delete_against_edit(kit: Kit) -> None:
    """One deletes what the other edits, each in both orders, and a row comes back after it was deleted."""
    account = kit.account()
    account.put("end_user", *({"id": f"delete-{number}", "name": "before"} for number in range(4)))
    first, second = pair(kit, account)
    first.delete("delete-0")
    second.put("delete-0", name="edited, sent later")
    second.delete("delete-1")
    first.put("delete-1", name="edited, sent earlier")
    first.delete("delete-2")
    first.put("delete-2", name="made again")
    first.put("delete-new", name="made and deleted before anybody saw it")
    first.delete("delete-new")
    account.delete("end_user", "delete-3")
    kit.check(account, first, second)
    rows = second.rows()
    assert rows["delete-2"]["name"] == "made again" and "delete-new" not in rows and "delete-3" not in rows


def ten_thousand_rows(kit: Kit) -> None:
    """A first sync of 10,000 rows, and then small changes."""
    account = kit.account()
    account.put("end_user", *({"id": f"many-{number}", "name": f"name {number}"} for number in range(10_000)))
    first = kit.device(account)
    first.sync()
    account.put("end_user", {"id": "many-77", "name": "changed"})
    account.delete("end_user", "many-78")
    first.put("many-79", name="changed here")
    first.delete("many-80")
    kit.check(account, first)
    rows = first.rows()
    assert rows["many-77"]["name"] == "changed" and not {"many-78", "many-80"} & rows.keys()


def offline_for_long(kit: Kit) -> None:
    """A device without network for 150 edits, while the others go on."""
    account = kit.account()
    first, second = pair(kit, account)
    for number in range(150):
        first.put(f"long-{number % 12}", name=f"offline {number}")
        if number % 10 == 9:
            first.delete(f"long-{number % 12}")
        if number % 5 == 0:
            account.put("end_user", {"id": f"long-{number % 15}", "phone": f"elsewhere {number}"})
            second.put(f"long-{number % 7}", note=f"second {number}")
            second.sync()
    kit.check(account, first, second)


def answer_lost(kit: Kit) -> None:
    """The server does it, and the answer never comes, or only half of it; then again for what is fetched."""
    account = kit.account()
    proxy = kit.proxy()
    first, second = kit.device(account, proxy.url), kit.device(account)
    for number, fault in enumerate(("answer_dropped", "answer_cut", "refused", "answer_dropped")):
        first.put(f"lost-{number}", name=f"made under {fault}")
        first.put("lost-again", name=f"changed under {fault}, {number}")
        account.put("end_user", {"id": f"lost-from-{number}", "name": fault})
        proxy.fail(fault, "/push" if number < 2 else "/sync/", times=2)
        first.try_sync()
    kit.check(account, first, second)
    made = [row_id for row_id in first.rows() if row_id.startswith("lost-")]
    assert len(made) == 9, f"rows were made twice, or not at all: {made}"


def overtaken(kit: Kit) -> None:
    """Another device pushes while this one's push is under way: its rows lie before the place that the answer names."""
    account = kit.account()
    proxy = kit.proxy()
    first, second = kit.device(account, proxy.url), kit.device(account)
    first.sync()
    for number in range(3):
        others = iter([{"id": f"overtook-{number}", "name": "of another"}])

        def overtake(address: str) -> str:
            for row in others if "/push" in address else ():
                account.put("end_user", row)
            return "none"

        proxy.fault_of = overtake
        first.put(f"overtaken-{number}", name="on its way")
        first.sync()
    kit.check(account, first, second)


def server_killed_mid_sync(kit: Kit) -> None:
    """The server dies at some moment of a sync of many rows, both ways, and stays away until the client gives up."""
    server, account, proxy = kit.server, kit.account(), kit.proxy()
    first, second = kit.device(account, proxy.url), kit.device(account)
    for round_, address in enumerate(("/pull", "/push", "")):
        account.put("end_user", *({"id": f"kill-{round_}-{n}", "name": f"there {n}"} for n in range(2000)))
        for number in range(30):
            first.put(f"killed-{round_}-{number}", name=f"here {number}")
        if address:
            proxy.fault_of = once(address, server.kill)
            first.try_sync()
        else:
            first.driver.send("sync")
            time.sleep(kit.rng.uniform(0, 0.4))
            server.kill()
            answered(first)
        server.stop()
        server.start()
    kit.check(account, first, second)


def answered(device: Device) -> None:
    """Take the answer of a sync that was under way, whatever it is."""
    try:
        device.driver.receive()
    except Exception as error:
        assert type(error).__name__ == "DriverError", error


def token_expired(kit: Kit) -> None:
    """The access token is no good any more: it is renewed, with the refresh token or the password."""
    account = kit.account()
    token, refresh_token = account.session()
    first = kit.device(account, session=(token[:-8] + "spoiled0", refresh_token))
    first.put("token-1", name="before it was renewed")
    second = kit.device(account, session=(token[:-8] + "spoiled1", refresh_token[:-8] + "spoiled2"))
    second.put("token-2", name="before the log-in")
    kit.check(account, first, second)
    if kit.is_ours:
        kit.server.restart(ACCESS_TOKEN_SECONDS="1")
        for number in range(2):
            first.put("token-1", name=f"with a token of a second {number}")
            time.sleep(1.1)
            first.sync()
        kit.server.restart()
        kit.check(account, first, second)


def refresh_lost(kit: Kit) -> None:
    """The answer to a refresh is lost, and with it the session."""
    account = kit.account()
    proxy = kit.proxy()
    token, refresh_token = account.session()
    first = kit.device(account, proxy.url, session=(token[:-8] + "spoiled0", refresh_token))
    first.put("refresh-1", name="typed while the session was being lost")
    proxy.fail("answer_dropped", "/refresh", times=1)
    first.try_sync()
    kit.check(account, first)
    assert any("/refresh" in address for address in proxy.requests), "the client never refreshed"


def two_instances(kit: Kit) -> None:
    """Two clients on one replica, such as two tabs, which edit and sync at once."""
    account = kit.account()
    first = kit.device(account)
    second, other = kit.second(first), kit.device(account)
    for number in range(20):
        first.put(f"tab-{number % 5}", name=f"first {number}")
        second.put(f"tab-{number % 5}", note=f"second {number}")
        second.put(f"tab-own-{number}", name="of the second")
        if number % 4 == 0:
            first.driver.send("sync", **({"instance": first.instance} if first.instance else {}))
            if second.driver is not first.driver:
                second.sync()
            answered(first)
    assert second.rows().keys() >= {"tab-0"}, "the second does not see what the first wrote"
    kit.check(account, first, second, other)


def client_killed(kit: Kit) -> None:
    """The client is killed while it syncs, just as it asks or at random: what it said is kept is kept."""
    kit.needs("persists")
    account, proxy = kit.account(), kit.proxy()
    first, second = kit.device(account, proxy.url), kit.device(account)
    for round_, address in enumerate(("/pull", "/push", "/push", "", "", "", "")):
        account.put("end_user", *({"id": f"there-{round_}-{n}", "name": f"there {n}"} for n in range(400)))
        for number in range(15):
            first.put(f"died-{number}", name=f"round {round_}, {number}")
        if address:
            proxy.fault_of = once(address, first.driver.kill)
        first.driver.send("sync")
        if address:
            wait_for(first.driver.is_dead, f"a request to {address}")
        else:
            time.sleep(kit.rng.uniform(0, 0.25))
        first.kill()
    kit.check(account, first, second)


def live_edits(kit: Kit) -> None:
    """Two devices that listen: what one types the other has soon, also after the server was away."""
    kit.needs("live")
    account = kit.account()
    first, second = kit.device(account), kit.device(account)
    for device in (first, second):
        device.ask("live", on=True)
    first.put("live-1", name="typed here")
    wait_for(lambda: "live-1" in second.rows(), "the other device to hear")
    if kit.is_ours:
        kit.server.kill()
        first.put("live-2", name="typed while the server was away")
        kit.server.start()
        wait_for(lambda: "live-2" in second.rows(), "the other device to hear after the server came back")
    second.delete("live-1")
    wait_for(lambda: "live-1" not in first.rows(), "the deletion")
    for device in (first, second):
        device.ask("live", on=False)
    kit.check(account, first, second)


SCENARIOS: dict[str, Callable[[Kit], None]] = {
    scenario.__name__: scenario
    for scenario in (
        empty_first_sync,
        edits_on_both_sides,
        conflict,
        delete_against_edit,
        offline_for_long,
        answer_lost,
        overtaken,
        server_killed_mid_sync,
        restore_from_older_backup,
        edits_around_a_restore,
        token_expired,
        refresh_lost,
        two_instances,
        purged_past_a_device,
        purged_mid_first_sync,
        account_change,
        new_table,
        refused_create,
        id_taken,
        clock_off,
        slow_line,
        client_killed,
        live_edits,
        random_interleavings,
        ten_thousand_rows,
    )
}
"""In the order in which they run: the one that needs an empty account first, the one that leaves most behind last."""
