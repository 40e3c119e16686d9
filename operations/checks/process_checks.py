"""Looks at the processes of an installation in PostgreSQL: whether they hear each other, and what they take together.

Knows: what can be wrong between processes. Must not know: brokers, SQL.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from operations.bus_choice import chosen_bus
from operations.checks.doctor import Finding, Machine
from operations.engine_choice import postgres_engine
from protocol.errors import Problem
from server.bus.messages import Process
from server.bus.roll_call import RollCall, call_roll
from settings import Settings
from storage.engine import About, CanNotOpen


class _Found(NamedTuple):
    about: About
    over: str
    roll: RollCall


@cache
def _look(settings: Settings) -> _Found | None:
    """Look once; None if the database can't be used, or has no data: another check says so."""
    try:
        engine = postgres_engine(settings, creates=False)
    except (CanNotOpen, Problem):
        return None
    try:
        bus = chosen_bus(settings, engine)
        return _Found(engine.about(), bus.broker, call_roll(bus))
    except (ValueError, Problem):
        return None
    finally:
        engine.close()


def described(settings: Settings) -> str:
    """Describe the database and the processes that serve, in a line."""
    found = _look(settings)
    if found is None:
        return "in PostgreSQL"
    names = ", ".join(map(_described, found.roll.processes)) or "none"
    return f"in {found.about.name}; processes that serve, by {found.over}: {names}"


def _described(process: Process) -> str:
    return f"{process.name or 'without a name'} ({process.version})"


def bus(machine: Machine) -> Finding | None:
    """Check whether processes can tell each other what to notify."""
    found = _look(machine.settings)
    if found is None or found.roll.is_heard:
        return None
    if machine.settings.redis_url:
        return Finding(
            "Redis is not heard.",
            "Until it is, listeners hear of the pushes at their own process at once, and of others' within 30 s.",
        )
    return Finding(
        "PostgreSQL's NOTIFY is not heard: a pooler is in between, such as PgBouncer in transaction mode.",
        "With several processes, set REDIS_URL, or have DATABASE_URL name PostgreSQL itself.",
    )


def versions(machine: Machine) -> Finding | None:
    """Check whether all processes that serve are of one version."""
    found = _look(machine.settings)
    different = sorted({one.version for one in found.roll.processes}) if found else []
    if len(different) < 2:
        return None
    return Finding(f"Processes of the versions {', '.join(different)} serve.", "End the older ones soon.")


def connections(machine: Machine) -> Finding | None:
    """Check whether PostgreSQL takes as many connections as all processes may have."""
    found = _look(machine.settings)
    if found is None or found.about.most_connections is None:
        return None
    workers = machine.environ.get("WEB_CONCURRENCY", "")
    count = max(1, len(found.roll.processes), int(workers) if workers.isdecimal() else 1)
    each = machine.settings.database_pool + (not machine.settings.redis_url)
    most = found.about.most_connections
    if count * each <= most:
        return None
    return Finding(
        f"PostgreSQL takes {most} connections from this user; processes: {count}, each with up to {each}.",
        f"Lower DATABASE_POOL to {max(2, most // count - (not machine.settings.redis_url))}, or have it take more.",
    )
