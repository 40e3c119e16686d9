"""The docs say what the code does, and the code does nothing that the docs leave out."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_args, get_type_hints

import click
import pytest
from flask import Flask

import assembly
import models
import settings
from api import reference
from api.docs import openapi
from operations.commands import commands as operator_commands
from protocol import errors, notifications
from server.websocket import announcements
from storage import main_database
from tests import postgres
from tests.conftest import ROOT, Listener, Server, Tenant, needs
from tests.mailing import link_for
from tests.refusals import kinds_of_error
from tests.signing_in import session
from tests.sources import FOLDERS, modules, name_of, parsed

API = (ROOT / "docs" / "api.md").read_text()
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
DOCS = [
    ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "server/README.md")
] + sorted(ROOT.glob("docs/*.md"))
MODULES = modules()
OTHER_CAPITALS = {"RAILWAY_RUN_UID", "TCP_NODELAY", "WEB_CONCURRENCY", "JWT_SECRET", "SYNCAPP_PORT", "SSL_CERT_FILE"}
"""Words in the docs that look like a setting and are none."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = assembly.build(settings.Settings(data_dir=tmp_path_factory.mktemp("docs") / "data"))
    yield app
    app.extensions["lifecycle"].end()


# --- endpoints, events, errors, settings -----------------------------------------------------------------------------


def test_every_endpoint_is_documented_and_every_documented_one_exists(app: Flask) -> None:
    served = {
        f"{method} {_shown(rule.rule)}"
        for rule in app.url_map.iter_rules()
        if not openapi.is_internal(rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    documented = set(re.findall(r"^### `([A-Z]+ /.*)`$", API, re.MULTILINE))
    assert documented == served, "docs/api.md must have a section for each endpoint"


def _shown(rule: str) -> str:
    """Write a route's address as the reference does."""
    return re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule)


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_every_endpoint_that_a_doc_mentions_exists(app: Flask, doc: Path) -> None:
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    for path in re.findall(r"(?<!\w)/api/[a-z/-]+[a-z]", doc.read_text()):
        assert path in rules or any(rule.startswith(f"{path}/") for rule in rules), path


def test_every_event_is_documented_and_every_documented_one_exists(app: Flask) -> None:
    heard = set(app.extensions["socketio"].server.handlers["/"]) - {"connect", "disconnect"}
    told = emitted_events()
    table = re.findall(r"^\| `([a-z_]+)` \| (client|server|both) \|", API, re.MULTILINE)
    complete = "docs/api.md must have each event in its table"
    assert {event for event, side in table if side != "server"} == heard, complete
    assert {event for event, side in table if side != "client"} == told, complete


def emitted_events() -> set[str]:
    """Collect the events that the server emits."""
    own = _first_texts(ROOT / "sockets.py", "_emit")
    return own | _first_texts(ROOT / "server/websocket/socketio_server.py", "emit") | {announcements.EVENT}


def _first_texts(path: Path, *methods: str) -> set[str]:
    """Collect the first argument of every call of these methods in a module."""
    calls = [node for node in ast.walk(parsed(path.read_text())) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in methods]
    texts = [call.args[0] for call in named]
    assert texts and all(isinstance(text, ast.Constant) for text in texts)
    return {str(text.value) for text in texts if isinstance(text, ast.Constant)}


def test_every_type_of_notification_is_documented() -> None:
    for kind in get_args(get_type_hints(notifications.Notification)["type"]):
        assert f"`{kind}`" in API, f"docs/api.md must describe {kind}"
    for name in notifications.Notification.__struct_fields__:
        assert f"`{name}`" in API, f"docs/api.md must say what the field {name} of a notification is"


def test_table_of_errors_is_that_of_the_code() -> None:
    problems: list[type[errors.Problem]] = [errors.Problem, *kinds_of_error()]
    rows = re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \| (.+) \|$", API, re.MULTILINE)
    missing = {(str(one.status), one.code, one.sentence) for one in problems} - set(rows)
    assert not missing, f"docs/api.md must have these rows in its table of errors: {missing}"
    assert len(rows) == len(problems), "docs/api.md has errors that are not in protocol/errors.py"


def test_table_of_settings_is_that_of_the_code() -> None:
    table = settings_table()
    assert table in (ROOT / "docs" / "settings.md").read_text(), f"docs/settings.md must have this table:\n{table}"


def settings_table() -> str:
    """Write the table of docs/settings.md from the metadata of the settings."""
    lines = ["| variable | default | allowed | what it is |", "|---|---|---|---|"]
    for setting in fields(settings.Settings):
        assert setting.metadata, f"{setting.name} in settings.py must be made by _setting, with bounds and a sentence"
        default = "none" if setting.default in ("", ()) else f"`{setting.default}`"
        variable, doc = setting.name.upper(), setting.metadata["doc"]
        lines.append(f"| `{variable}` | {default} | {_allowed(setting.metadata['read'])} | {doc} |")
    return "\n".join(lines) + "\n"


def _allowed(read: Callable[[str], object]) -> str:
    """Say what a setting takes in the words with which it refuses the rest."""
    if read in (str, Path):
        return "a path" if read is Path else "a text"
    try:
        read("*")
    except ValueError as error:
        return str(error).removeprefix("must be ")
    raise AssertionError("a setting that takes anything")


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_every_setting_that_a_doc_mentions_exists(doc: Path) -> None:
    mentioned = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)", doc.read_text()))
    of_tests = {
        name
        for test in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("clients/*/tests/*.py")]
        for name in re.findall(r'environ.get\("(\w+)"', test.read_text())
    }
    known = {field.name.upper() for field in fields(settings.Settings)} | {
        f"{name.upper()}_FILE" for name in settings.SECRETS
    }
    assert mentioned <= known | of_tests | OTHER_CAPITALS


def test_columns_are_those_of_the_models() -> None:
    section = API.partition("\n## Columns")[2].partition("\n## ")[0]
    common = set(re.findall(r"`(\w+)`", section.partition("Both also:")[2].partition(".")[0]))
    for name, table in models.synced_tables().items():
        own = section.partition(f"`{name}`: ")[2].partition("\n\n")[0].replace("`end_user`", "")
        columns = {column for column in table.columns if not column.startswith("_")}
        said = set(re.findall(r"`(\w+)`", own)) | common
        assert said == columns, f"docs/api.md, section Columns, must have those of `{name}`"


# --- examples --------------------------------------------------------------------------------------------------------


class Example(NamedTuple):
    """One call that docs/api.md shows: what is sent, what comes back."""

    method: str
    path: str
    body: Any
    status: int
    answer: Any


def _examples() -> list[Example]:
    found = []
    for call, described in reference.calls().items():
        method, _, path = call.partition(" ")
        for one in described.examples:
            found.append(Example(method, path, json.loads(one.body or "null"), one.status, json.loads(one.answer)))
    return found


def test_every_endpoint_that_answers_json_has_an_example() -> None:
    headings = set(re.findall(r"^### `([A-Z]+ (?:/api|/health).*)`$", API, re.MULTILINE))
    shown = {f"{example.method} {example.path}" for example in _examples()}
    assert shown == headings - {"POST /api/customers/me/export"}, (
        "docs/api.md must show “Answer 200:” and the JSON of it for each endpoint"
    )


@pytest.mark.parametrize("example", _examples(), ids=lambda example: f"{example.method} {example.path}")
def test_example_of_the_reference_is_what_the_server_answers(
    server: Server, start_server: Callable[..., Server], example: Example
) -> None:
    if example.status == 202:
        server = start_server(
            SMTP_URL="smtp://localhost:9?starttls=no", MAIL_FROM="a@example.com", PUBLIC_URL=server.url
        )
    if example.path == "/health":  # On the shared server other tests have taken files of customers away.
        postgres.must_be_about_files()  # There it has more.
        server = start_server()
    tenant = server.register(firstName="Test", lastName="User", phone="1234567890", companyName="Test Company")
    if "/sync/pull" in example.path:
        tenant.device().create(id="u1", name="Asha")
    if "/sync/history" in example.path or "/sync/conflicts" in example.path:
        _make_a_conflict(tenant)
    if "/devices" in example.path:
        tenant.device(X_Device_Id="tablet-1").create(id="u1", name="Asha")
    named = {"table": "end_user", "row_id": "u1", "number": 1, "device_id": "tablet-1"}
    if "{session_id}" in example.path:
        named["session_id"] = _sessions(session(tenant))[0]
    path, body = example.path.format(**named), _personal(example.body, tenant)
    if isinstance(body, dict) and "token" in body:
        body["token"] = link_for(tenant, "confirm" if "confirm" in path else "reset").partition("#")[2]
    answer = server.call(example.method, path, body, tenant.token)
    assert answer.status_code == example.status, answer.text
    _compare(example.answer, answer.json(), "$")


def _sessions(tenant: Tenant) -> list[str]:
    """List the IDs of a customer's sessions, the current one first."""
    found = tenant.server.call("GET", "/api/customers/me/sessions", token=tenant.token).json()["data"]
    return [one["sessionId"] for one in sorted(found, key=lambda one: not one["current"])]


def _make_a_conflict(tenant: Tenant) -> None:
    """Give row u1 three versions, the last of which did not know the second."""
    device = tenant.device()
    device.create(id="u1", name="Asha")
    device.update(id="u1", name="Asha R")
    change = {"table": "end_user", "operation": "update", "baseVersion": 1, "data": {"id": "u1", "name": "Asha K"}}
    device.push({"operations": [change]})


def _personal(body: Any, tenant: Tenant) -> Any:
    """Put a tenant's own address and token into an example's body; a registration gets a new address."""
    if not isinstance(body, dict):
        return body
    own = {"email": tenant.email, "refreshToken": tenant.refresh_token}
    if "firstName" in body:
        own["email"] = f"{uuid.uuid4()}@example.com"
    if body.get("email") == "new@example.com":
        del own["email"]
    return body | {name: value for name, value in own.items() if name in body}


_VARYING = (
    r".*(oken|imestamp|ursor|At|Seen|email|(tenant|session)Id|customer\.id|uptimeSeconds|connectedClients|rateLimit\w+)"
)
"""Values that differ from run to run, by the end of their path."""


def _compare(shown: Any, real: Any, path: str) -> None:
    """Compare an example with an answer: the same fields and lengths, and values unless they vary by their nature."""
    assert type(shown) is type(real), path
    if isinstance(shown, dict):
        names = shown.keys() - {"…"}
        assert names <= real.keys() and ("…" in shown or names == real.keys()), f"{path}: {shown} / {real}"
        for name in names:
            _compare(shown[name], real[name], f"{path}.{name}")
    elif isinstance(shown, list):
        assert len(shown) == len(real), f"{path}: {shown} / {real}"
        for index, one in enumerate(shown):
            _compare(one, real[index], f"{path}[{index}]")
    elif not re.fullmatch(_VARYING, path):
        assert shown == real, path


def test_examples_of_events_are_what_a_listener_hears(tenant: Tenant, listen: Callable[..., Listener]) -> None:
    shown = [json.loads(text) for text in re.findall(r"```json\n([^`]*)```", API.partition("\n## Real time")[2])]
    listener = listen()
    tenant.device().create(id="u1", name="Asha")
    listener.wait_note("sync_complete")
    assert len(shown) == 3
    _compare(shown[0], listener.wait("authenticated"), "$")
    _compare(shown[1], listener.wait_note("data_available"), "$")
    _compare(shown[2], listener.wait_note("sync_complete"), "$")


def test_example_of_an_error_is_what_a_bad_push_answers(tenant: Tenant) -> None:
    (shown,) = re.findall(r'```json\n(\{\s*"success": false[^`]*)```', API)
    answer = tenant.device().push_raw({"changes": {"end_user": [{"active": "x"}]}}).json()
    assert answer == json.loads(shown) | {"requestId": answer["requestId"]}


# --- modules, links, commands ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*MODULES, ROOT / "gunicorn.conf.py"], ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(parsed(path.read_text()))
    assert docstring and docstring.splitlines()[0].endswith((".", ":", "?")), f"{path} must begin with a docstring"
    bounds = "Knows:" in docstring and "Must not" in docstring.replace("\n", " ")
    assert path.name == "gunicorn.conf.py" or bounds, f"{path}: its docstring must have “Knows:” and “Must not know:”"


def test_architecture_is_read_in_ten_minutes() -> None:
    """At 240 words a minute, without the diagram; the table of traps is to look things up."""
    text = re.sub(r"```.*?```", "", ARCHITECTURE.partition("\n## Traps\n")[0], flags=re.DOTALL)
    assert len(text.split()) < 2_400


def test_traps_name_the_modules_that_speak_of_them() -> None:
    traps = dict(re.findall(r"^\| (\d+) \|(.+)\|$", ARCHITECTURE.partition("\n## Traps\n")[2], re.MULTILINE))
    for path in [*modules(), ROOT / "gunicorn.conf.py"]:
        for said in re.findall(r"\btraps? (\d+(?:(?:, | and )\d+)*)", path.read_text(), re.IGNORECASE):
            for number in re.findall(r"\d+", said):
                where = traps.get(number, "").rpartition("|")[2]
                assert path.name in where, f"ARCHITECTURE.md: trap {number} must name {path.relative_to(ROOT)}"


def test_walks_of_a_push_and_a_pull_have_ten_steps_each() -> None:
    for title in ("A push, from its bytes to the disk and the listeners", "A pull, and back"):
        walk = ARCHITECTURE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        assert re.findall(r"^(\d+)\. ", walk, re.MULTILINE) == [str(number) for number in range(1, 11)], title


def test_every_folder_has_one_line_in_the_readme_and_no_other_has() -> None:
    table = README.partition("\n## Modules\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", table, re.MULTILINE)
    assert sorted(listed) == sorted({name_of(path).partition(".")[0] for path in MODULES})


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(doc: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", doc.read_text()):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        found = doc.parent / name if name else doc
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found.read_text()), target


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_every_command_that_a_doc_shows_exists(doc: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|[`;] *)make ([a-z-]+)", doc.read_text(), re.MULTILINE)) <= targets
    commands = set(re.findall(r"python syncapp\.py ([a-z][a-z-]*)", doc.read_text()))
    assert commands <= set(operator_commands.commands.list_commands(click.Context(operator_commands.commands)))


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_every_file_and_name_in_the_code_that_a_doc_mentions_exists(doc: Path) -> None:
    known = _modules_by_name()
    for name in re.findall(r"`([\w./]+\.(?:py|md|txt|mjs))`", doc.read_text()):
        assert (ROOT / name).exists() or (ROOT / "tests" / name).exists(), name
    for module, name in re.findall(r"`(\w+(?:\.\w+)*)\.([A-Za-z_]\w*)", doc.read_text()):
        is_of_a_table = module in main_database.TABLES  # As are columns in docs/deployment.md.
        if module in known and name != "py" and f"{module}.{name}" not in known and not is_of_a_table:
            assert hasattr(known[module], name), f"{module}.{name}"


def _modules_by_name() -> dict[str, ModuleType]:
    """Find modules by their whole name, and by the last part of it if no other has the same."""
    whole = {name_of(path): import_module(name_of(path)) for path in MODULES}
    last = [name.rpartition(".")[2] for name in whole]
    alone = {
        name.rpartition(".")[2]: module for name, module in whole.items() if last.count(name.rpartition(".")[2]) == 1
    }
    return whole | {name: module for name, module in alone.items() if name not in FOLDERS}


def test_readme_begins_with_what_it_is_and_the_two_commands() -> None:
    before, command, _ = README.partition("```sh\n")
    title, *prose = [line for line in before.splitlines() if line]
    assert title == "# syncapp"
    assert len(re.findall(r"[.!?](?:\s|$)", " ".join(prose))) == 2, "two sentences, then the commands"
    block = README.partition(command)[2].partition("```")[0]
    assert re.findall(r"make (\w+)", block) == ["run", "test"]
    assert "git clone" in block


@needs("bash", "curl", "node", "npm", "python3")
def test_session_of_the_readme_goes_as_shown(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server, heard = start_server(), tmp_path / "heard"
    section = README.partition("\n## A session\n")[2].partition("\n## ")[0]
    fenced = re.findall(r"^```(sh)?\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    script = "echo\n".join(text for kind, text in fenced if kind)
    assert script.count("' &\n") == 1
    script = script.replace("' &\n", f"' > {heard} &\n{_until(heard, 'authenticated')}")
    script = script.replace("localhost:3000", f"localhost:{server.port}")
    shell = ["bash", "-euc", f"{script}\n{_until(heard, 'sync_complete')}kill $!\necho\ncat {heard}\n"]
    done = subprocess.run(shell, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    shown = "".join(text for kind, text in fenced if not kind)
    assert _skeletons(shown) == _skeletons(done.stdout)


def _until(file: Path, word: str) -> str:
    """Write a line of shell that waits for a word in a file."""
    return f"until grep -q {word} {file}; do sleep 0.05; done\n"


def _skeletons(output: str) -> list[list[str]]:
    """Give what lines of output show beside rows and values that vary: event, names of fields, words; in no order."""
    found = []
    for line in re.sub(r'\{"id":"u1",.*?\}', '{"id":"u1"}', output).splitlines():
        if line:
            found.append(re.findall(r'^\w+|"\w+":|"status":"\w+"|"type":"\w+"|"message":"[^"]*"', line))
    return sorted(found)


def test_every_test_that_the_docs_name_exists() -> None:
    named = set(re.findall(r"`((?:[\w-]+/)*test_\w+\.py)::(test_\w+)`", "".join(page.read_text() for page in DOCS)))
    folders = (ROOT, ROOT / "tests", ROOT / "clients" / "python" / "tests")
    missing = set()
    for file, name in named:
        texts = [path.read_text() for path in (folder / file for folder in folders) if path.exists()]
        if not any(f"def {name}(" in text for text in texts):
            missing.add(f"{file}::{name}")
    assert named and not missing
