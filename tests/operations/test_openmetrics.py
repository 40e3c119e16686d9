"""Metrics: who may read them, that they count what happens, that documents, alerts and dashboard name what is there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from operations.openmetrics import Gauge, OpenMetrics
from server.metrics import Histogram
from tests.conftest import ROOT, Server, Tenant
from tests.needs import where
from tests.operations.commands.test_operator import run
from tests.ports import free_port

TOKEN = "a-token-of-the-operator"
FOLDER = ROOT / "docs" / "monitoring"
needs_promtool = pytest.mark.skipif(where("promtool") is None, reason="apt-get install prometheus")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("watched")
    env = {
        "METRICS_TOKEN": TOKEN,
        "METRICS_PORT": str(port),
        "BACKUP_EVERY": "24h",
        "BACKUP_TO": str(folder / "backups"),
    }
    server = Server(folder / "data", env).start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def customer(watched: Server) -> Tenant:
    return watched.register()


def read(server: Server, **headers: str) -> requests.Response:
    return requests.get(f"{server.url}/metrics", headers=headers, timeout=10)


def value(server: Server, sample: str) -> float:
    text = read(server, Authorization=f"Bearer {TOKEN}").text
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


# --- who may read them -----------------------------------------------------------------------------------------------


def test_metrics_without_a_setting_are_not_there(server: Server) -> None:
    assert read(server, Authorization=f"Bearer {TOKEN}").status_code == 404


@pytest.mark.parametrize(
    "sent", [None, "Bearer", "Bearer another", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", "Bearer ä"]
)
def test_metrics_without_the_token_are_refused(watched: Server, sent: str | None) -> None:
    answer = read(watched, **({} if sent is None else {"Authorization": sent.encode().decode("latin-1")}))
    assert answer.status_code == 401 and answer.json()["code"] == "unauthorized"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_tenants_token_gives_no_metrics(watched: Server, customer: Tenant) -> None:
    assert read(watched, Authorization=f"Bearer {customer.token}").status_code == 401


def test_own_port_needs_no_token_and_has_nothing_else(watched: Server, port: int) -> None:
    own = f"http://127.0.0.1:{port}"
    assert "syncapp_build_info" in requests.get(f"{own}/metrics", timeout=10).text
    for path in ("/", "/health", "/api/tables"):
        assert requests.get(own + path, timeout=10).status_code == 404
    assert requests.post(f"{own}/metrics", timeout=10).status_code == 404


def test_port_that_is_taken_refuses_the_start_with_the_settings_name(
    watched: Server, port: int, tmp_path: Path
) -> None:
    ended = run(tmp_path, METRICS_PORT=str(port))
    assert ended.returncode == 1 and "METRICS_PORT" in ended.stderr and "Traceback" not in ended.stderr
    checked = run(tmp_path, "doctor", METRICS_PORT=str(port))
    assert checked.returncode == 1 and "METRICS_PORT" in checked.stdout


# --- what they count -------------------------------------------------------------------------------------------------


def counted(server: Server, sample: str, work: Callable[[], object]) -> float:
    """Give by how much a sample grew by some work."""
    before = value(server, sample)
    work()
    return value(server, sample) - before


def test_push_counts_as_request_push_rows_and_commit(watched: Server, customer: Tenant) -> None:
    device = customer.device()
    rows = {"changes": {"end_user": [{"id": f"m{number}", "name": "n"} for number in range(3)]}}
    push = 'syncapp_http_requests_total{endpoint="/api/client/sync/push",status="200"}'
    seconds = 'syncapp_http_request_duration_seconds_count{endpoint="/api/client/sync/push"}'
    for sample, expected in [
        (push, 1),
        (seconds, 1),
        ("syncapp_pushes_total", 1),
        ("syncapp_pushed_rows_total", 3),
        ("syncapp_commit_duration_seconds_count", 1),
        ("syncapp_committed_writes_total", 1),
        ('syncapp_token_lookups_total{result="hit"}', 1),
    ]:
        assert counted(watched, sample, lambda: device.push(rows)) >= expected, sample


def test_refusal_counts_by_its_code_and_unknown_paths_as_one(watched: Server) -> None:
    def ask() -> None:
        for path in ("/nothing", "/api/nothing/<b>"):
            requests.get(watched.url + path, timeout=10)

    assert counted(watched, 'syncapp_refusals_total{code="not_found"}', ask) == 2
    assert counted(watched, 'syncapp_http_requests_total{endpoint="unknown",status="404"}', ask) == 2


def test_socket_and_its_events_count(watched: Server, customer: Tenant) -> None:
    listener = customer.device().listen()
    try:
        assert value(watched, 'syncapp_sockets{state="authenticated"}') == 1
        events = 'syncapp_socket_event_duration_seconds_count{event="sync_push"}'
        row = {"table": "end_user", "data": {"id": "by-event", "name": "n"}}
        assert counted(watched, events, lambda: listener.call("sync_push", row)) == 1
        refused = 'syncapp_refusals_total{code="validation_error"}'
        assert counted(watched, refused, lambda: listener.call("sync_push", {"table": 7})) == 1
    finally:
        listener.close()


def test_nothing_names_a_tenant(watched: Server, customer: Tenant) -> None:
    customer.device().pull({})
    text = read(watched, Authorization=f"Bearer {TOKEN}").text
    assert customer.id not in text and customer.id.replace("-", "") not in text and customer.email not in text


def test_histogram_counts_below_and_at_each_bound() -> None:
    one = Histogram("syncapp_test_sizes", "Sizes.", bounds=(1, 5))
    for size in (0, 1, 2, 5, 6):
        one.observe(size)
    text = OpenMetrics([]).render("")[0].decode()
    buckets = re.findall(r'syncapp_test_sizes_bucket\{le="([^"]+)"\} (\S+)', text)
    assert buckets == [("1.0", "2.0"), ("5.0", "4.0"), ("+Inf", "5.0")]
    assert "syncapp_test_sizes_sum 14.0" in text


def test_metric_that_fails_leaves_the_others() -> None:
    def fails() -> dict[str, float]:
        raise OSError

    text = OpenMetrics([Gauge("broken", "", "", fails), Gauge("whole", "", "", lambda: {"": 7})]).render("")[0].decode()
    assert "broken" not in text and "whole 7.0" in text


# --- what names them -------------------------------------------------------------------------------------------------


def names(server: Server) -> set[str]:
    """Give every name that a query may use."""
    text = read(server, Authorization=f"Bearer {TOKEN}").text
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        found |= {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return found


@pytest.mark.files("some metrics are of files alone")
def test_table_of_the_docs_is_what_is_served(watched: Server) -> None:
    text = read(watched, Authorization=f"Bearer {TOKEN}").text
    served = dict(re.findall(r"^# HELP (syncapp_\S+) (.+)$", text, re.MULTILINE))
    served.pop("syncapp_test_sizes", None)
    rows = re.findall(
        r"^\| `(syncapp_\w+)[^`]*` \| (.+) \|$", (ROOT / "docs" / "monitoring.md").read_text(), re.MULTILINE
    )
    assert dict(rows) == served


@pytest.mark.files("some metrics are of files alone")
def test_alerts_and_dashboard_name_what_is_served(watched: Server) -> None:
    known, queries = names(watched), (FOLDER / "alerts.yml").read_text()
    dashboard = json.loads((FOLDER / "grafana.json").read_text())
    queries += "\n".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    used = set(re.findall(r"\b(?:syncapp|process)_[a-z_]+", queries))
    assert used and used <= known


@needs_promtool
def test_prometheus_takes_the_alerts() -> None:
    subprocess.run(["promtool", "check", "rules", FOLDER / "alerts.yml"], check=True, capture_output=True)


@needs_promtool
def test_prometheus_finds_no_fault_with_the_metrics(watched: Server) -> None:
    text = read(watched, Authorization=f"Bearer {TOKEN}").content
    found = subprocess.run(["promtool", "check", "metrics"], input=text, check=False, capture_output=True)
    assert found.returncode == 0, found.stderr
    assert not found.stderr


def test_openmetrics_is_given_where_it_is_asked_for(watched: Server) -> None:
    answer = read(watched, Authorization=f"Bearer {TOKEN}", Accept="application/openmetrics-text;version=1.0.0")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text") and answer.text.endswith("# EOF\n")
