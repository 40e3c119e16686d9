"""Recognises reverse proxies, and gives the line of their configuration that mends a fault.

Knows: how proxies name themselves in headers, their configurations (a test compares them with docs/proxies.md). Must not
know: how a fault was found; standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping

DOC = "docs/proxies.md"

_NAMED = {
    "nginx": "nginx",
    "openresty": "nginx",
    "caddy": "Caddy",
    "apache": "Apache",
    "lighttpd": "lighttpd",
    "h2o": "h2o",
    "varnish": "Varnish",
    "nghttpx": "nghttpx",
    "squid": "Squid",
}
_WHERE = ("server", "via", "x-varnish", "x-squid-error")

_REMEDIES: dict[str, dict[str, str]] = {
    "nginx": {
        "upgrade": "map $http_upgrade $connection_upgrade { default upgrade; '' ''; } proxy_http_version 1.1;"
        " proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;",
        "body": "client_max_body_size 16m;",
        "host": "proxy_set_header Host $http_host;",
        "address": "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "idle": "proxy_read_timeout 60s;",
    },
    "Apache": {
        "upgrade": "ProxyPass / http://127.0.0.1:3000/ upgrade=websocket",
        "body": "LimitRequestBody 16777216",
        "host": "ProxyPreserveHost On",
        "idle": "ProxyTimeout 60",
    },
    "lighttpd": {
        "upgrade": 'proxy.header = ("upgrade" => "enable")',
        "body": "server.max-request-size = 16384",
        "stream": "server.stream-response-body = 2",
    },
    "h2o": {"upgrade": "proxy.websocket: ON", "host": "proxy.preserve-host: ON", "idle": "proxy.timeout.io: 120000"},
    "Varnish": {
        "upgrade": 'if (req.http.Upgrade ~ "(?i)websocket") { return (pipe); } sub vcl_pipe {'
        " set bereq.http.Upgrade = req.http.Upgrade; set bereq.http.Connection = req.http.Connection; }",
        "cache": "return (pass);",
    },
    "nghttpx": {"address": "add-x-forwarded-for=yes", "idle": "backend-read-timeout=60s"},
    "Squid": {
        "upgrade": "http_upgrade_request_protocols websocket allow all",
        "authorization": "login=PASSTHRU",
        "cache": "cache deny all",
    },
}
"""By proxy and fault; a test finds each word of them in the section of the proxy."""


def identify_proxy(headers: Mapping[str, str]) -> str | None:
    """Name the proxy that an answer's headers name, None if they name none; header names are in lower case."""
    for name in _WHERE:
        value = f"{name} {headers[name]}".lower() if name in headers else ""
        for mark, proxy in _NAMED.items():
            if mark in value:
                return proxy
    return None


def lines(proxy: str) -> Mapping[str, str]:
    """Give the lines of a proxy's configuration by the fault that they mend."""
    return _REMEDIES.get(proxy, {})


def remedy(proxy: str | None, fault: str) -> str:
    """Say what mends a fault in a proxy's configuration."""
    line = lines(proxy or "").get(fault)
    if line:
        return f"In the configuration of {proxy}: {line} ({DOC})"
    return f"{DOC} has a configuration of {proxy} that works." if proxy else f"{DOC} has configurations that work."
