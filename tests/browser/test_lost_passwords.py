"""A forgotten password as a person meets it: the log-in form, the mail, the page of its link."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browsing import Page, browser_test
from tests.conftest import Server, needs
from tests.mailing import MailServer
from tests.ports import free_port
from tests.signing_in import log_in, me

pytestmark = needs("openssl")


@browser_test
def test_forgotten_password_is_replaced_from_the_log_in_form_to_the_log_in(
    page: Page, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    port, mail_server = free_port(), MailServer(tmp_path / "box").start()
    try:
        server = start_server(**mail_server.settings | {"PUBLIC_URL": f"http://localhost:{port}"})
        server.stop()
        server.port = port
        tenant = server.start().register()
        page.open(f"http://localhost:{port}/websocket-test.html")
        page.driver.find_element(By.LINK_TEXT, "Forgotten your password?").click()
        page.fill("E-mail", tenant.email).send_keys(Keys.ENTER)
        page.wait_text(".message", "on its way")
        page.open(f"http://localhost:{port}/reset-password")
        page.wait_text(".message", "not whole")
        primary = page.find(".primary")
        text, ground = (primary.value_of_css_property(name) for name in ("color", "background-color"))
        assert text != "rgba(255, 255, 255, 1)" and ground == "rgba(0, 0, 0, 0)", "a button that is off can be read"
        link = re.search(r"http\S+#\S+", mail_server.wait_taken(tenant.email, 2).get_content())
        assert link
        page.open(link[0])
        assert me(tenant).status_code == 200, "opening it changes nothing"
        page.fill("New password", "a better one")
        page.fill("The same again", "another one").send_keys(Keys.ENTER)
        page.wait_text(".message", "not the same")
        page.fill("The same again", "a better one").send_keys(Keys.ENTER)
        page.wait_text(".message", "is changed")
        assert "#" not in page.driver.current_url and page.severe() == []
        assert me(tenant).status_code == 401 and log_in(tenant, password="a better one").status_code == 200
        page.open(link[0])
        page.fill("New password", "a third one")
        page.fill("The same again", "a third one").send_keys(Keys.ENTER)
        page.wait_text(".message", "used before")
    finally:
        mail_server.stop()
