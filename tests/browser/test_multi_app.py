"""The page with three apps, in a real browser against a real server: offline and online, conflicts, the demonstration.

First seen to fail, each on a fault put into the page:

- ``offline_edits_survive_a_reload``: replicas under a name that each load of the page makes anew.
- ``switch_cuts_http_and_socket``: a switch that ends the socket only; one that ends HTTP only; one that does not bring the
  socket back.
- ``conflict_is_resolved``: a decision that sends the other side.
- ``server_that_is_killed``: a switch that does not bring the socket back.
- ``two_tabs``: a switch that the other tab does not hear of.
- ``another_account``: replicas that are not named by their tenant.
- ``token_that_expires``: a session without its refresh token.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browsing import Page, browser_test
from tests.conftest import Device, Server, Tenant, wait_for

PATH = "/test-multi-app-sync.html"
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
ALL = (1, 2, 3)
STORY_SECONDS = 60.0
TOKEN_SECONDS = "5"
"""Longer than a socket waits before it comes back."""


class App:
    """One of the three apps on the page."""

    def __init__(self, page: Page, number: int) -> None:
        self.page, self.number, self.css = page, number, f"#app-{number}"

    def texts(self, css: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent)"
        return list(self.page.driver.execute_script(script, f"{self.css} {css}"))

    def rows(self) -> list[tuple[str, str]]:
        script = """return [...document.querySelectorAll(arguments[0] + ' .row')].map((row) =>
            [row.querySelector('strong')?.textContent, row.querySelector('.row-text span')?.textContent])"""
        return [(name, phone) for name, phone in self.page.driver.execute_script(script, self.css)]

    def wait_rows(self, *rows: tuple[str, str]) -> None:
        self.wait_same(self.rows, list(rows))

    def wait_same(self, read: Callable[[], object], wanted: object) -> None:
        try:
            wait_for(lambda: read() == wanted, f"{wanted} in {self.css}")
        except AssertionError as error:
            raise AssertionError(f"{error}, which has {read()}") from None

    def add(self, name: str, phone: str = "") -> None:
        self.page.find(f"#name-{self.number}").send_keys(name)
        self.page.find(f"#phone-{self.number}").send_keys(phone, Keys.ENTER)
        wait_for(lambda: name in [shown for shown, _ in self.rows()], f"{name} in {self.css}")

    def press(self, label: str) -> None:
        wait_for(lambda: self.page.driver.find_elements(By.CSS_SELECTOR, f'{self.css} [aria-label="{label}"]'), label)
        self.page.find(f'{self.css} [aria-label="{label}"]').click()

    def edit(self, row: str, **fields: str) -> None:
        self.press(f"Edit {row}")
        for name, text in fields.items():
            field = self.page.find(f"{self.css} .row-edit [name={name}]")
            field.clear()
            field.send_keys(text)
        self.page.find(f"{self.css} .row-edit [type=submit]").click()
        wait_for(lambda: not self.page.driver.find_elements(By.CSS_SELECTOR, f"{self.css} .row-edit"), "the edit")

    def switch(self, is_on: bool) -> None:
        self.page.find(f"{self.css} .switch").click()
        assert self.is_on() is is_on

    def is_on(self) -> bool:
        return self.page.find(f"{self.css} .switch").get_attribute("aria-checked") == "true"

    def wait_state(self, text: str) -> None:
        self.page.wait_text(f"{self.css} .status", text)

    def wait_queue(self, *edits: str) -> None:
        count = f"{len(edits)} edit{'' if len(edits) == 1 else 's'} waiting"
        self.wait_same(lambda: [*self.texts(".waiting"), *self.texts(".queue li")], [count, *edits])

    def wait_conflict(self, *cells: str) -> None:
        """Wait for a conflict of one field; ``cells`` are the field, what it was, mine, theirs."""
        wait_for(
            lambda: self.texts(".conflict tbody :is(th, td)") == list(cells), f"{cells}: {self.texts('.conflict')}"
        )

    def wait_no_conflict(self) -> None:
        self.wait_same(lambda: self.texts(".conflict"), [])

    def decide(self, whose: str) -> None:
        buttons = self.page.driver.find_elements(By.CSS_SELECTOR, f"{self.css} .conflict button")
        next(button for button in buttons if button.text == f"Keep {whose}").click()


def apps_of(page: Page) -> tuple[App, App, App]:
    return App(page, 1), App(page, 2), App(page, 3)


def log_in(page: Page, tenant: Tenant) -> None:
    page.fill("E-mail", tenant.email)
    page.fill("Password", tenant.password).send_keys(Keys.ENTER)
    page.wait_text("#tenant", tenant.id)


def opened(page: Page, tenant: Tenant) -> Page:
    log_in(page.open(tenant.server.url + PATH), tenant)
    wait_equal(page)
    return page


def wait_equal(page: Page) -> None:
    page.wait_text("#verdict-headline", "All three equal")


@pytest.fixture
def multi(page: Page, tenant: Tenant) -> Page:
    """The page with three apps of ``tenant``, all online."""
    return opened(page, tenant)


@contextmanager
def another_tab(page: Page) -> Iterator[None]:
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        yield
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)


def calls_of(page: Page) -> set[str]:
    """Give the addresses that the page asked since they were last forgotten."""
    script = "return performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname)"
    return set(page.driver.execute_script(script))


# --- online ----------------------------------------------------------------------------------------------------------


@browser_test
def test_account_made_on_the_page_opens_three_apps(page: Page, server: Server) -> None:
    page.open(server.url + PATH)
    assert page.text("#verdict-headline") == "No account yet"
    page.unfold("Register")
    for label, text in {"First name": "Asha", "Last name": "Rao", "E-mail": f"{uuid.uuid4()}@example.com"}.items():
        page.fill(label, text)
    page.fill("Password", "password123").send_keys(Keys.ENTER)
    wait_equal(page)
    assert "Asha Rao" in page.text("#tenant") and not page.find("#door").is_displayed()
    assert "0 rows" in page.text("#verdict-reasons") and "the same as the server" in page.text("#verdict-reasons")
    for app in apps_of(page):
        app.wait_state("Online")
    assert page.severe() == []


@browser_test
def test_what_one_app_adds_edits_and_deletes_reaches_all(multi: Page, device: Device) -> None:
    one, two, three = apps_of(multi)
    two.add("Asha", "123")
    for app in (one, two, three):
        app.wait_rows(("Asha", "123"))
    one.edit("Asha", name="Asha Rao")
    for app in (one, two, three):
        app.wait_rows(("Asha Rao", "123"))
    wait_equal(multi)
    assert len({*one.texts(".hash"), *two.texts(".hash"), *three.texts(".hash")}) == 1
    assert [row["name"] for row in device.rows()] == ["Asha Rao"]
    three.press("Delete Asha Rao")
    for app in (one, two, three):
        app.wait_rows()
    wait_for(lambda: device.rows() == [], "the deletion")
    assert multi.severe() == []


@browser_test
def test_form_that_is_open_keeps_what_is_typed_and_tells_what_others_did(multi: Page, device: Device) -> None:
    device.create(id="a", name="Asha", phone="1")
    one, two, three = apps_of(multi)
    one.press("Edit Asha")
    device.update(id="a", phone="2")
    two.wait_rows(("Asha", "2"))
    multi.wait_text("#app-1 .row-edit", "Meanwhile: Phone is 2.")
    multi.driver.switch_to.active_element.send_keys(" Rao", Keys.ENTER)
    for app in (one, two, three):
        app.wait_rows(("Asha Rao", "2"))


@browser_test
def test_escape_leaves_a_row_as_it_is_and_gives_the_focus_back(multi: Page, device: Device) -> None:
    device.create(id="a", name="Asha")
    one = App(multi, 1)
    one.press("Edit Asha")
    multi.driver.switch_to.active_element.send_keys("!", Keys.ESCAPE)
    one.wait_rows(("Asha", ""))
    assert multi.driver.switch_to.active_element.get_attribute("aria-label") == "Edit Asha"


@browser_test
def test_apps_take_what_is_there_already_page_by_page(page: Page, device: Device) -> None:
    device.push({"changes": {"end_user": [{"id": f"r{number}", "name": f"N{number}"} for number in range(1200)]}})
    opened(page, device.tenant)
    for number in ALL:
        page.wait_text(f"#app-{number} .count", "1200")
        page.wait_text(f"#app-{number} .more", "Show 100 more of 1100")
    one = page.find("#app-1")
    for shown in (200, 300):
        one.find_element(By.CSS_SELECTOR, ".more button").click()
        assert len(one.find_elements(By.CSS_SELECTOR, ".rows > li")) == shown
    page.wait_text("#app-1 .more", "Show 100 more of 900")
    page.wait_text("#app-2 .more", "Show 100 more of 1100")


@browser_test
def test_html_in_rows_is_shown_as_text(multi: Page, device: Device) -> None:
    title = multi.driver.title
    device.create(id="a", name=EVIL, phone=EVIL)
    one, two, three = apps_of(multi)
    for app in (one, two, three):
        app.wait_rows((EVIL, EVIL))
    for app in (two, three):
        app.switch(False)
        app.press(f"Edit {EVIL}".replace('"', '\\"'))
        phone = multi.find(f"{app.css} .row-edit [name=phone]")
        phone.send_keys(f" {app.number}", Keys.ENTER)
        app.wait_queue(f"Edit {EVIL}: Phone → {EVIL} {app.number}")
    two.switch(True)
    two.wait_queue()
    three.switch(True)
    two.wait_conflict("Phone", EVIL, f"{EVIL} 2", f"{EVIL} 3stands")
    assert multi.driver.title == title and multi.severe() == []
    assert multi.driver.find_elements(By.CSS_SELECTOR, "main img") == []


# --- offline ---------------------------------------------------------------------------------------------------------


@browser_test
def test_offline_edits_survive_a_reload_and_are_sent(multi: Page, tenant: Tenant, device: Device) -> None:
    device.create(id="a", name="Asha", phone="1")
    device.create(id="b", name="Bela")
    two = App(multi, 2)
    two.wait_rows(("Bela", ""), ("Asha", "1"))
    two.switch(False)
    two.edit("Asha", phone="2")
    two.add("Chetan")
    two.press("Delete Bela")
    two.wait_queue("Edit Asha: Phone → 2", "Add Chetan", "Delete Bela")
    assert two.rows() == [("Chetan", ""), ("Asha", "2")]
    multi.wait_text("#verdict-reasons", "App 2: offline, 3 edits waiting.")
    assert len(device.rows()) == 2
    multi.driver.refresh()
    log_in(multi, tenant)
    two.wait_rows(("Chetan", ""), ("Asha", "2"))
    two.wait_queue("Edit Asha: Phone → 2", "Add Chetan", "Delete Bela")
    assert not two.is_on()
    two.switch(True)
    wait_equal(multi)
    two.wait_queue()
    live = [row for row in device.rows() if not row["is_deleted"]]
    assert {(row["name"], row["phone"]) for row in live} == {("Asha", "2"), ("Chetan", None)}
    assert multi.severe() == []


@browser_test
def test_switch_cuts_http_and_socket_and_others_do_not_reach_the_app(
    multi: Page, server: Server, tenant: Tenant, device: Device
) -> None:
    def connected() -> int:
        said = [line["message"] for line in server.log if line.get("tenant") == tenant.id]
        return said.count("socket joined") - said.count("socket left")

    wait_for(lambda: connected() == 3, "three sockets")
    apps = apps_of(multi)
    for app in apps:
        app.switch(False)
        app.wait_state("Offline")
    wait_for(lambda: connected() == 0, "no socket")
    multi.driver.execute_script("performance.clearResourceTimings()")
    for app in apps:
        app.add(f"Row {app.number}")
        app.wait_queue(f"Add Row {app.number}")
    device.create(name="Theirs")
    multi.wait_text("#verdict-reasons", "App 3: offline, 1 edit waiting.")
    assert calls_of(multi) <= {"/api/client/sync/pull"}, "the verdict's own, and nobody else's"
    assert [app.rows() for app in apps] == [[(f"Row {number}", "")] for number in ALL]
    for app in apps:
        app.switch(True)
    wait_equal(multi)
    wait_for(lambda: connected() == 3, "three sockets")
    assert {row["name"] for row in device.rows()} == {"Theirs", "Row 1", "Row 2", "Row 3"}


@browser_test
def test_different_fields_that_two_apps_edit_offline_are_both_kept(multi: Page, device: Device) -> None:
    device.create(id="a", name="Asha", phone="1")
    one, two, three = apps_of(multi)
    for app in (two, three):
        app.wait_rows(("Asha", "1"))
        app.switch(False)
    two.edit("Asha", phone="2")
    three.edit("Asha", name="Asha Rao")
    for app in (three, two):
        app.switch(True)
    for app in (one, two, three):
        app.wait_rows(("Asha Rao", "2"))
    wait_equal(multi)
    assert "conflict" not in multi.text("#verdict-reasons")
    assert not multi.driver.find_elements(By.CSS_SELECTOR, ".conflict") and multi.severe() == []


@browser_test
@pytest.mark.parametrize(("decider", "whose"), [(2, "mine"), (2, "theirs"), (3, "mine"), (3, "theirs")])
def test_conflict_is_shown_with_both_sides_and_is_resolved(
    multi: Page, device: Device, decider: int, whose: str
) -> None:
    device.create(id="a", name="Asha", phone="1")
    one, two, three = apps_of(multi)
    for app in (two, three):
        app.wait_rows(("Asha", "1"))
        app.switch(False)
        app.edit("Asha", phone=f"from {app.number}")
    for app in (two, three):
        app.switch(True)
        app.wait_queue()
    two.wait_conflict("Phone", "1", "from 2", "from 3stands")
    three.wait_conflict("Phone", "1", "from 3stands", "from 2")
    multi.wait_text("#verdict-reasons", "1 conflict to decide.")
    assert one.texts(".conflict") == [] and "App 2" in three.texts(".conflict")[0]
    App(multi, decider).decide(whose)
    kept = decider if whose == "mine" else 5 - decider
    for app in (one, two, three):
        app.wait_rows(("Asha", f"from {kept}"))
        app.wait_no_conflict()
    wait_equal(multi)
    assert [row["phone"] for row in device.rows()] == [f"from {kept}"]
    assert multi.severe() == []


@browser_test
def test_conflict_can_not_be_decided_offline_and_one_that_was_decided_elsewhere_goes(
    multi: Page, server: Server, tenant: Tenant, device: Device
) -> None:
    device.create(id="a", name="Asha")
    two = App(multi, 2)
    two.wait_rows(("Asha", ""))
    two.switch(False)
    two.edit("Asha", name="mine")
    device.update(id="a", name="theirs")
    two.switch(True)
    two.wait_conflict("Name", "Asha", "mine", "theirsstands")
    assert "Another device" in two.texts(".conflict")[0]
    two.switch(False)
    multi.wait_text("#app-2 .conflict", "To be decided online.")
    assert not multi.find("#app-2 .conflict button").is_enabled()
    (conflict,) = server.call("GET", "/api/client/sync/conflicts", token=tenant.token).json()["data"]
    server.post(f"/api/client/sync/conflicts/{conflict['conflictId']}/resolve", {"resolution": "keep"}, tenant.token)
    two.switch(True)
    two.wait_no_conflict()
    assert multi.severe() == []


@browser_test
@pytest.mark.parametrize("first", [2, 3])
def test_deleting_and_editing_the_same_row_offline_ends_equal(multi: Page, device: Device, first: int) -> None:
    device.create(id="a", name="Asha", phone="1")
    _, two, three = apps_of(multi)
    for app in (two, three):
        app.wait_rows(("Asha", "1"))
        app.switch(False)
    two.press("Delete Asha")
    two.wait_queue("Delete Asha")
    three.edit("Asha", phone="2")
    for number in (first, 5 - first):
        App(multi, number).switch(True)
        App(multi, number).wait_queue()
    wait_equal(multi)
    assert len({tuple(app.rows()) for app in apps_of(multi)}) == 1
    assert multi.severe() == []


@browser_test
def test_edit_that_the_server_refuses_is_shown_and_holds_up_nothing(multi: Page, device: Device) -> None:
    one = App(multi, 1)
    multi.driver.execute_script("document.getElementById('name-1').value = 'x'.repeat(70000)")
    multi.find("#phone-1").send_keys("1", Keys.ENTER)
    multi.wait_text("#app-1 .rejected", "Refused: Add xxx")
    one.wait_queue()
    one.add("Asha")
    multi.find("#app-1 .rejected button").click()
    one.wait_same(lambda: one.texts(".rejected li"), [])
    wait_equal(multi)
    assert [row["name"] for row in device.rows()] == ["Asha"]


# --- servers, tokens, tabs, accounts ---------------------------------------------------------------------------------


@browser_test
def test_server_that_is_killed_while_an_app_is_offline(page: Page, start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.register()
    one, two, three = apps_of(opened(page, tenant))
    one.add("Before")
    three.wait_rows(("Before", ""))
    three.switch(False)
    three.edit("Before", phone="offline")
    server.kill()
    one.wait_state("Server not reachable")
    page.wait_text("#verdict-reasons", "App 3: offline, 1 edit waiting.")
    two.edit("Before", name="Meanwhile")
    two.wait_queue("Edit Before: Name → Meanwhile")
    server.start()
    two.wait_queue()
    one.wait_rows(("Meanwhile", ""))
    three.switch(True)
    for app in (one, two, three):
        app.wait_rows(("Meanwhile", "offline"))
        app.wait_state("Online")
    wait_equal(page)


@browser_test
def test_token_that_expires_is_renewed(page: Page, start_server: Callable[..., Server]) -> None:
    tenant = start_server(ACCESS_TOKEN_SECONDS=TOKEN_SECONDS).register()
    opened(page, tenant)
    renewals = "return performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/refresh')).length"
    wait_for(lambda: page.driver.execute_script(renewals) >= 2, "two renewals")
    App(page, 2).add("Later")
    for app in apps_of(page):
        app.wait_rows(("Later", ""))
    assert not page.find("#door").is_displayed()


@browser_test
def test_session_that_is_over_asks_to_log_in_and_keeps_what_waits(
    page: Page, start_server: Callable[..., Server]
) -> None:
    tenant = start_server(ACCESS_TOKEN_SECONDS=TOKEN_SECONDS).register()
    page.open(tenant.server.url + PATH)
    page.fill("JWT Token", tenant.server.post("/api/customers/login", _password(tenant)).json()["data"]["token"])
    page.press("Connect all")
    one = App(page, 1)
    one.wait_state("Signed out")
    one.add("Typed")
    one.wait_queue("Add Typed")
    log_in(page, tenant)
    one.wait_queue()
    for app in apps_of(page):
        app.wait_rows(("Typed", ""))
    wait_equal(page)


def _password(tenant: Tenant) -> dict[str, str]:
    return {"email": tenant.email, "password": tenant.password}


@browser_test
def test_text_that_is_no_token_is_told(page: Page, server: Server) -> None:
    page.open(server.url + PATH)
    page.fill("JWT Token", "nonsense").send_keys(Keys.ENTER)
    page.wait_text("#session-message", "This is no token")
    assert page.find("#door").is_displayed() and page.severe() == []


@browser_test
def test_token_is_neither_in_an_address_nor_stored(multi: Page) -> None:
    kept = """const found = [location.href, document.cookie];
        found.push(...Object.values(localStorage), ...Object.values(sessionStorage));
        found.push(...performance.getEntriesByType('resource').map(({ name }) => name));
        for (const { name } of await indexedDB.databases()) {
          const db = await new Promise((done) => (indexedDB.open(name).onsuccess = ({ target }) => done(target.result)));
          for (const store of db.objectStoreNames) {
            const all = db.transaction(store).objectStore(store).getAll();
            found.push(JSON.stringify(await new Promise((done) => (all.onsuccess = () => done(all.result)))));
          }
          db.close();
        }
        return found;"""
    texts = multi.driver.execute_script(f"return (async () => {{ {kept} }})()")
    assert any("page-switch" in text or '"cursor"' in text for text in texts), "the replicas were looked at"
    assert not any("eyJ" in text for text in texts)


@browser_test
def test_two_tabs_show_the_same_three_devices(multi: Page, tenant: Tenant, device: Device) -> None:
    two = App(multi, 2)
    first = multi.driver.current_window_handle
    with another_tab(multi):
        second = multi.driver.current_window_handle
        opened(multi, tenant)
        two.switch(False)
        two.add("Typed in the second tab")
        two.wait_queue("Add Typed in the second tab")
        multi.driver.switch_to.window(first)
        two.wait_state("Offline")
        two.wait_queue("Add Typed in the second tab")
        App(multi, 1).add("Typed in the first")
        multi.driver.switch_to.window(second)
        # Tabs share a device's store: a row may be shown before it is sent.
        App(multi, 1).wait_rows(("Typed in the first", ""))
        wait_for(lambda: [row["name"] for row in device.rows()] == ["Typed in the first"], "the row of the first tab")
        two.switch(True)
        wait_equal(multi)
        multi.driver.switch_to.window(first)
        wait_equal(multi)
        multi.driver.switch_to.window(second)
    two.wait_state("Online")
    assert len(device.rows()) == 2 and multi.severe() == []


@browser_test
def test_another_account_sees_nothing_of_the_first_and_leaves_its_queue(
    multi: Page, tenant: Tenant, other_tenant: Tenant
) -> None:
    one = App(multi, 1)
    one.add("Mine")
    App(multi, 3).wait_rows(("Mine", ""))
    one.switch(False)
    one.add("Waiting")
    multi.press("Another account")
    assert "Mine" not in multi.text("main") and "Waiting" not in multi.text("main")
    log_in(multi, other_tenant)
    wait_equal(multi)
    assert "Mine" not in multi.text("main") and "Waiting" not in multi.text("main")
    App(multi, 2).add("Theirs")
    App(multi, 1).wait_rows(("Theirs", ""))
    wait_equal(multi)
    multi.press("Another account")
    log_in(multi, tenant)
    one.wait_queue("Add Waiting")
    one.switch(True)
    App(multi, 3).wait_rows(("Waiting", ""), ("Mine", ""))
    assert multi.severe() == []


@browser_test
def test_two_tenants_in_two_tabs_do_not_see_each_other(multi: Page, other_tenant: Tenant) -> None:
    App(multi, 1).add("Mine")
    App(multi, 3).wait_rows(("Mine", ""))
    with another_tab(multi):
        opened(multi, other_tenant)
        App(multi, 1).add("Theirs")
        App(multi, 2).wait_rows(("Theirs", ""))
    App(multi, 1).add("Mine too")
    App(multi, 3).wait_rows(("Mine too", ""), ("Mine", ""))


@browser_test
def test_copies_can_be_removed_and_edits_that_wait_are_asked_about(multi: Page, tenant: Tenant) -> None:
    one = App(multi, 1)
    one.add("Sent")
    wait_equal(multi)
    one.switch(False)
    one.add("Waiting")
    one.wait_queue("Add Waiting")
    multi.press("Remove the copies in this browser")
    multi.driver.switch_to.alert.dismiss()
    one.wait_queue("Add Waiting")
    multi.press("Remove the copies in this browser")
    multi.driver.switch_to.alert.accept()
    multi.wait_text("#session-message", "are removed")
    names = "return indexedDB.databases().then((found) => found.map(({ name }) => name))"
    wait_for(lambda: tenant.id not in str(multi.driver.execute_script(names)), "the databases to go")
    log_in(multi, tenant)
    one.wait_rows(("Sent", ""))
    assert one.is_on() and multi.severe() == []


# --- the demonstration, the keyboard ---------------------------------------------------------------------------------


def play(page: Page) -> None:
    page.driver.execute_script("document.getElementById('pace').value = '0'")
    page.press("Play the demonstration")


@browser_test
def test_demonstration_ends_with_all_three_equal_also_a_second_time(multi: Page, device: Device) -> None:
    for count in (2, 4):
        play(multi)
        multi.wait_text("#caption-place", "10 of 10", STORY_SECONDS)
        multi.wait_text("#play", "Play the demonstration")
        wait_equal(multi)
        assert f"{count} rows" in multi.text("#verdict-reasons") and "conflict" not in multi.text("#verdict-reasons")
        assert len(device.rows()) == count
    assert ("Asha Rao", "555-0102") in App(multi, 3).rows()
    assert multi.severe() == []


@browser_test
def test_demonstration_asks_for_an_account_plays_by_itself_and_takes_its_rows_back(page: Page, device: Device) -> None:
    device.create(id="mine", name="Nobody's to remove")
    page.open(device.tenant.server.url + PATH)
    play(page)
    page.wait_text("#caption", "log in or register")
    assert page.driver.switch_to.active_element.get_attribute("id") == "loginEmail"
    log_in(page, device.tenant)
    page.wait_text("#caption-place", "10 of 10", STORY_SECONDS)
    assert len(device.rows()) == 3
    wait_for(lambda: page.find("#tidy").is_displayed(), "the offer to remove its rows")
    page.driver.refresh()
    log_in(page, device.tenant)
    wait_for(lambda: page.find("#tidy").is_displayed(), "the offer, also after a reload")
    page.press("Remove its rows")
    wait_for(lambda: [row["id"] for row in device.rows() if not row["is_deleted"]] == ["mine"], "its rows to go")
    assert not page.find("#tidy").is_displayed() and page.severe() == []


@browser_test
def test_demonstration_can_be_stopped_and_disturbed(multi: Page) -> None:
    play(multi)
    multi.wait_text("#caption-place", "of 10")
    multi.press("Stop")
    multi.wait_text("#caption", "The controls are yours.")
    for app in apps_of(multi):
        if not app.is_on():
            app.switch(True)
    wait_equal(multi)
    multi.find("#pace").send_keys("quick")
    multi.press("Play the demonstration")
    multi.wait_text("#caption", "adds Chetan")
    App(multi, 1).switch(False)
    multi.wait_text("#caption", "Something came in between", STORY_SECONDS)
    assert multi.severe() == []


@browser_test
def test_keyboard_alone_cuts_the_network_and_edits(multi: Page, device: Device) -> None:
    multi.find("#pace").send_keys(Keys.TAB)
    for key in (Keys.SPACE, Keys.TAB):
        multi.driver.switch_to.active_element.send_keys(key)
    one = App(multi, 1)
    one.wait_state("Offline")
    for keys in (("Asha", Keys.TAB), ("1", Keys.ENTER)):
        multi.driver.switch_to.active_element.send_keys(*keys)
    one.wait_queue("Add Asha")
    assert multi.driver.switch_to.active_element.get_attribute("id") == "name-1"
    assert device.rows() == []
