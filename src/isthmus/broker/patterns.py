"""Patterns: topic filters that capture what they match, `factory/{line}/{rest...}`.

A capture `{name}` is one level, `{name...}` as the last one all that follow. What was captured
fills another pattern, or a record's key (routes.py). The most specific of several patterns goes
first, whatever their order. No regular expressions, and no work but one look at each level.

A topic filter can be matched as well: a pattern captures it where it captures every topic name
that the filter matches, so a `+` is captured by `{name}`, and a `#` only by `{name...}`.

Reads no file: config.py has checked the syntax of a pattern.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LITERAL, CAPTURE, REST = 0, 1, 2
FIELD: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")


class Level:
    """One level of a pattern: literal text, a capture, or a capture of all that follows."""

    __slots__ = ("kind", "text")

    def __init__(self, text: str) -> None:
        field = FIELD.fullmatch(text)
        if field is not None:
            self.kind = REST if field[2] else CAPTURE
            self.text = field[1]
        elif text in ("+", "#"):
            self.kind = CAPTURE if text == "+" else REST
            self.text = ""
        else:
            self.kind = LITERAL
            self.text = text


class Pattern:
    """One pattern; as text, what it was made from."""

    __slots__ = ("_text", "levels")

    def __init__(self, text: str) -> None:
        self._text = text
        self.levels = [Level(level) for level in text.split("/")]

    def __str__(self) -> str:
        return self._text

    @property
    def specificity(self) -> tuple[int, ...]:
        """Sort key: a literal level goes before a capture, a capture before the rest."""
        return tuple(level.kind for level in self.levels)

    def captured(self) -> list[Level]:
        """Return the levels that capture, a plain `+` or `#` under the name ""."""
        return [level for level in self.levels if level.kind != LITERAL]

    def captures(self, levels: list[str]) -> dict[str, str] | None:
        """Return what is captured of the levels of a topic name or filter; None: no match."""
        if levels[0].startswith("$") and self.levels[0].kind != LITERAL:
            return None  # [MQTT-4.7.2-1]
        found: dict[str, str] = {}
        for place, level in enumerate(self.levels):
            if level.kind == REST:
                found[level.text] = "/".join(levels[place:])
                return found if place < len(levels) else None
            if place >= len(levels):
                return None
            if level.kind == CAPTURE:
                if levels[place] == "#":  # of a filter: it is any number of levels
                    return None
                found[level.text] = levels[place]
            elif level.text != levels[place]:
                return None
        return found if len(levels) == len(self.levels) else None

    def filled(self, captures: Mapping[str, str]) -> str:
        """Return the topic name or filter that has these captures."""
        return "/".join(
            level.text if level.kind == LITERAL else captures[level.text]
            for level in self.levels
        )


def check_different(what: str, patterns: Iterable[Pattern]) -> None:
    """Raise ConfigError if two patterns, `what` they are of, match the same topic names."""
    seen: dict[tuple[str, ...], Pattern] = {}
    for pattern in patterns:
        shape = tuple(
            level.text if level.kind == LITERAL else "+#"[level.kind - 1]
            for level in pattern.levels
        )
        if shape in seen:
            raise ConfigError(
                f'{what} "{seen[shape]}" and "{pattern}" match the same topic names'
            )
        seen[shape] = pattern
