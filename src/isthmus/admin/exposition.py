"""Metrics as text, in the form that the reader asks for: Prometheus' own, or OpenMetrics.

By prometheus-client, which takes a while to import, so this is done when somebody asks for the
first time, and all of it on another thread. Beside what it is given it shows what the library
knows of the process: `process_cpu_seconds_total` and the like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.core import Metric as Family

    from isthmus.admin.metrics import Row

FAMILIES: Final = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class Exposition(Collector):
    """What was collected at one moment."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def collect(self) -> Iterable[Family]:
        """List all metrics with their values."""
        for metric, values in self._rows:
            family = FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)
            for labels, value in values.items():
                if isinstance(value, tuple):
                    family.add_metric(labels, *value)
                else:
                    family.add_metric(labels, value)
            yield family


def exposed(rows: Sequence[Row], accept: str) -> tuple[bytes, str]:
    """Return the text, and its type; `accept` is the header of the request."""
    registry = CollectorRegistry()
    registry.register(Exposition(rows))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
