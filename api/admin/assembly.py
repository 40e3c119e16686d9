"""Assembles the console from its parts, for the first who signs in.

Knows: which part gets what of the server. Must not know: what any part does.
"""

from __future__ import annotations

from api.admin.backups import Backups
from api.admin.console import Console
from api.admin.customer_actions import CustomerActions
from api.admin.customers import Customers
from api.admin.inspection import Inspection
from api.admin.jobs import Jobs
from api.admin.live_log import LiveLog
from api.admin.overview import Overview
from api.admin.record import Record
from api.admin.rewinding import Rewinding
from api.admin.row_view import RowView
from api.admin.server_parts import JOBS_FOLDER, ServerParts
from operations.command_jobs import CommandJobs
from operations.tenant_measures import Measures


def assemble(server: ServerParts) -> Console:
    """Give the console of a server."""
    jobs = Jobs(CommandJobs(server.settings.data_dir / JOBS_FOLDER))
    return Console(
        [
            jobs,
            Overview(server),
            Customers(server, Measures(server.tenants.engine)),
            CustomerActions(server),
            RowView(server, jobs),
            Rewinding(server),
            Backups(server, jobs),
            LiveLog(server),
            Inspection(server, jobs),
            Record(server.tenants),
        ]
    )
