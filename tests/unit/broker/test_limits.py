"""How fast something may come, and what counts as one address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.broker.limits import Bucket, Meter, network_of


def test_a_second_of_it_may_come_at_once_then_as_fast_as_the_rate() -> None:
    bucket = Bucket(10, 0)
    assert [bucket.take(1, 10, 0) for _ in range(12)] == [0] * 10 + [100, 200]
    assert bucket.take(1, 10, 300) == 0  # what was too much is made good, and one more came
    assert bucket.take(1, 10, 300) == 100


def test_who_asks_before_is_told_no_and_takes_nothing() -> None:
    bucket = Bucket(2, 0)
    assert [bucket.take_one(2, 0) for _ in range(4)] == [True, True, False, False]
    assert [bucket.take_one(2, 499), bucket.take_one(2, 500)] == [False, True]
    assert [bucket.is_full(2, 500), bucket.is_full(2, 1500)] == [False, True]


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 20_000)), min_size=1),
)
def test_who_waits_as_long_as_told_keeps_the_rate(
    rate: int, history: list[tuple[int, int]]
) -> None:
    bucket, now_ms, taken = Bucket(rate, 0), 0, 0
    for pause_ms, count in history:
        now_ms += pause_ms
        wait_ms = bucket.take(count, rate, now_ms)
        taken += count
        now_ms += wait_ms
        assert taken * 1000 <= rate * (now_ms + 1000)
        assert wait_ms * rate < taken * 1000 + rate  # and nobody waits for nothing


def test_another_rate_counts_from_now_on() -> None:
    bucket = Bucket(1000, 0)
    assert bucket.take(5, 5, 0) == 0
    assert bucket.take(1, 5, 0) == 200


def test_a_rate_of_0_is_no_limit() -> None:
    meter = Meter(0, 10, 0)
    assert meter.take(1_000_000, 10, 0, 10, 0) == 0
    assert meter.take(0, 1, 0, 10, 0) == 100
    assert Meter(5, 0, 0).take(6, 1 << 30, 5, 0, 0) == 200


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("unix", "unix"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::1", "::"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_what_counts_as_one_address(address: str, network: str) -> None:
    assert network_of(address) == network
