"""TopicTree: what is added is found, what is removed leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isthmus.errors import TopicInvalid
from isthmus.topics.filter import TOPIC_LEVELS_MAX
from isthmus.topics.tree import TopicTree, slots_of

if TYPE_CHECKING:
    from collections.abc import Callable


def test_all_matching_filters_give_their_values() -> None:
    tree = TopicTree()
    for topic_filter in ("a/b", "a/+", "+/b", "+/+", "a/#", "#", "a/b/#", "a", "b/#", "a/b/c"):
        assert tree.add(topic_filter, topic_filter)
    assert sorted(tree.match("a/b")) == sorted(
        ["a/b", "a/+", "+/b", "+/+", "a/#", "#", "a/b/#"]
    )
    assert sorted(tree.match("a")) == ["#", "a", "a/#"]
    assert tree.match("$a/b") == []


def test_names_with_a_dollar_are_matched_only_by_name() -> None:
    """[MQTT-4.7.2-1; MQTT 3.1.1: MQTT-4.7.2-1]"""
    tree = TopicTree()
    for topic_filter in (
        "#",
        "+",
        "+/load",
        "$SYS/#",
        "$SYS/load",
        "$SYS/+",
        "$SYS/+/+",
        "$SYS",
    ):
        tree.add(topic_filter, topic_filter)
    assert sorted(tree.match("$SYS/load")) == ["$SYS/#", "$SYS/+", "$SYS/load"]
    assert sorted(tree.match("$SYS")) == ["$SYS", "$SYS/#"]
    assert tree.match("$other/load") == []


def test_a_value_under_two_filters_is_found_twice() -> None:
    tree = TopicTree()
    session = object()
    tree.add("a/#", session)
    tree.add("a/+", session)
    assert tree.match("a/b") == [session, session]


def test_a_pair_is_kept_once() -> None:
    for topic_filter in ("a/b", "a/+", "a/#"):
        tree = TopicTree()
        assert tree.add(topic_filter, 1)
        version = tree.version_at(slots_of("a/b"))
        assert not tree.add(topic_filter, 1)
        assert tree.version_at(slots_of("a/b")) == version
        assert len(tree) == 1
        assert tree.match("a/b") == [1]


def test_a_version_changes_with_every_change_that_matters_only() -> None:
    tree = TopicTree()
    slots = slots_of("a/b/c")

    def changes(change: Callable[..., object], *arguments: object) -> bool:
        before = tree.version_at(slots)
        change(*arguments)
        return tree.version_at(slots) != before

    for topic_filter in ("a/b/c", "a/b/+", "a/b/#", "a/+/c", "a/#", "+/b/c", "#"):
        assert changes(tree.add, topic_filter, 1), topic_filter
        assert not changes(tree.add, topic_filter, 1), topic_filter
        assert changes(tree.remove, topic_filter, 1), topic_filter
        assert not changes(tree.remove, topic_filter, 1), topic_filter
    assert changes(tree.outdate)
    others = [f"{name}/{end}" for name in ("x/b", "a/x", "x") for end in ("c", "+", "#")]
    in_vain = [one for one in others if changes(tree.add, one, 1)]
    assert len(in_vain) <= 2, "a few beginnings may share a counter"
    tree.match("a/b/c")
    assert not changes(tree.match, "a/b/c")


@pytest.mark.parametrize(
    "topic_filter",
    ["", "a#", "#/a", "$share/g/a", "/".join("+" * (TOPIC_LEVELS_MAX + 1))],
)
def test_what_is_no_filter_does_not_get_in(topic_filter: str) -> None:
    tree = TopicTree()
    with pytest.raises(TopicInvalid):
        tree.add(topic_filter, 1)
    assert len(tree) == 0
    assert not tree.remove(topic_filter, 1)


def test_a_removed_branch_leaves_its_neighbours() -> None:
    tree = TopicTree()
    filters = ["a/+/c/d", "a/+/c", "a/+", "+", "+/#", "#", "a/b/c/#", "a/b/+"]
    for topic_filter in filters:
        tree.add(topic_filter, topic_filter)
    for number, topic_filter in enumerate(filters):
        assert tree.remove(topic_filter, topic_filter)
        assert len(tree) == len(filters) - number - 1
        for left in filters[number + 1 :]:
            assert left in tree.match(left.replace("+", "b").replace("#", "x")), left


def test_the_walk_is_bounded_by_the_levels_of_the_filters() -> None:
    tree = TopicTree()
    deepest = "/".join("+" * TOPIC_LEVELS_MAX)
    open_end = "/".join("+" * (TOPIC_LEVELS_MAX - 1)) + "/#"
    tree.add(deepest, "deepest")
    tree.add(open_end, "open end")
    tree.add("#", "all")
    at_limit = "/".join("a" * TOPIC_LEVELS_MAX)
    assert sorted(tree.match(at_limit)) == ["all", "deepest", "open end"]
    assert sorted(tree.match(at_limit + "/a")) == ["all", "open end"]
    assert sorted(tree.match("/" * 65_000)) == ["all", "open end"]


def test_many_branches_do_not_multiply() -> None:
    """A name visits a node of the tree at most once, so the filters bound the work."""
    tree = TopicTree()
    for bits in range(256):
        topic_filter = "/".join("+" if bits >> depth & 1 else "a" for depth in range(8))
        tree.add(topic_filter, bits)
    assert sorted(tree.match("a/a/a/a/a/a/a/a")) == list(range(256))
    assert sorted(tree.match("b/b/b/b/b/b/b/b")) == [255]
