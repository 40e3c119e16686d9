"""The page with three apps, in a real browser against a real server: online, the demonstration, the keyboard."""

from __future__ import annotations

import uuid

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browsing import Page, browser_test
from tests.conftest import Device, Server, wait_for
from tests.multi_app import (
    ALL,
    PATH,
    App,
    apps_of,
    browser,  # noqa: F401 -- a fixture, in the place of that of all
    log_in,
    opened,
    wait_equal,
)

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
STORY_SECONDS = 60.0


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
    assert "Asha Rao" in page.text("#tenant") and not page.find("#sign-in").is_displayed()
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
