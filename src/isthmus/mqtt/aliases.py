"""Topic aliases that the server gives: short numbers in place of topic names [MQTT-3.3.2-11].

One table per connection of a client that takes some. Each name gets an alias with its first
message; when all are given, the name that was used least recently loses its own. Not here: the
aliases that a client gives (incoming.py).
"""

from __future__ import annotations


class OutgoingAliases:
    """Which alias stands for which topic name on one connection."""

    __slots__ = ("_aliases", "_maximum")

    def __init__(self, maximum: int) -> None:
        """Make an empty table of `maximum` aliases, 1 or more [MQTT-3.1.2-26]."""
        self._aliases: dict[bytes, int] = {}  # the least recently used first
        self._maximum = maximum

    def find(self, topic: bytes) -> int:
        """Return the alias that the client knows for a topic name; 0: none."""
        return self._aliases.get(topic, 0)

    def spare(self) -> int:
        """Return the alias that the next new topic name is to have."""
        if len(self._aliases) < self._maximum:
            return len(self._aliases) + 1
        return next(iter(self._aliases.values()))

    def used(self, topic: bytes, alias: int) -> None:
        """A PUBLISH is on its way in which the alias stands for, or beside, this name."""
        if self._aliases.pop(topic, 0) == 0 and len(self._aliases) == self._maximum:
            del self._aliases[next(iter(self._aliases))]
        self._aliases[topic] = alias
