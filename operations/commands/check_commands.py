"""The operator's commands that look at a machine, a deployment or the data: ``doctor`` and ``support``.

Knows: the command line. Must not know: what is checked, and how.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import click

import settings as environment
from operations.checks import doctor as doctor_checks
from operations.checks import process_checks, trial_start
from operations.checks import support as support_text
from operations.commands import fleet_commands
from operations.commands.command_line import counted, failures, read_line, storage
from server import connections


@click.command()
@click.option("--url", metavar="URL", help="Check a running deployment from outside instead of this machine.")
@click.option(
    "--token-stdin",
    is_flag=True,
    help="With --url: read an access token from standard input, to check an idle socket until its ping.",
)
@click.option("--all", "is_all", is_flag=True, help="Check every tenant's data from end to end instead.")
@fleet_commands.jobs_option
@click.option("--resume", is_flag=True, help="With --all: go on with a run that was cut off.")
@click.option("--json", "as_json", is_flag=True, help="With --all: print JSON, for programs.")
@click.pass_context
def doctor(
    context: click.Context,
    url: str | None,
    token_stdin: bool,
    is_all: bool,
    jobs: int,
    resume: bool,
    as_json: bool,
) -> None:
    """Check this machine as a start does, and say what to do; exit code 1 if a start would be refused.

    Example: python syncapp.py doctor --all
    """
    if url is not None and is_all:
        raise click.UsageError("--url and --all are two different checks.")
    if (resume or as_json or fleet_commands.are_jobs_given(context)) and not is_all:
        raise click.UsageError("--jobs, --resume and --json work only with --all.")
    if token_stdin and url is None:
        raise click.UsageError("--token-stdin works only with --url.")
    if url is not None:
        from operations.commands import probe  # noqa: PLC0415 -- with a client for WebSockets, for this alone

        probe.run(url, read_line("token") if token_stdin else "")
    elif is_all:
        fleet_commands.check_all(jobs, resume=resume, as_json=as_json)
    else:
        _check_this_machine()


@click.command()
@click.pass_obj
def support(version: str) -> None:
    """Print what a report of a fault needs: versions, the machine, settings without secrets, checks, counts.

    It names no customer, and is safe to be shown.

    Example: python syncapp.py support > support.txt
    """
    with failures():
        settings = environment.load()
    for line in support_text.about_machine(settings, version):
        click.echo(line)
    try:
        with storage() as (_, engine):
            for line in support_text.about_data(engine):
                click.echo(line)
    except click.ClickException as error:
        click.echo(f"the data can't be opened: {error.message}")
    with contextlib.suppress(SystemExit):  # A refusal is part of the report.
        _check_this_machine(support_text.without_names)


def _check_this_machine(shown: Callable[[str], str] = str) -> None:
    """Print what is checked, and the settings; ``shown`` gives each line of what is not ours as it is printed."""
    try:
        settings = environment.load()
    except environment.SettingError as error:
        for line in str(error).splitlines():
            click.echo(f"refused: {line}")
        raise SystemExit(1) from None
    machine = doctor_checks.this_machine(settings)
    new = " (no data is there: a start would begin without data)" if machine.is_new else ""
    click.echo(
        f"data: {process_checks.described(settings)}"
        if settings.database_url
        else f"data folder: {machine.folder}{new}"
    )
    found = []
    for what, finding in trial_start.run_checks(machine):
        found.append(finding)
        kind = "ok: checked" if finding is None else "refused:" if finding.refuses else "warning:"
        click.echo(f"{kind} {shown(str(finding or what))}")
    for name, value in environment.effective(connections.fitted_to_open_files(settings)):
        source = environment.source_of(name, machine.environ)
        click.echo(shown(f"{name}={value}{'' if source == 'environment' else f' ({source})'}"))
    refusals = sum(finding.refuses for finding in found if finding)
    warnings = sum(not finding.refuses for finding in found if finding)
    click.echo(f"{len(found)} checks, {counted(refusals, 'refusal')}, {counted(warnings, 'warning')}.")
    if refusals:
        raise SystemExit(1)
