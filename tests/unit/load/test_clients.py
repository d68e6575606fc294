"""A publisher and a subscriber of a load, with the house's codec as their server.

Time is a number here, so an open loop can meet a server that stalls for exactly three seconds.
"""

from __future__ import annotations

import pytest

from isthmus.errors import Malformed
from isthmus.load.latencies import Latencies
from isthmus.load.publisher import HEADER_BYTES, OUT_BYTES_MAX, Publisher, head_of, packet_bytes
from isthmus.load.subscriber import Subscriber
from isthmus.load.tally import Tally
from isthmus.load.totals import Totals
from isthmus.mqtt.codec import Decoder, encode
from isthmus.mqtt.packets import (
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Connect,
    Pingresp,
    Publish,
)
from isthmus.wire.buffer import WriteBuffer

SECOND = 1_000_000_000
RUN = 0xBEEF
FILLER = b"." * 8
TOPICS = (b"bench/0", b"bench/1", b"bench/2")


class World:
    """One publisher and one subscriber, and what they count together."""

    def __init__(
        self,
        qos: int = 0,
        version: int = 5,
        window: int = 4,
        topics: tuple[bytes, ...] = TOPICS,
        index: int = 0,
        stride: int = 1,
    ) -> None:
        self.version = version
        self.totals = Totals()
        self.acknowledged, self.delivered = Latencies(), Latencies()
        size = HEADER_BYTES + len(FILLER)
        self.publisher = Publisher(
            [head_of(each, size, version=version, qos=qos, retain=False) for each in topics],
            [1] * len(topics),
            FILLER,
            self.totals,
            self.acknowledged,
            version=version,
            qos=qos,
            window=window,
            run=RUN,
            index=index,
            stride=stride,
        )
        self.subscriber = Subscriber(
            FILLER,
            self.totals,
            self.delivered,
            Tally(),
            version=version,
            run=RUN,
            packet_size_max=1000,
        )
        self.server = Decoder(1 << 20)
        out = WriteBuffer()
        encode(Connect(version, "c"), version, out)
        self.server.feed(out.take())
        self.server.go_on()

    def sent(self) -> list[Publish | Ack]:
        """Return what the publisher has sent since the last time, as the house reads it."""
        found = self.server.feed(self.publisher.out.take())
        assert self.server.error is None
        return found

    def answer(self, now_ns: int, *packets: Ack | Pingresp) -> None:
        """Have the server send packets to the publisher."""
        data = self.encoded(*packets)
        assert self.publisher.feed(data, len(data), now_ns) == len(data)

    def deliver(self, now_ns: int, *packets: Publish | Ack) -> list[Ack]:
        """Have the server send packets to the subscriber; return its acknowledgements."""
        data = self.encoded(*packets)
        assert self.subscriber.feed(data, len(data), now_ns) == len(data)
        return self.server.feed(self.subscriber.out.take())

    def encoded(self, *packets: Publish | Ack | Pingresp) -> bytes:
        out = WriteBuffer()
        for packet in packets:
            encode(packet, self.version, out)
        return out.take()


def number_of(publish: Publish) -> int:
    return int.from_bytes(publish.payload[2:8], "big")


def due_of(publish: Publish) -> int:
    return int.from_bytes(publish.payload[8:16], "big")


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_house_reads_what_is_published(qos: int, version: int) -> None:
    world = World(qos, version)
    assert world.publisher.fill(77, 4) == 4
    size = packet_bytes(TOPICS[0], HEADER_BYTES + len(FILLER), version=version, qos=qos)
    assert world.publisher.out.size == 4 * size
    found = world.sent()
    assert [publish.topic for publish in found] == [*TOPICS, TOPICS[0]]
    assert [publish.qos for publish in found] == [qos] * 4
    assert [publish.packet_id for publish in found] == ([1, 2, 3, 4] if qos else [0] * 4)
    assert [number_of(publish) for publish in found] == [0, 1, 2, 3]
    assert {due_of(publish) for publish in found} == {77}
    assert all(publish.payload[:2] == b"\xbe\xef" for publish in found)
    assert all(publish.payload.endswith(FILLER) for publish in found)


def test_publishers_number_their_messages_apart() -> None:
    numbers = set()
    for index in range(3):
        world = World(index=index, stride=3)
        world.publisher.fill(0, 10)
        numbers.update(map(number_of, world.sent()))
    assert numbers == set(range(30))


# --- the closed loop --------------------------------------------------------------------------


def test_a_window_is_filled_again_as_acknowledgements_come() -> None:
    world = World(1, window=4)
    assert world.publisher.fill(0, 100) == 4
    assert not world.publisher.has_room and world.publisher.unacknowledged == 4
    world.answer(50, Ack(PUBACK, 2), Ack(PUBACK, 1))
    assert world.publisher.fill(60, 100) == 2
    assert [publish.packet_id for publish in world.sent()] == [1, 2, 3, 4, 2, 1]
    assert world.totals.acknowledged == 2
    assert (world.acknowledged.count, world.acknowledged.max_ns) == (2, 50)


def test_a_server_that_takes_less_at_a_time_gets_less() -> None:
    world = World(1, window=4)
    world.publisher.allow(2)
    assert world.publisher.fill(0, 100) == 2
    world.answer(1, Ack(PUBACK, 1))
    assert world.publisher.fill(0, 100) == 1
    world.publisher.allow(9)
    assert world.publisher.fill(0, 100) == 2


def test_so_many_messages_and_no_more() -> None:
    world = World()
    world.publisher.left = 5
    assert world.publisher.fill(0, 3) == 3
    assert world.publisher.fill(0, 3) == 2
    assert not world.publisher.has_room
    assert world.totals.published == world.totals.expected == 5


def test_no_more_is_made_than_a_socket_takes_soon() -> None:
    world = World()
    made = world.publisher.fill(0, 1 << 30)
    size = world.publisher.out.size
    assert OUT_BYTES_MAX <= size < OUT_BYTES_MAX + size // made + 1


def test_exactly_once_takes_four_packets() -> None:
    world = World(2, window=2)
    world.publisher.fill(10, 1)
    world.sent()
    world.answer(20, Ack(PUBREC, 1))
    assert world.sent() == [Ack(PUBREL, 1)]
    assert world.totals.acknowledged == 0
    world.answer(45, Ack(PUBCOMP, 1))
    assert (world.totals.acknowledged, world.acknowledged.max_ns) == (1, 35)


def test_a_refusal_is_no_acknowledgement() -> None:
    for qos, kind in ((1, PUBACK), (2, PUBREC)):
        world = World(qos)
        world.publisher.fill(0, 1)
        world.answer(1, Ack(kind, 1, 0x87))
        totals = world.totals
        assert (totals.refused, totals.acknowledged, totals.expected) == (1, 0, 0)
        assert world.publisher.unacknowledged == 0


@pytest.mark.parametrize("packet", [Ack(PUBACK, 3), Ack(PUBACK, 9), Ack(PUBREC, 1)])
def test_an_acknowledgement_of_nothing_is_strange(packet: Ack) -> None:
    world = World(1, window=4)
    world.publisher.fill(0, 1)
    world.answer(1, packet)
    assert (world.totals.strange, world.totals.acknowledged) == (1, 0)
    assert world.publisher.unacknowledged == 1


# --- the open loop ----------------------------------------------------------------------------


def test_a_stall_is_in_every_message_that_it_delayed() -> None:
    """Ten a second at QoS 1; the server answers after 1 ms, but not from second 2 to 5."""
    world = World(1, window=1)
    world.publisher.keep_to(0, SECOND / 10)
    for now_ms in range(10_000):
        now = now_ms * 1_000_000
        if world.publisher.unacknowledged and not 2_000 <= now_ms < 5_000:
            world.answer(now, *(Ack(PUBACK, each.packet_id) for each in world.sent()))
        world.publisher.fill_due(now)
    assert world.totals.published == 100
    latencies = world.acknowledged
    assert latencies.max_ns == 3_000_000_000
    # Thirty were due in the stall; a loop that waits for answers would have seen one of them.
    assert latencies.percentile_ns(69) <= 40_000_000
    assert latencies.percentile_ns(85) >= 1_400_000_000


def test_what_is_due_is_made_at_its_own_time_however_late() -> None:
    world = World()
    world.publisher.keep_to(1_000, 100.0)
    assert world.publisher.fill_due(999) == 0
    assert world.publisher.fill_due(1_000) == 1
    assert world.publisher.fill_due(1_350) == 3
    assert [due_of(publish) for publish in world.sent()] == [1_000, 1_100, 1_200, 1_300]


def test_a_schedule_keeps_to_its_rate() -> None:
    world = World()
    world.publisher.keep_to(0, SECOND / 3)
    for now in range(0, 100 * SECOND + 1, SECOND // 7):
        world.publisher.fill_due(now)
    assert world.totals.published == 300
    world.publisher.keep_to(200 * SECOND, SECOND / 5)
    assert world.publisher.fill_due(201 * SECOND) == 6


# --- a lost connection ------------------------------------------------------------------------


def test_what_is_not_acknowledged_is_sent_again_in_its_order() -> None:
    world = World(1, window=4)
    world.publisher.fill(5, 4)
    first = world.sent()
    world.answer(6, Ack(PUBACK, 1))
    world.publisher.fill(7, 1)
    world.publisher.resume(session_present=True)
    again = world.sent()
    assert [number_of(publish) for publish in again] == [1, 2, 3, 4]
    assert [publish.packet_id for publish in again] == [2, 3, 4, 1]
    assert all(publish.dup for publish in again)
    assert [publish.payload for publish in again[:3]] == [each.payload for each in first[1:]]
    world.publisher.resume(session_present=False)
    assert not any(publish.dup for publish in world.sent())
    assert world.totals.published == 5


def test_of_exactly_once_only_the_rest_is_said_again() -> None:
    world = World(2, window=3)
    world.publisher.fill(0, 2)
    world.answer(1, Ack(PUBREC, 1))
    world.sent()
    world.publisher.resume(session_present=True)
    release, publish = world.sent()
    assert release == Ack(PUBREL, 1)
    assert (publish.packet_id, publish.dup) == (2, True)
    world.publisher.resume(session_present=False)
    (publish,) = world.sent()
    assert (publish.packet_id, publish.dup) == (2, False)
    assert world.totals.acknowledged == 1 and world.publisher.unacknowledged == 1


# --- the subscriber ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_every_delivery_is_counted_measured_and_acknowledged(version: int) -> None:
    world = World(0, version)
    world.publisher.fill(100, 3)
    found = world.sent()
    for qos, publish in enumerate(found):
        publish.qos, publish.packet_id = qos, qos and 10 + qos
    acks = world.deliver(350, *found)
    assert acks == [Ack(PUBACK, 11), Ack(PUBREC, 12)]
    assert world.totals.delivered == 3
    assert (world.delivered.count, world.delivered.max_ns) == (3, 250)
    assert world.deliver(351, Ack(PUBREL, 12)) == [Ack(PUBCOMP, 12)]


def test_what_comes_twice_is_doubled_but_not_within_exactly_once() -> None:
    world = World()
    world.publisher.fill(0, 2)
    one, two = world.sent()
    two.qos, two.packet_id = 2, 5
    world.deliver(1, one, one, two)
    two.dup = True
    assert world.deliver(2, two) == [Ack(PUBREC, 5)]
    assert (world.totals.delivered, world.totals.doubled) == (2, 1)
    world.deliver(3, Ack(PUBREL, 5))
    world.deliver(4, two)
    assert (world.totals.delivered, world.totals.doubled) == (2, 2)


def test_a_changed_byte_and_a_missing_one_are_corrupted() -> None:
    world = World()
    world.publisher.fill(0, 2)
    one, two = world.sent()
    one.payload = one.payload[:-1] + b"!"
    two.payload = two.payload[:-1]
    world.deliver(1, one, two)
    assert (world.totals.corrupted, world.totals.delivered) == (2, 0)


def test_the_messages_of_others_are_foreign() -> None:
    world = World()
    world.deliver(1, Publish(b"x", b""), Publish(b"x", b"y" * HEADER_BYTES + FILLER))
    assert (world.totals.foreign, world.totals.delivered) == (2, 0)


def test_properties_are_passed_over() -> None:
    world = World()
    world.publisher.fill(0, 1)
    (publish,) = world.sent()
    publish.properties = {0x26: [("a" * 100, "b" * 100)], 0x0B: [1, 300]}
    world.deliver(1, publish)
    assert world.totals.delivered == 1


def test_a_publish_that_ends_too_early_is_malformed() -> None:
    world = World(version=4)
    for body in (b"\x00\x09x", b"\x00", b""):
        data = bytes([0x30, len(body)]) + body + b"\xd0\x00" * 10
        with pytest.raises(Malformed):
            world.subscriber.feed(data, len(data), 0)


def test_other_packets_are_handed_on_whole() -> None:
    world = World()
    world.answer(0, Pingresp())
    assert world.publisher.control == [b"\xd0\x00"]
    assert world.subscriber.feed(b"\xd0\x00\xd0", 3, 0) == 2
    assert world.subscriber.control == [b"\xd0\x00"]
