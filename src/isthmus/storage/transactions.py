"""The transactions of one partition that hold readers of decided records back (KIP-98).

A transaction begins with its first record and ends with a marker. Who reads only what is
decided is held before the first record of the oldest transaction that has no marker yet, and
also of one whose marker is written but not durable: were the marker lost in a power cut, the
reader would have seen what is undecided again (Kafka's `unreplicatedTxns`, with the disk in the
place of the other replicas). So the last stable offset never moves back, whatever happens.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

UNDECIDED: Final = -1  # instead of the offset of a marker
_OVER_MAX: Final = 1_000  # ended ones that may lie behind one that stays open


class _Transaction:
    __slots__ = ("first_offset", "marker_offset", "producer_id")

    def __init__(self, producer_id: int, first_offset: int) -> None:
        self.producer_id = producer_id
        self.first_offset = first_offset
        self.marker_offset = UNDECIDED

    def is_over(self, durable_offset: int) -> bool:
        """Whether it is decided for good."""
        return UNDECIDED < self.marker_offset < durable_offset


class OpenTransactions:
    """Transactions in the order of their first records."""

    __slots__ = ("_durable_offset", "_open", "_ordered")

    def __init__(self) -> None:
        self._ordered: deque[_Transaction] = deque()  # some that are over may still be here
        self._open: dict[int, _Transaction] = {}  # without a marker, by producer id, in order
        self._durable_offset = 0  # as last heard

    def begin(self, producer_id: int, first_offset: int) -> None:
        """A producer that has none open begins a transaction, behind all others."""
        self._open[producer_id] = transaction = _Transaction(producer_id, first_offset)
        self._ordered.append(transaction)

    def decide(self, producer_id: int, marker_offset: int) -> int:
        """A marker ends the transaction of a producer; return the offset that is stable then.

        That is where the oldest transaction begins that is still open, or after the marker.
        """
        self._open.pop(producer_id).marker_offset = marker_offset
        if len(self._ordered) > 2 * len(self._open) + _OVER_MAX:
            self._ordered = deque(
                each for each in self._ordered if not each.is_over(self._durable_offset)
            )
        for transaction in self._open.values():
            return transaction.first_offset
        return marker_offset + 1

    def first_undecided(self, durable_offset: int) -> int | None:
        """Return where the oldest transaction begins that has no durable marker."""
        self._durable_offset = durable_offset
        ordered = self._ordered
        while ordered and ordered[0].is_over(durable_offset):
            ordered.popleft()
        return ordered[0].first_offset if ordered else None

    def cut(self, offset: int) -> None:
        """Forget what was said of `offset` and all after it."""
        while self._ordered and self._ordered[-1].first_offset >= offset:
            self._ordered.pop()
        for transaction in self._ordered:
            if transaction.marker_offset >= offset:
                transaction.marker_offset = UNDECIDED
        self._open = {
            each.producer_id: each for each in self._ordered if each.marker_offset == UNDECIDED
        }

    def replace(self, open_ones: Iterable[tuple[int, int]]) -> None:
        """Take these for all there are, as pairs of first offset and producer id."""
        self._ordered.clear()
        self._open.clear()
        for first_offset, producer_id in sorted(open_ones):
            self.begin(producer_id, first_offset)
