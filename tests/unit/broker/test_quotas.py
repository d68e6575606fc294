"""Quotas: whose counts, how use is measured, and what is kept of them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sim import SimRuntime
from tests.unit.broker.kafka_room import KafkaRoom

from isthmus.broker.quota_rates import SAMPLES, WAIT_MS_MAX, Rate, Tokens
from isthmus.broker.quotas import QUOTAS_LOG_TOPIC, Quotas, entity_of
from isthmus.broker.throttling import RATES_SWEPT, Throttling
from isthmus.errors import ConfigInvalid, ConnectionThrottled, NoSpace
from isthmus.record.batch import BatchBuilder

KEY = "producer_byte_rate"


class QuotaRoom(KafkaRoom):
    """Quotas over a log in memory, and who is throttled by them."""

    def __init__(self) -> None:
        super().__init__()
        self.quotas = self.opened()
        self.throttling = Throttling(self.runtime, self.quotas)

    def opened(self) -> Quotas:
        return Quotas(self.runtime, self.log, self.appends)

    def set(self, names: dict[str, str | None], **limits: float) -> None:
        errors: list[Any] = []
        self.quotas.set({entity_of(names): limits}, "root", errors.append)
        self.runtime.settle()
        assert errors == [None]


@pytest.fixture
def room() -> QuotaRoom:
    return QuotaRoom()


# --- rates ------------------------------------------------------------------------------------


def test_ten_seconds_may_be_used_at_once() -> None:
    rate = Rate()
    rate.record(10_000, 5)
    assert rate.wait_ms(1_000, 5) == 0
    rate.record(1_500, 5)
    assert rate.wait_ms(1_000, 5) == 1_500


def test_after_the_wait_the_mean_is_right() -> None:
    rate = Rate()
    rate.record(25_000, 0)
    wait_ms = rate.wait_ms(1_000, 0)
    assert wait_ms == 15_000
    # what was used long ago is forgotten as a whole, which comes first here
    assert rate.wait_ms(1_000, 10_999) == 25_000 - 10_999
    assert rate.wait_ms(1_000, 11_000) == 0 and rate.is_idle(11_000)


def test_a_steady_rate_is_what_it_is() -> None:
    rate = Rate()
    for now_ms in range(0, 60_000, 100):
        rate.record(100, now_ms)  # 1,000 a second
        # the time looked at is ten to eleven seconds, and a sample beyond lags behind
        assert rate.wait_ms(1_100, now_ms) == 0
    assert rate.wait_ms(900, 59_900) > 0


def test_what_is_taken_back_does_not_count() -> None:
    rate = Rate()
    rate.record(20_000, 0)
    assert rate.wait_ms(1_000, 0) == 10_000
    rate.record(-20_000, 0)
    assert rate.wait_ms(1, 0) == 0


def test_a_limit_of_next_to_nothing_makes_a_wait_that_can_be_said() -> None:
    rate, tokens = Rate(), Tokens()
    rate.record(1, 0)
    tokens.take(1, 5e-324, 0)
    assert rate.wait_ms(5e-324, 0) == tokens.wait_ms(5e-324, 0) == WAIT_MS_MAX


def test_tokens_may_be_overdrawn_and_come_back() -> None:
    tokens = Tokens()
    assert tokens.wait_ms(2, 0) == 0
    tokens.take(2 * SAMPLES + 3, 2, 0)
    assert tokens.wait_ms(2, 0) == 1_500
    assert tokens.wait_ms(2, 1_000) == 500
    assert tokens.wait_ms(2, 1_500) == 0 and not tokens.is_idle(1_500)
    assert tokens.is_idle(60_000)


# --- whose quota counts -----------------------------------------------------------------------

PLACES: list[tuple[dict[str, str | None], tuple[str, str]]] = [
    ({"user": "u", "client-id": "c"}, ("u", "c")),
    ({"user": "u", "client-id": None}, ("u", "c")),
    ({"user": "u"}, ("u", "")),
    ({"user": None, "client-id": "c"}, ("u", "c")),
    ({"user": None, "client-id": None}, ("u", "c")),
    ({"user": None}, ("u", "")),
    ({"client-id": "c"}, ("", "c")),
    ({"client-id": None}, ("", "c")),
]


def test_the_most_exact_quota_counts(room: QuotaRoom) -> None:
    for rank, (names, _) in reversed([*enumerate(PLACES, 1)]):
        room.set(names, **{KEY: float(rank)})
        who = PLACES[rank - 1][1]
        assert room.quotas.limit_of(KEY, "u", "c") == (who, float(rank))
    for rank, (names, _) in enumerate(PLACES, 1):
        room.set(names, consumer_byte_rate=1.0)  # of another kind: it does not count
        left = [(who, float(after)) for after, (_, who) in enumerate(PLACES, 1) if after > rank]
        assert room.quotas.limit_of(KEY, "u", "c") == (left[0] if left else None)


def test_each_user_has_the_quota_of_all_users_for_itself(room: QuotaRoom) -> None:
    room.set({"user": None}, **{KEY: 10.0})
    throttling = room.throttling
    assert throttling.produced("a", "1", 200) == 10_000
    assert throttling.produced("b", "1", 100) == 0
    assert throttling.produced("a", "2", 0) == 10_000  # whatever it calls itself


def test_an_address_has_its_own_quota_or_that_of_all(room: QuotaRoom) -> None:
    room.set({"ip": None}, connection_creation_rate=2.0)
    room.set({"ip": "10.0.0.1"}, connection_creation_rate=1.0)
    for address, count in (("10.0.0.1", 10), ("10.0.0.2", 20)):
        for _ in range(count):
            room.throttling.connected(address)
        with pytest.raises(ConnectionThrottled) as refused:
            room.throttling.connected(address)
        assert 0 < refused.value.wait_ms <= 1_000
    assert room.throttling.waits == {"connection_creation_rate": 2}
    room.set({"ip": "10.0.0.1"}, connection_creation_rate=2.0)
    for _ in range(10):  # who was refused has not counted
        room.throttling.connected("10.0.0.1")


# --- what may be set --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "limits"),
    [
        ({}, {KEY: 1.0}),
        ({"user": ""}, {KEY: 1.0}),
        ({"team": "x"}, {KEY: 1.0}),
        ({"ip": "::1", "user": "u"}, {"connection_creation_rate": 1.0}),
        ({"ip": "localhost"}, {"connection_creation_rate": 1.0}),
        ({"ip": "::1"}, {KEY: 1.0}),
        ({"user": "u"}, {"connection_creation_rate": 1.0}),
        ({"user": "u"}, {"anything": 1.0}),
        ({"user": "u"}, {KEY: 0.0}),
        ({"user": "u"}, {KEY: float("nan")}),
        ({"user": "u"}, {KEY: 1.5}),
        ({"user": "u"}, {KEY: 1e19}),
        ({"user": "u"}, {"request_percentage": float("inf")}),
    ],
)
def test_what_is_no_quota_is_refused(
    room: QuotaRoom, names: dict[str, str | None], limits: dict[str, float]
) -> None:
    with pytest.raises(ConfigInvalid):
        room.quotas.check(entity_of(names), limits)


def test_quotas_are_kept(room: QuotaRoom) -> None:
    room.set({"user": "u", "client-id": None}, producer_byte_rate=10.0, request_percentage=0.5)
    room.set({"ip": "0:0::1"}, connection_creation_rate=7.0)
    room.set({"client-id": "gone"}, **{KEY: 5.0})
    room.set({"client-id": "gone"})
    assert [*room.opened()] == [*room.quotas] and len([*room.quotas]) == 2
    assert room.opened().limit_of_address("::1") == 7.0


def test_a_log_topic_without_its_settings_has_them_again(room: QuotaRoom) -> None:
    room.set({"user": "u"}, **{KEY: 10.0})
    room.log.configure(QUOTAS_LOG_TOPIC, {"retention.ms": "-1"})  # as a repair leaves it
    assert [*room.opened()] == [*room.quotas]
    kept = {"retention.ms": "-1", "cleanup.policy": "compact"}
    assert room.log.topics[QUOTAS_LOG_TOPIC].configs == kept


def test_what_is_not_durable_does_not_count(room: QuotaRoom) -> None:
    room.set({"user": "u"}, **{KEY: 10.0})
    room.appends.error = NoSpace("full")
    errors: list[Any] = []
    room.quotas.set({entity_of({"user": "u"}): {}}, "root", errors.append)
    assert isinstance(errors[0], NoSpace)
    assert room.quotas.is_any


def test_what_cannot_be_read_is_left_out(
    room: QuotaRoom, caplog: pytest.LogCaptureFixture
) -> None:
    room.set({"user": "u"}, **{KEY: 10.0})
    partition = room.log.partition(QUOTAS_LOG_TOPIC, 0)
    assert partition is not None
    builder = BatchBuilder()
    for key, value in (
        (b"{", b"{}"),
        (b'{"user":"v"}', b'{"none":1}'),
        (b'{"user":"w"}', None),
    ):
        builder.append(0, key, value)
    room.appends.append(partition, builder.seal(), None)
    room.runtime.settle()
    assert [*room.opened()] == [*room.quotas]
    assert len(caplog.records) == 2


def test_clients_that_went_are_forgotten(room: QuotaRoom) -> None:
    room.set({"client-id": None}, producer_byte_rate=10.0, controller_mutation_rate=1.0)
    for number in range(RATES_SWEPT):
        room.throttling.produced("u", str(number), 1)
    mutations = room.throttling.mutating("u", "0")
    assert mutations is not None and mutations.take(5, is_strict=True)
    assert room.throttling.remembered == RATES_SWEPT + 1
    room.runtime.advance(60_000)
    for number in range(RATES_SWEPT):
        room.throttling.produced("u", f"again-{number}", 1)
    assert room.throttling.remembered <= RATES_SWEPT + 1


def test_nobody_has_a_quota_at_first() -> None:
    room = QuotaRoom()
    assert not room.quotas.is_any
    assert QUOTAS_LOG_TOPIC not in room.log.topics
    assert Throttling(SimRuntime(), room.quotas).produced("u", "c", 1 << 40) == 0
