"""Delayed messages in random lives of the server: none lost, none early, none out of order.

A plain model of what was acknowledged is held against the records that the log holds in the
end; crashes come between any two turns of the loop.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.broker.shore import Client, Shore

from isthmus.mqtt.packets import PUBACK, Publish

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(0, 3_000)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
        st.tuples(st.just("crash"), st.integers(0, 4_000)),
    ),
    max_size=30,
)


class Life:
    """A server that is killed again and again, and one publisher."""

    def __init__(self) -> None:
        self.shore = Shore(delayed_max=1_000)
        self.crashes = 0
        self.due_ms: dict[bytes, int] = {}  # of what was acknowledged
        self.sent_ms: dict[bytes, int] = {}  # of all, when it came in
        self.publisher: Client = self.shore.client("p")

    def publish(self, seconds: int) -> None:
        name = b"%d" % len(self.sent_ms)
        now_ms = self.shore.runtime.now_ms()
        self.sent_ms[name] = now_ms
        packet = Publish(b"$delayed/%d/a" % seconds, name, 1, packet_id=len(self.sent_ms))
        self.shore.clients.receive(self.publisher.entry, self.publisher, [packet])
        self.shore.runtime.turn()
        if any(packet.type == PUBACK for packet in self.publisher.packets()):
            self.due_ms[name] = now_ms + seconds * 1000

    def wait(self, milliseconds: int) -> None:
        runtime = self.shore.runtime
        settle, runtime.after_timer = runtime.after_timer, runtime.turn  # the rest comes later
        runtime.advance(milliseconds)
        runtime.after_timer = settle

    def turn(self, count: int) -> None:
        for _ in range(count):
            self.shore.runtime.turn()

    def crash(self, away_ms: int) -> None:
        self.crashes += 1
        self.shore.runtime.set_forward(away_ms)
        self.shore = self.shore.crash()
        self.publisher = self.shore.client("p")


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_what_was_acknowledged_comes_in_its_order_and_not_before(
    steps: list[tuple[str, int]],
) -> None:
    life = Life()
    for what, number in steps:
        getattr(life, what)(number)
    life.shore.runtime.settle()
    life.shore.runtime.advance(10_000)
    records = life.shore.records("mqtt")
    came = [record.value or b"" for record in records]
    assert set(life.due_ms) <= set(came) <= set(life.sent_ms)
    for record, name in zip(records, came, strict=True):
        assert came.count(name) <= 1 + life.crashes
        assert record.timestamp >= life.due_ms.get(name, life.sent_ms[name])
    first = [name for place, name in enumerate(came) if name not in came[:place]]
    known = [name for name in first if name in life.due_ms]
    assert known == sorted(known, key=lambda name: (life.due_ms[name], int(name)))
    assert len(life.shore.broker.delayed) == 0
