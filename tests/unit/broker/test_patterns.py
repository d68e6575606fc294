"""Patterns: what they capture of topic names and filters."""

from __future__ import annotations

import pytest

from isthmus.broker.patterns import Pattern, check_different
from isthmus.errors import ConfigError


@pytest.mark.parametrize(
    ("pattern", "name", "captures"),
    [
        ("a/b", "a/b", {}),
        ("a/{x}/c", "a/b/c", {"x": "b"}),
        ("a/{x}/c", "a//c", {"x": ""}),
        ("{x}/{rest...}", "a/b/c", {"x": "a", "rest": "b/c"}),
        ("{x}/{rest...}", "a", None),
        ("a/{x}", "a/b/c", None),
        ("a/{x}", "b/c", None),
        ("{x}/a", "$SYS/a", None),
        ("$SYS/{x}", "$SYS/a", {"x": "a"}),
    ],
)
def test_a_topic_name_is_captured(
    pattern: str, name: str, captures: dict[str, str] | None
) -> None:
    found = Pattern(pattern).captures(name.split("/"))
    assert found == captures
    assert found is None or Pattern(pattern).filled(found) == name


@pytest.mark.parametrize(
    ("pattern", "topic_filter", "captures"),
    [
        ("a/{x}", "a/+", {"x": "+"}),
        ("a/{x}", "a/#", None),  # which matches a/b/c, too
        ("a/{x}/b", "a/+/b", {"x": "+"}),
        ("a/{rest...}", "a/#", {"rest": "#"}),
        ("a/{rest...}", "a/+/#", {"rest": "+/#"}),
        ("a/{x}/{rest...}", "a/#", None),
        ("a/b", "a/+", None),
    ],
)
def test_a_filter_is_captured_with_all_that_it_matches(
    pattern: str, topic_filter: str, captures: dict[str, str] | None
) -> None:
    assert Pattern(pattern).captures(topic_filter.split("/")) == captures


def test_two_patterns_of_the_same_names_are_found() -> None:
    check_different("rules", [Pattern("a/{x}"), Pattern("{x}/a"), Pattern("{x...}")])
    with pytest.raises(ConfigError, match=r'rules "a/\{x\}" and "a/\{y\}" match the same'):
        check_different("rules", [Pattern("a/{x}"), Pattern("a/{y}")])
