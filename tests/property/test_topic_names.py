"""Topic names found by filter, held to the reference matcher while names come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.topics.filter import filter_matches
from isthmus.topics.names import TopicNames, Walk

LEVELS = st.sampled_from(["", "a", "b", "$a", "é"])
NAMES = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(st.one_of(LEVELS, st.just("+")), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool) | st.just("#")
FLAT = st.integers(0, 60).map(str)  # many in one branch, so that its order is made anew
CHANGES = st.lists(st.tuples(st.booleans(), st.one_of(NAMES, FLAT)), max_size=30)


def names_of(added: list[str]) -> TopicNames:
    names: TopicNames = TopicNames()
    for name in added:
        names.set(name.encode(), name)
    return names


def all_of(walk: Walk, count_max: int = 3, steps_max: int = 5) -> list[str]:
    found: list[str] = []
    while not walk.is_done:
        some = walk.take(count_max, steps_max)
        assert len(some) <= count_max
        found += some
    return found


@given(st.lists(NAMES), st.lists(NAMES), st.lists(FILTERS, min_size=1))
def test_a_filter_finds_just_the_names_it_matches(
    added: list[str], removed: list[str], filters: list[str]
) -> None:
    names = names_of(added)
    for name in removed:
        names.remove(name.encode())
    left = set(added) - set(removed)
    assert len(names) == len(left)
    assert all((names.get(name.encode()) == name) == (name in left) for name in added)
    for topic_filter in filters:
        found = all_of(names.walk(topic_filter))
        assert len(found) == len(set(found))
        assert set(found) == {name for name in left if filter_matches(topic_filter, name)}


@given(
    st.lists(st.one_of(NAMES, FLAT)),
    st.lists(CHANGES, max_size=8),
    st.one_of(FILTERS, st.just("#"), st.just("+")),
)
def test_a_walk_goes_on_while_names_come_and_go(
    added: list[str], rounds: list[list[tuple[bool, str]]], topic_filter: str
) -> None:
    """What matches and stays is given once; nothing is given that was not there meanwhile."""
    names = names_of(added)
    staying = ever = {name for name in added if filter_matches(topic_filter, name)}
    walk = names.walk(topic_filter)
    found: list[str] = []
    for changes in rounds:
        found += walk.take(3, 5)
        for is_there, name in changes:
            if is_there:
                names.set(name.encode(), name)
                ever = ever | {name}
            else:
                names.remove(name.encode())
                staying = staying - {name}
    found += all_of(walk)
    assert staying <= set(found) <= {one for one in ever if filter_matches(topic_filter, one)}
    assert all(found.count(name) == 1 for name in staying)


@given(st.lists(NAMES))
def test_what_is_removed_leaves_nothing_behind(added: list[str]) -> None:
    names = names_of(added)
    for name in added:
        names.remove(name.encode())
    assert len(names) == 0
    assert names._root.branch is None
    assert names._own.branch is None


def test_a_walk_looks_at_no_more_than_it_may() -> None:
    names = names_of([f"a/{number}" for number in range(100)])
    walk = names.walk("+/+/nowhere")
    assert walk.take(10, 50) == []
    assert not walk.is_done
    assert walk.take(10, 1000) == []
    assert walk.is_done
