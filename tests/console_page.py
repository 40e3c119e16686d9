"""The customer's console in a real browser: what a person does there, and what they see."""

from __future__ import annotations

from selenium.webdriver.common.keys import Keys

from tests.browsing import Page
from tests.conftest import Server, Tenant, wait_for

PATH = "/console"


class Console:
    """The page, logged in."""

    def __init__(self, page: Page, tenant: Tenant) -> None:
        self.page, self.tenant, self.driver = page, tenant, page.driver

    def log_in(self) -> Console:
        self.page.open(self.tenant.server.url + PATH)
        self.page.fill("E-mail", self.tenant.email)
        self.page.fill("Password", self.tenant.password).send_keys(Keys.ENTER)
        self.page.wait_text("#link-text", "Live")
        return self

    def go(self, view: str) -> None:
        self.page.find(f'#sections [href="#/{view}"]').click()
        self.wait_shown(f"#view-{view}")

    def wait_shown(self, css: str, is_shown: bool = True) -> None:
        """Wait until something is in sight, or no more."""
        script = "return Boolean(document.querySelector(arguments[0])?.checkVisibility())"
        wait_for(lambda: self.driver.execute_script(script, css) is is_shown, f"{css}, shown: {is_shown}")

    def texts(self, css: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent.trim())"
        return list(self.driver.execute_script(script, css))

    def rows(self) -> list[str]:
        """What the rows on this page are called, from the top."""
        return self.texts("#rows tbody th")

    def wait_rows(self, *names: str) -> None:
        try:
            wait_for(lambda: self.rows() == list(names), f"{names}")
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {self.rows()}") from None

    def search(self, words: str) -> None:
        self.page.fill("Search", words)

    def show(self, state: str) -> None:
        self.page.find(f"#state [value={state}]").click()

    def open_row(self, name: str) -> None:
        wait_for(lambda: name in self.rows(), lambda: f"{name} in {self.rows()}")
        self.press(name)
        self.wait_shown("#row")

    def press(self, name: str) -> None:
        """Press a button by its words, or by its label."""
        script = """return [...document.querySelectorAll('button')].find((one) => one.checkVisibility()
            && [one.textContent.trim(), one.ariaLabel].includes(arguments[0]))"""
        wait_for(lambda: self.driver.execute_script(script, name), f"the button {name}").click()

    def type(self, name: str, text: str) -> None:
        """Type into the field of a column."""
        field = self.page.find(f'#row-form [name="{name}"]')
        field.clear()
        field.send_keys(text)

    def save(self) -> None:
        self.page.find("#row-save").click()

    def wait_told(self, text: str) -> None:
        self.page.wait_text("#told", text)

    def versions(self) -> list[str]:
        return self.texts(".versions > li h3")

    def lines(self, css: str) -> list[list[str]]:
        """The cells of the lines of a table."""
        script = """return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map(
            (line) => [...line.children].map((cell) => cell.textContent.trim()))"""
        return [list(line) for line in self.driver.execute_script(script, css)]


def console_of(page: Page, tenant: Tenant) -> Console:
    return Console(page, tenant).log_in()


def ended_sessions(server: Server, tenant: Tenant) -> None:
    """End all sessions of a customer from elsewhere."""
    data = server.post("/api/customers/login", {"email": tenant.email, "password": tenant.password}).json()["data"]
    assert server.call("DELETE", "/api/customers/me/sessions", token=data["token"]).status_code == 200
