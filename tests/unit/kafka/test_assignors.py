"""The assignors of the server: nothing is left, nothing is given twice, little moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.kafka.assignors import (
    ASSIGNORS,
    Reader,
    Readers,
    Shares,
    TopicPlace,
    assign_simple,
)

A, B = b"a" * 16, b"b" * 16


def reader(*topic_ids: bytes, had: Shares | None = None, name: str = "") -> Reader:
    return Reader(None, frozenset(topic_ids), frozenset((had or {}).get(name, ())))


def again(readers: Readers, shares: Shares) -> Readers:
    return {
        name: one._replace(had=frozenset(shares.get(name, ()))) for name, one in readers.items()
    }


def test_uniform_is_the_default() -> None:
    assert [*ASSIGNORS] == ["uniform", "range"]


def test_uniform_moves_only_what_it_must() -> None:
    assign = ASSIGNORS["uniform"]
    one = assign({"m1": reader(A)}, {A: 5})
    assert one == {"m1": {(A, index) for index in range(5)}}
    readers = again({"m1": reader(A), "m2": reader(A)}, one)
    two = assign(readers, {A: 5})
    assert sorted(map(len, two.values())) == [2, 3]
    assert two["m1"] < one["m1"]
    assert assign(again(readers, two), {A: 5}) == two, "and then nothing"
    three = assign(again({**readers, "m0": reader(A)}, two), {A: 5})
    assert three["m1"] <= two["m1"]
    assert three["m2"] <= two["m2"]


def test_uniform_with_different_subscriptions_is_as_even_as_they_allow() -> None:
    assign = ASSIGNORS["uniform"]
    readers = {"m1": reader(A, B), "m2": reader(B), "m3": reader(A)}
    shares = assign(readers, {A: 4, B: 2})
    assert sorted(map(len, shares.values())) == [2, 2, 2]
    readers = again({**readers, "m2": reader(A)}, shares)
    shares = assign(readers, {A: 4, B: 2})
    assert shares["m1"] == {(B, 0), (B, 1)}


def test_range_gives_the_same_partitions_of_each_log_topic() -> None:
    assign = ASSIGNORS["range"]
    shares = assign({"m1": reader(A, B), "m2": reader(A, B)}, {A: 3, B: 3})
    assert shares == {"m1": {(A, 0), (A, 1), (B, 0), (B, 1)}, "m2": {(A, 2), (B, 2)}}


def test_range_keeps_the_place_of_a_static_member() -> None:
    assign = ASSIGNORS["range"]
    static = reader(A)._replace(instance_id="i1")
    before = assign({"x": static, "m": reader(A)}, {A: 4})
    after = assign({"a": static, "m": reader(A)}, {A: 4})
    assert after["a"] == before["x"]


TOPICS = st.dictionaries(st.sampled_from([A, B, b"c" * 16]), st.integers(1, 5))
SUBSCRIPTIONS = st.dictionaries(
    st.sampled_from(["m1", "m2", "m3", "m4"]),
    st.frozensets(st.sampled_from([A, B, b"c" * 16])),
    min_size=1,
)


@pytest.mark.parametrize("assignor", ASSIGNORS)
@given(history=st.lists(st.tuples(SUBSCRIPTIONS, TOPICS), min_size=1, max_size=3))
def test_every_partition_that_is_read_is_given_once(
    assignor: str, history: list[tuple[dict[str, frozenset[bytes]], dict[bytes, int]]]
) -> None:
    shares: Shares = {}
    for subscriptions, topics in history:
        readers = again({name: reader(*ids) for name, ids in subscriptions.items()}, shares)
        shares = ASSIGNORS[assignor](readers, topics)
        read = frozenset[bytes]().union(*subscriptions.values())
        wanted = [(topic, index) for topic in read for index in range(topics.get(topic, 0))]
        assert sorted(place for share in shares.values() for place in share) == sorted(wanted)
        for name, share in shares.items():
            assert {place[0] for place in share} <= subscriptions[name]
        if assignor == "uniform" and len(set(subscriptions.values())) == 1:
            loads = [len(share) for share in shares.values()]
            assert max(loads) - min(loads) <= 1


def test_simple_gives_a_partition_to_many_where_there_are_more_readers() -> None:
    one = assign_simple({"m1": reader(A)}, {A: 3})
    assert one == {"m1": {(A, 0), (A, 1), (A, 2)}}
    two = assign_simple(again({"m1": reader(A), "m2": reader(A)}, one), {A: 3})
    assert sorted(map(len, two.values())) == [1, 2]
    five = assign_simple(again({f"m{n}": reader(A) for n in range(1, 6)}, two), {A: 3})
    assert five["m1"] & two["m1"], "what can stay stays"
    crowds = [sum(place in share for share in five.values()) for place in one["m1"]]
    assert max(crowds) <= 2


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from([A, B]))),
    st.fixed_dictionaries({A: st.integers(0, 4), B: st.integers(0, 3)}),
)
def test_simple_leaves_no_partition_and_no_reader_alone(
    reads: dict[str, set[bytes]], sizes: dict[bytes, int]
) -> None:
    readers: Readers = {name: reader(*topic_ids) for name, topic_ids in reads.items()}
    shares = assign_simple(readers, sizes)
    for _ in range(2):
        given_out = set[TopicPlace]().union(*shares.values())
        read = {topic_id for topic_ids in reads.values() for topic_id in topic_ids}
        assert given_out == {(one, index) for one in read for index in range(sizes[one])}
        for name, topic_ids in reads.items():
            assert {place[0] for place in shares[name]} <= topic_ids
            assert bool(shares[name]) is any(sizes[one] for one in topic_ids)
        shares = assign_simple(again(readers, shares), sizes)
