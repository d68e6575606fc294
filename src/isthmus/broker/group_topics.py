"""What consumer groups know of the log topics: ids, sizes, and which a pattern matches.

What a pattern has matched is remembered until log topics come or go; that is looked at once a
second, while anybody asks. The expressions themselves are expressions.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.broker.expressions import ExpressionInvalid, compiled
from isthmus.kafka.consumer_types import HeartbeatRefused
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

LOOK_MS: Final = 1_000
PATTERNS_MAX: Final = 10_000


class GroupTopics:
    """The log topics, as groups see them."""

    def __init__(self, runtime: Runtime, log: Log) -> None:
        self._runtime = runtime
        self._log = log
        self._names: tuple[str, ...] = ()
        self._looked_ms = -LOOK_MS  # monotonic
        self._matched: dict[str, frozenset[str]] = {}

    def find(self, name: str) -> tuple[bytes, int] | None:
        """Return topic id and number of partitions."""
        log_topic = self._log.topics.get(name)
        return None if log_topic is None else (log_topic.topic_id, len(log_topic.partitions))

    def matching(self, pattern: str) -> frozenset[str]:
        """Return the log topics whose whole name a regular expression matches.

        Raises HeartbeatRefused, for what is no regular expression.
        """
        self._look()
        found = self._matched.get(pattern)
        if found is None:
            try:
                matches = compiled(pattern).fullmatch
            except ExpressionInvalid as error:
                code = ErrorCode.INVALID_REGULAR_EXPRESSION
                raise HeartbeatRefused(code, str(error)) from None
            found = frozenset(name for name in self._names if matches(name))
            if len(self._matched) >= PATTERNS_MAX:
                self._matched.clear()
            self._matched[pattern] = found
        return found

    def _look(self) -> None:
        now_ms = self._runtime.monotonic_ms()
        if now_ms < self._looked_ms + LOOK_MS:
            return
        self._looked_ms = now_ms
        names = tuple(self._log.topics)
        if names != self._names:
            self._names = names
            self._matched.clear()
