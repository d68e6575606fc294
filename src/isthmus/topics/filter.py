"""The rules of topic names and topic filters [MQTT 5.0, section 4.7], written to be read.

A topic name says where one message goes; a topic filter says which names a subscription wants,
with `+` for exactly one level and `#` for any number of last levels, the parent's included.
Whatever comes from a client, a configuration or a record key is checked here once, before it
goes further in. `filter_matches` is the specification of matching: `tree.py` is fast and must
agree with it. Filters compare as the sets of names that they match, and what two of them have
in common is a filter again, or nothing.

Not here: bytes (mqtt/codec.py checks UTF-8 as it decodes) and who may use a name
(broker/access.py).
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Final

from isthmus.errors import TopicInvalid

TOPIC_BYTES_MAX: Final = 65_535  # the length prefix of a UTF-8 string is 16 bit [MQTT-4.7.3-3]
TOPIC_LEVELS_MAX: Final = 256  # ours: bounds the depth of the tree and the work per name
SHARED_PREFIX: Final = "$share/"


def check_topic_name(name: str) -> None:
    """Raise TopicInvalid unless a message can be published under `name` [MQTT-4.7.0-1]."""
    _check_text(name, "topic name")
    if "+" in name or "#" in name:
        raise TopicInvalid(f"a wildcard in the topic name {_shown(name)}")


def check_topic_filter(topic_filter: str) -> None:
    """Raise TopicInvalid unless one can subscribe to `topic_filter`, shared or not.

    `#` stands alone in the last level [MQTT-4.7.1-1], `+` alone in any [MQTT-4.7.1-2].
    """
    _check_text(topic_filter, "topic filter")
    if topic_filter.startswith(SHARED_PREFIX):
        topic_filter = parse_shared(topic_filter)[1]
    if "+" not in topic_filter and "#" not in topic_filter:
        return
    levels = topic_filter.split("/")
    last = len(levels) - 1
    for depth, level in enumerate(levels):
        if level == "+" or (level == "#" and depth == last):
            continue
        if "+" in level or "#" in level:
            raise TopicInvalid(
                f"a misplaced wildcard in the topic filter {_shown(topic_filter)}"
            )


def parse_shared(topic_filter: str) -> tuple[str, str]:
    """Split `$share/<group>/<filter>` into the two; the group is "" where none is named.

    The group is at least one character, without wildcards, and a filter follows it
    [MQTT-4.8.2-1, MQTT-4.8.2-2]; otherwise TopicInvalid.
    """
    if not topic_filter.startswith(SHARED_PREFIX):
        return "", topic_filter
    group, _, inner = topic_filter[len(SHARED_PREFIX) :].partition("/")
    if not group or not inner or "+" in group or "#" in group:
        raise TopicInvalid(f"{_shown(topic_filter)} is not $share/<group>/<filter>")
    return group, inner


def has_wildcard(topic_filter: str) -> bool:
    """Say whether a checked topic filter can match more than one topic name."""
    return "+" in topic_filter or "#" in topic_filter


def filter_matches(topic_filter: str, name: str) -> bool:
    """Return whether a valid, unshared filter wants messages of this topic name.

    A wildcard in the first level does not match names that begin with `$` [MQTT-4.7.2-1].
    """
    wanted, levels = topic_filter.split("/"), name.split("/")
    if name.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for depth, level in enumerate(wanted):
        if level == "#":
            return True
        if depth == len(levels) or level not in ("+", levels[depth]):
            return False
    return len(wanted) == len(levels)


def filter_intersection(one: str, other: str) -> str | None:
    """Return the filter of the names that two valid, unshared filters match; None: no name.

    It is in normal form, so two that match the same names are the same text: `#` is written
    `+/#`, and `/#` `/+/#`, for there is no empty topic name that they could match.
    """
    first, second = _normal(one), _normal(other)
    if _stands_apart(first[0], second[0]) or _stands_apart(second[0], first[0]):
        return None
    common: list[str] = []
    for depth, (level, beside) in enumerate(zip_longest(first, second)):
        if level == "#":
            return "/".join(common + second[depth:])
        if beside == "#":
            return "/".join(common + first[depth:])
        if level is None or beside is None or (level != beside and "+" not in (level, beside)):
            return None
        common.append(beside if level == "+" else level)
    return "/".join(common)


def filter_covers(wide: str, narrow: str) -> bool:
    """Return whether one valid, unshared filter matches each name that the other matches."""
    return filter_intersection(wide, narrow) == "/".join(_normal(narrow))


def _normal(topic_filter: str) -> list[str]:
    """Return a filter's levels, in normal form."""
    levels = topic_filter.split("/")
    if topic_filter in ("#", "/#"):
        levels.insert(-1, "+")
    return levels


def _stands_apart(wildcard: str, level: str) -> bool:
    """Whether a first level is not matched by a wildcard in another one [MQTT-4.7.2-1]."""
    return wildcard == "+" and level.startswith("$")


def _check_text(text: str, kind: str) -> None:
    """Check what names and filters have in common [MQTT-4.7.3-1 to MQTT-4.7.3-3]."""
    if not text:
        raise TopicInvalid(f"an empty {kind}")
    if "\0" in text:
        raise TopicInvalid(f"U+0000 in the {kind} {_shown(text)}")
    if text.count("/") >= TOPIC_LEVELS_MAX:
        raise TopicInvalid(f"a {kind} of more than {TOPIC_LEVELS_MAX} levels")
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise TopicInvalid(f"a surrogate in the {kind} {_shown(text)}") from error
    if size > TOPIC_BYTES_MAX:
        raise TopicInvalid(f"a {kind} of {size} bytes, more than {TOPIC_BYTES_MAX}")


def _shown(text: str) -> str:
    """Return the text as an error message can carry it: escaped, and short."""
    return ascii(text if len(text) <= 100 else text[:100] + "…")
