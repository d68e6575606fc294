"""Offsets that groups have committed as a part of transactions which are still open.

They are in the log already, behind those that count, and a marker decides about them. Until
then who asks for stable offsets only (KIP-447) is told to come again: what reads on behind a
transaction that commits after all would be done twice. Which commit came later is told by
numbers given in the order of the log; an offset committed without a transaction, behind a
pending one, stays. Not here: the log, the groups (groups.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from isthmus.kafka.group_records import CommittedOffset

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isthmus.kafka.transaction import Place

_Key = TypeVar("_Key", int, str)

# What is told of an offset that may be about to change.
UNSTABLE: Final = CommittedOffset(-1, -1, "", -1, bytes(16))


class Held:
    """What one request has committed, as a part of a transaction."""

    __slots__ = ("group_id", "number", "offsets", "overtaken", "producer_id")

    def __init__(
        self,
        producer_id: int,
        group_id: str,
        offsets: Mapping[Place, CommittedOffset],
        number: int,
    ) -> None:
        self.producer_id = producer_id
        self.group_id = group_id
        self.offsets = offsets
        self.number = number
        self.overtaken: set[Place] = set()


class PendingOffsets:
    """All that waits for a marker."""

    def __init__(self) -> None:
        self.held: dict[int, list[Held]] = {}  # by producer id, in the order of the log
        self._of_groups: dict[str, list[Held]] = {}
        self.number = 0  # of the newest

    def hold(
        self, producer_id: int, group_id: str, offsets: Mapping[Place, CommittedOffset]
    ) -> Held:
        """Keep offsets until they are decided, or were not stored: then `release` them."""
        self.number += 1
        held = Held(producer_id, group_id, offsets, self.number)
        self.held.setdefault(producer_id, []).append(held)
        self._of_groups.setdefault(group_id, []).append(held)
        return held

    def release(self, held: Held) -> None:
        """Forget them."""
        _take_out(self.held, held.producer_id, held)
        _take_out(self._of_groups, held.group_id, held)

    def overtake(self, group_id: str, places: Iterable[Place], number: int) -> None:
        """Offsets of these places were committed, or deleted, behind those up to `number`."""
        for held in self._of_groups.get(group_id, ()):
            if held.number <= number:
                held.overtaken.update(places)

    def unstable(self, group_id: str) -> set[Place]:
        """Return the places for which a group has pending offsets."""
        return {place for held in self._of_groups.get(group_id, ()) for place in held.offsets}


def _take_out(table: dict[_Key, list[Held]], key: _Key, held: Held) -> None:
    table[key].remove(held)
    if not table[key]:
        del table[key]
