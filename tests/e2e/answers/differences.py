"""How the answers of two servers differ, and where Isthmus is meant to answer otherwise."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

INTENDED: Final = Path(__file__).with_name("differences.toml")


class Difference(NamedTuple):
    """One field that is not the same; elements of lists are called by their names, or `*`."""

    question: str
    field: str
    theirs: Any
    ours: Any


class Intended(NamedTuple):
    """Where a difference is meant: patterns of questions and fields, and why."""

    questions: str
    fields: str
    why: str

    def covers(self, one: Difference) -> bool:
        return bool(
            re.fullmatch(self.questions, one.question) and re.fullmatch(self.fields, one.field)
        )


def intended(conversation: str) -> list[Intended]:
    """Return what is meant to differ in a conversation."""
    rows = tomllib.loads(INTENDED.read_text())["difference"]
    return [
        Intended(one["questions"], one["fields"], one["why"])
        for one in rows
        if re.fullmatch(one["conversation"], conversation)
    ]


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[Difference]:
    """Return every field of every answer that is not the same."""
    return [
        Difference(question, *one)
        for question in theirs
        for one in _unlike("", theirs[question], ours[question])
    ]


def _are_named(value: Any) -> bool:
    """Whether this is a list of several structs that can be told apart by their names."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return False
    names = {one.get("name") or "" for one in value}
    return len(names) == len(value) > 1 and "" not in names


def _unlike(field: str, theirs: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(theirs, dict) and isinstance(ours, dict) and theirs.keys() == ours.keys():
        for name in theirs:
            yield from _unlike(f"{field}/{name}" if field else name, theirs[name], ours[name])
    elif _are_named(theirs) and _are_named(ours):
        named = [{one["name"]: one for one in each} for each in (theirs, ours)]
        for name in sorted(named[0].keys() | named[1].keys()):
            yield from _unlike(f"{field}/{name}", *(each.get(name) for each in named))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for one, other in zip(theirs, ours, strict=True):
            yield from _unlike(f"{field}/*", one, other)
    elif theirs != ours:
        yield field, theirs, ours
