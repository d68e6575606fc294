"""What filters have in common, and which covers which, agrees with trying every topic name."""

from __future__ import annotations

from itertools import product

from hypothesis import example, given
from hypothesis import strategies as st

from isthmus.topics.filter import (
    check_topic_filter,
    filter_covers,
    filter_intersection,
    filter_matches,
)

# `other` stands for all the levels that no filter here names. Four levels are one more than a
# filter has before its end, so whatever tells two filters apart shows in one of these names.
LEVELS = ["", "a", "$b", "other"]
NAMES = ["/".join(levels) for depth in range(1, 5) for levels in product(LEVELS, repeat=depth)][
    1:
]
FILTERS = st.builds(
    lambda levels, end: "/".join(levels + end),
    st.lists(st.sampled_from(["", "a", "$b", "+"]), max_size=3),
    st.sampled_from([[], ["#"]]),
).filter(bool)


def names_of(topic_filter: str | None) -> set[str]:
    if topic_filter is None:
        return set()
    return {name for name in NAMES if filter_matches(topic_filter, name)}


@given(FILTERS, FILTERS)
@example("#", "$b/#")
@example("+/#", "#")
@example("a/#", "a")
def test_the_intersection_matches_what_both_match(one: str, other: str) -> None:
    common = filter_intersection(one, other)
    assert names_of(common) == names_of(one) & names_of(other)
    assert common == filter_intersection(other, one)
    if common is not None:
        check_topic_filter(common)


@given(FILTERS, FILTERS)
@example("+/#", "#")
@example("#", "$b")
@example("a/+/#", "a/#")
def test_a_filter_covers_another_if_it_matches_all_its_names(wide: str, narrow: str) -> None:
    assert filter_covers(wide, narrow) == (names_of(narrow) <= names_of(wide))


@given(FILTERS, FILTERS)
def test_filters_of_the_same_names_have_one_normal_form(one: str, other: str) -> None:
    same = filter_intersection(one, one) == filter_intersection(other, other)
    assert same == (names_of(one) == names_of(other))
