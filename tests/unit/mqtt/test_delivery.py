"""The delivery queue: runs of offsets that behave like a plain list of places."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from isthmus.mqtt.delivery import DeliveryQueue

A, B = object(), object()


def test_consecutive_offsets_on_the_same_terms_share_one_run() -> None:
    queue = DeliveryQueue()
    for offset in range(10_000):
        queue.push(A, offset, 1, False, b"")
    assert queue.length == 10_000
    assert len(queue.runs()) == 1


def test_other_terms_begin_another_run() -> None:
    queue = DeliveryQueue()
    for terms in [(A, 5, 1, False, b""), (A, 6, 2, False, b""), (A, 7, 2, True, b"")]:
        queue.push(*terms)
    queue.push(A, 8, 2, True, b"\x0b\x01")
    queue.push(B, 9, 2, True, b"\x0b\x01")
    queue.push(B, 11, 2, True, b"\x0b\x01")
    assert len(queue.runs()) == 6


def test_what_is_not_kept_for_an_absent_client_is_dropped_and_counted() -> None:
    queue = DeliveryQueue()
    for offset in range(10):
        queue.push(A, offset, offset // 5, False, b"")
    assert queue.drop_qos_0() == 5
    assert queue.length == 5
    assert queue.head().first == 5


place = st.tuples(
    st.sampled_from([A, B]),
    st.integers(0, 6),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from([b"", b"\x0b\x07"]),
)


@given(st.lists(st.one_of(place, st.none())))
def test_the_queue_is_a_list_of_places(steps: list[tuple | None]) -> None:
    queue = DeliveryQueue()
    model: deque[tuple] = deque()
    for step in steps:
        if step is not None:
            queue.push(*step)
            model.append(step)
        elif model:
            run = queue.head()
            head = (run.partition, run.first, run.qos, run.retain, run.identifiers)
            assert head == model.popleft()
            queue.pop()
        assert queue.length == len(model)
