"""Log topics that a test sets, and heartbeats with the rest filled in."""

from __future__ import annotations

import re
from typing import Any

from isthmus.kafka.consumer_types import Heartbeat, HeartbeatRefused
from isthmus.kafka.errors import ErrorCode


class KnownTopics:
    """What a group knows of the log topics; a new one has a new id."""

    def __init__(self, **counts: int) -> None:
        self.counts: dict[str, int] = {}
        self.ids: dict[str, bytes] = {}
        self._made = 0
        self.set(**counts)

    def set(self, **counts: int) -> None:
        """Have these, by their partitions; those that there were do not shrink."""
        for name in self.counts.keys() - counts.keys():
            del self.counts[name], self.ids[name]
        for name, count in counts.items():
            if name not in self.ids:
                self._made += 1
                self.ids[name] = self._made.to_bytes(16, "big")
            self.counts[name] = max(count, self.counts.get(name, 0))

    def find(self, name: str) -> tuple[bytes, int] | None:
        return (self.ids[name], self.counts[name]) if name in self.ids else None

    def matching(self, pattern: str) -> frozenset[str]:
        if pattern == "[":
            raise HeartbeatRefused(ErrorCode.INVALID_REGULAR_EXPRESSION, "no closing ]")
        return frozenset(name for name in self.ids if re.fullmatch(pattern, name))


def beat_of(member_id: str, epoch: int, **changes: Any) -> Heartbeat:
    """Return a heartbeat that says nothing but what is given."""
    beat = Heartbeat(member_id, epoch, None, None, "c", "/h", -1, None, None, None, None)
    return beat._replace(**changes)
