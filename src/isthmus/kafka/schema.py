"""The schema table: what each message of the Kafka protocol consists of, in which version.

`schema.txt` holds the facts, one paragraph per message, in the notation its head explains (made
by `tools/generate_kafka_schema.py` from Apache Kafka's definitions). The file is read once, on
first use; a paragraph is parsed when its message is asked for, so a server that speaks twenty
messages pays for twenty. Not here: bytes (codec.py), which versions are offered (api.py).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

_INDENT: Final = 4
_HEADING: Final = re.compile(
    r"(\w+)(?: key=(\d+))? versions=(\d+)-(\d+)(?: flexible=(\d+)\+)?$"
)
_NEVER: Final = 1 << 15  # above every version

_IMPLICIT_DEFAULTS: Final[dict[str, Any]] = {
    "bool": False,
    "float64": 0.0,
    "string": "",
    "bytes": b"",
    "uuid": bytes(16),
    "records": None,
}


class Span(NamedTuple):
    """A closed range of versions; empty when `last < first`."""

    first: int
    last: int

    def __contains__(self, version: object) -> bool:
        return isinstance(version, int) and self.first <= version <= self.last


class Field(NamedTuple):
    """One field of a message or of a struct inside it.

    `default` is what the reader sees where nothing was sent: an empty list for an array; an
    empty dict for a struct stands for the defaults of its own fields.
    """

    name: str
    type: str
    is_array: bool
    versions: Span
    nullable: Span
    tag: int | None
    default: Any
    is_ignorable: bool
    is_inflexible: bool
    fields: tuple[Field, ...]


class Message(NamedTuple):
    """A request, response, header or record of the protocol, in all its versions.

    `key` is the API key of requests and responses; of the records of internal topics it is the
    type that leads the record's key.
    """

    name: str
    key: int | None
    versions: Span
    flexible_first: int
    fields: tuple[Field, ...]


def message(name: str) -> Message:
    """Return the message called `name`, such as "FetchRequest".

    Raises:
        KeyError: The table has no such message.
    """
    bare = heading(name)
    lines = _paragraphs()[name][1].splitlines()
    fields, read = _parse_fields(lines, 0, 1, bare.versions)
    assert read == len(lines), f"{name}: line {read} is indented wrongly"
    return bare._replace(fields=fields)


def heading(name: str) -> Message:
    """Return the message called `name` without its fields, which is quicker."""
    text = _paragraphs()[name][0]
    matched = _HEADING.match(text)
    assert matched is not None, text
    _, key, first, last, flexible = matched.groups()
    return Message(
        name,
        None if key is None else int(key),
        Span(int(first), int(last)),
        _NEVER if flexible is None else int(flexible),
        (),
    )


def names() -> list[str]:
    """Return the names of all messages, in the order of the table."""
    return list(_paragraphs())


@cache
def _paragraphs() -> dict[str, tuple[str, str]]:
    """Return heading and body of each paragraph by message name."""
    text = Path(__file__).with_name("schema.txt").read_text(encoding="utf-8")
    paragraphs = {}
    for paragraph in text.split("\n\n"):
        heading, _, body = paragraph.strip("\n").partition("\n")
        if not heading.startswith("#"):
            paragraphs[heading.partition(" ")[0]] = (heading, body)
    return paragraphs


def _parse_fields(
    lines: list[str], position: int, depth: int, outer: Span
) -> tuple[tuple[Field, ...], int]:
    """Parse the lines from `position` on that are indented `depth` steps, and what they nest.

    Returns the fields and the position after them.
    """
    fields = []
    margin = " " * (_INDENT * depth)
    while position < len(lines) and lines[position].startswith(margin):
        words = lines[position].split()
        versions = _versions_of(words, outer)
        nested, position = _parse_fields(lines, position + 1, depth + 1, versions)
        fields.append(_field(words, versions, nested))
    return tuple(fields), position


def _versions_of(words: list[str], outer: Span) -> Span:
    if len(words) > 2 and words[2][0].isdigit():
        return _span(words[2], outer.last)
    return outer


def _span(text: str, last: int) -> Span:
    """Read `3`, `3-7` or `3+`; an open end reaches to `last`."""
    if text.endswith("+"):
        return Span(int(text[:-1]), last)
    low, _, high = text.partition("-")
    return Span(int(low), int(high or low))


def _field(words: list[str], versions: Span, nested: tuple[Field, ...]) -> Field:
    type_text, mark, null_text = words[1].partition("?")
    is_array = type_text.startswith("[")
    kind = type_text.strip("[]")
    assert bool(nested) == (kind == "struct"), words
    nullable = Span(0, -1)
    if mark:
        nullable = _span(null_text, versions.last) if null_text else versions
    options = dict(word.split("=", 1) for word in words[2:] if "=" in word)
    return Field(
        name=words[0],
        type=kind,
        is_array=is_array,
        versions=versions,
        nullable=nullable,
        tag=int(options["tag"]) if "tag" in options else None,
        default=_default(options.get("default"), kind, is_array=is_array),
        is_ignorable="ignorable" in words,
        is_inflexible="inflexible" in words,
        fields=nested,
    )


def _default(text: str | None, kind: str, *, is_array: bool) -> Any:
    if text == "null":
        return None
    if text is not None:
        return text == "true" if kind == "bool" else int(text)
    if is_array:
        return []
    if kind == "struct":
        return {}
    return _IMPLICIT_DEFAULTS.get(kind, 0)
