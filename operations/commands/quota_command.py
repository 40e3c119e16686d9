"""The operator's command that gives one tenant quotas of its own.

Knows: which quotas there are, how they are read and shown. Must not know: SQL, engines, how a quota is counted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import click

from operations.commands.tenant_commands import as_json_option, customer_named, print_json, print_table, tenant_argument
from operations.commands.tenant_commands import tenant as tenant_group
from server.quotas import OWN, with_own
from settings import Settings
from storage import operator_actions

_READ: dict[str, Callable[[str], Any]] = {
    setting.name: setting.metadata["read"] for setting in fields(Settings) if setting.name in OWN
}
_OPTIONS = dict(
    zip(OWN, ("--requests", "--bytes", "--rows", "--stored-bytes", "--sockets"), strict=True),
)
_OF_ONE_REQUEST = {"tenant_bytes": "max_body_bytes", "tenant_rows": "max_push_rows"}


def _option(name: str, example: str, about: str) -> Callable[[Any], Any]:
    def read(_: object, option: click.Parameter, text: str | None) -> Any:
        """Read a quota as its setting is read."""
        try:
            return None if text is None else _READ[name](text)
        except ValueError as error:
            raise click.BadParameter(str(error), param=option) from None

    return click.option(_OPTIONS[name], name, metavar=example, callback=read, help=about)


@tenant_group.command()
@tenant_argument
@_option("tenant_stored_bytes", "N", "How large its database may be, such as 500M.")
@_option("tenant_requests", "RATE", 'Requests and events, such as "1000 per minute".')
@_option("tenant_rows", "RATE", 'Rows that it pushes, such as "10000 per hour".')
@_option("tenant_bytes", "RATE", 'Bytes of request bodies, such as "100M per minute".')
@_option("max_tenant_sockets", "N", "Sockets; those that are open stay.")
@click.option("--default", "is_default", is_flag=True, help="Those of all tenants again; before what else is given.")
@as_json_option
def quota(tenant: str, is_default: bool, as_json: bool, **given: Any) -> None:
    """Give a tenant quotas of its own, within a second; without an option show those that hold.

    Example: python syncapp.py tenant quota asha@example.com --rows "10000 per hour" --stored-bytes 500M
    """
    changes = {name: value for name, value in given.items() if value is not None}
    with customer_named(tenant) as (settings, engine, customer):
        own = ({} if is_default else customer.quotas or {}) | changes
        _must_let_one_through(settings, changes)
        if changes or is_default:
            engine.directory.write(lambda: operator_actions.set_quotas(customer.id, own, int(time.time())))
    shown = list(_shown(settings, own))
    if as_json:
        print_json({name.removeprefix("--"): {"value": value, "isOwn": is_own} for name, value, is_own in shown})
    else:
        print_table(
            ("QUOTA", "VALUE", ""), [(name, str(value), "its own" if is_own else "") for name, value, is_own in shown]
        )


def _shown(settings: Settings, own: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    for name in OWN:
        yield _OPTIONS[name], getattr(with_own(settings, own), name), name in own


def _must_let_one_through(settings: Settings, changes: Mapping[str, Any]) -> None:
    """Refuse a quota below what one request may have: such a request would be refused for ever."""
    for name, one in _OF_ONE_REQUEST.items():
        least = getattr(settings, one)
        if name in changes and int(re.findall(r"\d+", changes[name])[0]) < least:
            raise click.ClickException(
                f"{_OPTIONS[name]} must allow at least one of {one.upper()}, {least:,}: take a longer time, such as"
                f' "{least} per hour".'
            )
