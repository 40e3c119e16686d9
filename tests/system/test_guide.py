"""The walk of docs/guide.md, done for real: its own commands in bash, with curl and the sqlite3 shell."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import textwrap
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import postgres
from tests.conftest import JSON, ROOT, Listener, Server, Tenant, needs
from tests.needs import where_postgres

pytestmark = needs("bash", "curl", "sqlite3", "python3")

GUIDE = (ROOT / "docs" / "guide.md").read_text()
POSTGRESQL = (ROOT / "docs" / "postgresql.md").read_text()
HEADINGS = """\
# How to Get Tenant ID for WebSocket Testing
## What is Tenant ID?
## How to Get Tenant ID
### Method 1: From JWT Token (Recommended)
### Method 2: Decode JWT Token
### Method 3: From Database
## Using Tenant ID in WebSocket Testing
### 1. Open WebSocket Test Client
### 2. Enter Connection Details
### 3. Connect and Test
## Tenant Database Structure
## Testing Different Scenarios
### Test 1: Single Client
### Test 2: Multiple Clients
### Test 3: Different Tenants
## Common Issues
### Issue 1: "Tenant database not found"
### Issue 2: "Invalid tenant ID"
### Issue 3: "WebSocket connection failed"
## Example: Complete Testing Flow"""


def section(title: str) -> str:
    """Give the text of the guide between a heading and the next."""
    found = re.search(rf"^#+ [^\n]*{re.escape(title)}[^\n]*\n(.*?)(?=^#+ |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def blocks(title: str, kind: str = "bash") -> list[str]:
    """Give the fenced blocks of one kind in a section, without their indentation."""
    fenced = re.findall(rf"^( *)```{kind}\n(.*?)^\1```$", section(title), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for _, text in fenced]


class Walk:
    """A shell at the guide's place, its email taken by a tenant of this test's own server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.token = self.tenant_id = ""

    def run(self, command: str) -> str:
        """Run a command of the guide: only the server's address and the place of its data are not the guide's."""
        data = shlex.quote(str(self.server.data))
        command = re.sub(r"\bdata/", f"{data}/", command.replace("localhost:3000", f"localhost:{self.server.port}"))
        variables = {"TOKEN": self.token, "TENANT_ID": self.tenant_id, "PATH": "/usr/local/bin:/usr/bin:/bin"}
        shell = ["bash", "-euo", "pipefail", "-c", command]
        done = subprocess.run(shell, check=False, env=variables, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def answer(self, command: str) -> JSON:
        body: JSON = json.loads(self.run(command))
        return body


@pytest.fixture
def walk(start_server: Callable[..., Server]) -> Walk:
    """Register and log in with the very commands of the complete flow."""
    walk = Walk(start_server())
    register, login = blocks("Complete Testing Flow")
    registered, logged_in = walk.answer(register), walk.answer(login)
    assert registered["success"] and logged_in["success"]
    assert registered["data"]["customer"] == logged_in["data"]["customer"]
    walk.token, walk.tenant_id = logged_in["data"]["token"], logged_in["data"]["customer"]["id"]
    return walk


@pytest.fixture
def connect(walk: Walk) -> Iterator[Callable[..., Listener]]:
    """Connect Socket.IO clients of the walk's tenant, or with the token given."""
    listeners: list[Listener] = []

    def begin(token: str = "", **auth: Any) -> Listener:
        listeners.append(Listener(walk.server.url, auth={"token": token or walk.token, **auth}))
        return listeners[-1]

    yield begin
    for listener in listeners:
        listener.close()


def test_guide_keeps_its_headings() -> None:
    text = re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL)
    assert re.findall(r"^#+ .*$", text, re.MULTILINE) == HEADINGS.splitlines()


@pytest.mark.files("the guide's commands of sqlite3")
def test_every_command_of_the_guide_runs(walk: Walk) -> None:
    once = blocks("Complete Testing Flow")[0]  # The registration: done by the fixture, and a second is refused.
    commands = [textwrap.dedent(text) for text in re.findall(r"^ *```bash\n(.*?)^ *```", GUIDE, re.M | re.S)]
    assert len(commands) >= 10
    for command in commands:
        if command != once:
            assert walk.run(command), command


def test_method_1_login_gives_the_tenant_id(walk: Walk) -> None:
    (login,), (shown,) = blocks("Method 1"), blocks("Method 1", "json")
    answer, example = walk.answer(login), json.loads(shown)
    assert answer.keys() == example.keys() and answer["data"].keys() == example["data"].keys()
    assert answer["data"]["customer"] == example["data"]["customer"] | {"id": walk.tenant_id}
    assert str(uuid.UUID(walk.tenant_id)) == walk.tenant_id


def test_method_2_payload_has_the_guides_names(walk: Walk) -> None:
    (decode,), (shown,) = blocks("Method 2"), blocks("Method 2", "json")
    payload, example = walk.answer(decode), json.loads(shown)
    assert list(example) == ["customerId", "email", "type", "iat", "exp"] and example.keys() <= payload.keys()
    assert payload["customerId"] == walk.tenant_id
    assert (payload["email"], payload["type"]) == ("test@example.com", "client")
    assert payload["exp"] - payload["iat"] == example["exp"] - example["iat"] == 86_400


@pytest.mark.files("the guide's commands of sqlite3")
def test_method_3_the_sqlite3_shell_finds_the_customer(walk: Walk) -> None:
    (query,) = blocks("Method 3")
    assert "SELECT id, name, email, companyName" in query and "WHERE email = 'test@example.com'" in query
    assert walk.run(query) == f"{walk.tenant_id}|Test User|test@example.com|Test Company\n"


@pytest.mark.skipif(not postgres.is_there(), reason=postgres.MISSING)
def test_queries_for_psql_find_the_customer_and_the_rows(start_server: Callable[..., Server]) -> None:
    """Those of docs/postgresql.md. Fault: names that PostgreSQL folds, or does not look for where they are."""
    address = postgres.server().address(postgres.server().new_database())
    tenant = start_server(DATABASE_URL=address).register(email="test@example.com", companyName="Test Company")
    tenant.device().create(id="u1", name="Asha", phone="555-0100")
    (queries,) = re.findall(r"^```sql\n(SELECT id, name.*?)^```$", POSTGRESQL, re.MULTILINE | re.DOTALL)
    queries = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", tenant.id, queries)
    shell = [str(where_postgres("psql")), address, "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", queries]
    done = subprocess.run(shell, check=False, capture_output=True, text=True, timeout=30)
    found = [line.split("|") for line in done.stdout.splitlines()]
    assert [row[0] for row in found] == [tenant.id, "u1"], done.stderr
    assert found[0][2:] == ["test@example.com", "Test Company"] and found[1][1:] == ["Asha", "555-0100"]


@pytest.mark.files("the guide's commands of sqlite3")
def test_tenants_database_has_the_guides_name_and_tables(walk: Walk) -> None:
    (look,) = blocks("Tenant Database Structure")
    assert {"end_user", "interactions"} <= set(walk.run(look).split())
    names = {path.name for path in (walk.server.data / "tenants").glob("*.db")}
    assert names == {f"tenant_{walk.tenant_id.replace('-', '')}.db"}


def test_test_notification_reaches_the_client(walk: Walk, connect: Callable[..., Listener]) -> None:
    client = connect(tenantId=walk.tenant_id)
    assert client.wait("authenticated")["tenantId"] == walk.tenant_id
    (send,) = blocks("3. Connect and Test")
    (shown,) = blocks("3. Connect and Test", "json")
    assert walk.answer(send) == json.loads(shown)
    assert client.wait_note("data_available")["message"] == "Hello"


def hears_the_push(client: Listener) -> None:
    """Check that a client hears of one push, and of it once."""
    assert client.wait_note("sync_complete")["message"] == "end_user sync completed successfully"
    assert [note["type"] for note in client.notes()] == ["data_available", "sync_complete"]
    assert client.notes()[0]["message"] == "New end_user data available for sync"
    assert client.notes()[0]["data"]["name"] == "Asha"


@pytest.mark.parametrize("count", [1, 3])
def test_scenarios_1_and_2_every_client_of_the_tenant_hears(
    walk: Walk, connect: Callable[..., Listener], count: int
) -> None:
    clients = [connect(tenantId=walk.tenant_id) for _ in range(count)]
    for client in clients:
        client.wait("authenticated")
    (push,) = blocks("Testing Different Scenarios")
    assert walk.answer(push)["results"][0]["status"] == "created"
    for client in clients:
        hears_the_push(client)


def test_scenario_3_clients_of_another_tenant_hear_nothing(walk: Walk, connect: Callable[..., Listener]) -> None:
    other = walk.server.register()
    mine, foreign = connect(), connect(other.token, tenantId=other.id)
    for client in (mine, foreign):
        client.wait("authenticated")
    (push,) = blocks("Testing Different Scenarios")
    walk.run(push)
    hears_the_push(mine)
    other.device().create(name="Asha")  # When the other tenant has heard of its own, anything before would be there.
    hears_the_push(foreign)


# --- common issues ---------------------------------------------------------------------------------------------------


def messages(issue: str) -> list[str]:
    """Give the sentences that an issue shows as the server's, each in a block of its own."""
    found = re.findall(r"^```\n(.*)\n```$", section(issue), re.MULTILINE)
    assert found
    return [str(message) for message in found]


def test_issue_1_tenant_database_not_found(walk: Walk) -> None:
    lost = walk.server.register()
    lost.path.unlink()
    answer = lost.device().pull_raw({"table": "end_user"})
    assert (answer.status_code, answer.json()["code"]) == (404, "tenant_not_found")
    assert [answer.json()["error"]] == messages("Issue 1")


def test_issue_1_registering_solves_it(walk: Walk) -> None:
    assert walk.server.register().device().pull({"table": "end_user"})["success"]


def test_issue_2_invalid_tenant_id(walk: Walk, connect: Callable[..., Listener]) -> None:
    invalid, mismatch = messages("Issue 2")
    (pull,) = blocks("Issue 2")
    answer = walk.answer(pull)
    assert (answer["code"], answer["message"]) == ("invalid_tenant_id", invalid)
    error = connect(tenantId="12345").wait("authentication_error")
    assert error == {"code": "invalid_tenant_id", "message": invalid}
    foreign = walk.answer(pull.replace("12345", str(uuid.uuid4())))
    assert (foreign["code"], foreign["message"]) == ("tenant_mismatch", mismatch)


def test_issue_3_websocket_connection_failed(walk: Walk, connect: Callable[..., Listener]) -> None:
    origin, token, _ = messages("Issue 3")
    health, handshake = blocks("Issue 3")
    assert walk.answer(health)["success"]
    refused = walk.answer(handshake)
    assert (refused["code"], refused["message"]) == ("origin_not_allowed", origin)
    error = connect("nonsense").wait("authentication_error")
    assert error == {"code": "unauthorized", "message": token}


def test_issue_3_page_says_what_the_guide_says() -> None:
    scripts = "".join(path.read_text() for path in sorted((ROOT / "static").glob("*.js")))
    shown = re.findall(r"“([^”]+)”", section("Issue 3"))
    assert len(shown) == 4
    for words in shown:
        assert words in scripts, words


def test_expired_token_is_told_as_issue_3_of_the_guide_says(start_server: Callable[..., Server]) -> None:
    tenant: Tenant = start_server(ACCESS_TOKEN_SECONDS="1").register()
    listener = Listener(tenant.server.url, auth={"token": tenant.token})  # It may expire before it is heard, or after.
    error = listener.wait("authentication_error")
    assert error == {"code": "token_expired", "message": messages("Issue 3")[2]}
    listener.close()


def test_issue_3_server_not_running(walk: Walk) -> None:
    walk.server.stop()
    with pytest.raises(AssertionError):
        walk.run(blocks("Issue 3")[0])
