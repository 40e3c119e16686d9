"""Refuses a start with an endpoint or an event that is not described whole, and says which file to edit.

Knows: the routes and events that are served, the tables that describe them. Must not know: how a description looks, what
an endpoint does. Found here, a part that was forgotten can't make ``/docs`` or ``/openapi.json`` fail later. It reads code
only: a user may edit or remove ``docs/``, and what is missing there a test says. The routes of the operator's console are
left out (``openapi.is_internal``): they are nobody else's, and docs/operations.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flask import Flask
from werkzeug.routing import Rule

from api.docs import asyncapi, openapi
from api.docs.endpoints import CALLS, Call
from settings import Settings


def must_describe(app: Flask, settings: Settings, events: Iterable[str]) -> None:
    """Check that every endpoint and every event that clients may emit is described, and nothing else.

    Raises: LookupError, which names each part that is missing and the file to edit.
    """
    rules = [rule for rule in app.url_map.iter_rules() if openapi.is_described(rule)]
    missing = [*_unserved(rules), *_undescribed_events(events)]
    schemas = openapi.schemas_by_name(settings)
    for rule in rules:
        missing += _missing_of(rule, app.view_functions[rule.endpoint].__doc__, schemas)
    if missing:
        raise LookupError("\n".join(missing))


def _unserved(rules: Iterable[Rule]) -> Iterator[str]:
    for endpoint in CALLS.keys() - {rule.endpoint for rule in rules}:
        yield f"{endpoint!r} has no route: add one in api/, or take it out of CALLS in api/docs/endpoints.py."


def _undescribed_events(events: Iterable[str]) -> Iterator[str]:
    for event in sorted(set(events) - asyncapi.CLIENT_EVENTS.keys()):
        yield f"The event {event} is not described: add it to CLIENT_EVENTS in api/docs/asyncapi.py."


def _missing_of(rule: Rule, docstring: str | None, schemas: Iterable[str]) -> Iterator[str]:
    """Say what is missing of one endpoint's description."""
    call, address = CALLS.get(rule.endpoint), openapi.address(rule.rule)
    if call is None:
        yield f"{rule.rule} is not described: add {rule.endpoint!r} to CALLS in api/docs/endpoints.py."
        return
    if not docstring:
        yield f"The view of {address} has no docstring: its first line is the summary of the endpoint; see api/."
    for name in rule.arguments - openapi.PATH_VARIABLES.keys():
        yield f"The variable {name} of {address} is not described: add it to PATH_VARIABLES in api/docs/openapi.py."
    for name in _named(call) - set(schemas):
        yield f"{name!r}, which CALLS names for {rule.endpoint!r}, is no schema: add it in api/docs/schemas.py."


def _named(call: Call) -> set[str]:
    return {name for name in (call.answer, call.body) if name}
