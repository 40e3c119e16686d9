"""The operator's day: a hundred tenants, and what goes wrong with them from the morning to the night.

Each command and each option that the operator uses is in docs/operations.md or in what it links, or the test fails. The
tests are one story on one disk: each has tenants of its own, and leaves all of them served to the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from tests import forking
from tests.browsing import Page, browser_test
from tests.conftest import FAST, JSON, ROOT, Device, Server, Tenant, needs, wait_for
from tests.mailing import MailServer
from tests.refusals import refused
from tests.s3_server import bucket, needs_s3
from tests.server.test_disk_space import can_mount
from tests.signing_in import log_in, me, refresh, session

pytestmark = [
    pytest.mark.slow,
    pytest.mark.files("a disk that is small, and is lost"),
    needs_s3,
    needs("openssl"),
]
TENANTS = 100
MIB = 2**20
NEW_PASSWORD = "a better one"
JOBS = "[job]\ncolumns.title = 'text'\n"
WIDER = JOBS + "columns.priority = { type = 'integer', default = 3 }\n"


def documents() -> str:
    """Give what an operator reads: operations.md, and the documents that it links."""
    first = (ROOT / "docs" / "operations.md").read_text()
    linked = sorted(set(re.findall(r"\]\((\w+\.md)", first)))
    return "\n".join([first, *((ROOT / "docs" / name).read_text() for name in linked)])


READ = documents()


def must_be_documented(arguments: tuple[str, ...]) -> None:
    """Check that a command, and each of its options, is where an operator reads of it."""
    words = [" ".join(["python syncapp.py", *arguments[:count]]) for count in (2, 1)]
    assert any(f"`{one}`" in READ for one in words), f"docs/operations.md has no {words[0]}"
    for option in (one for one in arguments if one.startswith("--")):
        assert re.search(rf"{option}(?![\w-])", READ), f"{option} of {words[0]} is in no document"


class Disk:
    """The disk of the data folder; where root allows it is one of its own, whose size can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        self.is_mounted = can_mount() and not self._mount("size=1g,mode=0700", "tmpfs")

    def _mount(self, options: str, *of: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", options, *of, str(self.folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    def leave(self, free_bytes: int) -> None:
        """Make it as large as what it holds and so many bytes more."""
        found = os.statvfs(self.folder)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        assert self._mount(f"remount,size={used + free_bytes}") == 0

    def lose(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)
            self.is_mounted = False
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Day:
    """The server of this day with its tenants, and the operator who sits at its shell."""

    server: Server
    tenants: list[Tenant]
    disk: Disk
    mail: MailServer
    tables: Path

    def run(self, *arguments: str, data: Path | None = None, typed: str = "") -> subprocess.CompletedProcess[str]:
        must_be_documented(arguments)
        environ = {**os.environ, **FAST, **self.server.env, "DATA_DIR": str(data or self.server.data)}
        return forking.run([*arguments], environ, typed)

    def operate(self, *arguments: str, code: int = 0, data: Path | None = None, typed: str = "") -> str:
        done = self.run(*arguments, data=data, typed=typed)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
        return str(done.stdout if code == 0 else done.stdout + done.stderr)

    def shown(self, *arguments: str) -> Any:
        return json.loads(self.operate(*arguments, "--json"))


def provisioned(server: Server, number: int) -> Tenant:
    """Register a tenant whose till has pushed some rows; that of number 0 is large and noisy."""
    tenant = server.register(email=f"owner-{number}@example.com")
    till = tenant.device(X_Device_Id="till")
    rows = [{"id": f"r{row}", "name": f"{number} {row}"} for row in range(3)]
    till.push({"changes": {"end_user": rows, "job": [{"id": "j", "title": "mend", "priority": 5}]}})
    for push in range(10 if number == 0 else 0):
        till.push({"changes": {"end_user": [{"name": "noise" * 10, "id": f"n{push}-{row}"} for row in range(100)]}})
    return tenant


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The morning: the server runs with mail and backups, and a hundred tenants are there."""
    folder = tmp_path_factory.mktemp("day")
    (folder / "tables.toml").write_text(JOBS)
    with contextlib.ExitStack() as at_night:
        disk, mail = Disk(folder / "data"), MailServer(folder / "mail")
        at_night.callback(disk.lose)
        at_night.callback(mail.stop)
        of_bucket = at_night.enter_context(bucket())
        server = Server(folder / "data")
        own = {"PUBLIC_URL": server.url, "TABLES_FILE": str(folder / "tables.toml"), "BACKUP_EVERY": "1h"}
        server.env |= {**mail.start().settings, **of_bucket, **own, "MIN_FREE_BYTES": "16M", "MAX_PUSH_ROWS": "200"}
        day = Day(server.start(), [], disk, mail, folder / "tables.toml")
        at_night.callback(lambda: kill(day.server))
        day.tenants = of_each(partial(provisioned, server), range(TENANTS))
        yield day


def kill(server: Server) -> None:
    """End the server of the evening, which may be another than the morning's."""
    server.kill()


def of_each(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(work, items))


def digest(tenant: Tenant) -> Any:
    """Give what devices compare with their rows, of every table."""
    return tenant.device().pull({"cursor": None, "limit": 10_000, "digest": True})["digest"]


def is_served(*tenants: Tenant) -> bool:
    """Tell whether tenants push and pull as on any day."""
    row = {"changes": {"end_user": [{"id": "sold", "name": str(uuid.uuid4())}]}}
    return all(one.device().push_raw(row).ok and one.device().rows() for one in tenants)


def test_customer_comes_and_goes_by_commands_and_the_record_has_both(day: Day) -> None:
    names = ("--first-name", "New", "--last-name", "Customer", "--email", "new@example.com")
    tenant_id = day.operate("register", *names, "--password-stdin", typed="password123").strip()
    assert is_served(session(Tenant(day.server, tenant_id, "new@example.com", "password123", "", "")))
    day.operate("tenant", "delete", tenant_id, "--yes")
    assert [one["action"] for one in day.shown("actions", "--tenant", tenant_id)] == ["delete", "register"]


# --- a bad migration -------------------------------------------------------------------------------------------------


def test_bad_migration_ends_with_its_canaries_and_the_one_that_lost_rows_is_as_it_was(day: Day) -> None:
    """What is bad is a trigger that somebody once put into the file of the largest tenant."""
    server, large = day.server, day.tenants[0]
    before = of_each(digest, day.tenants)
    assert server.stop() == 0
    with contextlib.closing(sqlite3.connect(large.path)) as file:
        file.execute("CREATE TRIGGER by_hand AFTER UPDATE ON job BEGIN DELETE FROM end_user WHERE id = 'r1'; END")
    day.tables.write_text(WIDER)
    assert f"{TENANTS} tenants" in day.operate("migrate", "--check")
    assert large.id in day.operate("migrate", "--canary", "3", code=1)
    assert "Canaries did not pass" in day.operate("migrate", code=1)
    states = [(one["state"], one["tenant"]) for one in day.shown("migrate", "--status")]
    assert [tenant for state, tenant in states if state == "failed"] == [large.id]
    assert [state for state, _ in states].count("waiting") == TENANTS - 3
    day.tables.write_text(JOBS)
    server.start()
    assert of_each(digest, day.tenants) == before, "all go on with the version before, and lack nothing"
    assert server.stop() == 0
    with contextlib.closing(sqlite3.connect(large.path)) as file:
        file.execute("DROP TRIGGER by_hand")
    day.tables.write_text(WIDER)
    day.operate("migrate", "--canary", "3")
    day.operate("migrate")
    assert {one["state"] for one in day.shown("migrate", "--status")} == {"current"}
    server.start()
    assert large.device().rows("job")[0]["priority"] == 5 and is_served(*day.tenants[:3])
    day.operate("migrate", "--remove-copies")


# --- a lost phone ----------------------------------------------------------------------------------------------------


def test_lost_phone_is_logged_out_and_its_socket_closed_while_the_till_goes_on(day: Day) -> None:
    till, phone = day.tenants[1], session(day.tenants[1])
    at_till, at_phone = till.device().listen(), phone.device().listen(deviceId="phone-of-asha")
    phone.device(X_Device_Id="phone-of-asha").pull({"cursor": None})

    def session_of_the_phone() -> Any:
        found = day.shown("account", "sessions", till.email)
        return next((one["id"] for one in found if "phone-of-asha" in one["devices"]), None)

    lost = wait_for(session_of_the_phone, "the phone among the sessions")
    day.operate("account", "end-sessions", till.email, "--session", lost)
    wait_for(at_phone.is_gone.is_set, "the end of the phone's socket")
    wait_for(lambda: me(phone).status_code == 401, "the end of its token")
    refused(refresh(phone, phone.refresh_token), 401, "unauthorized")
    assert is_served(till) and at_till.wait_note("sync_complete") and not at_till.is_gone.is_set()
    at_till.close()


# --- a forgotten password --------------------------------------------------------------------------------------------


@browser_test
def test_forgotten_password_is_replaced_by_the_link_of_a_mail(day: Day, page: Page) -> None:
    asha = day.tenants[2]
    page.open(f"{day.server.url}/forgotten-password")
    page.fill("E-mail", asha.email)
    page.press("Send the link")
    mail = day.mail.wait_taken(asha.email, 2)  # The first was that of the registration.
    (link,) = re.findall(rf"{day.server.url}/\S+#\S+", mail.get_content())
    page.open(link)
    page.fill("New password", NEW_PASSWORD)
    page.fill("The same again", NEW_PASSWORD)
    page.press("Set the password")
    page.wait_text(".message", "The password is changed")
    wait_for(lambda: me(asha).status_code == 401, "the end of her sessions")
    assert log_in(asha).status_code == 401
    asha.password = NEW_PASSWORD
    day.tenants[2] = session(asha)
    assert is_served(day.tenants[2]) and day.operate("mail", "queue") is not None


# --- a noisy tenant --------------------------------------------------------------------------------------------------


def test_noisy_tenant_is_found_and_bounded_and_nobody_else_is(day: Day) -> None:
    noisy, till = day.tenants[0], day.tenants[0].device()
    (most,) = day.shown("usage", "--sort", "rows", "--limit", "1")
    assert most["email"] == noisy.email and day.shown("tenants", "--sort", "size")[0]["email"] == noisy.email
    push = {"changes": {"end_user": [{"name": f"noise {row}"} for row in range(150)]}}
    day.operate("tenant", "quota", noisy.email, "--rows", "200 per hour")
    wait_for(lambda: till.push_raw(push).status_code == 429, "its quota")
    assert till.rows() and is_served(*day.tenants[3:6])
    day.operate("tenant", "quota", noisy.email, "--default")
    day.operate("tenant", "read-only", noisy.email)
    wait_for(lambda: till.push_raw(push).status_code == 503, "no more pushes")
    refused(till.push_raw(push), 503, "tenant_read_only")
    assert till.rows() and is_served(*day.tenants[3:6])
    day.operate("tenant", "resume", noisy.email)
    wait_for(lambda: is_served(noisy), "its pushes")


# --- a full disk -----------------------------------------------------------------------------------------------------


def health(server: Server) -> Any:
    return server.call("GET", "/health").json()["status"]


def test_full_disk_refuses_pushes_alone_and_loses_nothing(day: Day) -> None:
    if not day.disk.is_mounted:
        pytest.skip("needs root, for a small file system of its own")
    one, *others = day.tenants[10:15]
    create = {"table": "end_user", "operation": "create", "data": {"id": "kept"}}
    delete = {"table": "end_user", "operation": "delete", "data": {"id": "r0"}}
    before = of_each(digest, others)
    day.disk.leave(8 * MIB)
    wait_for(lambda: health(day.server) == "degraded", "the guard")
    for tenant in day.tenants[10:15]:
        refused(tenant.device().push_raw(create), 507, "storage_full")
    assert one.device().push_raw(delete).ok and of_each(digest, others) == before
    assert "nearly full" in day.operate("log", "--level", "warning", "--stdin", typed=day.server.log_path.read_text())
    day.disk.leave(512 * MIB)
    wait_for(lambda: health(day.server) == "ok", "room")
    assert all(tenant.device().push_raw(create).ok for tenant in day.tenants[10:15])
    assert {row["id"] for row in one.device().rows()} == {"r1", "r2", "kept"}


# --- an accidental mass delete ---------------------------------------------------------------------------------------

CHOOSE = """const [field, seconds] = arguments, at = new Date(seconds * 1000);
field.value = new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
field.dispatchEvent(new Event("input", { bubbles: true }));"""


def next_second() -> int:
    """Wait for the next whole second, such as a person can choose on a page."""
    second = int(time.time()) + 1
    time.sleep(second - time.time())
    return second


def open_tenant(day: Day, page: Page, tenant: Tenant) -> None:
    """Sign in to the console, and search for a tenant."""
    page.open(day.shown("admin-link", "--url", day.server.url)["url"])
    page.press("Sign in")
    page.wait_text("h1", "Overview")
    page.driver.find_element(By.LINK_TEXT, "Tenants").click()
    page.wait_text("#page h1", "Tenants")
    page.fill("Search", tenant.email)
    page.wait_text("#page", "1 of ")
    page.follow(tenant.email)


@browser_test
def test_mass_delete_is_undone_from_the_console_and_devices_pull_it_as_a_change(day: Day, page: Page) -> None:
    tenant = day.tenants[20]
    till, phone = tenant.device(X_Device_Id="till"), tenant.device(X_Device_Id="phone")
    till.push({"changes": {"end_user": [{"id": f"c{row}", "name": f"Customer {row}"} for row in range(60)]}})
    rows = by_id(phone.catch_up()["end_user"])
    at = next_second()
    till.push({"changes": {"end_user": [{"id": row_id, "is_deleted": 1} for row_id in rows]}})
    assert till.rows() == [] and by_id(phone.catch_up()["end_user"]).keys() == rows.keys()
    epoch, listener = str(phone.cursor).split("-")[0], phone.listen()
    open_tenant(day, page, tenant)
    page.press("Rewind")
    page.driver.execute_script(CHOOSE, page.find("#moment"), at)
    page.press("Show what would change")
    wait_for(lambda: "end_user" in page.text("dialog table"), "the difference")
    page.press("Show the rows, which is recorded")
    page.wait_text("dialog .rows-shown", '→ "Customer ')
    page.press(f"Rewind {len(rows)} rows")
    page.wait_text("dialog .message", f"Rows written: {len(rows)}")
    listener.wait_note("sync_complete")
    pulled = by_id(phone.catch_up()["end_user"])
    assert pulled == rows and str(phone.cursor).split("-")[0] == epoch
    assert by_id(till.rows()) == rows
    recorded = [one["action"] for one in day.shown("actions", "--tenant", tenant.id)]
    assert recorded[:3] == ["rewound", "rewind", "show-rows"]
    listener.close()
    page.driver.delete_all_cookies()


def by_id(rows: list[JSON]) -> dict[str, str]:
    return {row["id"]: row["name"] for row in rows}


# --- the loss of the disk --------------------------------------------------------------------------------------------


def test_lost_disk_returns_from_the_bucket_as_the_last_backup_had_it(day: Day, tmp_path: Path) -> None:
    wait_for(lambda: day.run("backup", "run").returncode == 0, "a backup, after the server's own that may be under way")
    assert day.shown("backup", "list")[0]["tenants"] == TENANTS
    backed_up = of_each(digest, day.tenants)
    late = Device(day.tenants[30])
    late.create(id="late", name="after the last backup")
    day.server.kill()
    day.disk.lose()
    new = tmp_path / "data of the new machine"
    assert day.operate("restore", "--new", "--yes", "--from", "latest", data=new) == f"{TENANTS} tenants restored.\n"
    day.server = Server(new, day.server.env).start()
    day.tenants = of_each(lambda one: session(replace(one, server=day.server)), day.tenants)
    assert of_each(digest, day.tenants) == backed_up
    assert "faults" in (found := day.shown("doctor", "--all")) and not found["faults"]
    again = day.tenants[30].device()
    again.create(id="late", name="after the last backup")  # Its device still has it.
    assert "late" in {row["id"] for row in again.rows()} and is_served(*day.tenants)
