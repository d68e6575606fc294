"""Compaction against a plain model: whatever is written, decided, compacted and restarted."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.storage.compacting import SETTINGS, Topic, check

from isthmus.storage.local.offset_map import ENTRY_BYTES

KEYS = st.sampled_from([b"a", b"b", b"c", b"d"]) | st.binary(min_size=1, max_size=3)
VALUES = st.none() | st.binary(max_size=80)
PAIRS = st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=5)
STEPS = st.one_of(
    st.tuples(st.just("put"), PAIRS, st.sampled_from(range(5))),
    st.tuples(st.just("put"), PAIRS, st.sampled_from(range(5))),
    st.tuples(st.just("number"), PAIRS, st.sampled_from([1, 2])),
    st.tuples(st.just("begin"), PAIRS, st.sampled_from([3, 4])),
    st.tuples(st.just("commit"), st.sampled_from([3, 4])),
    st.tuples(st.just("abort"), st.sampled_from([3, 4])),
    st.tuples(st.just("roll")),
    st.tuples(st.just("compact")),
    st.tuples(st.just("age")),
    st.tuples(st.just("close")),
    st.tuples(st.just("kill")),
)


@pytest.fixture(autouse=True)
def _no_damage(caplog):
    """What compaction leaves is never taken for damage."""
    yield
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


def do(topic, step):
    name, *arguments = step
    if name == "put":
        topic.put(arguments[0], compression=arguments[1])
    elif name == "number":
        topic.put(arguments[0], producer_id=arguments[1])
    elif name == "begin":
        topic.put(arguments[0], producer_id=arguments[1], transactional=True)
    elif name in ("commit", "abort"):
        topic.end_transaction(arguments[0], commits=name == "commit")
    elif name == "roll":
        topic.put([(b"roll", bytes(1150))])
    elif name == "compact":
        topic.compact()
    elif name == "age":
        topic.age()
    else:
        topic.restart(clean=name == "close")


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=10, max_size=60), st.sampled_from([1 << 20, 12 * ENTRY_BYTES]))
def test_compaction_never_changes_what_the_log_says(steps, map_bytes):
    topic = Topic(settings=replace(SETTINGS, compaction_bytes_max=map_bytes))
    for step in steps:
        do(topic, step)
        if step[0] in ("compact", "close", "kill"):
            check(topic)
    producers = topic.producers()
    topic.put([(b"roll", bytes(1150))])
    topic.put([(b"roll", bytes(1150))])
    while topic.partition.segments.clean_offset < topic.partition.segments.active.base_offset:
        before = topic.partition.segments.clean_offset
        topic.compact()
        if topic.partition.segments.clean_offset == before:
            break  # what is left is too little, or a transaction is open
    check(topic, compacted=True)
    topic.restart(clean=False)
    check(topic, compacted=True)
    assert topic.producers() == producers
    topic.lose_snapshots()
    topic.restart(clean=False)
    check(topic, compacted=True)
    assert topic.producers() == producers
