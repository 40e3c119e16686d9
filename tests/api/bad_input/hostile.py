"""What hostile requests are made of, and what must be true after them."""

from __future__ import annotations

from typing import Any

import requests

from tests.conftest import Tenant

CUSTOMERS, SYNC = "/api/customers", "/api/client/sync"
TAKING_BODIES = [
    ("POST", f"{CUSTOMERS}/register"),
    ("POST", f"{CUSTOMERS}/login"),
    ("POST", f"{CUSTOMERS}/refresh"),
    ("PATCH", f"{CUSTOMERS}/me"),
    ("DELETE", f"{CUSTOMERS}/me"),
    ("POST", f"{CUSTOMERS}/me/password"),
    ("POST", f"{CUSTOMERS}/me/email"),
    ("POST", f"{CUSTOMERS}/me/export"),
    ("POST", f"{CUSTOMERS}/password/forgotten"),
    ("POST", f"{CUSTOMERS}/password/reset"),
    ("POST", f"{CUSTOMERS}/email/confirm"),
    ("POST", f"{SYNC}/push"),
    ("POST", f"{SYNC}/pull"),
    ("POST", f"{SYNC}/pull-pending"),
    ("POST", f"{SYNC}/history/end_user/kept/revert"),
    ("POST", f"{SYNC}/conflicts/1/resolve"),
    ("POST", "/api/client/notifications/test"),
    ("PATCH", "/api/client/devices/kept"),
]
WITHOUT_BODIES = {
    ("POST", f"{CUSTOMERS}/logout"),
    ("POST", f"{CUSTOMERS}/me/email/verification"),
    ("DELETE", f"{CUSTOMERS}/me/sessions"),
    ("DELETE", f"{CUSTOMERS}/me/sessions/kept"),
    ("DELETE", "/api/client/devices/kept"),
}
REGISTRATION = {"firstName": "A", "lastName": "B", "email": "a@example.com", "password": "password123"}


def send(tenant: Tenant, method: str, path: str, data: bytes | None = None, **headers: str) -> Any:
    """Send bytes as a body, as JSON with the tenant's token unless the headers say otherwise."""
    named = {"Content-Type": "application/json", "Authorization": f"Bearer {tenant.token}"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in named.items() if value}
    return tenant.server.checked(
        requests.request(method, tenant.server.url + path, data=data, headers=kept, timeout=30)
    )


HOSTILE_TEXTS = [
    "../../etc/passwd",
    "..\\..\\windows\\system32",
    "/etc/passwd\0.png",
    "' OR 1=1 --",
    '"; DROP TABLE end_user; --',
    "1); DELETE FROM _changes; --",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{7*7}} ${7*7} %s %n {0}",
    "a\nb\r\nSet-Cookie: x=1",
    "\0",
    "a\0b",
    "\x1b[2J\x07\x7f",
    "😀👨‍👩‍👧‍👦",
    "\u202egnp.exe",
    "\ufeffBOM",
    "\uffff\U0010ffff",
    "İstanbul ß ﬁ é",
    " space around ",
    "NULL",
    "null",
    "undefined",
    "[object Object]",
    "$.a[0]",
    "%00%2e%2e%2f",
    "_seq",
]
BAD_TIMES = [
    "",
    "now",
    "0000-01-01",
    "10000-01-01T00:00:00Z",
    "2025-13-01",
    "2025-02-30",
    "2016-12-31T23:59:60Z",
    "2025-01-01T25:00:00Z",
    "2025-01-01T00:00:00+99:99",
    "2025-01-01T00:00:00+24:00",
    "9999-12-31T23:59:59-99:99",
    "2025-01-01T00:00:00 CET",
    "1751240726002",
    "' OR 1=1 --",
    "2025-01-01\0",
    "\u0662\u0660\u0662\u0665-\u0660\u0661-\u0660\u0661",
    "1" * 10_000,
    1_751_240_726_002,
    True,
    [],
    {},
]
EXTREME_TIMES = ["0001-01-01T00:00:00+23:59", "0001-01-01", "9999-12-31T23:59:59.999999-23:59", "9999-12-31"]
