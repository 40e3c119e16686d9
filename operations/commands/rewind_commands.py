"""The operator's command that takes a tenant back to an earlier moment.

Knows: the command line, what is shown before rows are written. Must not know: SQL, engines, how a moment is found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from operations.backups.rewind import Source, file_of, past_of, write_file
from operations.commands.command_line import confirm, counted, done_by, has_terminal, progress
from operations.commands.tenant_commands import as_json_option, customer_named, print_json, print_table, tenant_argument
from protocol.codec import format_time
from storage.declarations import compatibility
from storage.engine import Database
from storage.moments import Moment, Moments, NoMoment, Preview, time_of
from storage.positions import now_ms
from storage.time_machine import ROWS_AT_ONCE, Rewound, TimeMachine

ATTENTION = 3
"""Exit code of a rewind that left rows which were changed meanwhile."""

_SHOWN = 10


class _Wish(NamedTuple):
    """What was asked for, by the names of the options."""

    to: str | None
    tables: tuple[str, ...]
    row_ids: tuple[str, ...]
    is_yes: bool
    as_json: bool
    is_counted: bool
    seen: str | None
    skip: int
    limit: int | None
    to_file: Path | None
    backup: Path | None
    kept: str | None

    @property
    def source(self) -> Source:
        """Give where an earlier moment may be."""
        return self.backup or self.kept

    def must_be_clear(self) -> None:
        """Refuse what says too little, or two things.

        Raises: click.UsageError.
        """
        if not (self.is_yes or self.as_json or self.to_file or has_terminal()):
            raise click.UsageError(
                "This changes rows, and there is no terminal to ask: use --yes, or --json to look only."
            )
        if self.backup and self.kept:
            raise click.UsageError("Say which backup: --backup PATH, or --from, and not both.")
        if self.to is None and self.source is None:
            raise click.UsageError("Say to which moment: --to CHANGE, or a time.")


@click.command()
@tenant_argument
@click.option(
    "--to",
    metavar="CHANGE|TIME",
    help="The number of a change, or a time in ISO 8601; of a backup all that it has, if left out.",
)
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be given again.")
@click.option(
    "--row", "row_ids", multiple=True, metavar="ID", help="Only this row of the one --table; may be given again."
)
@click.option("--yes", "is_yes", is_flag=True, help="Do not ask.")
@as_json_option
@click.option(
    "--counts", "is_counted", is_flag=True, help="With --json: how many rows of each table, and none of them."
)
@click.option("--skip", type=click.IntRange(0), default=0, help="With --json: not the first so many rows.")
@click.option("--limit", type=click.IntRange(1), help="With --json: at most so many rows; all if not given.")
@click.option("--seen", metavar="CURSOR", help="Only if nothing was changed since --json gave this as `from`.")
@click.option(
    "--to-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a new database for restore --file, and leave the tenant as it is.",
)
@click.option(
    "--backup",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="A backup, or a tenant's file from one, for a moment that the tenant's own history has no more.",
)
@click.option(
    "--from", "kept", help="The same of a backup in BACKUP_TO: latest, its name, or the last one until a time."
)
def rewind(tenant: str, **asked: Any) -> None:
    """Take a tenant's rows back to what they were at a moment, as a new change that devices pull.

    It shows the difference first, and asks; with --json and without --yes it only shows it. What it undoes stays in the
    history, so that this can be undone in the same way. Exit code 3: rows that changed meanwhile were left.

    Example: python syncapp.py rewind asha@example.com --to 2026-11-23T14:02:00+05:30
    """
    wish = _Wish(**asked)
    wish.must_be_clear()
    with (
        customer_named(tenant) as (settings, engine, customer),
        _told(wish.source),
        past_of(engine, settings, customer.id, wish.source) as past,
    ):
        compatibility.must_be_accepted(engine)
        machine = TimeMachine(engine, customer.id, done_by(), past)
        if wish.to_file:
            machine.record("rewind-to-file", f"to {wish.to or 'the end'}{machine.of_past}, in {wish.to_file}")
            with file_of(engine, customer.id, wish.to_file) as copy:
                _to_file(Moments(copy, past and past[0]), copy, wish, wish.to_file)
        elif _to_tenant(machine, wish).left:
            raise SystemExit(ATTENTION)


@contextlib.contextmanager
def _told(source: Source) -> Iterator[None]:
    """Say of a moment that is no more held what may hold it."""
    try:
        yield
    except NoMoment as error:
        is_new = source is None and error.is_removed
        hint = " A backup from before may have it: --from TIME, or --backup PATH." if is_new else ""
        raise click.ClickException(f"{error}{hint}") from None


def _to_tenant(machine: TimeMachine, wish: _Wish) -> Rewound:
    preview = _preview(machine, wish)
    done = Rewound(0, 0, 0, 0)
    if wish.as_json and preview.rows and not wish.is_counted:
        machine.record("show-rows", f"that differ from change {preview.moment.sequence}")
    if wish.as_json and not wish.is_yes:
        print_json(_described(machine, preview, wish))
        return done
    shown = _described(machine, preview, wish) if wish.as_json else {}
    if not wish.as_json:
        _show(machine, preview)
    if preview.rows:
        if not wish.is_yes:
            confirm("Go on?")
        done = machine.apply(preview, takes_all=wish.is_yes)
    if wish.as_json:
        print_json(shown | {"written": done._asdict()})
    elif done.rows:
        which = (
            "as" if done.last - done.first + 1 == done.rows else "among the"
        )  # Others may write between its commits.
        click.echo(f"{counted(done.rows, 'row')} written, {which} changes {done.first:,} to {done.last:,}.")
    elif preview.rows and not done.left:
        click.echo("Nothing was written: all of it was made what it was then meanwhile.")
    if done.left:
        progress(f"{counted(done.left, 'row')} changed meanwhile and left as they are: look again what differs.")
    return done


def _to_file(moments: Moments, copy: Database, wish: _Wish, target: Path) -> None:
    preview = _preview(moments, wish)
    shown = _described(moments, preview, wish) if wish.as_json else {}
    if not wish.as_json:
        _show(moments, preview)
    count = write_file(copy, preview)
    if wish.as_json:
        print_json(shown | {"file": str(target)})
    else:
        progress(f"{counted(count, 'row')} are otherwise in the file than now; restore --file puts it in place.")
        click.echo(str(target))


def _preview(moments: Moments, wish: _Wish) -> Preview:
    moment = moments.end() if wish.to is None else moments.moment(wish.to, now_ms())
    preview = moments.preview(moment, wish.tables, wish.row_ids)
    if wish.seen and wish.seen != preview.here.cursor:
        raise click.ClickException("The tenant was changed since you looked. Look again what would change.")
    return preview


# --- what is shown ---------------------------------------------------------------------------------------------------


def _show(moments: Moments, preview: Preview) -> None:
    for line in _about(preview.moment):
        progress(line)
    counts = preview.counts
    if not counts:
        click.echo("Nothing differs: it is as it was then.")
        return
    rows = [(table, *(f"{count:,}" for count in found.values())) for table, found in counts.items()]
    print_table(("TABLE", "COME BACK", "CHANGE", "GO"), rows)
    for row in moments.rows(preview, 0, _SHOWN):
        click.echo(f"{row['table']} {row['id']} {_KINDS[row['kind']]}{_fields(row)}")
    if len(preview.rows) > _SHOWN:
        click.echo(f"and {len(preview.rows) - _SHOWN:,} more; --json lists all.")
    if len(preview.rows) > ROWS_AT_ONCE:
        progress(
            f"More than {ROWS_AT_ONCE:,} rows come in several commits: devices may see a part of them for moments."
        )


_KINDS = {"added": "comes back", "changed": "changes", "gone": "goes"}


def _fields(row: dict[str, Any]) -> str:
    return f": {', '.join(row['fields'])}" if row["kind"] == "changed" else ""


def _about(moment: Moment) -> Iterator[str]:
    taken = " (the time names no zone: UTC was taken)" if moment.is_utc_taken else ""
    yield f"Back to change {moment.sequence:,}, {time_of(moment)}{taken}."
    if moment.restored_at:
        yield (
            f"At {format_time(moment.restored_at)} the data was restored: what had been committed since change"
            f" {moment.sequence:,} is only in what was replaced then."
        )


def _described(moments: Moments, preview: Preview, wish: _Wish) -> dict[str, Any]:
    moment = preview.moment
    return {
        "to": {
            "change": moment.sequence,
            "time": format_time(moment.at) if moment.at else None,
            "utcTaken": moment.is_utc_taken,
            "restoredAt": format_time(moment.restored_at) if moment.restored_at else None,
        },
        "from": {"change": preview.here.sequence, "cursor": preview.here.cursor},
        "tables": preview.counts,
        "rows": None if wish.is_counted else moments.rows(preview, wish.skip, wish.limit or len(preview.rows)),
        "written": None,
    }
