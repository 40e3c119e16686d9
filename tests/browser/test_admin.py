"""The operator's console in a real browser: in by a link, over its pages, a customer suspended and resumed, out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browsing import Page, browser_test
from tests.conftest import Server, Tenant, wait_for
from tests.operating import done

EVIL = "<img src=x onerror=\"document.title='owned'\">"
PATHS = ["", "/tenants", "/backups", "/log", "/settings", "/checks", "/record"]


@pytest.fixture
def console(page: Page, server: Server) -> Iterator[Page]:
    """The console's overview, just after the sign-in."""
    url = json.loads(done(server, "admin-link", "--url", server.url, "--json"))["url"]
    page.open(url)
    assert "#" not in page.driver.current_url, "the secret does not stay in the address"
    page.press("Sign in")
    page.wait_text("h1", "Overview")
    yield page
    page.driver.delete_all_cookies()


def go_to(page: Page, name: str) -> None:
    page.driver.find_element(By.LINK_TEXT, name).click()
    page.wait_text("#page h1", name)


def is_answered(tenant: Tenant, status: int, **headers: str) -> bool:
    push = {"table": "end_user", "operation": "create", "data": {"name": EVIL}}
    return bool(tenant.device(**headers).push_raw(push).status_code == status)


@browser_test
def test_operator_suspends_and_resumes_a_customer_and_reads_of_it_in_the_log(console: Page, server: Server) -> None:
    tenant, push = (
        server.register(companyName=EVIL),
        {"table": "end_user", "operation": "create", "data": {"name": EVIL}},
    )
    assert tenant.device().push_raw(push).status_code == 200
    console.wait_text("#state", "")
    go_to(console, "Tenants")
    console.fill("Search", tenant.email)
    console.wait_text("#page", "1 of ")
    console.wait_text(".grid", EVIL)
    console.follow(tenant.email)
    assert EVIL not in console.text(".entry")
    for name, state, status in (("Suspend", "suspended", 401), ("Resume", "active", 200)):
        console.press(name)
        console.wait_text("dialog", "Cancel")
        console.driver.switch_to.active_element.send_keys(Keys.ENTER)
        console.wait_text("#done", f"is {state}")
        wait_for(partial(is_answered, tenant, status), state)
    console.driver.find_element(By.LINK_TEXT, "its newest lines").click()
    console.wait_text("#lines", "/api/client/sync/push 200")
    assert is_answered(tenant, 200, X_Request_ID="while-followed")
    console.wait_text("#lines", "while-followed")
    assert console.driver.title != "owned" and console.severe() == []
    console.press("Sign out")
    console.wait_text("h1", "The operator's console")
    console.open(f"{server.url}/admin/tenants")
    console.wait_text("#how", "admin-link")


@browser_test
def test_no_page_scrolls_sideways_on_a_phone_or_breaks_its_policy(console: Page, server: Server) -> None:
    width = 320
    metrics = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    tenant = server.register(companyName="W" * 100)
    tenant.device(X_Device_Id="w" * 60).create(id="w" * 64)
    console.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for path in [*PATHS, f"/tenants/{tenant.id}"]:
            console.open(f"{server.url}/admin{path}")
            wait_for(lambda: console.driver.find_elements(By.CSS_SELECTOR, "#page[data-ready]"), "the page")
            assert console.driver.execute_script("return document.documentElement.scrollWidth") <= width, path
            assert console.severe() == [], path
    finally:
        console.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
