"""Templates: the names of a client are one level, or part of one."""

from __future__ import annotations

import pytest

from isthmus.topics.templates import filled


@pytest.mark.parametrize(
    ("template", "user", "client_id", "result"),
    [
        ("a/%c/b", "", "c", "a/c/b"),
        ("%u/%c", "u", "c", "u/c"),
        ("a/x-%c-%c/100%%", "", "c", "a/x-c-c/100%"),
        ("a/%cu", "", "%u", "a/%uu"),  # what is filled in is not looked at again
        ("%u/a", "", "c", None),
        ("a/%c", "", "a/b", None),
        ("a/%c", "", "+", None),
        ("a/%c", "", "#", None),
        ("%c/a", "", "$SYS", None),
        ("%c/a/b", "", "$share", None),
        ("$SYS/%c", "", "$x", "$SYS/$x"),
        ("a/#", "", "a/b", "a/#"),
        ("", "u", "c", ""),
    ],
)
def test_names_are_one_level_or_part_of_one(
    template: str, user: str, client_id: str, result: str | None
) -> None:
    assert filled(template, user=user, client_id=client_id) == result
