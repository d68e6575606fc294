"""What filters have in common, and which covers which: all short filters, all topic names."""

from __future__ import annotations

from itertools import product

from isthmus.topics.filter import (
    check_topic_filter,
    filter_covers,
    filter_intersection,
    filter_matches,
)

# `other` stands for all the levels that no filter here names; a filter has four levels at most,
# so whatever tells two of them apart shows in a name of five.
NAMES = [
    name
    for depth in range(1, 6)
    for name in map("/".join, product(["", "a", "$b", "other"], repeat=depth))
    if name
]
FILTERS = [
    topic_filter
    for depth in range(4)
    for levels in product(["", "a", "$b", "+"], repeat=depth)
    for topic_filter in ("/".join(levels), "/".join([*levels, "#"]))
    if topic_filter
]
MATCHED = {
    topic_filter: frozenset(name for name in NAMES if filter_matches(topic_filter, name))
    for topic_filter in FILTERS
}


def test_the_intersection_matches_what_both_match() -> None:
    for one, other in product(FILTERS, repeat=2):
        common = filter_intersection(one, other)
        expected = MATCHED[one] & MATCHED[other]
        assert (common is None) == (not expected), (one, other)
        if common is not None:
            check_topic_filter(common)
            assert MATCHED[common] == expected, (one, other)


def test_a_filter_covers_another_if_it_matches_all_its_names() -> None:
    for wide, narrow in product(FILTERS, repeat=2):
        covers = MATCHED[narrow] <= MATCHED[wide]
        assert filter_covers(wide, narrow) == covers, (wide, narrow)


def test_filters_of_the_same_names_have_one_normal_form() -> None:
    forms = {filter_intersection(each, each): MATCHED[each] for each in FILTERS}
    assert len(set(forms.values())) == len(forms) == len(set(MATCHED.values()))
