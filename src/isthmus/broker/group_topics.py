"""What consumer groups know of the log topics: ids, sizes, and which a pattern matches.

Regular expressions come from clients, so they are those of RE2: matching takes time in
proportion to the name, whatever the expression, and its memory is bounded. Apache Kafka has the
same dialect (ADR 29). What a pattern has matched is remembered until log topics come or go;
that is looked at once a second, while anybody asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.kafka.consumer_types import HeartbeatRefused
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

LOOK_MS: Final = 1_000
PATTERNS_MAX: Final = 10_000
COMPILED_BYTES_MAX: Final = 1 << 20  # of one regular expression


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
            matches = _compiled(pattern).fullmatch
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


def _compiled(pattern: str) -> Any:
    import re2  # most servers never see a pattern

    options = re2.Options()
    options.log_errors = False
    options.max_mem = COMPILED_BYTES_MAX
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        text = error.args[0].decode(errors="replace") if error.args else ""
        raise HeartbeatRefused(
            ErrorCode.INVALID_REGULAR_EXPRESSION,
            f"{pattern!r} is no regular expression: {text}",
        ) from None
