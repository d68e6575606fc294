"""TopicTree agrees with the plain matcher, for any filters, names and order of changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isthmus.topics.filter import check_topic_filter, check_topic_name, filter_matches
from isthmus.topics.tree import TopicTree, slots_of

# Few different levels, so that filters and names meet often.
LEVEL = st.sampled_from(["", "a", "b", "c", "$", "$SYS", "é"])
NAMES = st.lists(LEVEL, min_size=1, max_size=6).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, end: "/".join(levels + end),
    st.lists(LEVEL | st.just("+"), max_size=5),
    st.sampled_from([["#"], ["+"], ["a"], [""]]),
).filter(bool)
ANY_NAME = st.text(
    st.characters(exclude_characters="+#\0", exclude_categories=["Cs"]), min_size=1
)


@given(st.lists(FILTERS), NAMES | ANY_NAME)
def test_the_tree_finds_what_the_reference_finds(filters: list[str], name: str) -> None:
    tree = TopicTree()
    for number, topic_filter in enumerate(filters):
        check_topic_filter(topic_filter)
        tree.add(topic_filter, number)
    check_topic_name(name)
    expected = [
        number
        for number, topic_filter in enumerate(filters)
        if filter_matches(topic_filter, name)
    ]
    assert sorted(tree.match(name)) == expected


class Changes(RuleBasedStateMachine):
    """The tree beside a plain set of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = TopicTree()
        self.pairs: set[tuple[str, int]] = set()
        self.seen: dict[str, tuple[int, list[int]]] = {}  # version and result, by name

    @rule(topic_filter=FILTERS, value=st.integers(0, 3))
    def add(self, topic_filter: str, value: int) -> None:
        assert self.tree.add(topic_filter, value) == ((topic_filter, value) not in self.pairs)
        self.pairs.add((topic_filter, value))

    @rule(topic_filter=FILTERS, value=st.integers(0, 3))
    def remove(self, topic_filter: str, value: int) -> None:
        assert self.tree.remove(topic_filter, value) == ((topic_filter, value) in self.pairs)
        self.pairs.discard((topic_filter, value))

    @rule(data=st.data())
    def remove_one_that_is_there(self, data: st.DataObject) -> None:
        if self.pairs:
            self.remove(*data.draw(st.sampled_from(sorted(self.pairs))))

    @rule(name=NAMES)
    def match(self, name: str) -> None:
        expected = sorted(
            value for topic_filter, value in self.pairs if filter_matches(topic_filter, name)
        )
        assert sorted(self.tree.match(name)) == expected
        self.seen[name] = self.tree.version_at(slots_of(name)), expected

    @invariant()
    def a_result_is_another_one_only_with_its_version(self) -> None:
        for name, (version, found) in self.seen.items():
            now = self.tree.version_at(slots_of(name)), sorted(self.tree.match(name))
            assert now[0] != version or now[1] == found
            self.seen[name] = now

    @invariant()
    def the_count_is_right(self) -> None:
        assert len(self.tree) == len(self.pairs)

    def teardown(self) -> None:
        """Removing all pairs leaves the tree as new: every empty branch is gone."""
        for topic_filter, value in sorted(self.pairs):
            assert self.tree.remove(topic_filter, value)
        if hasattr(self.tree, "_root"):  # uncompiled, the inside can be seen
            root = self.tree._root
            assert root.children is root.plus is root.rest is root.values is None
            assert not self.tree._exact


TestChanges = Changes.TestCase
