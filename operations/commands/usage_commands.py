"""The operator's command that shows what tenants used.

Knows: the command line, days as people write them, how a table is printed. Must not know: SQL, who counts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click

from operations import tenant_list
from operations.commands.command_line import counted, progress, storage
from operations.commands.tenant_commands import as_json_option, print_json, print_table
from storage import customer_list, usage
from storage.customer_list import Listed
from storage.engine import Engine
from storage.usage import Used

_FIRST_DAY = date(1970, 1, 1)
_DAYS_OF_ONE = 30
_MOST_DAYS = 36_500

COLUMNS = {
    "requests": "requests",
    "pushes": "pushes",
    "rows_pushed": "rowsPushed",
    "rows_pulled": "rowsPulled",
    "bytes_in": "bytesIn",
    "bytes_out": "bytesOut",
    "most_sockets": "mostSockets",
}
"""What is counted, and what it is called in JSON and CSV."""

ORDERS: dict[str, Callable[[Used], int]] = {
    "requests": lambda used: used.requests,
    "pushes": lambda used: used.pushes,
    "rows": lambda used: used.rows_pushed + used.rows_pulled,
    "bytes": lambda used: used.bytes_in + used.bytes_out,
    "sockets": lambda used: used.most_sockets,
}
"""By the word for it; the largest comes first."""

Shown = dict[str, Any]


class _Day(click.ParamType[date]):
    """A day such as 2026-11-29, ``today`` or ``yesterday``, in UTC."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Read a day."""
        if isinstance(value, date):
            return value
        near = {"today": 0, "yesterday": 1}.get(value)
        try:
            return _today() - timedelta(near) if near is not None else date.fromisoformat(value)
        except ValueError:
            self.fail("must be a day such as 2026-11-29, today or yesterday.", param, ctx)


def _today() -> date:
    return datetime.now(UTC).date()


@click.command("usage")
@click.argument("tenant", metavar="[TENANT]", required=False)
@click.option(
    "--day", type=_Day(), metavar="DAY", help="On this day: 2026-11-29, today or yesterday; today if not given."
)
@click.option("--from", "first", type=_Day(), metavar="DAY", help="From this day on, in UTC.")
@click.option("--to", "last", type=_Day(), metavar="DAY", help="Until this day, itself included; today if not given.")
@click.option(
    "--sort", type=click.Choice(list(ORDERS)), help="The most of this first; of one tenant by day if not given."
)
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, help="At most so many lines; 50 if not given.")
@as_json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
def show_usage(
    tenant: str | None,
    day: date | None,
    first: date | None,
    last: date | None,
    sort: str | None,
    limit: int,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show what each tenant used: requests, pushes, rows, bytes, sockets. Of one TENANT, by ID or e-mail address, by day.

    Example: python syncapp.py usage --from 2026-11-01 --to 2026-11-30 --sort bytes
    """
    days = _days(day, first, last, 1 if tenant is None else _DAYS_OF_ONE)
    with storage() as (_, engine):
        found = _by_tenant(engine, days, sort or "requests") if tenant is None else _by_day(engine, tenant, days, sort)
    _print(found[:limit], as_json, as_csv)
    if len(found) > limit:
        progress(f"{limit:,} of {counted(len(found), 'line')}; --limit shows more.")


def _days(day: date | None, first: date | None, last: date | None, unless_given: int) -> range:
    """Give the days that are meant, as numbers."""
    if day and (first or last):
        raise click.UsageError("--day is one day: leave out --from and --to.")
    last = day or last or _today()
    first = day or first or last - timedelta(unless_given - 1)
    if first > last:
        raise click.UsageError("--from must not be after --to.")
    if first < _FIRST_DAY or (last - first).days >= _MOST_DAYS:
        raise click.UsageError(f"The days must be within {_MOST_DAYS:,}, and after 1970.")
    return range((first - _FIRST_DAY).days, (last - _FIRST_DAY).days + 1)


def _by_day(engine: Engine, tenant: str, days: range, sort: str | None) -> list[Shown]:
    customer = tenant_list.find(engine, tenant)
    found = engine.directory.read(lambda: usage.usage_of(customer.id, days))
    used = sorted(found.items(), key=lambda one: -ORDERS[sort](one[1]) if sort else -one[0])
    return [{"day": str(_FIRST_DAY + timedelta(day))} | _shown(one) for day, one in used]


def _by_tenant(engine: Engine, days: range, sort: str) -> list[Shown]:
    sums: dict[str, Used] = {}
    for day in days:
        for used in engine.directory.read(lambda: list(usage.usage_on(day))):
            known = sums.get(used.tenant_id)
            sums[used.tenant_id] = known.plus(used) if known else used
    customers = {one.id: one for one in engine.directory.read(customer_list.listed)}
    found = sorted(sums.values(), key=ORDERS[sort], reverse=True)
    return [_named(customers[one.tenant_id]) | _shown(one) for one in found if one.tenant_id in customers]


def _named(customer: Listed) -> Shown:
    return {"tenant": customer.id, "email": customer.email}


def _shown(used: Used) -> Shown:
    return {name: getattr(used, column) for column, name in COLUMNS.items()}


# --- output ----------------------------------------------------------------------------------------------------------

_HEADS = {"day": "DAY", "tenant": "TENANT", "email": "ADDRESS", "requests": "REQUESTS", "pushes": "PUSHES"} | {
    "rowsPushed": "ROWS PUSHED",
    "rowsPulled": "ROWS PULLED",
    "bytesIn": "MIB IN",
    "bytesOut": "MIB OUT",
    "mostSockets": "SOCKETS",
}


def _print(found: Sequence[Shown], as_json: bool, as_csv: bool) -> None:
    if as_json:
        print_json(found)
    elif as_csv:
        click.echo(_as_csv(found), nl=False)
    elif found:
        print_table([_HEADS[name] for name in found[0]], [[_text(*cell) for cell in one.items()] for one in found])
    else:
        progress("Nothing was used, or it is not stored yet: the server does so each minute.")


def _text(name: str, value: str | int) -> str:
    if isinstance(value, str):
        return value
    return f"{value / 2**20:,.2f}" if name.startswith("bytes") else f"{value:,}"


def _as_csv(found: Sequence[Shown]) -> str:
    """Write CSV; what a spreadsheet would take for a formula is a text there.

    Source: OWASP, "CSV Injection".
    """
    text = io.StringIO()
    writer = csv.writer(text)
    if found:
        writer.writerow(found[0])
    for one in found:
        writer.writerow([f"'{cell}" if str(cell)[:1] in "=+-@\t\r" else cell for cell in one.values()])
    return text.getvalue()
