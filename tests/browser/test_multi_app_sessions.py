"""The page with three apps: servers that end, tokens that expire, several tabs, several accounts.

First seen to fail, each on a fault put into the page:

- ``server_that_is_killed``: a switch that does not bring the socket back.
- ``two_tabs``: a switch that the other tab does not hear of.
- ``another_account``: replicas that are not named by their tenant.
- ``token_that_expires``: a session without its refresh token.
"""

from __future__ import annotations

from collections.abc import Callable

from selenium.webdriver.common.keys import Keys

from tests.browsing import Page, browser_test
from tests.conftest import Device, Server, Tenant, wait_for
from tests.multi_app import (
    PATH,
    App,
    another_tab,
    apps_of,
    browser,  # noqa: F401 -- a fixture, in the place of that of all
    log_in,
    opened,
    wait_equal,
)

TOKEN_SECONDS = "5"
"""Longer than a socket waits before it comes back."""


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
    assert not page.find("#sign-in").is_displayed()


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
    assert page.find("#sign-in").is_displayed() and page.severe() == []


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
