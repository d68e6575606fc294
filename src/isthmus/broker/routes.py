"""Routes: which log topic, key and partition a topic name has, and the way back.

A route binds an MQTT pattern with named captures (`factory/{line}/temperature`, the last level
may be `{rest...}`) to a log topic and a key template (`{line}`). The most specific route wins;
where none matches, the default route takes log topic `mqtt` and the topic name as key.

The way back turns a key into the topic name, so that a plain Kafka producer reaches MQTT
subscribers with no special header. It must be exact, and that is checked when the routes are
read: every capture stands in the key, two captures are parted by a `/` (a capture holds none),
and one log topic has one way back. `direction = "to-log"` gives the way back up. Reads no file:
config.py has checked the syntax of a pattern.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from isthmus.errors import ConfigError, TopicInvalid
from isthmus.topics.filter import check_topic_name

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_LOG_TOPIC: Final = "mqtt"

_LITERAL, _CAPTURE, _REST = 0, 1, 2
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")


class Level:
    """One level of a pattern: literal text, a capture, or a capture of all that follows."""

    __slots__ = ("kind", "text")

    def __init__(self, text: str) -> None:
        field = _FIELD.fullmatch(text)
        if field is not None:
            self.kind = _REST if field[2] else _CAPTURE
            self.text = field[1]
        elif text in ("+", "#"):
            self.kind = _CAPTURE if text == "+" else _REST
            self.text = ""
        else:
            self.kind = _LITERAL
            self.text = text


class Route:
    """One pattern and where it leads; knows the way there and, if it has one, the way back."""

    __slots__ = ("_key", "_levels", "inverted", "log_topic", "partitions", "pattern")

    def __init__(
        self,
        pattern: str,
        log_topic: str,
        key: str,
        partitions: int | None,
        *,
        to_log_only: bool,
    ) -> None:
        """Raise ConfigError, naming the route, if the key template does not fit the pattern."""
        self.pattern = pattern
        self.log_topic = log_topic
        self.partitions = partitions
        self.inverted = not to_log_only
        self._levels = [Level(text) for text in pattern.split("/")]
        self._key = _parse_template(key)
        self._check_fields()
        if self.inverted:
            self._check_inversion()

    @property
    def specificity(self) -> tuple[int, ...]:
        """Sort key: a literal level goes before a capture, a capture before the rest."""
        return tuple(level.kind for level in self._levels)

    def captures(self, levels: list[str]) -> dict[str, str] | None:
        """Return what the pattern captures of a topic name's levels; None: no match."""
        if levels[0].startswith("$") and self._levels[0].kind != _LITERAL:
            return None  # [MQTT-4.7.2-1]
        found: dict[str, str] = {}
        for place, level in enumerate(self._levels):
            if level.kind == _REST:
                found[level.text] = "/".join(levels[place:])
                return found if place < len(levels) else None
            if place >= len(levels):
                return None
            if level.kind == _CAPTURE:
                found[level.text] = levels[place]
            elif level.text != levels[place]:
                return None
        return found if len(levels) == len(self._levels) else None

    def key_of(self, topic_name: str, captures: dict[str, str]) -> str:
        """Return the record key; a route without key template takes the topic name."""
        if not self._key:
            return topic_name
        return "".join(captures[text] if field else text for text, field in self._key)

    def topic_name_of(self, key: str) -> str | None:
        """Return the topic name that has this key, or None if no topic name has it."""
        if not self._key:
            return key if self.captures(key.split("/")) is not None else None
        captures = self._read_key(key)
        if captures is None:
            return None
        return "/".join(
            level.text if level.kind == _LITERAL else captures[level.text]
            for level in self._levels
        )

    def _read_key(self, key: str) -> dict[str, str] | None:
        """Take the key apart along its template."""
        captures: dict[str, str] = {}
        place = 0
        rest = {level.text for level in self._levels if level.kind == _REST}
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
        names = [level.text for level in self._levels if level.kind != _LITERAL]
        for text, field in self._key:
            if field and text not in names:
                raise ConfigError(
                    f'route "{self.pattern}": the key names {{{text}}}, which the pattern does'
                    " not capture"
                )

    def _check_inversion(self) -> None:
        """Prove that `topic_name_of` undoes `key_of` [DESIGN 2]."""
        why = None
        captured = [level for level in self._levels if level.kind != _LITERAL]
        fields = [text for text, field in self._key if field]
        missing = [level.text for level in captured if level.text not in fields]
        rest = {level.text for level in captured if level.kind == _REST}
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
    for field in _FIELD.finditer(template):
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
        self.routes = sorted(routes, key=lambda route: route.specificity)
        self._back: dict[str, Route] = {DEFAULT_LOG_TOPIC: self.default}
        shapes: dict[tuple[str, ...], Route] = {}
        for route in self.routes:
            shape = tuple(
                level.text if level.kind == _LITERAL else "+#"[level.kind - 1]
                for level in route._levels
            )
            if shape in shapes:
                raise ConfigError(
                    f'routes "{shapes[shape].pattern}" and "{route.pattern}" match the same'
                    " topic names"
                )
            shapes[shape] = route
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
            captures = route.captures(levels)
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
