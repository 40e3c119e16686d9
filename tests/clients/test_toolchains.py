"""The JavaScript client as a package: packed, installed into fresh apps, built by what people build with, and run.

Each app of ``clients/js/tests/apps`` exchanges a row with a real server, live, whatever has bundled it. ``make test`` plays
Node, strict TypeScript and esbuild; ``TOOLCHAINS=all`` plays every one, in five minutes, and needs the npm registry.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browsing import Page, browser_test
from tests.conftest import ROOT, Tenant, needs, wait_for

CLIENT = ROOT / "clients" / "js"
APPS = CLIENT / "tests" / "apps"
ALL = os.environ.get("TOOLCHAINS") == "all"
IN_CI = {"node", "esbuild", "typescript 7"}
STRICT = (
    "--strict --noEmit --noUncheckedIndexedAccess --exactOptionalPropertyTypes --skipLibCheck --target es2022"
    " --lib es2023,dom,dom.iterable --types node"
)

pytestmark = [
    pytest.mark.slow,
    needs("node", "npm"),
    pytest.mark.skipif(
        not (CLIENT / "node_modules").is_dir() and os.environ.get("CI") != "true",
        reason="needs clients/js/node_modules: make clients/js/node_modules",
    ),
]


@dataclass(frozen=True)
class Tool:
    """What an app installs beside the client, and the commands that build or run it."""

    packages: str = ""
    commands: tuple[str, ...] = ()
    config: tuple[str, str] | None = None
    """A file of its own, with its text."""
    entry: str = "page.mjs"
    script: str = "./page.mjs"
    """What the built page loads."""
    pages: str = "dist"
    """The folder that is served."""
    settings: tuple[str, str] | None = None
    """A member of package.json that it needs."""


def bundled(packages: str, command: str, script: str = "./page.js") -> Tool:
    return Tool(packages, (command,), script=script)


VITE = ("npx vite build --base=./ --outDir dist",)
BUNDLERS = {
    "esbuild": bundled("esbuild@0.28.2", "npx esbuild page.mjs --bundle --format=esm --outdir=dist"),
    "vite": Tool("vite@8", VITE),
    "webpack": bundled(
        "webpack@5 webpack-cli@7", "npx webpack --mode production --entry ./page.mjs -o dist --output-filename page.js"
    ),
    "rollup": bundled(
        "rollup@4 @rollup/plugin-node-resolve @rollup/plugin-commonjs",
        "npx rollup page.mjs -p node-resolve={browser:true} -p commonjs -f es -d dist",
    ),
    "parcel": Tool(
        "parcel@2",
        ("npx parcel build index.html --no-source-maps --public-url ./",),
        settings=("@parcel/resolver-default.packageExports=true", "--json"),
    ),
    "web worker": Tool(
        "vite@8",
        VITE,
        config=("vite.config.mjs", 'export default { worker: { format: "es" } };'),
        entry="worker-page.mjs",
    ),
    "react": Tool("vite@8 react@19 react-dom@19 @tanstack/react-db@0.5.11", VITE, entry="react.mjs"),
}
RUNTIMES = {
    "node": Tool("", ("node run.mjs",)),
    "node 22": Tool("node@22", ("node_modules/node/bin/node run.mjs",)),
    "node 24": Tool("node@24", ("node_modules/node/bin/node run.mjs",)),
    "node 26": Tool("node@26", ("node_modules/node/bin/node run.mjs",)),
    "bun": Tool("bun@1", ("npx bun run.mjs",)),
    "deno": Tool("deno@2", ("npx deno run --allow-net --allow-env --allow-read run.mjs",)),
}
HANDLERS = "dexie@4 rxdb@17 rxjs@7 @nozbe/watermelondb@0.28 @tanstack/db@0.15 @types/node@20"


def played(tools: dict[str, Tool]) -> list[object]:
    return [
        pytest.param(
            tool, id=name, marks=pytest.mark.skipif(not ALL and name not in IN_CI, reason="TOOLCHAINS=all plays it")
        )
        for name, tool in tools.items()
    ]


def run(folder: Path, command: str, *more: str) -> str:
    done = subprocess.run(
        [*command.split(), *more], check=False, cwd=folder, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack the client as ``npm publish`` would."""
    folder = tmp_path_factory.mktemp("package")
    run(CLIENT, "npm pack --silent --pack-destination", str(folder))
    (found,) = folder.glob("*.tgz")
    return found


def app(folder: Path, package: Path, tool: Tool, *files: Path) -> Path:
    """Make an app that has the client installed, in a folder outside of this checkout."""
    (folder / "package.json").write_text(json.dumps({"name": "app", "private": True, "type": "module"}))
    for file in files:
        shutil.copy(file, folder)
    run(folder, "npm install --silent --no-audit --no-fund", str(package), *tool.packages.split())
    if tool.config:
        (folder / tool.config[0]).write_text(tool.config[1])
    if tool.settings:
        run(folder, "npm pkg set", *tool.settings)
    return folder


@pytest.mark.timeout(240)
@pytest.mark.parametrize("tool", played(RUNTIMES))
def test_app_exchanges_a_row_live(tenant: Tenant, package: Path, tmp_path: Path, tool: Tool) -> None:
    made = app(tmp_path, package, tool, *APPS.glob("*.mjs"))
    assert "exchanged" in run(made, tool.commands[0], tenant.server.url, tenant.token)


@browser_test
@pytest.mark.timeout(240)
@pytest.mark.parametrize("tool", played(BUNDLERS))
def test_bundled_page_exchanges_a_row_live(
    page: Page, tenant: Tenant, package: Path, tmp_path: Path, tool: Tool
) -> None:
    made = app(tmp_path, package, tool, *APPS.glob("*.mjs"))
    html = (APPS / "index.html").read_text()
    (made / "index.html").write_text(html.replace("./page.mjs", f"./{tool.entry}"))
    for command in tool.commands:
        run(made, command)
    built = made / tool.pages
    if not (built / "index.html").is_file():
        (built / "index.html").write_text(html.replace("./page.mjs", tool.script))
    with served(built) as url:
        page.driver.get(f"{url}/index.html#{tenant.server.url} {tenant.token}")
        wait_for(lambda: page.driver.title != "begun", "the page to say how it went")
        assert page.driver.title == "exchanged"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder's files on a port of localhost, whose pages the server lets call."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "version", played({"typescript 7": Tool("typescript@7"), "typescript 5": Tool("typescript@5")})
)
def test_strict_typescript_finds_the_types_of_each_entry(package: Path, tmp_path: Path, version: Tool) -> None:
    """WatermelonDB by ``bundler`` alone: its own package has no entry that ``node16`` finds."""
    made = app(tmp_path, package, Tool(f"{version.packages} {HANDLERS}"), *APPS.glob("strict/*.ts"))
    files = sorted(file.name for file in made.glob("*.ts"))
    run(made, f"npx tsc {STRICT} --module esnext --moduleResolution bundler", *files)
    files.remove("watermelondb.ts")
    run(made, f"npx tsc {STRICT} --module node16 --moduleResolution node16", *files)


def test_package_has_declarations_for_each_entry_and_what_it_needs(package: Path, tmp_path: Path) -> None:
    """Before, strict TypeScript found no types at all, and live was dead in silence in Node and Deno."""
    run(tmp_path, "tar xzf", str(package))
    manifest = json.loads((tmp_path / "package" / "package.json").read_text())
    for entry in manifest["exports"].values():
        assert list(entry) == ["types", "default"]
        assert all((tmp_path / "package" / file).is_file() for file in entry.values())
    assert "socket.io-client" in manifest["dependencies"]
