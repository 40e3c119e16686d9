"""Assembles the console from its parts, for the first who signs in.

Knows: which part gets what of the server. Must not know: what any part does.
"""

from __future__ import annotations

from api.admin.console import Console
from api.admin.overview import Overview
from api.admin.record import Record
from api.admin.server_parts import ServerParts


def assemble(server: ServerParts) -> Console:
    """Give the console of a server."""
    return Console(
        [
            Overview(server),
            Record(server.tenants),
        ]
    )
