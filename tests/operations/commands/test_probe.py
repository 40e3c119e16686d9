"""``doctor --url``: what it says of addresses where no syncapp is, and of faults that no proxy has by itself.

What it finds behind proxies as they come, and as docs/proxies.md has them, is in system/test_proxies.py.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from operations.checks import probe_requests, probe_sockets
from operations.checks.doctor import Finding
from operations.checks.probe_target import Deployment, NoDeployment, find_deployment, parse_address
from operations.commands import commands
from operations.commands.probe import run_checks
from tests.conftest import Server, needs
from tests.ports import free_port
from tests.proxy_processes import certified, running
from version import VERSION

Behind = Callable[[str, str], Deployment]
Look = Callable[[Deployment], Finding | None]
HEALTH = {"status": "ok", "version": "0.1.0", "forwardedFor": {"addresses": 0, "trusted": 0}}


def doctor(*arguments: str) -> Result:
    """Run the command in this process, with an empty standard input."""
    return CliRunner().invoke(commands.commands, ["doctor", *arguments])


@contextlib.contextmanager
def answering(said: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Answer each connection with the same bytes, whatever comes; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    network, _ = listener.accept()
                    with contextlib.suppress(OSError), network:
                        network.settimeout(5)
                        network = context.wrap_socket(network, server_side=True) if context else network
                        network.recv(65_536)
                        network.sendall(said)
                        network.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def http(status: str, body: str = "", kind: str = "text/html", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", body]).encode()


NOT_SYNCAPP = {
    "a page": (
        http("200 OK", "<h1>Welcome to nginx!</h1>"),
        "There is no syncapp at {url}: /health answers 200 with text/html.",
    ),
    "another JSON": (
        http("200 OK", '{"status": "up"}', "application/json"),
        "/health answers 200 with application/json.",
    ),
    "JSON that is none": (http("200 OK", '{"status": ', "application/json"), "There is no syncapp at"),
    "JSON of other types": (
        http("200 OK", '{"status": 1, "version": []}', "application/json"),
        "There is no syncapp at",
    ),
    "JSON without an end": (http("200 OK", "[" * 100_000, "application/json"), "There is no syncapp at"),
    "TLS at this port": (http("400 Bad Request"), "Is it an address of https:// ?"),
    "nothing here": (http("404 Not Found"), "/health answers 404"),
    "a proxy alone": (
        http("502 Bad Gateway", "<h1>502</h1>", Server="nginx/1.22"),
        "nginx answers 502 at {url}/health: it can't reach",
    ),
    "a door": (http("401 Unauthorized", WWW_Authenticate="Basic"), "answers 401, before syncapp is asked"),
    "a redirect": (
        http("301 Moved", Location="https://api.example.com/\x07"),
        "redirects to https://api.example.com/?",
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks no HTTP that can be read"),
    "silence": (b"", "closed the connection without an answer."),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", "There is no syncapp at"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "There is no syncapp at"),
    "a long line": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "speaks no HTTP that can be read"),
    "many headers": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500, "speaks no HTTP that can be read"),
}


@pytest.mark.parametrize(("said", "sentence"), NOT_SYNCAPP.values(), ids=NOT_SYNCAPP.keys())
def test_what_is_no_syncapp_is_one_sentence(said: bytes, sentence: str) -> None:
    with answering(said) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(NoDeployment) as refused:
            find_deployment(parse_address(url))
    assert sentence.format(url=url) in str(refused.value)
    assert str(refused.value).isprintable()


def test_syncapp_that_says_nothing_more_is_told_and_never_a_traceback() -> None:
    body = json.dumps(HEALTH | {"data": {"maxBodyBytes": 2048, "socketAuthSeconds": 1}})
    with answering(http("200 OK", body, "application/json")) as port:
        found = dict(run_checks(find_deployment(parse_address(f"http://127.0.0.1:{port}"))))
    assert sum(finding is not None and finding.refuses for finding in found.values()) >= 7


def test_what_a_deployment_says_of_itself_is_shown_without_control_characters() -> None:
    said = HEALTH | {"version": "\x1b[2J" + "9" * 10_000, "status": "ok\x07"}
    body = json.dumps(said | {"data": {"maxBodyBytes": 2048, "socketAuthSeconds": 1}})
    with answering(http("200 OK", body, "application/json")) as port:
        first = doctor("--url", f"http://127.0.0.1:{port}").stdout.splitlines()[0]
    assert first.isprintable() and len(first) < 500


@pytest.mark.parametrize(
    ("handshake", "seconds"),
    [
        ('{"pingInterval":2000}', 2.0),
        ('{"pingInterval":2000', 15.0),
        ('{"pingInterval":"2000"}', 15.0),
        ('{"pingInterval":-1}', 15.0),
        ('{"pingInterval":NaN}', 15.0),
        ('{"pingInterval":1e999}', 15.0),
        ("{}", 15.0),
        ('{"a":' * 100_000, 15.0),
    ],
)
def test_handshake_of_any_form_gives_a_time_to_wait(handshake: str, seconds: float) -> None:
    assert probe_sockets.ping_seconds(handshake) == seconds


def test_polling_session_of_any_form_is_read_or_none() -> None:
    bodies = ['0{"sid":"a"}', '0{"sid":1}', "0{}", '0{"sid"', '0{"sid":' * 100_000, "0[]", ""]
    assert [probe_sockets.session_of(body.encode()) for body in bodies] == ["a", "", "", "", "", "", ""]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("api.example.com", "must begin with http:// or https://"),
        ("ftp://api.example.com", "must begin with http:// or https://"),
        ("https://", "must begin with http:// or https://"),
        ("https:///health", "must begin with http:// or https://"),
        ("https://api.example.com/health", "with nothing behind the host"),
        ("https://me:secret@api.example.com", "with nothing behind the host"),
        ("https://api.example.com?x=1", "with nothing behind the host"),
        ("https://api.example.com:99999", "ort out of range"),
        ("https://api.example.com:x", "ort could not be cast"),
        ("https://[::1", "Invalid IPv6 URL"),
        ("https://api.exämple.com", "xn--"),
        ("https://api.example.com\r\nX: y", "has characters that none has"),
        ("http://" + "a" * 70 + ".invalid", "can't be the name of a host."),
        ("http://a..b", "can't be the name of a host."),
        ("", "must begin with http:// or https://"),
    ],
)
def test_wrong_address_is_exit_code_2_and_a_sentence(url: str, sentence: str) -> None:
    said = doctor("--url", url)
    assert said.exit_code == 2 and sentence in said.stderr


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:{free}", "Nothing listens at 127.0.0.1:{free}."),
        ("http://nowhere.invalid", "The name nowhere.invalid has no address"),
    ],
)
def test_what_can_not_be_reached_is_exit_code_1_and_a_sentence(url: str, sentence: str) -> None:
    free = free_port()
    said = doctor("--url", url.format(free=free))
    assert said.exit_code == 1 and said.stdout == ""
    assert said.stderr.startswith("Error: ") and sentence.format(free=free) in said.stderr


def test_http_that_is_asked_for_tls_is_a_sentence() -> None:
    with answering(http("400 Bad Request")) as port:
        said = doctor("--url", f"https://127.0.0.1:{port}")
    assert said.exit_code == 1
    assert f"127.0.0.1:{port} speaks no TLS that this machine understands (wrong version number)." in said.stderr


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that pings soon, and lets unauthenticated sockets be silent for a moment only."""
    server = Server(
        tmp_path_factory.mktemp("quick") / "data", {"PING_INTERVAL_SECONDS": "2", "SOCKET_AUTH_SECONDS": "2"}
    )
    yield server.start()
    assert server.stop() == 0


def test_server_without_a_proxy_is_found_well(quick: Server) -> None:
    said = doctor("--url", f"{quick.url}/")
    assert said.exit_code == 0, said.stdout
    assert said.stdout.startswith(f"syncapp {VERSION} at {quick.url}: ok\n")
    assert said.stdout.endswith("12 checks, 0 broken, 0 warnings, 2 skipped.\n")
    assert said.stdout.count("\nok: checked whether ") == 12


def test_token_waits_for_a_ping(quick: Server) -> None:
    deployment = find_deployment(parse_address(quick.url), quick.register().token)
    assert probe_sockets.idle(deployment) is None
    finding = probe_sockets.idle(replace(deployment, token="none"))
    assert finding is not None and finding.sentence == "The server refuses the token."


def test_doctor_reads_the_token_from_standard_input(server: Server) -> None:
    assert "--url" in doctor("--token-stdin").stderr
    assert doctor("--token-stdin", "--url", f"http://127.0.0.1:{free_port()}").exit_code == 1


# --- one fault each --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with certified() as folder:
        yield folder


@pytest.fixture
def behind(server: Server, folder: Path, tmp_path: Path) -> Iterator[Behind]:
    """Look at the server through a proxy with a configuration of the test's own."""
    with contextlib.ExitStack() as stack:

        def start(name: str, text: str) -> Deployment:
            own = folder / tmp_path.name
            own.mkdir()
            (own / "certificates").symlink_to(folder / "certificates")
            return find_deployment(parse_address(stack.enter_context(running(name, server, own, text))))

        yield start


NGINX = """
server {{
    listen 80;
    client_max_body_size 16m;
    {line}
    location / {{
        proxy_pass http://127.0.0.1:3000;
        {inside}
    }}
}}
"""
CACHED = "location /health {{ default_type application/json; add_header X-Request-ID same; return 200 '{}'; }}"
FAULTS = {
    "methods": (
        "",
        "limit_except GET POST { deny all; }",
        probe_requests.methods,
        "PATCH is answered 403 and DELETE is",
    ),
    "errors": (
        "error_page 404 /none.html;",
        "proxy_intercept_errors on;",
        probe_requests.error_answers,
        "Error answers",
    ),
    "compression": (
        "",
        'proxy_set_header Accept-Encoding "";',
        probe_requests.compression,
        "Answers come uncompressed",
    ),
    "a limit": (
        "",
        "client_max_body_size 6m;",
        probe_requests.large_bodies,
        "A body of 16 MiB, which the server",
    ),
    "a cache": (CACHED.format(json.dumps(HEALTH)), "", probe_requests.caches, "Answers come from a cache."),
}


@needs("nginx", "openssl")
@pytest.mark.parametrize(("line", "inside", "look", "sentence"), FAULTS.values(), ids=FAULTS.keys())
def test_fault_of_a_proxy_is_found(behind: Behind, line: str, inside: str, look: Look, sentence: str) -> None:
    finding = look(behind("nginx", NGINX.format(line=line, inside=inside)))
    assert finding is not None and finding.sentence.startswith(sentence)
    assert "nginx" in finding.remedy


HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel {tunnel}
frontend web
    bind :80
    default_backend syncapp
backend syncapp
    server syncapp 127.0.0.1:3000
    {more}
"""


@needs("haproxy", "openssl")
def test_silent_socket_that_is_cut_is_found(behind: Behind) -> None:
    deployment = behind("HAProxy", HAPROXY.format(tunnel="1s", more=""))
    finding = probe_sockets.idle(deployment)
    assert finding is not None and finding.sentence.startswith("An idle socket is cut after 1 s")


@needs("nginx", "openssl")
def test_silence_that_can_not_be_looked_at_is_not_called_good(behind: Behind) -> None:
    finding = probe_sockets.idle(behind("nginx", NGINX.format(line="", inside="")))
    assert finding is not None and not finding.refuses and "can't be checked" in finding.sentence


@needs("haproxy", "openssl")
def test_requests_that_reach_two_servers_are_found(behind: Behind, start_server: Callable[..., Server]) -> None:
    other = start_server()
    deployment = behind("HAProxy", HAPROXY.format(tunnel="60s", more=f"server other 127.0.0.1:{other.port}"))
    finding = probe_sockets.polling(deployment)
    assert finding is not None and "do all requests reach the same server?" in finding.sentence


@pytest.mark.parametrize(
    ("trusted", "sent", "remedy"),
    [("0", "192.0.2.9", "Set TRUSTED_PROXIES=1."), ("2", "192.0.2.9", "Set TRUSTED_PROXIES=1.")],
)
@needs("haproxy", "openssl")
def test_wrong_number_of_trusted_proxies_is_found(
    start_server: Callable[..., Server], folder: Path, tmp_path: Path, trusted: str, sent: str, remedy: str
) -> None:
    server = start_server(TRUSTED_PROXIES=trusted)
    own = folder / tmp_path.name
    own.mkdir()
    (own / "certificates").symlink_to(folder / "certificates")
    text = HAPROXY.format(tunnel="60s", more="option forwardfor")
    with running("HAProxy", server, own, text) as url:
        finding = probe_requests.callers(find_deployment(parse_address(url)))
    assert finding is not None and finding.remedy == remedy


def test_number_of_forwarded_addresses_is_told(server: Server) -> None:
    told = [
        server.call("GET", "/health", **headers).json()["forwardedFor"]
        for headers in ({}, {"X_Forwarded_For": "192.0.2.1"}, {"X_Forwarded_For": "192.0.2.1, 192.0.2.2"})
    ]
    assert told == [{"addresses": count, "trusted": 0} for count in (0, 1, 2)]


@needs("openssl")
def test_certificate_that_clients_refuse_is_found_and_the_rest_is_looked_at(folder: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificates" / "joined.pem")
    body = json.dumps(HEALTH | {"data": {"maxBodyBytes": 2048, "socketAuthSeconds": 1}})
    with answering(http("200 OK", body, "application/json"), context) as port:
        deployment = find_deployment(parse_address(f"https://127.0.0.1:{port}"))
        finding = probe_requests.certificate(deployment)
    assert finding is not None and finding.refuses and "self-signed certificate" in finding.sentence


def test_without_a_token_and_with_a_bad_one_are_told_apart(server: Server) -> None:
    """Source: RFC 6750 section 3.1."""
    without = server.call("GET", "/api/customers/me")
    bad = server.call("GET", "/api/customers/me", token="none")
    assert [without.status_code, bad.status_code] == [401, 401]
    assert without.headers["WWW-Authenticate"] == "Bearer"
    assert bad.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
