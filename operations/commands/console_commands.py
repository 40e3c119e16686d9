"""The operator's command that lets somebody into the console.

Knows: the command line, the address of the console. Must not know: how a link is checked, SQL, engines.
"""

from __future__ import annotations

import re

import click

from accounts import operator_sign_in
from accounts.operator_sign_in import LINK_SECONDS, SESSION_SECONDS
from operations.commands.command_line import counted, progress, storage
from operations.commands.tenant_commands import as_json_option, print_json, shown_time
from settings import Settings

PATH = "/admin/sign-in"


@click.command("admin-link")
@click.option("--url", metavar="URL", help="Where the server is reached, such as https://api.example.com.")
@click.option("--end-all", is_flag=True, help="Make no link, but end all sessions of the console and unused links.")
@as_json_option
def admin_link(url: str | None, end_all: bool, as_json: bool) -> None:
    """Print a link that signs in to the console once, within ten minutes; who has it can do all that these commands can.

    Example: python syncapp.py admin-link --url https://api.example.com
    """
    if end_all:
        _end_all(as_json)
        return
    with storage() as (settings, engine):
        address = _address(settings, url)
        secret, until = operator_sign_in.make_link(engine.directory)
    link = f"{address}{PATH}#{secret}"
    if as_json:
        print_json({"url": link, "expiresAt": shown_time(until)})
        return
    click.echo(link)
    progress(
        f"It works once, for {LINK_SECONDS // 60} minutes. The session ends after {SESSION_SECONDS // 3600} hours."
    )


def _end_all(as_json: bool) -> None:
    with storage() as (_, engine):
        ended = operator_sign_in.end_all(engine.directory)
    if as_json:
        print_json({"ended": ended})
    else:
        click.echo(f"{counted(ended, 'sign-in')} ended.")


def _address(settings: Settings, url: str | None) -> str:
    """Give the address of the server, without a slash at its end."""
    if url is None:
        return settings.public_url or f"http://localhost:{settings.port}"
    if not re.fullmatch(r"https?://[^\s/?#]+/?", url):
        raise click.UsageError("--url must be an address such as https://api.example.com.")
    return url.rstrip("/")
