"""Routes: which log topic, key and partition a topic name has, and the way back.

A route binds an MQTT pattern with named captures (`factory/{line}/temperature`, the last level
may be `{rest...}`) to a log topic and a key template (`{line}`). The most specific route wins;
where none matches, the default route takes log topic `mqtt` and the topic name as key.

The way back turns a key into the topic name, so that a plain Kafka producer reaches MQTT
subscribers with no special header. It must be exact, and that is checked when the routes are
read: every capture stands in the key, two captures are parted by a `/` (a capture holds none),
and one log topic has one way back. `direction = "to-log"` gives the way back up. Reads no file:
config.py has checked the syntax of a pattern, patterns.py matches it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.broker.patterns import FIELD, REST, Pattern, check_different
from isthmus.errors import ConfigError, TopicInvalid
from isthmus.topics.filter import check_topic_name

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_LOG_TOPIC: Final = "mqtt"


class Route:
    """One pattern and where it leads; knows the way there and, if it has one, the way back."""

    __slots__ = ("_key", "compression", "inverted", "log_topic", "partitions", "pattern")

    def __init__(
        self,
        pattern: str,
        log_topic: str,
        key: str,
        partitions: int | None,
        *,
        to_log_only: bool,
        compression: str | None = None,
    ) -> None:
        """Raise ConfigError, naming the route, if the key template does not fit the pattern.

        `partitions` and `compression` are what its log topic is created with.
        """
        self.pattern = Pattern(pattern)
        self.log_topic = log_topic
        self.partitions = partitions
        self.compression = compression
        self.inverted = not to_log_only
        self._key = _parse_template(key)
        self._check_fields()
        if self.inverted:
            self._check_inversion()

    def key_of(self, topic_name: str, captures: dict[str, str]) -> str:
        """Return the record key; a route without key template takes the topic name."""
        if not self._key:
            return topic_name
        return "".join(captures[text] if field else text for text, field in self._key)

    def topic_name_of(self, key: str) -> str | None:
        """Return the topic name that has this key, or None if no topic name has it."""
        if not self._key:
            return key if self.pattern.captures(key.split("/")) is not None else None
        captures = self._read_key(key)
        return None if captures is None else self.pattern.filled(captures)

    def _read_key(self, key: str) -> dict[str, str] | None:
        """Take the key apart along its template."""
        captures: dict[str, str] = {}
        place = 0
        rest = {level.text for level in self.pattern.levels if level.kind == REST}
        for number, (text, field) in enumerate(self._key):
            if not field:
                if not key.startswith(text, place):
                    return None
                place += len(text)
                continue
            end = len(key)
            if number + 1 < len(self._key):
                end = _end_of_capture(key, place, self._key[number + 1][0])
                if end < 0:
                    return None
            value = key[place:end]
            if (text not in rest and "/" in value) or captures.setdefault(text, value) != value:
                return None
            place = end
        return captures if place == len(key) else None

    def _check_fields(self) -> None:
        names = [level.text for level in self.pattern.captured()]
        for text, field in self._key:
            if field and text not in names:
                raise ConfigError(
                    f'route "{self.pattern}": the key names {{{text}}}, which the pattern does'
                    " not capture"
                )

    def _check_inversion(self) -> None:
        """Prove that `topic_name_of` undoes `key_of` [DESIGN 2]."""
        why = None
        captured = self.pattern.captured()
        fields = [text for text, field in self._key if field]
        missing = [level.text for level in captured if level.text not in fields]
        rest = {level.text for level in captured if level.kind == REST}
        if self._key and missing:
            why = f"the key does not hold {{{missing[0]}}}" if missing[0] else "it has + or #"
        for number, (text, field) in enumerate(self._key[:-1]):
            if field and text in rest:
                why = f"in the key something follows {{{text}...}}, whose end cannot be told"
            elif field and not self._key[number + 1][0].startswith("/"):
                why = f"in the key {{{text}}} is not followed by a /, so its end cannot be told"
        if why is not None:
            raise ConfigError(
                f'route "{self.pattern}" has no way back: {why}; change the key or write'
                ' direction = "to-log"'
            )


def _end_of_capture(key: str, place: int, following: str) -> int:
    """Return where a capture ends that a literal starting with `/` follows; -1: nowhere."""
    end = key.find("/", place)
    return end if end >= 0 and key.startswith(following, end) else -1


def _parse_template(template: str) -> list[tuple[str, bool]]:
    """Return the template as (text, is a field) pairs."""
    parts: list[tuple[str, bool]] = []
    place = 0
    for field in FIELD.finditer(template):
        if field.start() > place:
            parts.append((template[place : field.start()], False))
        parts.append((field[1], True))
        place = field.end()
    if place < len(template):
        parts.append((template[place:], False))
    return parts


class RouteTable:
    """All routes, the most specific first, and the default route behind them."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raise ConfigError if two routes match the same names or share the way back."""
        self.default = Route("{topic...}", DEFAULT_LOG_TOPIC, "", None, to_log_only=False)
        self.routes = sorted(routes, key=lambda route: route.pattern.specificity)
        self._back: dict[str, Route] = {DEFAULT_LOG_TOPIC: self.default}
        check_different("routes", [route.pattern for route in self.routes])
        for route in self.routes:
            if not route.inverted:
                continue
            other = self._back.get(route.log_topic)
            if other is not None:
                raise ConfigError(
                    f'routes "{other.pattern}" and "{route.pattern}" both lead back from log'
                    f' topic "{route.log_topic}"; write direction = "to-log" for one of them'
                )
            self._back[route.log_topic] = route

    def resolve(self, topic_name: str) -> tuple[Route, str]:
        """Return the route of a topic name and its record key."""
        levels = topic_name.split("/")
        for route in self.routes:
            captures = route.pattern.captures(levels)
            if captures is not None:
                return route, route.key_of(topic_name, captures)
        return self.default, topic_name

    def log_topics(self) -> list[str]:
        """Return every log topic that MQTT messages go to or come from, each once."""
        return list(
            dict.fromkeys([DEFAULT_LOG_TOPIC, *(route.log_topic for route in self.routes)])
        )

    def leads_back(self, log_topic: str) -> bool:
        """Say whether records of this log topic reach MQTT subscribers."""
        return log_topic in self._back

    def topic_name_of(self, log_topic: str, key: bytes | None) -> bytes | None:
        """Return the topic name of a record by its key; None if it is not deliverable."""
        route = self._back.get(log_topic)
        if route is None or key is None:
            return None
        try:
            name = route.topic_name_of(key.decode())
            if name is not None:
                check_topic_name(name)
        except (UnicodeDecodeError, TopicInvalid):
            return None
        return name.encode() if name is not None else None
