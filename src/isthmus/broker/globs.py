"""Patterns of names: `line-*`, where a star is any characters or none.

A backslash before a star or another backslash makes that a character like others, so that
every name there is can be written. Nothing here is a regular expression, and a match takes no
longer than the pattern times the text.
"""

from __future__ import annotations

import re
from typing import Final

_PIECE: Final = re.compile(r"\\([*\\])|(\*)|([^*\\]+|\\)")


class Glob:
    """One pattern; `text` is how it is written, `parts` what stands between its stars."""

    __slots__ = ("parts", "text")

    def __init__(self, parts: tuple[str, ...]) -> None:
        self.parts = parts
        self.text = "*".join(map(escaped, parts))

    @classmethod
    def read(cls, text: str) -> Glob:
        """Read a pattern; every text is one."""
        parts = [""]
        for escape, star, plain in _PIECE.findall(text):
            if star:
                parts.append("")
            else:
                parts[-1] += escape or plain
        return cls(tuple(parts))

    @property
    def literal(self) -> str | None:
        """The one name that this is; None: it has a star."""
        return self.parts[0] if len(self.parts) == 1 else None

    @property
    def prefix(self) -> str | None:
        """What all names begin with where nothing else is asked of them; None: it is more."""
        first, *others = self.parts
        return first if others == [""] else None

    def matches(self, text: str) -> bool:
        """Whether a name is as the pattern has it."""
        first, *parts = self.parts
        if not parts:
            return text == first
        last = parts.pop()
        if not text.startswith(first):
            return False
        place = len(first)
        for part in parts:  # each is looked for once, from left to right
            found = text.find(part, place)
            if found < 0:
                return False
            place = found + len(part)
        return len(text) - place >= len(last) and text.endswith(last)

    def covers(self, other: Glob) -> bool:
        """Whether all that another one matches is matched; False too where that is not seen.

        Seen are names, and patterns with one star, at the end.
        """
        if other.literal is not None:
            return self.matches(other.literal)
        return self.prefix is not None and other.parts[0].startswith(self.prefix)


def escaped(name: str) -> str:
    """Return a name as the pattern that matches it alone."""
    return re.sub(r"[*\\]", r"\\\g<0>", name)
