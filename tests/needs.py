"""Sees to the programs that tests use beside Python's packages: a browser, Node, the sqlite3 shell, curl.

Under CI=true what is missing is installed with apt-get, or the run fails. Elsewhere one line says how to get it, and the
tests that need it are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

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
    "php": "php-cli",
    "strace": "strace",
    "chattr": "e2fsprogs",
}
"""Program to Debian package."""


def missing() -> list[str]:
    """List the programs that are not here."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def main() -> int:
    """Install what is missing under CI, else say how to."""
    packages = [PROGRAMS[program] for program in missing()]
    if not packages:
        return 0
    if os.environ.get("CI") != "true":
        print(f"Some tests will be skipped. To run them: apt-get install {' '.join(packages)}")
        return 0
    subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["apt-get", "install", "-y", "-q", *packages], check=True, stdout=subprocess.DEVNULL)
    return 1 if missing() else 0


if __name__ == "__main__":
    sys.exit(main())
