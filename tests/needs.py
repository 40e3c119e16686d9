"""Sees to the programs that tests use beside Python's packages: a browser, Node, the sqlite3 shell, reverse proxies.

Under CI=true what is missing is installed with apt-get, or the run fails. Elsewhere one line says how to get it, and the
tests that need it are skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = {
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "firefox-esr": "firefox-esr",
    "WebKitWebDriver": "webkit2gtk-driver",
    "xvfb-run": "xvfb",
    "node": "nodejs",
    "npm": "npm",
    "sqlite3": "sqlite3",
    "curl": "curl",
    "wget": "wget",
    "ab": "apache2-utils",
    "perl": "libwww-perl",
    "ruby": "ruby",
    "php": "php-cli php-curl",
    "strace": "strace",
    "chattr": "e2fsprogs",
    "openssl": "openssl",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "apache2": "apache2",
    "lighttpd": "lighttpd lighttpd-mod-openssl",
    "h2o": "h2o",
    "nghttpx": "nghttp2-proxy",
    "squid": "squid",
    "redis-server": "redis-server",
    "initdb": "postgresql",
    "pgbouncer": "pgbouncer",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
}
"""Program to Debian packages."""

MORE_PROXIES = {"caddy": "caddy", "varnishd": "varnish"}
"""With ``PROXIES=all``: the one is large, and the other comes with a compiler."""

_APT_OPTIONS = ("--no-install-recommends", "-o", "Dpkg::Options::=--path-exclude=/usr/share/man/*")
"""What tests need and no more: 156 packages instead of 426, and no index of their manuals."""

_FOR_ADMINISTRATORS = "/usr/local/sbin:/usr/sbin:/sbin"
_POLICY = Path("/usr/sbin/policy-rc.d")


def where(program: str) -> str | None:
    """Find a program, also where only an administrator's path leads."""
    if program == "initdb":
        return where_postgres(program)
    found = shutil.which(program) or shutil.which(program, path=_FOR_ADMINISTRATORS)
    return None if found and not _has_its_library(program, found) else found


_LIBRARIES = {"php": ["-r", "exit(extension_loaded('curl') ? 0 : 1);"], "perl": ["-MLWP::UserAgent", "-e", "0"]}
"""What tells whether a language has its library for HTTP, which Debian has in a package of its own."""


def _has_its_library(program: str, found: str) -> bool:
    command = _LIBRARIES.get(program)
    return command is None or subprocess.run([found, *command], check=False, capture_output=True).returncode == 0


def where_postgres(program: str) -> str | None:
    """Find a program of PostgreSQL's, the newest where Debian keeps one folder a version."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: float(path.parts[-3]))
    return str(kept[-1]) if kept else shutil.which(program)


def missing() -> list[str]:
    """List the packages of programs that are not here."""
    wanted = PROGRAMS | (MORE_PROXIES if os.environ.get("PROXIES") == "all" else {})
    return [package for program, package in wanted.items() if where(program) is None]


@contextlib.contextmanager
def services_stay_off() -> Iterator[None]:
    """Let no package that is installed meanwhile start its service. Source: Debian, invoke-rc.d(8), "policy-rc.d"."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def main() -> int:
    """Install what is missing under CI, else say how to."""
    packages = " ".join(missing()).split()
    if not packages:
        return 0
    if os.environ.get("CI") != "true":
        print(f"Some tests will be skipped. To run them: apt-get install {' '.join(packages)}")
        return 0
    subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-q", *_APT_OPTIONS, *packages]
    with services_stay_off():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ)
    return 1 if missing() else 0


if __name__ == "__main__":
    sys.exit(main())
