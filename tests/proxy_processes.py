"""Reverse proxies as processes of a test, with the configurations that docs/proxies.md shows, or with others."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, Server, needs, wait_for
from tests.needs import where
from tests.ports import free_port

DOC = ROOT / "docs" / "proxies.md"
HOST = "127.0.0.2"
"""Where proxies are found: a host that is not the server's own, so that a changed ``Host`` shows."""

IN_CI = ("nginx", "HAProxy", "Apache", "lighttpd", "h2o", "nghttpx", "Squid")
ALL = os.environ.get("PROXIES") == "all"


@dataclass(frozen=True)
class Proxy:
    """How a proxy is run: its program, its arguments, and what its file needs beside the lines of the docs.

    ``{folder}``, ``{file}`` and ``{port}`` stand for the test's own.
    """

    program: str
    arguments: str
    around: str = "{text}"
    site: str = HOST
    """What takes the place of the site's name."""


APACHE_MODULES = "mpm_event authz_core ssl socache_shmcb proxy proxy_http"
_LOADED = "\n".join(
    f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in APACHE_MODULES.split()
)
_TEMPORARY = "\n".join(
    f"{name}_temp_path {{folder}}/{name};" for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
)

PROXIES = {
    "nginx": Proxy(
        "nginx",
        "-p {folder} -e {folder}/error.log -c {file}",
        "user root;\ndaemon off;\npid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n"
        + _TEMPORARY
        + "\n{text}\n}}",
    ),
    "Caddy": Proxy(
        "caddy",
        "run --adapter caddyfile --config {file}",
        "{{\nadmin off\n}}\n{text}",
        site="https://:{port} {{\n\ttls {folder}/certificate.pem {folder}/key.pem\n",
    ),
    "HAProxy": Proxy("haproxy", "-db -f {file}"),
    "Apache": Proxy(
        "apache2",
        "-DFOREGROUND -f {file}",
        "ServerRoot {folder}\nPidFile {folder}/pid\nErrorLog {folder}/error.log\nUser www-data\nGroup www-data\n"
        "Mutex pthread\nServerName localhost\nListen {port}\n" + _LOADED + "\n{text}",
    ),
    "lighttpd": Proxy("lighttpd", "-D -f {file}", '{text}\nserver.upload-dirs = ("{folder}")'),
    "h2o": Proxy("h2o", "-c {file}"),
    "Varnish": Proxy("varnishd", "-F -a 0.0.0.0:{port} -n {folder}/work -s malloc,64m -f {file}"),
    "nghttpx": Proxy("nghttpx", "--conf={file} --errorlog-file={folder}/error.log"),
    "Squid": Proxy(
        "squid",
        "-N -f {file}",
        "{text}\npid_filename none\naccess_log none\ncache_log {folder}/cache.log\nvisible_hostname localhost\n"
        "shutdown_lifetime 0 seconds\n",
    ),
}


def section(name: str) -> str:
    """Give what docs/proxies.md says of a proxy."""
    return DOC.read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def documented(name: str, block: int = 0) -> str:
    """Give the configuration that docs/proxies.md shows for a proxy, or another block of a section."""
    blocks = re.findall(r"^```\w+\n(.*?)^```$", section(name), re.MULTILINE | re.DOTALL)
    assert blocks, f"no configuration of {name}"
    return str(blocks[block])


def chosen() -> list[object]:
    """Give the proxies that this run tries: a sample, or every one with ``PROXIES=all``."""
    left_out = pytest.mark.skip(reason="PROXIES=all runs it")
    return [
        pytest.param(name, marks=needs(proxy.program) if ALL or name in IN_CI else left_out)
        for name, proxy in PROXIES.items()
    ]


def here() -> list[str]:
    """Give those of them that this machine has."""
    return [name for name, proxy in PROXIES.items() if (ALL or name in IN_CI) and where(proxy.program)]


@dataclass
class Behind(Server):
    """A server as it is met through a proxy."""

    proxy_url: str = ""

    @property
    def url(self) -> str:
        return self.proxy_url


@contextlib.contextmanager
def certified() -> Iterator[Path]:
    """Make a folder with a key and a certificate for ``HOST``, which is its own authority."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "certificates"
        Path(made).chmod(0o755)  # Some proxies work as another user, whom pytest's folders keep out.
        folder.mkdir()
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=test"
        names = f"subjectAltName=IP:127.0.0.1,IP:{HOST},DNS:localhost"
        paths = ["-addext", names, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run([*command.split(), *paths], check=True, capture_output=True)
        (folder / "joined.pem").write_text(certificate.read_text() + key.read_text())
        yield folder.parent


def adapted(text: str, proxy: Proxy, folder: Path, port: int, server_port: int) -> str:
    """Put a test's ports, certificates and site into a configuration."""
    text = re.sub(r"/etc/\S+/fullchain\.pem", f"{folder}/certificate.pem", text)
    text = re.sub(r"/etc/\S+/privkey\.pem", f"{folder}/key.pem", text)
    text = re.sub(r"/etc/haproxy/\S+\.pem", f"{folder}/joined.pem", text)
    site = proxy.site.format(port=port, folder=folder)
    text = re.sub(
        r"api\.example\.com( \{\n)?", lambda found: site + (found[1] or "" if proxy.site == HOST else ""), text
    )
    text = re.sub(r"\b(443|80)\b", str(port), re.sub(r"\b3000\b", str(server_port), text))
    return proxy.around.format(folder=folder, port=port, text=text)


@contextlib.contextmanager
def running(name: str, server: Server, folder: Path, text: str = "") -> Iterator[str]:
    """Run a proxy in front of a server, with ``text`` or what the docs show; give its address."""
    proxy, port = PROXIES[name], free_port()
    folder = folder / name
    shutil.copytree(folder.parent / "certificates", folder)
    file, text = folder / "configuration", text or documented(name)
    scheme = "https" if "443" in text or name == "Caddy" else "http"
    file.write_text(adapted(text, proxy, folder, port, server.port))
    arguments = proxy.arguments.format(folder=folder, file=file, port=port).split()
    environ = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [str(where(proxy.program)), *arguments],
            cwd=folder,
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_for(lambda: _listens(process, port), lambda: f"{name} to listen; {(folder / 'output').read_text()}")
        yield f"{scheme}://{HOST}:{port}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):  # h2o waits for its clients.
            process.wait(1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "the proxy ended"
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
