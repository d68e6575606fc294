"""Topic names found by filter, held to the reference matcher through adding and removing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.topics.filter import filter_matches
from isthmus.topics.names import TopicNames

LEVELS = st.sampled_from(["", "a", "b", "$a", "é"])
NAMES = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(st.one_of(LEVELS, st.just("+")), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool) | st.just("#")


@given(st.lists(NAMES), st.lists(NAMES), st.lists(FILTERS, min_size=1))
def test_a_filter_finds_just_the_names_it_matches(
    added: list[str], removed: list[str], filters: list[str]
) -> None:
    names = TopicNames()
    for name in added:
        names.add(name.encode())
    for name in removed:
        names.remove(name.encode())
    left = set(added) - set(removed)
    for topic_filter in filters:
        found = names.match(topic_filter)
        assert len(found) == len(set(found))
        assert set(found) == {
            name.encode() for name in left if filter_matches(topic_filter, name)
        }


@given(st.lists(NAMES))
def test_what_is_removed_leaves_nothing_behind(added: list[str]) -> None:
    names = TopicNames()
    for name in added:
        names.add(name.encode())
    for name in added:
        names.remove(name.encode())
    assert not names._root.children
