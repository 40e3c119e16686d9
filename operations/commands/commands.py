"""The operator's commands: ``python syncapp.py COMMAND``.

Knows: which module has which command, and imports it when the command is asked for. Must not know: what a command does;
each calls what the server calls. Commands may run beside a running server: they wait for its locks.
"""

from __future__ import annotations

import inspect
from importlib import import_module

import click

from version import VERSION

_MODULES = {
    "account": "account_commands",
    "actions": "tenant_commands",
    "admin-link": "console_commands",
    "backup": "backup_run_commands",
    "doctor": "check_commands",
    "export": "tenant_commands",
    "import": "import_commands",
    "log": "log_commands",
    "mail": "mail_commands",
    "maintenance": "maintenance_commands",
    "migrate": "fleet_commands",
    "move": "move_commands",
    "new-epoch": "backup_commands",
    "register": "account_commands",
    "restore": "backup_commands",
    "rewind": "rewind_commands",
    "support": "check_commands",
    "tenant": "quota_command",
    "tenants": "tenant_commands",
    "usage": "usage_commands",
}
"""The module of each command; of a group that has its commands in two, the one that adds to the other."""


class _Commands(click.Group):
    """Imports a command when it is asked for: most need little of what all of them need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command."""
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give the command of a name."""
        if cmd_name not in _MODULES:
            return None
        module = vars(import_module(f"operations.commands.{_MODULES[cmd_name]}"))
        command = next(one for one in module.values() if isinstance(one, click.Command) and one.name == cmd_name)
        _keep_examples_whole(command)
        return command


def _keep_examples_whole(command: click.Command) -> None:
    """Have ``--help`` keep examples in one line, be it longer than the terminal is wide: they are to be copied."""
    command.help = inspect.cleandoc(command.help or "").replace("\n\nExample:", "\n\n\b\nExample:")
    for one in command.commands.values() if isinstance(command, click.Group) else ():
        _keep_examples_whole(one)


@click.group(cls=_Commands)
@click.version_option(VERSION, prog_name="syncapp")
def commands() -> None:
    """Without a command: serve. Settings come from the environment (docs/settings.md).

    Example: python syncapp.py tenants --sort size
    """


_keep_examples_whole(commands)


def run() -> None:
    """Run the command that the command line names, and end the process."""
    commands(obj=VERSION)
