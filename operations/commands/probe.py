"""Checks a running deployment from outside (``doctor --url``): what does its reverse proxy break?

Knows: the order of the probes, which of them apply, the output and the exit code. Must not know: how anything is probed,
the machine that the deployment runs on.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import click
import gevent

from operations.checks import probe_requests as requests
from operations.checks import probe_sockets as sockets
from operations.checks.doctor import Finding
from operations.checks.probe_client import NoAnswer
from operations.checks.probe_requests import LOOPBACK
from operations.checks.probe_target import Deployment, NoDeployment, find_deployment, parse_address, printable
from operations.commands.command_line import counted

Probe = Callable[[Deployment], Finding | None]
_PROBE_SECONDS = 300

PROBES: tuple[Probe, ...] = (
    requests.certificate,
    requests.plain_http,
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
    """Check a deployment and print what was found; exit code 1 if something is broken, or if there is no deployment."""
    try:
        address = parse_address(url)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        deployment = find_deployment(address, token)
    except NoDeployment as error:
        raise click.ClickException(str(error)) from None
    by = f" behind {deployment.proxy}" if deployment.proxy else ""
    version, status = printable(deployment.health.version), printable(deployment.health.status)
    click.echo(f"syncapp {version} at {address.origin}{by}: {status}")
    found = [_print(*one) for one in run_checks(deployment)]
    skipped = skipped_probes(deployment)
    for probe, reason in skipped.items():
        click.echo(f"skipped: {_description(probe)}: {reason}")
    _print_summary(found, len(skipped))


def _print(description: str, finding: Finding | None) -> Finding | None:
    kind = "ok: checked" if finding is None else "broken:" if finding.refuses else "warning:"
    click.echo(f"{kind} {finding or description}")
    return finding


def _print_summary(found: list[Finding | None], skipped: int) -> None:
    broken = sum(finding.refuses for finding in found if finding)
    warnings = sum(not finding.refuses for finding in found if finding)
    tail = f", {skipped} skipped" if skipped else ""
    click.echo(f"{counted(len(found), 'check')}, {broken} broken, {counted(warnings, 'warning')}{tail}.")
    if broken:
        raise SystemExit(1)


def skipped_probes(deployment: Deployment) -> dict[Probe, str]:
    """Give the probes that have nothing to check at this address, with the reason."""
    skipped: dict[Probe, str] = {}
    if deployment.address.scheme == "http":
        skipped[requests.certificate] = "the address has no TLS (http://)."
    if deployment.address.host in LOOPBACK:
        skipped[requests.plain_http] = "the address is this machine's own."
    return skipped


def run_checks(deployment: Deployment) -> Iterator[tuple[str, Finding | None]]:
    """Run every probe that applies; give a description of each and its finding."""
    skipped = skipped_probes(deployment)
    for probe in PROBES:
        if probe not in skipped:
            yield _description(probe), _bounded(probe, deployment)


def _description(probe: Probe) -> str:
    return (probe.__doc__ or "").partition(".")[0].removeprefix("Check ")


def _bounded(probe: Probe, deployment: Deployment) -> Finding | None:
    try:
        with gevent.Timeout(_PROBE_SECONDS, NoAnswer("it took too long.")):
            return probe(deployment)
    except (NoAnswer, ssl.SSLCertVerificationError) as error:
        return Finding(f"Can't check {_description(probe)}: {error}", "Try again.", refuses=True)
