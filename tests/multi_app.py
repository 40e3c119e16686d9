"""The page with three apps in a real browser: what a person does with each, and what they see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browsing import ONE_THREAD, Page, chromium
from tests.conftest import Tenant, wait_for

PATH = "/test-multi-app-sync.html"
ALL = (1, 2, 3)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium for a module whose tests are all about this page."""
    with chromium(tmp_path_factory.mktemp("chromium"), *ONE_THREAD) as driver:
        yield driver


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
            lambda: self.texts(".conflict tbody :is(th, td)") == list(cells),
            lambda: f"{cells}: {self.texts('.conflict')}",
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


@contextmanager
def another_tab(page: Page) -> Iterator[None]:
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        yield
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)
