"""A black-box probe of a running deployment, ``doctor --url``: what its reverse proxy breaks.

Knows: in which order it is looked, how that is told and ends. Must not know: how anything is looked at, the machine that
the deployment runs on.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import click
import gevent

from operations import probe_requests as requests
from operations import probe_sockets as sockets
from operations.doctor import Finding
from operations.probe_client import NoAnswer
from operations.probe_target import Deployment, NoDeployment, address_of, reach

Probe = Callable[[Deployment], Finding | None]
_PROBE_SECONDS = 300

PROBES: tuple[Probe, ...] = (
    requests.certificate,
    requests.in_clear,
    requests.host,
    requests.callers,
    requests.authorization,
    requests.methods,
    requests.error_answers,
    requests.large_bodies,
    requests.compression,
    requests.streamed,
    requests.caches,
    sockets.upgrade,
    sockets.polling,
    sockets.idle,
)


def run(url: str, token: str) -> None:
    """Look at a deployment and tell what was found; exit code 1 if something is broken, or nothing can be looked at."""
    try:
        address = address_of(url)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        deployment = reach(address, token)
    except NoDeployment as error:
        raise click.ClickException(str(error)) from None
    by = f" behind {deployment.proxy}" if deployment.proxy else ""
    click.echo(f"syncapp {deployment.health.version} at {address.origin}{by}: {deployment.health.status}")
    found = [_said(*one) for one in looked(deployment)]
    broken = sum(finding.refuses for finding in found if finding)
    warnings = sum(not finding.refuses for finding in found if finding)
    click.echo(f"{len(found)} checks, {broken} broken, {warnings} warnings.")
    if broken:
        raise SystemExit(1)


def _said(what: str, finding: Finding | None) -> Finding | None:
    kind = "ok: looked" if finding is None else "broken:" if finding.refuses else "warning:"
    click.echo(f"{kind} {finding or what}")
    return finding


def looked(deployment: Deployment) -> Iterator[tuple[str, Finding | None]]:
    """Run every probe; give what each looks for, in words, and what it found."""
    for probe in PROBES:
        what = (probe.__doc__ or "").partition(".")[0].removeprefix("Look ")
        yield what, _bounded(probe, deployment, what)


def _bounded(probe: Probe, deployment: Deployment, what: str) -> Finding | None:
    try:
        with gevent.Timeout(_PROBE_SECONDS, NoAnswer("it took too long.")):
            return probe(deployment)
    except (NoAnswer, ssl.SSLCertVerificationError) as error:
        return Finding(f"It can't be seen {what}: {error}", "Look again.", refuses=True)
