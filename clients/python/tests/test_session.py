"""Sessions: log in, renew once for all threads, lose a session without losing an edit."""

from __future__ import annotations

import contextlib
import threading

import pytest
from conftest import MakeClient
from tests.kit.proxy import Proxy
from tests.kit.server import LocalServer, wait_for
from tests.kit.truth import Account, register

from syncclient import Busy, LoginNeeded, Offline, SyncClient, Unauthorized, WrongAccount


def spoiled(session: tuple[str, str]) -> tuple[str, str]:
    """Give a session whose access token is refused, as an expired one is."""
    return session[0][:-8] + "spoiled0", session[1]


def over(session: tuple[str, str]) -> tuple[str, str]:
    """Give a session that can't be renewed either."""
    return spoiled(session)[0], session[1][:-8] + "spoiled0"


def test_log_in_with_a_wrong_password_is_said_and_changes_nothing(make_client: MakeClient, account: Account) -> None:
    client = make_client(session=None)
    with pytest.raises(Unauthorized, match="password is wrong"):
        client.login(account.email, "not the password")
    with pytest.raises(LoginNeeded):
        client.sync()
    client.login(account.email, account.password)
    client.sync()


def test_replica_of_one_account_never_takes_another(make_client: MakeClient, account: Account) -> None:
    other = register(account.url)
    other.put("end_user", {"id": "foreign", "name": "foreign"})
    client = make_client()
    client.put("end_user", {"id": "a", "name": "ours"})
    client.sync()
    client.logout()
    with pytest.raises(WrongAccount):
        client.login(other.email, other.password)
    with pytest.raises(WrongAccount):
        client.adopt(*other.session())
    client.login(account.email, account.password)
    client.sync()
    assert [row["id"] for row in client.rows("end_user")] == ["a"]
    assert {row_id for _, row_id in other.rows()[0]} == {"foreign"}


@pytest.mark.parametrize(
    ("begin", "end", "error"),
    [
        ("tenant suspend {}", "tenant resume {}", LoginNeeded),
        ("tenant read-only {}", "tenant resume {}", Busy),
        ("maintenance on", "maintenance off", Busy),
    ],
)
def test_edits_that_the_operator_has_refused_wait_and_are_sent_after_that(
    server: LocalServer, make_client: MakeClient, account: Account, begin: str, end: str, error: type[Exception]
) -> None:
    client, made = make_client(), list[str]()

    def is_refused() -> bool:
        made.append(f"row-{len(made)}")
        client.put("end_user", {"id": made[-1]})
        with contextlib.suppress(error):
            client.sync()
            return False
        return True

    server.operate(*begin.format(account.email).split())
    wait_for(is_refused, "the refusal")
    assert client.status().waiting == 1 and client.status().is_logged_in
    server.operate(*end.format(account.email).split())
    wait_for(lambda: not is_refused(), "the end of the refusal")
    assert client.status().waiting == 0
    assert {row_id for _, row_id in account.rows()[0]} == set(made)


def test_refused_token_is_renewed_and_the_new_pair_is_kept(make_client: MakeClient, account: Account) -> None:
    client = make_client("replica.db", session=spoiled(account.session()))
    client.put("end_user", {"id": "a"})
    client.sync()
    client.close()
    again = make_client("replica.db", session=None)
    again.sync()
    assert again.status().waiting == 0


def test_threads_and_processes_whose_token_is_refused_refresh_once(
    make_client: MakeClient, account: Account, proxy: Proxy
) -> None:
    """Seen to fail when each refreshed by itself: the second spent the token again, which ends the session."""
    session = spoiled(account.session())
    clients = [
        make_client("replica.db", url=proxy.url, session=session),
        make_client("replica.db", url=proxy.url, session=None),
    ]
    failures: list[BaseException] = []

    def ask(client: SyncClient) -> None:
        try:
            client._session.ask("GET", "/api/customers/me")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(clients[number % 2],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and proxy.requests.count("/api/customers/refresh") == 1


def test_refresh_whose_answer_was_lost_is_sent_again_and_needs_no_log_in(
    make_client: MakeClient, account: Account, proxy: Proxy
) -> None:
    """Fault: the server took the second one for a thief's, and the session was over."""
    client = make_client(url=proxy.url, session=spoiled(account.session()))
    client.put("end_user", {"id": "a", "name": "typed"})
    proxy.fail("answer_dropped", "/refresh")
    with contextlib.suppress(Offline):
        client.sync()
    client.sync()
    assert proxy.requests.count("/api/customers/refresh") == 2
    assert account.rows()[0]["end_user", "a"]["name"] == "typed"


def test_session_that_is_over_needs_a_log_in_and_loses_no_edit(make_client: MakeClient, account: Account) -> None:
    client = make_client(session=over(account.session()))
    client.put("end_user", {"id": "a", "name": "typed"})
    with pytest.raises(LoginNeeded):
        client.sync()
    assert client.status().waiting == 1 and client.rows("end_user")[0]["name"] == "typed"
    client.login(account.email, account.password)
    client.sync()
    assert account.rows()[0]["end_user", "a"]["name"] == "typed"


def test_session_that_is_over_is_mended_by_itself_if_the_app_gave_the_password(
    make_client: MakeClient, account: Account
) -> None:
    session = over(account.session())
    client = make_client(session=session, email=account.email, password=account.password)
    client.sync()


def test_logout_ends_the_session_and_leaves_rows_and_edits(make_client: MakeClient, account: Account) -> None:
    client = make_client()
    token, _ = client._session.tokens
    client.put("end_user", {"id": "a"})
    client.logout()
    assert client.rows("end_user") and client.status().waiting == 1 and not client.status().is_logged_in
    with pytest.raises(LoginNeeded):
        client.sync()
    assert token is not None and token not in client._replica.path.read_bytes().decode("latin-1") + _wal(client)


def _wal(client: SyncClient) -> str:
    """Give what is in the log of the file, after it was taken over."""
    with client._replica.reading() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return client._replica.path.with_name(client._replica.path.name + "-wal").read_bytes().decode("latin-1")
