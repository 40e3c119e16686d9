"""The customer's console in a real browser against real servers: rows, history, conflicts, devices, account.

Like a customer, the tests use the page and the public API only; suspensions are the operator's.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browsing import Page, browser_test
from tests.conftest import Device, Run, Server, Tenant, wait_for
from tests.console_page import PATH, Console, console_of, ended_sessions
from tests.signing_in import log_in, me, session

EVIL = "<img src=x onerror=\"document.title='owned'\">"
TABLES = """
[job.columns]
title = { type = "text", required = true }
state = { type = "text", enum = ["open", "done"], default = "open" }
hours = "number"
urgent = "boolean"
due = "date"
parts = "json"
"""


@pytest.fixture
def console(page: Page, tenant: Tenant) -> Console:
    """The console of ``tenant``, which has three rows by its till."""
    till = tenant.device(X_Device_Id="till-1")
    for name in ("Asha", "Bela", "Chandra"):
        till.create(id=name.lower(), name=name, phone="555-0100", loyalty={"points": 7})
    return console_of(page, tenant)


@contextmanager
def offline(page: Page) -> Iterator[None]:
    """Cut the browser off from its network."""
    page.driver.execute_cdp_cmd("Network.enable", {})
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**conditions, "offline": True})
    try:
        yield
    finally:
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**conditions, "offline": False})


# --- rows ------------------------------------------------------------------------------------------------------------


@browser_test
def test_row_is_found_edited_and_seen_by_a_device(console: Console, device: Device) -> None:
    console.wait_rows("Chandra", "Bela", "Asha")
    console.search("SHA 0100")
    console.wait_rows("Asha")
    console.open_row("Asha")
    console.type("phone", "555-0199")
    console.type("loyalty", '{"points": 8}')
    console.save()
    console.wait_told("Saved Asha.")
    (row,) = [row for row in device.rows() if row["id"] == "asha"]
    assert (row["phone"], row["loyalty"], row["name"], row["version"]) == ("555-0199", {"points": 8}, "Asha", 2)
    assert console.page.severe() == []


@browser_test
def test_row_is_deleted_brought_back_at_once_and_later(console: Console, device: Device) -> None:
    console.open_row("Bela")
    console.press("Delete")
    console.wait_rows("Chandra", "Asha")
    console.press("Undo")
    console.wait_rows("Bela", "Chandra", "Asha")
    device.delete(id="asha")
    console.wait_rows("Bela", "Chandra")
    console.show("deleted")
    console.open_row("Asha")
    assert not console.page.find("#row-save").is_displayed()
    console.press("Bring it back")
    console.wait_told("Asha is back.")
    assert {row["id"]: row["phone"] for row in device.rows()}["asha"] == "555-0100"


@browser_test
def test_change_of_another_device_appears_by_itself_and_what_is_typed_stays(console: Console, device: Device) -> None:
    device.create(id="dev", name="Dev", phone=None)
    console.wait_rows("Dev", "Chandra", "Bela", "Asha")
    console.open_row("Dev")
    console.type("email", "dev@example.com")
    device.update(id="dev", phone="555-0142")
    console.page.wait_text("#row-message", "Changed elsewhere meanwhile: Phone is 555-0142")
    console.save()
    console.wait_told("What was changed elsewhere meanwhile is kept too.")
    (row,) = [row for row in device.rows() if row["id"] == "dev"]
    assert (row["email"], row["phone"]) == ("dev@example.com", "555-0142")


@browser_test
def test_thousands_of_rows_are_counted_searched_sorted_and_paged(page: Page, tenant: Tenant) -> None:
    device = tenant.device()
    rows = [{"id": f"r{number}", "name": f"Row {number}"} for number in range(5_000)]
    device.push({"changes": {"end_user": rows}})
    console = console_of(page, tenant)
    page.wait_text("#range", "1\u201350 of 5,000")
    page.find("#sort [value=name]").click()
    wait_for(lambda: console.rows()[:3] == ["Row 0", "Row 1", "Row 2"], "the names, ascending")
    page.find("#direction").click()
    wait_for(lambda: console.rows()[:3] == ["Row 4999", "Row 4998", "Row 4997"], "the names, descending")
    console.press("Next")
    page.wait_text("#range", "51\u2013100 of 5,000")
    assert console.rows()[0] == "Row 4949"
    console.search("row 499")
    page.wait_text("#range", "1\u201315 of 15")
    page.wait_text("#tables [aria-current]", "5,000")


@browser_test
def test_html_is_shown_as_text_everywhere(page: Page, tenant: Tenant) -> None:
    device = tenant.device(X_Device_Id="till-1")
    device.create(id="e", name=EVIL, note=EVIL, **{EVIL[:60]: EVIL})
    tenant.device().update(id="e", name=EVIL + "2")
    change = {"table": "end_user", "operation": "update", "baseVersion": 1, "data": {"id": "e", "name": EVIL + "3"}}
    device.push({"operations": [change]})
    console = console_of(page, tenant)
    console.open_row(EVIL + "3")
    console.press("History")
    wait_for(lambda: len(console.versions()) == 3, "the versions")
    console.press("Close")
    console.go("conflicts")
    page.wait_text("#conflict-list h3", "<img")
    assert page.driver.find_elements(By.CSS_SELECTOR, "main img") == [] and "owned" not in page.driver.title
    assert page.severe() == []


@browser_test
def test_columns_of_a_declared_table_have_fields_of_their_kind(
    page: Page, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "tables.toml").write_text(TABLES)
    server = start_server(TABLES_FILE=str(tmp_path / "tables.toml"))
    tenant = server.register()
    console = console_of(page, tenant)
    page.wait_text("#rows-empty", "No rows yet")
    page.driver.execute_script("location.hash = '#/tables/job'")
    page.wait_text("#table-title", "Job")
    console.press("New row")
    console.type("hours", "much")
    console.save()
    page.wait_text("#row-fields .wrong", "must be a number")
    console.type("hours", "2,5")
    console.save()
    page.wait_text("#row-message", "Title is required")
    console.type("title", "Mend the roof")
    page.find("#row-form [name=urgent] [value='1']").click()
    console.type("parts", '["nail"]')
    console.save()
    console.wait_told("Added Mend the roof.")
    (row,) = tenant.device().rows("job")
    assert (row["state"], row["hours"], row["urgent"], row["due"], row["parts"]) == ("open", 2.5, 1, None, ["nail"])
    page.wait_text("#rows tbody", "Yes")


# --- history and conflicts -------------------------------------------------------------------------------------------


@browser_test
def test_history_tells_what_changed_and_by_whom_and_sets_a_row_back(console: Console, device: Device) -> None:
    console.open_row("Asha")
    console.type("phone", "555-0199")
    console.save()
    console.wait_told("Saved")
    console.open_row("Asha")
    console.press("History")
    wait_for(lambda: console.versions() == ["Changed version 2", "Created version 1"], "the versions")
    assert console.lines(".versions > li:first-child")[0] == ["Phone", "555-0100", "555-0199"]
    assert "by the console" in console.texts(".versions > li")[0]
    assert "by till-1" in console.texts(".versions > li")[1]
    console.press("Set back to version 1")
    console.page.wait_text("#row-history .message", "again what it was at version 1")
    assert {row["id"]: row["phone"] for row in device.rows()}["asha"] == "555-0100"


@browser_test
@pytest.mark.parametrize(("side", "phone"), [("till-1", "555-0111"), ("phone-1", "555-0122")])
def test_conflict_shows_both_sides_and_one_press_decides(
    console: Console, tenant: Tenant, side: str, phone: str
) -> None:
    for device_id, text in (("till-1", "555-0111"), ("phone-1", "555-0122")):
        data = {"id": "asha", "phone": text}
        change = {"table": "end_user", "operation": "update", "baseVersion": 1, "data": data}
        tenant.device(X_Device_Id=device_id).push({"operations": [change]})
    console.page.wait_text("#conflict-count", "1")
    console.go("conflicts")
    console.page.wait_text("#conflict-list h3", "End user: Asha")
    assert console.texts(".sides thead th")[2:] == ["phone-1", "till-1"]
    assert console.lines(".sides")[0] == ["Phone", "555-0100", "555-0122stands now", "555-0111"]
    console.press(f"Keep what {side} has")
    console.wait_shown("#conflicts-empty")
    assert console.page.text("#conflict-count") == ""
    assert {row["id"]: row["phone"] for row in tenant.device().rows()}["asha"] == phone


# --- devices and account ---------------------------------------------------------------------------------------------


@browser_test
def test_lost_device_is_locked_out(console: Console, tenant: Tenant) -> None:
    phone = session(tenant)
    lost = phone.device(X_Device_Id="phone-1")
    lost.catch_up()
    lost.catch_up()
    tenant.device().create(id="new", name="New")
    console.go("devices")
    wait_for(lambda: "phone-1" in [line[0] for line in console.lines("#device-list")], "the device")
    (line,) = [line for line in console.lines("#device-list") if line[0] == "phone-1"]
    assert (line[1], line[3]) == ("1 change behind", "Logged in")
    console.press("Rename phone-1")
    console.page.fill("Name for people, such as Till 1", "Old phone").send_keys(Keys.ENTER)
    console.wait_told("Its name is Old phone.")
    console.press("Lock out Old phone")
    console.press("Lock it out")
    console.wait_told("Old phone is locked out.")
    assert me(phone).status_code == 401 and me(tenant).status_code == 200
    assert [line[0] for line in console.lines("#device-list")] == ["till-1"]


@browser_test
def test_archive_is_downloaded(console: Console, tmp_path: Path) -> None:
    console.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    console.go("account")
    console.page.fill("Your password", "not this one").send_keys(Keys.ENTER)
    console.page.wait_text("#export-message", "The password is wrong.")
    console.page.fill("Your password", console.tenant.password).send_keys(Keys.ENTER)
    console.page.wait_text("#export-message", "Done")
    # The browser takes the name with an empty file first.
    (file,) = wait_for(lambda: [one for one in tmp_path.glob("*.zip") if zipfile.is_zipfile(one)], "the file")
    with zipfile.ZipFile(file) as archive:
        assert len(archive.read("rows/end_user.jsonl").splitlines()) == 3


@browser_test
def test_password_is_changed_and_logging_out_ends_the_session(console: Console, tenant: Tenant) -> None:
    console.go("account")
    console.page.wait_text("#session-list", "Console in a browser")
    fields = {"Password now": tenant.password, "New password": "another-one", "New password once more": "another-one"}
    for label, text in fields.items():
        console.page.fill(label, text)
    console.press("Change it")
    console.page.wait_text("#password-message", "The password is changed.")
    assert me(tenant).status_code == 401, "the other session has ended"
    assert log_in(tenant, password="another-one").status_code == 200
    console.press("Log out")
    console.wait_shown("#sign-in")
    again = log_in(tenant, password="another-one").json()["data"]["token"]
    sessions = tenant.server.call("GET", "/api/customers/me/sessions", token=again).json()["data"]
    assert len(sessions) == 2, "those of the two log-ins here; the page's is gone"


# --- what can go wrong -----------------------------------------------------------------------------------------------


@browser_test
def test_session_that_ended_asks_to_log_in_and_keeps_the_edit(console: Console, server: Server, tenant: Tenant) -> None:
    console.open_row("Asha")
    console.type("note", "typed before")
    ended_sessions(server, tenant)
    console.wait_shown("#again")
    console.page.find("#again-password").send_keys("wrong-password", Keys.ENTER)
    console.page.wait_text("#again-message", "wrong")
    console.page.find("#again-password").clear()
    console.page.find("#again-password").send_keys(tenant.password, Keys.ENTER)
    console.wait_shown("#again", is_shown=False)
    console.save()
    console.wait_told("Saved Asha.")
    console.page.wait_text("#link-text", "Live")


@browser_test
def test_without_a_network_the_page_says_so_and_keeps_what_is_typed(console: Console, device: Device) -> None:
    console.wait_rows("Chandra", "Bela", "Asha")
    with offline(console.page):
        console.page.wait_text("#trouble-text", "can\u2019t be reached")
        console.search("asha")
        console.wait_rows("Asha")
        console.open_row("Asha")
        console.type("phone", "555-0177")
        console.save()
        console.page.wait_text("#row-message", "is still here")
    console.save()
    console.wait_told("Saved Asha.")
    console.wait_shown("#trouble", is_shown=False)
    assert [row["version"] for row in device.rows() if row["id"] == "asha"] == [2], "it was saved once"


@browser_test
def test_read_only_and_suspended_accounts_are_told_clearly(console: Console, tenant: Tenant, operate: Run) -> None:
    operate("tenant", "read-only", tenant.id)
    unchanged = {"table": "end_user", "operation": "update", "data": {"id": "bela", "name": "Bela"}}
    wait_for(lambda: tenant.device().push_raw(unchanged).status_code == 503, "the server to know")
    console.open_row("Asha")
    console.type("phone", "555-0188")
    console.save()
    console.page.wait_text("#row-message", "can only be read just now")
    operate("tenant", "suspend", tenant.id)
    console.page.wait_text("#trouble-text", "This account is suspended")
    console.save()
    console.page.wait_text("#row-message", "suspended")
    operate("tenant", "resume", tenant.id)
    console.wait_shown("#trouble", is_shown=False)
    console.save()
    console.wait_told("Saved Asha.")


@browser_test
def test_token_is_neither_in_an_address_nor_stored(console: Console) -> None:
    kept = "return [location.href, document.cookie, ...Object.values(localStorage), ...Object.values(sessionStorage)]"
    asked = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    for text in console.driver.execute_script(kept) + console.driver.execute_script(asked):
        assert "eyJ" not in text


# --- keyboard and phone ----------------------------------------------------------------------------------------------


@browser_test
def test_keyboard_alone_opens_edits_and_leaves_a_row(console: Console) -> None:
    console.wait_rows("Chandra", "Bela", "Asha")
    focused = "return document.activeElement.textContent"
    console.page.find("#search").send_keys("a")
    for _ in range(20):
        console.driver.switch_to.active_element.send_keys(Keys.TAB)
        if console.driver.execute_script(focused) == "Bela":
            break
    console.driver.switch_to.active_element.send_keys(Keys.ENTER)
    console.wait_shown("#row")
    inside = "return document.activeElement === document.body || Boolean(document.activeElement.closest('#row'))"
    for _ in range(5):  # Backwards from the first field: over the end and on.
        console.driver.switch_to.active_element.send_keys(Keys.SHIFT, Keys.TAB)
        assert console.driver.execute_script(inside), "the dialog keeps the focus"
    console.page.find("#row-tab-fields").send_keys(Keys.ARROW_RIGHT)
    wait_for(lambda: console.versions() == ["Created version 1"], "the history")
    console.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait_for(lambda: console.driver.execute_script(focused) == "Bela", "the focus where it was")


@browser_test
@pytest.mark.parametrize("width", [320, 1280])
def test_no_view_scrolls_sideways_and_every_field_has_a_label(page: Page, tenant: Tenant, width: int) -> None:
    tenant.device(X_Device_Id="d" * 64).create(id="w", name="W" * 200, phone="0" * 100, **{"f" * 60: "x" * 300})
    metrics = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        console = console_of(page, tenant)
        for view, css in {"tables": "#rows tr", "devices": "#device-list tr", "account": "#session-list tr"}.items():
            console.go(view)
            wait_for(partial(page.driver.find_elements, By.CSS_SELECTOR, css), css)
            assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width, view
        page.driver.execute_script("location.hash = '#/tables/end_user/w'")
        console.wait_shown("#row")
        wide = "const part = document.querySelector('#row'); return part.scrollWidth - part.clientWidth"
        assert page.driver.execute_script(wide) <= 0
        fields = """return [...document.querySelectorAll('input,select,textarea')].filter(
            (field) => !field.labels.length && !field.ariaLabel).length"""
        assert page.driver.execute_script(fields) == 0
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert page.driver.current_url.startswith(tenant.server.url + PATH)
