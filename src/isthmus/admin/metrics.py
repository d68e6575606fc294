"""`/metrics`: what the server has counted, for Prometheus.

Collected on the loop, which takes what it takes to look at as many numbers; made into text on
another thread (exposition.py). Who may ask is decided as for the REST API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.responses import Response
from starlette.routing import Route

from isthmus.admin.api import Told
from isthmus.metrics import Histogram, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from starlette.requests import Request

    from isthmus.admin.api import Authorize
    from isthmus.metrics import Value, Values

    # Numbers by the values of the labels; of a histogram its buckets, and the total.
    Shown: TypeAlias = float | tuple[list[tuple[str, float]], float]
    Row: TypeAlias = tuple[Metric, dict[tuple[str, ...], Shown]]
    Look: TypeAlias = Callable[[Callable[[Any], object]], object]


class MetricsPage:
    """The page, over one table of metrics."""

    def __init__(self, table: Sequence[Metric], look: Look, authorize: Authorize) -> None:
        """`look(done)` gives `done` what the table collects from."""
        self._table = table
        self._look = look
        self._authorize = authorize

    def route(self) -> Route:
        """Return where it is."""
        return Route("/metrics", self._answer, methods=["GET"])

    async def _answer(self, request: Request) -> Response:
        refusal = await self._authorize(request)
        if refusal is not None:
            raise refusal
        told: Told[Any] = Told()
        self._look(told.tell)
        counted = await told.future
        rows = [(each, dict(shown(each.collect(counted)))) for each in self._table]
        accept = request.headers.get("accept", "")
        text, kind = await asyncio.to_thread(_exposed, rows, accept)
        return Response(text, headers={"Content-Type": kind})


def shown(values: Values) -> Iterator[tuple[tuple[str, ...], Shown]]:
    """List the values of one metric as they are now."""
    by_labels: Mapping[tuple[str, ...], Value] = (
        values if isinstance(values, Mapping) else {(): values}
    )
    for labels, value in by_labels.items():
        if isinstance(value, Histogram):
            yield labels, (list(buckets_of(value)), value.total)
        else:
            yield labels, value


def buckets_of(histogram: Histogram) -> Iterator[tuple[str, float]]:
    """List the buckets as they are shown: each has those below it, too."""
    so_far = 0
    for bound, count in zip((*histogram.bounds, None), histogram.counts, strict=True):
        so_far += count
        yield "+Inf" if bound is None else repr(bound), so_far


def _exposed(rows: Sequence[Row], accept: str) -> tuple[bytes, str]:
    from isthmus.admin.exposition import exposed

    return exposed(rows, accept)
