"""The pages, in a real browser against real servers: what a person sees, and that nothing they type can run.

Needs Chromium and its driver for the slow ones; the rest reads files and headers.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from api import pages
from tests.browsing import Page, browser_test
from tests.conftest import ROOT, Device, Server, Tenant, wait_for

CLIENT = ROOT / "node_modules" / "socket.io-client"
REFUSED = "WebSocket connection failed: token refused \u2013 "
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
PATHS = ["/", "/console", "/websocket-test.html", "/test-multi-app-sync.html", "/docs"]
BY_LINK = ["/forgotten-password", "/reset-password", "/confirm-email"]


@pytest.fixture
def tester(page: Page, server: Server) -> Page:
    """The WebSocket test page of the shared server."""
    return page.open(f"{server.url}/websocket-test.html")


# --- account ---------------------------------------------------------------------------------------------------------


@browser_test
def test_registering_fills_in_token_and_tenant_and_connect_shows_connected(tester: Page) -> None:
    tester.unfold("Register")
    for label, text in {"First name": "Asha", "Last name": "Rao", "Company": "Rao & Co"}.items():
        tester.fill(label, text)
    tester.fill("E-mail", f"{uuid.uuid4()}@example.com")
    tester.fill("Password", "password123").send_keys(Keys.ENTER)
    assert tester.wait_text("#account-message", "Registered") == "Registered as Asha Rao, Rao & Co."
    assert tester.value("JWT Token").count(".") == 2 and uuid.UUID(tester.value("Tenant ID"))
    tester.press("Connect")
    tester.wait_connected()
    assert tester.text("#fact-tenant") == tester.value("Tenant ID")
    assert tester.find("#registerPassword").get_attribute("value") == ""
    assert tester.severe() == []


@browser_test
def test_logging_in_fills_in_token_and_tenant(tester: Page, tenant: Tenant) -> None:
    tester.fill("E-mail", tenant.email)
    tester.fill("Password", tenant.password)
    tester.press("Log in")
    tester.wait_text("#account-message", "Logged in as")
    assert tester.value("Tenant ID") == tenant.id
    tester.press("Connect")
    tester.wait_connected()


@browser_test
def test_wrong_password_is_told(tester: Page, tenant: Tenant) -> None:
    tester.fill("E-mail", tenant.email)
    tester.fill("Password", "not the password")
    tester.press("Log in")
    wait_for(lambda: "error" in (tester.find("#account-message").get_attribute("class") or ""), "the refusal")
    assert "password" in tester.text("#account-message")
    assert tester.value("JWT Token") == ""


@browser_test
def test_token_is_neither_in_the_address_nor_stored(tester: Page, tenant: Tenant) -> None:
    tester.connect(tenant)
    tester.wait_connected()
    kept = "return [location.href, document.cookie, ...Object.values(localStorage), ...Object.values(sessionStorage)]"
    asked = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    for text in tester.driver.execute_script(kept) + tester.driver.execute_script(asked):
        assert tenant.token not in text and "eyJ" not in text


# --- hearing and sending ---------------------------------------------------------------------------------------------


@browser_test
def test_pushes_of_a_device_appear_in_the_log(tester: Page, tenant: Tenant, device: Device) -> None:
    tester.connect(tenant, tenant.id)
    tester.wait_connected()
    row = device.create(name="Asha")
    note = tester.wait_event("sync_notification", type="data_available")
    assert (note["entityId"], note["data"]) == (row["id"], row)
    done = tester.wait_event("sync_notification", type="sync_complete")
    assert tester.text("#fact-cursor") == done["cursor"]
    assert [name for name, _ in tester.log()][:2] == ["sync_notification", "sync_notification"]
    assert tester.log()[0][1]["type"] == "sync_complete", "the newest is on top"


@browser_test
@pytest.mark.parametrize("kind", ["data_available", "sync_complete", "sync_error", "conflict_detected"])
def test_button_of_a_notification_sends_one_that_the_page_hears(tester: Page, tenant: Tenant, kind: str) -> None:
    tester.connect(tenant)
    tester.wait_connected()
    tester.press(kind)
    assert tester.wait_event("sync_notification", type=kind)["message"] == "Test notification"


@browser_test
def test_ping_is_answered_and_clear_empties_the_log(tester: Page, tenant: Tenant) -> None:
    assert not tester.find("#ping").is_enabled()
    tester.connect(tenant)
    tester.wait_connected()
    tester.press("Ping")
    assert tester.wait_event("pong")["timestamp"].endswith("Z")
    tester.press("Clear")
    assert tester.log() == [] and tester.find("#log-empty").is_displayed()


@browser_test
def test_push_from_the_page_is_stored_and_heard(tester: Page, tenant: Tenant, device: Device) -> None:
    tester.connect(tenant)
    tester.wait_connected()
    tester.fill("Data (JSON)", '{"name": "Bela", "phone": "123"}')
    tester.press("Send push")
    assert tester.wait_event("answer", success=True)["data"][0]["name"] == "Bela"
    assert tester.wait_event("sync_notification", type="data_available")["data"]["name"] == "Bela"
    assert [row["name"] for row in device.rows()] == ["Bela"]


@browser_test
def test_push_of_bad_json_is_told_and_not_sent(tester: Page, tenant: Tenant) -> None:
    tester.fill("JWT Token", tenant.token)
    for text, told in {"{oops": "no valid JSON", "[1]": "must be a JSON object"}.items():
        tester.fill("Data (JSON)", text)
        tester.press("Send push")
        tester.wait_text("#push-message", told)
    assert tester.log() == []


@browser_test
def test_log_is_bounded(tester: Page, tenant: Tenant) -> None:
    tester.connect(tenant)
    tester.wait_connected()
    for _ in range(6):  # In portions, for the server takes a listener with 256 waiting messages for too slow.
        tester.driver.execute_script("for (let i = 0; i < 50; i++) document.getElementById('ping').click()")
        wait_for(lambda: [name for name, _ in tester.log()[:50]] == ["pong"] * 50, "the answers of a portion")
    assert len(tester.log()) == 500


# --- what can go wrong -----------------------------------------------------------------------------------------------


@browser_test
def test_wrong_token_is_told_as_refused(tester: Page, tenant: Tenant) -> None:
    tester.connect(tenant, token=tenant.token[:-2] + "xx")
    told = tester.wait_text("#status", "WebSocket connection failed")
    assert told.startswith(REFUSED)
    assert tester.wait_event("authentication_error", code="unauthorized")["message"] in told
    assert tester.text("#connect") == "Connect"


@browser_test
def test_tenant_of_others_is_told(tester: Page, tenant: Tenant, other_tenant: Tenant) -> None:
    tester.connect(tenant, other_tenant.id)
    told = tester.wait_text("#status", REFUSED)
    assert tester.wait_event("authentication_error", code="tenant_mismatch")["message"] in told


@browser_test
def test_malformed_tenant_is_told_and_mending_it_connects(tester: Page, tenant: Tenant) -> None:
    tester.connect(tenant, "not-a-uuid")
    tester.wait_text("#status", "Invalid tenant ID. Use the exact ID from the JWT token or database.")
    tester.fill("Tenant ID", tenant.id).send_keys(Keys.ENTER)
    tester.wait_connected()


@browser_test
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_server_that_goes_away_is_told_and_found_again(
    page: Page, start_server: Callable[..., Server], number: signal.Signals
) -> None:
    server = start_server()
    tenant = server.register()
    page.open(f"{server.url}/websocket-test.html").connect(tenant)
    page.wait_connected()
    tenant.device().create(id="heard")
    page.wait_event("sync_notification", type="sync_complete")
    server.stop(number)
    page.wait_text("#status", "the server has gone away")
    page.wait_text("#hint", "by itself when the server is back")
    page.wait_text("#status", "WebSocket connection failed: server not reachable")
    server.start()
    page.wait_connected()
    assert page.text("#hint") == "" and page.text("#fact-missed") == "0 changes"


@browser_test
def test_missed_changes_are_counted_on_the_way_back(tester: Page, tenant: Tenant, device: Device) -> None:
    device.create(id="before")
    tester.connect(tenant)
    tester.wait_text("#fact-missed", "1 change")
    tester.press("Disconnect")
    tester.wait_text("#status", "Disconnected")
    device.push({"changes": {"end_user": [{"id": "a"}, {"id": "b"}]}})
    tester.press("Connect")
    tester.wait_text("#fact-missed", "2 changes")


@browser_test
def test_server_that_is_not_there_is_told_and_found_when_it_comes(
    tester: Page, start_server: Callable[..., Server]
) -> None:
    late = start_server()
    tenant = late.register()
    late.kill()
    tester.fill("Server URL", late.url)
    tester.connect(tenant)
    assert tester.wait_text("#status", "failed") == "WebSocket connection failed: server not reachable"
    late.start()
    tester.wait_connected()


@browser_test
def test_origin_that_is_not_allowed_is_told(page: Page, server: Server, tenant: Tenant) -> None:
    foreign = f"http://app.localhost:{server.port}"
    page.open(f"{foreign}/websocket-test.html")
    page.connect(tenant)
    page.wait_connected()  # Its own origin is, whatever its name.
    page.press("Disconnect")
    page.fill("Server URL", server.url)
    page.press("Connect")
    told = page.wait_text("#status", "failed")
    assert told.startswith("WebSocket connection failed: origin not allowed") and foreign in told
    page.press("sync_error")
    page.wait_text("#notify-message", "origin not allowed")


@browser_test
def test_allowed_foreign_origin_connects(page: Page, start_server: Callable[..., Server]) -> None:
    server = start_server()
    server.stop()
    foreign = f"http://app.localhost:{server.port}"
    server.env["CORS_ORIGINS"] = foreign
    server.start()
    page.open(f"{foreign}/websocket-test.html")
    page.fill("Server URL", f"{server.url}/some/path")
    page.connect(server.register())
    page.wait_connected()


@browser_test
def test_client_that_could_not_be_loaded_is_told(page: Page, server: Server, tenant: Tenant) -> None:
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*socket.io.min.js*"]})
    try:
        page.open(f"{server.url}/websocket-test.html").connect(tenant)
        page.wait_text("#status", "the Socket.IO client could not be loaded")
    finally:
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})


@browser_test
@pytest.mark.parametrize("address", ["ftp://example.com", "http://", "nonsense"])
def test_address_that_is_none_is_told(tester: Page, tenant: Tenant, address: str) -> None:
    tester.fill("Server URL", address)
    tester.connect(tenant)
    assert tester.text("#status") == "Disconnected"
    assert not tester.driver.execute_script("return document.getElementById('serverUrl').checkValidity()")


# --- nothing that is typed can run -----------------------------------------------------------------------------------


@browser_test
def test_html_is_shown_as_text_and_runs_nothing(tester: Page, tenant: Tenant, device: Device) -> None:
    title = tester.driver.title
    tester.connect(tenant)
    tester.wait_connected()
    device.create(name=EVIL)
    assert tester.wait_event("sync_notification", type="data_available")["data"]["name"] == EVIL
    tester.fill("Message", EVIL)
    tester.press("sync_error")
    assert tester.wait_event("sync_notification", type="sync_error")["message"] == EVIL
    assert tester.driver.title == title
    assert tester.driver.find_elements(By.CSS_SELECTOR, "main img, #log script") == []
    assert tester.severe() == []


# --- keyboard, phone, policy -----------------------------------------------------------------------------------------


def tab_to(page: Page, wanted: str, most: int = 40) -> list[str]:
    """Press Tab until an element has the focus; give the IDs on the way."""
    passed: list[str] = []
    while wanted not in passed:
        assert len(passed) < most, passed
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        passed.append(page.driver.switch_to.active_element.get_attribute("id") or "")
    return passed


@browser_test
def test_keyboard_alone_connects(tester: Page, tenant: Tenant) -> None:
    tester.driver.execute_script("document.getElementById('token').value = arguments[0]", tenant.token)
    passed = [name for name in tab_to(tester, "connect") if name]
    assert passed == ["loginEmail", "loginPassword", "serverUrl", "token", "tenantId", "connect"]
    ring = "return getComputedStyle(document.activeElement).outlineStyle"
    assert tester.driver.execute_script(ring) == "solid"
    tester.driver.switch_to.active_element.send_keys(Keys.ENTER)
    tester.wait_connected()
    assert "log" in tab_to(tester, "note"), "the log stands right behind the connection, also on a phone"
    assert {"ping", "table", "operation"} <= set(tab_to(tester, "data"))


@browser_test
def test_enter_in_the_token_field_connects(tester: Page, tenant: Tenant) -> None:
    tester.fill("JWT Token", tenant.token).send_keys(Keys.ENTER)
    tester.wait_connected()


@browser_test
@pytest.mark.parametrize("path", [*PATHS, *BY_LINK])
def test_nothing_scrolls_sideways(page: Page, server: Server, device: Device, path: str) -> None:
    device.create(name="W" * 200, phone="0" * 100)
    page.open(server.url + path)
    if "multi" in path:
        page.fill("JWT Token", device.tenant.token)
        page.press("Connect all")
        page.wait_text("#verdict-headline", "All three equal")
    elif "websocket" in path:
        page.connect(device.tenant)
        page.wait_connected()
    elif "docs" in path:
        page.driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    try:
        for width in (320, 360, 768, 1280):
            metrics = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": False}
            page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width, width
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@browser_test
@pytest.mark.parametrize("path", [*PATHS, *BY_LINK])
def test_every_field_has_a_label_and_every_button_a_name(page: Page, server: Server, path: str) -> None:
    page.open(server.url + path)
    fields = "return [...document.querySelectorAll('input,select,textarea')].filter((f) => !f.labels.length).length"
    buttons = "return [...document.querySelectorAll('button')].filter((b) => !b.textContent.trim()).length"
    assert page.driver.execute_script(fields) == page.driver.execute_script(buttons) == 0
    assert len(page.driver.find_elements(By.TAG_NAME, "h1")) == 1
    assert page.severe() == []


@pytest.mark.parametrize("path", [*PATHS, *BY_LINK])
def test_pages_come_with_a_policy_without_inline_code(server: Server, path: str) -> None:
    answer = server.call("GET", path)
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy and "style-src 'self'" in policy and "unsafe" not in policy


@pytest.mark.parametrize("path", [*PATHS, *BY_LINK])
def test_pages_connect_to_no_other_server_but_those_that_try_one(server: Server, path: str) -> None:
    """Fault: each could send what is typed there, a new password too, to any host."""
    host = f"127.0.0.1:{server.port}"
    own = {"/console": f"'self' ws://{host} wss://{host}"}.get(path, "'self'")
    of_any = "'self' http: https: ws: wss:" if "test" in path else own
    assert f"connect-src {of_any};" in server.call("GET", path, Host=host).headers["Content-Security-Policy"]
    strange = server.call("GET", path, Host="a; script-src *").headers.get("Content-Security-Policy", "")
    assert "script-src *" not in strange


def test_front_page_links_the_rest(server: Server) -> None:
    text = server.call("GET", "/").text
    for target in (*PATHS[1:], "/health", "/api/limits"):
        assert f'href="{target}"' in text
        assert server.call("GET", target).status_code == 200
    assert f"curl -X POST {server.url}/api/customers/register" in text


def test_host_header_is_escaped_on_the_front_page(server: Server) -> None:
    answer = server.call("GET", "/", Host='a"><script>alert(1)</script>')
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize("file", sorted((ROOT / "static").rglob("*.js")), ids=lambda file: str(file.name))
def test_scripts_make_no_html_and_keep_no_secret(file: Path) -> None:
    text = file.read_text()
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|localStorage|\.cookie"
    assert re.findall(forbidden, text) == []
    assert text.startswith("// "), "a header says what it is"


@pytest.mark.parametrize("file", sorted((ROOT / "templates").glob("*.html")), ids=lambda file: str(file.name))
def test_templates_have_no_inline_code(file: Path) -> None:
    text = file.read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|\|\s*safe", text) == []
    assert text.startswith("{# "), "a header says what it is"


@pytest.mark.parametrize("file", sorted((ROOT / "templates").glob("*.html")), ids=lambda file: str(file.name))
def test_password_fields_tell_the_browser_what_they_are(file: Path) -> None:
    fields = re.findall(r'type="password"([^>]*)', file.read_text())
    assert [one for one in fields if not re.search(r'autocomplete="(current|new)-password"', one)] == []


def test_without_npm_the_client_comes_pinned_from_the_cdn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pages, "_SOCKET_IO", tmp_path)
    app = Flask("pages", root_path=str(ROOT), static_folder=None)
    with app.test_request_context("/websocket-test.html"):
        answer = pages._page("websocket-test.html", client=pages._client_script())
    assert f"script-src 'self' {pages.CDN};" in answer.headers["Content-Security-Policy"]
    (tag,) = re.findall(r"<script src=\"https:[^>]*>", answer.get_data(as_text=True))
    assert f"@{pages.CLIENT_VERSION}/" in tag and "crossorigin" in tag
    assert html.unescape(tag).count(f'integrity="{pages.CLIENT_INTEGRITY}"') == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(scheme: str) -> None:
    """Hold texts to 4.5 to 1 and the edges of fields to 3 to 1. Source: WCAG 2.2, 1.4.3 and 1.4.11."""
    light, dark = re.findall(r":root \{(.*?)\}", (ROOT / "static" / "style.css").read_text(), re.DOTALL)[:2]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", light if scheme == "light" else dark))
    for ground in ("ground", "surface", "sunken", "flash"):
        for text in ("text", "muted", "accent", "accent-strong", "good", "warn", "bad"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["field-line"], colours[ground]) >= 3 or ground == "flash"
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.skipif(not CLIENT.is_dir(), reason="needs node_modules: npm ci")
def test_pinned_client_is_the_npm_package(server: Server) -> None:
    body = (CLIENT / "dist" / "socket.io.min.js").read_bytes()
    digest = base64.b64encode(hashlib.sha384(body).digest()).decode()
    assert f"sha384-{digest}" == pages.CLIENT_INTEGRITY
    assert json.loads((CLIENT / "package.json").read_text())["version"] == pages.CLIENT_VERSION
    assert server.call("GET", "/static/socket.io.min.js").content == body
