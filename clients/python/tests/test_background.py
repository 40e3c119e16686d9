"""Exchanges by themselves: soon after an edit, on notification, every so often, and again after failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import MakeClient
from tests.kit.proxy import Proxy
from tests.kit.server import LocalServer, wait_for
from tests.kit.truth import Account, register

from syncclient import Busy, Hooks, LoginNeeded, SyncClient, SyncError, live, runner


def holds(client: SyncClient, row_id: str) -> Callable[[], bool]:
    return lambda: client.get("end_user", row_id) is not None


def test_edit_of_one_is_soon_with_the_other(make_client: MakeClient, account: Account) -> None:
    first, second = make_client(), make_client()
    for client in (first, second):
        client.start(every_seconds=3600)
    first.put("end_user", {"id": "a"})
    wait_for(holds(second, "a"), "the notification")
    second.put("end_user", {"id": "b"})
    wait_for(holds(first, "b"), "the notification")
    wait_for(lambda: first.status().waiting == second.status().waiting == 0, "the answers")


def test_without_live_it_looks_every_so_often(make_client: MakeClient, account: Account) -> None:
    client = make_client()
    client.start(every_seconds=0.05, live=False)
    account.put("end_user", {"id": "a", "name": "x"})
    wait_for(holds(client, "a"), "the interval")
    client.stop()
    account.put("end_user", {"id": "b", "name": "x"})
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("syncclient")]
    assert not holds(client, "b")()


def test_own_push_does_not_come_back_as_a_pull(
    make_client: MakeClient, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(url=proxy.url)
    client.sync()
    heard: list[str] = []
    looked: list[str | None] = []
    hear, place = runner.Runner.hear, client._place

    def told(self: runner.Runner, cursor: str) -> None:
        hear(self, cursor)
        heard.append(cursor)

    def look() -> str | None:
        looked.append(place())
        return looked[-1]

    monkeypatch.setattr(runner.Runner, "hear", told)
    monkeypatch.setattr(client, "_place", look)
    client.start(every_seconds=3600)
    wait_for(lambda: heard, "the connection")
    before = client.status().cursor
    running = client._runner
    assert running and before

    def is_idle() -> bool:
        """Tell whether the first exchange has ended: only then does news make it look."""
        running.hear(before)
        return bool(looked)

    wait_for(is_idle, "the end of the first exchange")
    client.put("end_user", {"id": "a"})
    wait_for(lambda: looked and looked[-1] == heard[-1] != before, "its own news")
    client.stop()  # After an exchange that began for it.
    exchanges = [address.rpartition("/")[2] for address in proxy.requests if "/sync/" in address]
    assert exchanges.count("push") == 1 and exchanges[-1] == "push"


class _Woken(runner.Runner):
    """Calls ``meanwhile`` once, between the look at what is wanted and the note that it is taken."""

    meanwhile: Callable[[], object] | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_is_asked" and value is False and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        super().__setattr__(name, value)


def test_wake_up_while_news_is_taken_is_not_lost() -> None:
    """What was put in that moment stayed unsent until the next interval."""
    exchanged = threading.Event()
    running = _Woken(exchanged.set, lambda: "1", 3600, None)
    assert exchanged.wait(60)
    exchanged.clear()
    waking = threading.Thread(target=running.wake)

    def wake() -> None:
        waking.start()
        waking.join(0.2)

    running.meanwhile = wake
    running.hear("1")  # Where the replica is: no reason by itself.
    assert exchanged.wait(60)
    waking.join()
    running.stop()


def test_listener_whose_token_expires_goes_on_with_a_new_one(
    start_server: Callable[..., LocalServer], make_client: MakeClient
) -> None:
    account = register(start_server(ACCESS_TOKEN_SECONDS="1").url)
    client = make_client(to=account)
    client.start(every_seconds=3600)
    for number in range(2):
        time.sleep(1.1)
        account.put("end_user", {"id": f"r{number}", "name": "x"})
        wait_for(holds(client, f"r{number}"), "the notification under a new token")


def test_failure_is_told_and_tried_again(make_client: MakeClient, account: Account, proxy: Proxy) -> None:
    told: list[SyncError] = []
    client = make_client(url=proxy.url, hooks=Hooks(on_error=told.append))
    proxy.fail("refused", "/sync/", 4)
    client.put("end_user", {"id": "a"})
    client.start(every_seconds=3600, live=False)
    wait_for(lambda: client.status().waiting == 0, "another try")
    assert [error.code for error in told] == ["offline"]


def test_server_that_is_there_again_ends_the_pause_after_failures(
    make_client: MakeClient, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_FIRST_PAUSE_SECONDS", 3600.0)
    told: list[SyncError] = []
    client = make_client(url=proxy.url, hooks=Hooks(on_error=told.append))
    proxy.fail("refused", "/", 10**6)
    client.put("end_user", {"id": "a"})
    client.start(every_seconds=3600)
    wait_for(lambda: told, "the failure")
    proxy.fail("none", "", 0)
    wait_for(lambda: client.status().waiting == 0, "the next exchange")


def test_log_in_ends_the_pause_after_failures(
    make_client: MakeClient, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_FIRST_PAUSE_SECONDS", 3600.0)
    told: list[SyncError] = []
    client = make_client(session=None, hooks=Hooks(on_error=told.append))
    client.put("end_user", {"id": "a"})
    client.start(every_seconds=3600, live=False)
    wait_for(lambda: told, "the failure")
    assert isinstance(told[0], LoginNeeded)
    client.login(account.email, account.password)
    wait_for(lambda: client.status().waiting == 0, "the next exchange")


def test_hook_that_raises_does_not_end_the_exchange_and_is_told_again(
    make_client: MakeClient, account: Account
) -> None:
    times: list[int] = []

    def stumble(_: object) -> None:
        times.append(1)
        if len(times) == 1:
            raise RuntimeError("a fault of the app")

    client = make_client(hooks=Hooks(on_refusal=stumble))
    client.put("no_such_table", {"id": "a"})
    client.start(every_seconds=3600, live=False)
    wait_for(lambda: len(times) == 2, "the second telling")


def test_many_threads_write_read_and_exchange_at_once(make_client: MakeClient, account: Account) -> None:
    clients = [make_client("one.db"), make_client("one.db", session=None), make_client()]
    failures: list[BaseException] = []

    def work(client: SyncClient, name: str) -> None:
        try:
            for number in range(10):
                client.put("end_user", {"id": f"{name}-{number}", "name": name})
                client.put("end_user", {"id": "of-all", name: str(number)})
                client.rows("end_user")
                client.sync()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(clients[n % 3], f"t{n}")) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for client in clients:
        client.sync(verify=True)
    of_all = account.rows()[0]["end_user", "of-all"]
    assert [of_all[f"t{n}"] for n in range(6)] == ["9"] * 6
    assert len(account.rows()[0]) == 61
    assert clients[0].rows("end_user") == clients[1].rows("end_user") == clients[2].rows("end_user")


def test_closing_does_not_wait_for_a_server_that_is_busy(
    start_server: Callable[..., LocalServer], make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = register(start_server(TENANT_REQUESTS="2 per 600 seconds").url)
    client = make_client(to=account, patience_seconds=3600)
    once, is_busy = client._transport._once, threading.Event()

    def told(*request: Any) -> Any:
        try:
            return once(*request)
        except Busy:
            is_busy.set()
            raise

    monkeypatch.setattr(client._transport, "_once", told)
    client.start(every_seconds=0.01, live=False)
    assert is_busy.wait(60)
    closing = threading.Thread(target=client.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_stop_as_an_exchange_begins_that_fails_does_not_wait_for_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the pause looked only for a ``stop`` that came after the exchange had begun."""
    monkeypatch.setattr(runner, "_FIRST_PAUSE_SECONDS", 3600.0)
    has_begun = threading.Event()

    def stop() -> None:
        running.stop()

    def exchange() -> None:
        if stopping.ident:
            raise SyncError("no network", "offline")
        has_begun.set()

    def place() -> str:
        stopping.start()
        assert running._hopeful.wait(60)
        return "1"

    stopping = threading.Thread(target=stop, daemon=True)
    running = runner.Runner(exchange, place, 3600, None)
    assert has_begun.wait(60)
    running.hear("2")
    wait_for(lambda: stopping.ident, "the news")
    stopping.join(10)
    assert not stopping.is_alive()


def test_stop_as_a_connection_begins_is_not_lost(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: what ``stop`` had set was cleared, and it waited until the server ended the connection."""
    client = make_client()
    stopping = threading.Thread(target=client.stop, daemon=True)

    class Ended(threading.Event):
        def clear(self) -> None:
            if not stopping.ident:
                stopping.start()
                assert self.wait(60)
            super().clear()

    monkeypatch.setattr(live, "threading", SimpleNamespace(Event=Ended, Thread=threading.Thread))
    client.start()
    wait_for(lambda: stopping.ident, "the connection")
    stopping.join(10)
    assert not stopping.is_alive()


@pytest.mark.parametrize("times", [1, 3])
def test_start_and_stop_may_be_repeated(make_client: MakeClient, times: int) -> None:
    client = make_client()
    for _ in range(times):
        client.start()
        client.start()
        client.stop()
        client.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("syncclient")]
