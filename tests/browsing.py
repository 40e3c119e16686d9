"""A real browser for tests of pages: what a person does with one, and what they see.

Needs Chromium and its driver. The fixtures ``browser`` and ``page`` are in ``conftest``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.conftest import WAIT_SECONDS, Tenant, needs, wait_for

CHROME_ARGUMENTS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    # A page costs half: no process of its own for each, none for graphics.
    *("--in-process-gpu", "--process-per-site", "--renderer-process-limit=1", "--disable-extensions"),
    *("--disable-component-extensions-with-background-pages", "--disable-breakpad", "--password-store=basic"),
    "--disable-features=BackForwardCache,SpareRendererForSitePerProcess",
    "--window-size=1280,1600",
]
ONE_THREAD = ("--disable-threaded-animation", "--disable-threaded-compositing")
"""For pages without modal dialogs, a third less CPU time: after one has closed, Chromium 156 takes no click then."""
_PASTED = 20
"""Texts from this length on are pasted, as people do; each key costs 3 ms."""

in_browser = [pytest.mark.slow, needs("chromium", "chromedriver")]


def browser_test(function: Any) -> Any:
    """Mark a test that drives Chromium."""
    for mark in in_browser:
        function = mark(function)
    return function


class Page:
    """A page in the browser, told what a person would do and asked what a person would see."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> Page:
        if self.driver.current_url != "about:blank":
            self.driver.get("about:blank")
        self.console()  # What was logged before is another test's.
        self.driver.get(url)
        return self

    def find(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def field(self, label: str) -> WebElement:
        """Find a field by the words of its label, as a screen reader names it."""
        path = f"//label[normalize-space(text())='{label}']"
        shown = [found for found in self.driver.find_elements(By.XPATH, path) if found.is_displayed()]
        return self.find("#" + (shown[0].get_attribute("for") or ""))

    def fill(self, label: str, text: str) -> WebElement:
        field = self.field(label)
        field.clear()
        if len(text) < _PASTED:
            field.send_keys(text)
        else:
            field.click()
            self.driver.execute_cdp_cmd("Input.insertText", {"text": text})
        return field

    def press(self, name: str) -> None:
        buttons = self.driver.find_elements(By.XPATH, f"//button[normalize-space()='{name}']")
        next(button for button in buttons if button.is_displayed()).click()

    def follow(self, name: str) -> None:
        """Follow a link to the page of this name; the list with it may be made anew between the look and the key."""

        def follows() -> bool:
            with contextlib.suppress(WebDriverException):
                self.driver.find_element(By.LINK_TEXT, name).send_keys(Keys.ENTER)
            return name in self.text("h1")

        wait_for(follows, f"the page of {name}")

    def unfold(self, name: str) -> None:
        self.driver.find_element(By.XPATH, f"//summary[.='{name}']").click()

    def text(self, css: str) -> str:
        """Give a text as it is at this moment, read in one step."""
        script = "return document.querySelector(arguments[0])?.textContent ?? ''"
        return str(self.driver.execute_script(script, css))

    def value(self, label: str) -> str:
        return self.field(label).get_attribute("value") or ""

    def wait_text(self, css: str, part: str, seconds: float = WAIT_SECONDS) -> str:
        try:
            wait_for(lambda: part in self.text(css), f"{part!r} in {css}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.text(css)!r}") from None
        return self.text(css)

    def wait_connected(self) -> None:
        self.wait_text("#status", "Connected")
        assert self.text("#status") == "Connected"

    def connect(self, tenant: Tenant, tenant_id: str = "", token: str = "") -> None:
        self.fill("JWT Token", token or tenant.token)
        self.fill("Tenant ID", tenant_id)
        self.press("Connect")

    def log(self) -> list[tuple[str, Any]]:
        """The event log, newest first: name, and payload as it was."""
        script = """return [...document.querySelectorAll('#log > li')].map(
            (entry) => [entry.querySelector('strong').textContent, entry.querySelector('pre')?.textContent])"""
        return [(name, text and _decoded(text)) for name, text in self.driver.execute_script(script)]

    def wait_event(self, name: str, **fields: Any) -> Any:
        """Wait for an event whose payload has these fields, and give the payload."""

        def found() -> Any:
            heard = [payload for event, payload in self.log() if event == name]
            return [one for one in heard if fields.items() <= (one or {}).items()]

        return wait_for(found, lambda: f"{name} with {fields}; the log: {self.log()}")[0]

    def console(self) -> list[dict[str, Any]]:
        """Take the lines that the console has had since the last call."""
        driver: Any = self.driver  # This method of selenium's has no types.
        return list(driver.get_log("browser"))

    def severe(self) -> list[str]:
        """What the console holds against the page, also by its policy."""
        return [line["message"] for line in self.console() if line["level"] == "SEVERE"]


def _decoded(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text


@contextlib.contextmanager
def chromium(profile: Path, *more: str) -> Iterator[webdriver.Chrome]:
    """Run one Chromium with a profile of its own, and with more arguments."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in [*CHROME_ARGUMENTS, *more, f"--user-data-dir={profile}"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()
