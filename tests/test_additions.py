"""What is added is added whole: a part that is easily forgotten fails here, with the file to edit (CONTRIBUTING.md).

``test_docs`` holds the documents to the code, ``test_imports`` and ``test_layout`` the modules, ``api/docs/completeness``
the descriptions of endpoints and events, at each start.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import get_args

import click
import pytest
from click.testing import CliRunner

import models
import settings
from api.docs import schemas
from api.limits import announced_limits
from operations.checks import doctor, probe_requests, probe_sockets, trial_start
from operations.commands import probe
from operations.commands.commands import commands
from protocol.messages import Strategy
from protocol.notifications import NOTIFICATION_TYPES, Notification
from storage import main_database, schema, system_tables
from tests import older_version
from tests.sources import ROOT, modules, nodes, parsed
from version import VERSION

TREES = {path: parsed(path.read_text()) for path in [*modules(), ROOT / "gunicorn.conf.py"]}
API = (ROOT / "docs" / "api.md").read_text()
VERSIONS = dict(re.findall(r"^\| (\d[\d.]*) \| (.+) \|$", (ROOT / "docs" / "deployment.md").read_text(), re.MULTILINE))
"""What docs/deployment.md says of each version: what it adds to the data, and whether one can go back."""
DOCS = "".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")])


def texts_in(trees: dict[Path, ast.Module]) -> list[str]:
    """Collect every text in some modules, also those that are no more than a part of one."""
    found = [node for tree in trees.values() for node in nodes(tree)]
    return [node.value for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)]


# --- settings --------------------------------------------------------------------------------------------------------


def test_every_setting_is_read_by_some_module() -> None:
    trees = {path: tree for path, tree in TREES.items() if path.name != "settings.py"}
    read = {node.attr for tree in trees.values() for node in nodes(tree) if isinstance(node, ast.Attribute)}
    read |= {word for text in texts_in(trees) for word in text.split()}  # As api/limits.py names them.
    unread = {field.name for field in fields(settings.Settings)} - read
    assert not unread, f"settings.py has settings that no module reads: {unread}"


NOT_MET_BY_CLIENTS = {
    *(
        "port",
        "metrics_port",
        "trusted_proxies",
        "bcrypt_rounds",
        "open_tenants",
        "max_connections",
        "max_waiting_pushes",
    ),
    *("database_pool", "database_wait_seconds", "ping_interval_seconds", "ping_timeout_seconds", "shutdown_seconds"),
    *("min_free_bytes", "purge_seconds", "usage_days", "backup_every", "log_files", "log_file_bytes"),
}
"""Settings with numbers that are no limit of one client or tenant."""


def test_every_limit_that_clients_meet_is_announced() -> None:
    chosen = settings.Settings()
    has_number = {one.name for one in fields(chosen) if re.match(r"\d+( per |$)", str(getattr(chosen, one.name)))}
    announced = {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name) for name in announced_limits(chosen)}
    missing = has_number - announced - NOT_MET_BY_CLIENTS
    assert not missing, (
        f"api/limits.py must name {missing}, if clients meet it; else NOT_MET_BY_CLIENTS in tests/test_additions.py"
    )
    assert has_number - announced >= NOT_MET_BY_CLIENTS


# --- notifications ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NOTIFICATION_TYPES)
def test_every_type_of_notification_is_sent(kind: str) -> None:
    made = [text for text in texts_in(TREES) if text == kind]
    assert len(made) > 1, f"protocol/notifications.py has the type {kind}, and no module makes such a notification"


def test_every_field_of_a_notification_is_described() -> None:
    described = schemas.components(settings.Settings())["Notification"]["properties"].keys()
    assert set(Notification.__struct_fields__) == described, (
        "api/docs/schemas.py must describe each field in Notification"
    )


# --- rules of who wins -----------------------------------------------------------------------------------------------


def test_every_strategy_of_conflicts_is_a_setting_and_no_other() -> None:
    with pytest.raises(settings.SettingError) as refusal:
        settings.load({"CONFLICT_STRATEGY": "*"})
    words = str(refusal.value).partition("must be ")[2].partition(",")[0].split(" or ")
    assert set(words) == set(get_args(Strategy)), (
        "settings.py, conflict_strategy, must take the words of Strategy in protocol/messages.py, and no other"
    )
    for strategy in get_args(Strategy):
        assert f"`{strategy}`" in API, f"docs/api.md must say what {strategy} decides"


# --- operators' commands ---------------------------------------------------------------------------------------------


def every_command(group: click.Group = commands, name: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command
        yield f"{name} {word}".strip(), command
        if isinstance(command, click.Group):
            yield from every_command(command, f"{name} {word}".strip())


def file_of(command: click.Command) -> str:
    return str(Path(command.callback.__code__.co_filename).relative_to(ROOT)) if command.callback else "operations/"


@pytest.mark.parametrize(("name", "command"), [*every_command()], ids=[name for name, _ in every_command()])
def test_every_command_says_what_it_does_and_is_in_the_docs(name: str, command: click.Command) -> None:
    file = file_of(command)
    assert command.help, f"{file}: the function of {name} must have a docstring, which --help shows"
    assert f"python syncapp.py {name}" in DOCS, f"docs/operations.md must show: python syncapp.py {name}"
    for option in command.params:
        if isinstance(option, click.Option):
            flag = option.opts[0]
            assert option.help, f"{file}: {flag} of {name} must have a help text"
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", DOCS), (
                f"docs/operations.md must say what {name} {flag} does"
            )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "operations" / "commands").glob("[!_]*.py")), ids=lambda path: path.stem
)
def test_every_command_can_be_asked_for(path: Path) -> None:
    reachable = [command for _, command in every_command()]
    for one in vars(importlib.import_module(f"operations.commands.{path.stem}")).values():
        if isinstance(one, click.Command) and one is not commands:
            assert one in reachable, f"{one.name} of {path.name} must be in _MODULES of operations/commands/commands.py"


@pytest.mark.parametrize(("name", "command"), [("", commands), *every_command()])
def test_every_command_shows_an_example_in_one_line_that_it_takes(name: str, command: click.Command) -> None:
    """In one line, since it is copied; with options that there are."""
    written = f"python syncapp.py {name}".strip()
    shown = CliRunner().invoke(commands, [*name.split(), "--help"]).output
    (example,) = re.findall(r"^ *Example: (.+)$", shown, re.MULTILINE) or [""]
    assert example.startswith(written) and example in (command.help or ""), (
        f"{file_of(command)}: the docstring of {name or 'commands'} must end with a paragraph Example: {written} …"
    )
    words, known = shlex.split(example.partition(" > ")[0])[2:], commands
    while isinstance(known, click.Group) and words and (inner := known.get_command(click.Context(known), words[0])):
        known, _ = inner, words.pop(0)  # type: ignore[assignment]
    known.make_parser(click.Context(known)).parse_args(words)


# --- what doctor looks at --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "made", "table"),
    [
        (doctor, doctor.CHECKS, "CHECKS in operations/checks/doctor.py"),
        (trial_start, trial_start.TRIAL_CHECKS, "TRIAL_CHECKS in operations/checks/trial_start.py"),
        (probe_requests, probe.PROBES, "PROBES in operations/commands/probe.py"),
        (probe_sockets, probe.PROBES, "PROBES in operations/commands/probe.py"),
    ],
    ids=["doctor", "trial_start", "probe_requests", "probe_sockets"],
)
def test_every_check_is_made_and_says_what_it_looks_for(
    module: ModuleType, made: Sequence[Callable[..., object]], table: str
) -> None:
    checks = [one for one in vars(module).values() if getattr(one, "__module__", "") == module.__name__]
    checks = [one for one in checks if getattr(one, "__annotations__", {}).get("return") == "Finding | None"]
    public = [check for check in checks if not check.__name__.startswith("_")]
    assert public
    for check in public:
        assert check in made, f"{check.__name__} must be in {table}: else it is never made"
        assert (check.__doc__ or "").startswith("Check "), f"{check.__name__}: its docstring must begin with Check"


# --- tables of our own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "made", "table"),
    [
        (system_tables, schema.tenant_models(), "tenant_models in storage/schema.py"),
        (main_database, main_database._MODELS, "_MODELS in storage/main_database.py"),
    ],
    ids=["system_tables", "main_database"],
)
def test_every_table_of_ours_is_made_in_a_new_database(
    module: ModuleType, made: Sequence[type[models.Bound]], table: str
) -> None:
    own = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, models.Bound)]
    missing = {one.__name__ for one in own if one.__module__ == module.__name__} - {one.__name__ for one in made}
    assert own and not missing, f"{table} must list {missing}"


@pytest.mark.parametrize("model", [*main_database._MODELS, *schema.tenant_models()])
def test_what_this_version_adds_to_the_data_is_in_the_docs_and_lets_the_version_before_write(
    model: type[models.Bound],
) -> None:
    """A column that has to be given, and that the version before does not know, would refuse its rows after a rollback."""
    name, before = str(model._meta.table_name), older_version.recorded_columns()
    is_new = name not in before
    new = [field for field in model._meta.sorted_fields if not is_new and field.column_name not in before[name]]
    for added in [name] if is_new else [f"{name}.{field.column_name}" for field in new]:
        assert f"`{added}`" in VERSIONS[older_version.NOW], (
            f"docs/deployment.md: the row of this version must name {added}"
        )
    for field in new:
        assert field.null or field.default is not None, (
            f"{name}.{field.column_name} must have a default, or may be null"
        )


# --- versions --------------------------------------------------------------------------------------------------------


def test_version_is_the_newest_of_the_changelog_which_the_table_of_rollbacks_has_all() -> None:
    changes = re.findall(r"^## \[(\d[\d.]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert changes[0] == VERSION, "CHANGELOG.md must begin with this version"
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()
    assert list(VERSIONS) == changes, (
        "docs/deployment.md must have a row for each version of CHANGELOG.md, in its order"
    )
    assert re.search(r"\| (yes|no)\b", VERSIONS[VERSION]), "and say whether one can go back"
