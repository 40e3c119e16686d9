"""Writes what the server counts in the form that Prometheus reads, or OpenMetrics if that is asked for.

Knows: the metrics of ``server.metrics``, what is measured at the moment of asking. Must not know: requests, who may ask.
The library takes 1.1 MiB, so this module is imported only where metrics are served.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from server import metrics

log = logging.getLogger("syncapp.metrics")


class Gauge(NamedTuple):
    """A value that is measured when somebody asks: what it is, its label's name, and the values by that label."""

    name: str
    about: str
    label: str
    values: Callable[[], Mapping[str, float]]


class OpenMetrics(Collector):
    """All metrics of one server."""

    def __init__(self, gauges: Iterable[Gauge]) -> None:
        self._gauges = list(gauges)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Give the metrics and their media type, in the form that an ``Accept`` header asks for."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def collect(self) -> Iterator[Metric]:
        """Give each metric with its values."""
        for metric in metrics.ALL:
            yield _counter(metric) if isinstance(metric, metrics.Counter) else _histogram(metric)
        for gauge in self._gauges:
            try:
                yield _gauge(gauge)
            except Exception:  # The others are wanted all the more now.
                log.exception("a metric can't be measured", extra={"metric": gauge.name})


def _gauge(gauge: Gauge) -> Metric:
    family = GaugeMetricFamily(gauge.name, gauge.about, labels=[gauge.label] if gauge.label else [])
    for label, value in gauge.values().items():
        family.add_metric([label] if gauge.label else [], value)
    return family


def _counter(counter: metrics.Counter) -> Metric:
    family = CounterMetricFamily(counter.name, counter.about, labels=counter.labels)
    for labels, count in counter.items():
        family.add_metric([str(label) for label in labels], count)
    return family


def _histogram(histogram: metrics.Histogram) -> Metric:
    family = HistogramMetricFamily(histogram.name, histogram.about, labels=[histogram.label] if histogram.label else [])
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    for label, observed in histogram.items():
        buckets = list(zip(bounds, accumulate(observed.counts), strict=True))
        family.add_metric([label] if histogram.label else [], buckets, observed.total)
    return family
