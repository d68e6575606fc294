"""The session machine: packets in, bytes out, over several connections."""

from __future__ import annotations

import pytest

from isthmus.errors import ReceiveMaximumExceeded, TopicAliasInvalid, UnexpectedPacket
from isthmus.mqtt.codec import Decoder
from isthmus.mqtt.delivery import SessionLimits
from isthmus.mqtt.handshake import Terms
from isthmus.mqtt.packets import (
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Ack,
    Connect,
    Publish,
    Suback,
)
from isthmus.mqtt.properties import TOPIC_ALIAS
from isthmus.mqtt.session import NOT_YET, Session
from isthmus.mqtt.traffic import Traffic

LOG = object()


class Client:
    """A session with the log it recalls from, and what its client has received."""

    def __init__(
        self,
        version: int = 5,
        queue_max: int = 100,
        output_max: int = 1 << 20,
        queue_policy: str = "newest",
        *,
        queue_qos_0: bool = True,
    ) -> None:
        self.log: list[Publish | None] = []
        self.cold: set[int] = set()  # offsets that take time to read
        self.traffic = Traffic()
        self.overflows = 0
        limits = SessionLimits(
            queue_max,
            output_max,
            queue_policy,
            queue_qos_0=queue_qos_0,
            overflowed=self.overflowed,
        )
        self.session = Session("c", self.recall, limits, self.traffic)
        self.version = version

    def recall(
        self, session: Session, partition: object, offset: int, *, begun: bool = False
    ) -> Publish | None:
        assert session is self.session
        assert partition is LOG
        if offset in self.cold:
            session.recalling = True
            return NOT_YET
        return self.log[offset]

    def overflowed(self, session: Session) -> None:
        assert session is self.session
        self.overflows += 1

    def attach(
        self, window: int = 65535, packet_size_max: int = 0, receive_max: int = 65535
    ) -> None:
        terms = Terms(Connect(self.version, "c", True, 0, None, None, None, None), "c")
        terms.window = window
        terms.packet_size_max = packet_size_max
        terms.receive_maximum = receive_max
        terms.topic_alias_max = 10
        self.session.attach(terms, self.transmit)
        self.session.resume()
        self.session.drain()

    def transmit(self, data: bytes) -> None:
        raise AssertionError("the session only fills its output; its owner sends it")

    def deliver(self, payload: bytes, qos: int) -> None:
        publish = Publish(b"t", payload, qos)
        self.log.append(publish)
        self.session.deliver(publish, qos, False, b"", LOG, len(self.log) - 1)

    def received(self) -> list[tuple]:
        """Return what the client gets, as short tuples."""
        decoder = Decoder(1 << 20, self.version)
        packets = decoder.feed(self.session.output.take())
        assert decoder.error is None
        return [
            (packet.payload, packet.qos, packet.packet_id, bool(packet.dup))
            if packet.type == PUBLISH
            else (packet.type, packet.packet_id, packet.reason)
            for packet in packets
        ]


@pytest.fixture(params=[4, 5])
def client(request: pytest.FixtureRequest) -> Client:
    client = Client(request.param)
    client.attach()
    return client


# --- out --------------------------------------------------------------------------------------


def test_qos_1_is_in_flight_until_its_puback(client: Client) -> None:
    client.deliver(b"one", 1)
    assert client.received() == [(b"one", 1, 1, False)]
    assert list(client.session.inflight) == [1]
    client.session.receive_ack(Ack(PUBACK, 1))
    assert not client.session.inflight


def test_qos_2_goes_through_its_four_packets(client: Client) -> None:
    client.deliver(b"one", 2)
    assert client.received() == [(b"one", 2, 1, False)]
    client.session.receive_ack(Ack(PUBREC, 1))
    assert client.received() == [(PUBREL, 1, 0)]
    client.session.receive_ack(Ack(PUBREC, 1))  # repeated: answered again
    assert client.received() == [(PUBREL, 1, 0)]
    client.session.receive_ack(Ack(PUBCOMP, 1))
    assert not client.session.inflight


def test_what_is_not_acknowledged_is_sent_again_with_dup_and_the_same_id() -> None:
    client = Client()
    client.attach()
    client.deliver(b"one", 1)
    client.deliver(b"two", 2)
    client.deliver(b"three", 2)
    client.session.receive_ack(Ack(PUBREC, 3))
    client.received()
    client.session.detach()
    client.attach()
    assert client.received() == [(PUBREL, 3, 0), (b"one", 1, 1, True), (b"two", 2, 2, True)]


def test_what_is_sent_again_keeps_to_the_window_of_the_new_connection(client: Client) -> None:
    for payload in (b"a", b"b", b"c"):
        client.deliver(payload, 1)
    client.received()
    client.session.detach()
    client.deliver(b"d", 1)
    client.attach(window=1)
    client.deliver(b"e", 1)
    sent = []
    while packets := client.received():
        ((payload, _, packet_id, dup),) = packets
        sent.append((payload, packet_id, dup))
        client.session.receive_ack(Ack(PUBACK, packet_id))
    assert sent == [
        (b"a", 1, True),
        (b"b", 2, True),
        (b"c", 3, True),
        (b"d", 4, False),
        (b"e", 5, False),
    ]


def test_what_is_sent_again_keeps_to_the_limit_of_the_output() -> None:
    client = Client(output_max=1000)
    client.attach()
    for number in range(100):
        client.deliver(bytes([number]) * 100, 1)
        client.received()
    client.session.detach()
    client.attach()
    assert len(client.session.output.view()) < 1200
    client.deliver(b"z" * 100, 1)
    got = []
    while packets := client.received():
        got += [packet[0][0] for packet in packets]
        client.session.drain()
    assert got == [*range(100), ord("z")]


def test_what_is_acknowledged_before_it_is_sent_again_is_not(client: Client) -> None:
    for payload in (b"a", b"b", b"c"):
        client.deliver(payload, 2)
    client.session.detach()
    client.attach(window=1)
    client.received()
    client.session.receive_ack(Ack(PUBREC, 2))
    assert client.received() == [(PUBREL, 2, 0)]
    client.session.receive_ack(Ack(PUBCOMP, 2))
    client.session.receive_ack(Ack(PUBREC, 1))
    client.session.receive_ack(Ack(PUBCOMP, 1))
    assert client.received() == [(PUBREL, 1, 0), (b"c", 2, 3, True)]


@pytest.mark.parametrize("lost", ["gone", "too large"])
def test_a_qos_2_id_whose_message_cannot_be_sent_again_is_released(lost: str) -> None:
    client = Client()
    client.attach()
    client.deliver(b"one" * 100, 1)
    client.deliver(b"two" * 100, 2)
    client.received()
    client.session.detach()
    if lost == "gone":
        client.log = [None, None]
    client.attach(packet_size_max=100)
    assert client.received() == [(PUBREL, 2, 0)]
    client.session.receive_ack(Ack(PUBCOMP, 2, 0x92))
    assert not client.session.inflight
    drops = client.session.dropped
    assert (drops.gone, drops.too_large) == ((2, 0) if lost == "gone" else (0, 2))


def test_the_window_holds_back_and_opens_in_order(client: Client) -> None:
    client.session.detach()
    client.attach(window=2)
    for payload in (b"a", b"b", b"c", b"d"):
        client.deliver(payload, 1)
    assert [packet[0] for packet in client.received()] == [b"a", b"b"]
    client.session.receive_ack(Ack(PUBACK, 2))
    assert client.received() == [(b"c", 1, 3, False)]
    client.session.receive_ack(Ack(PUBACK, 1))
    assert [packet[0] for packet in client.received()] == [b"d"]


def test_an_absent_client_finds_qos_1_and_2_waiting_and_no_qos_0(client: Client) -> None:
    client.session.detach()
    client.deliver(b"zero", 0)
    client.deliver(b"one", 1)
    client.deliver(b"two", 2)
    assert client.session.dropped.offline == client.session.dropped.total == 1
    client.attach()
    assert [packet[0] for packet in client.received()] == [b"one", b"two"]


def test_a_slow_client_gets_everything_later_in_order(client: Client) -> None:
    client.session.paused = True
    for payload in (b"a", b"b", b"c"):
        client.deliver(payload, 0)
    assert client.received() == []
    client.session.paused = False
    client.session.drain()
    assert [packet[0] for packet in client.received()] == [b"a", b"b", b"c"]


def test_output_is_bounded_and_the_rest_waits() -> None:
    client = Client(output_max=1000)
    client.attach()
    for number in range(100):
        client.deliver(bytes([number]) * 100, 0)
    assert len(client.session.output.view()) < 1200
    got = []
    while packets := client.received():
        got += [packet[0][0] for packet in packets]
        client.session.drain()
    assert got == list(range(100))


@pytest.mark.parametrize("size", range(80, 140))
def test_no_packet_is_larger_than_the_client_takes(size: int) -> None:
    client = Client()
    client.attach(packet_size_max=110)
    client.deliver(bytes(size), 1)
    sent = len(client.session.output.view())
    assert sent <= 110
    assert (sent == 0) == (client.session.dropped.too_large == 1)
    assert sent > 0 or size + 8 > 110


def test_packet_ids_wrap_and_skip_those_in_use(client: Client) -> None:
    client.deliver(b"held", 1)
    for _ in range(65_534):
        client.deliver(b"", 1)
        del client.session.inflight[next(reversed(client.session.inflight))]
    client.session.output.clear()
    client.deliver(b"next", 1)
    assert client.received() == [(b"next", 1, 2, False)]


def test_an_unknown_pubrec_is_answered_as_unknown() -> None:
    client = Client(5)
    client.attach()
    client.session.receive_ack(Ack(PUBREC, 9))
    assert client.received() == [(PUBREL, 9, 0x92)]


def test_a_refusing_pubrec_ends_the_delivery() -> None:
    client = Client(5)
    client.attach(window=1)
    client.deliver(b"one", 2)
    client.deliver(b"two", 2)
    client.received()
    client.session.receive_ack(Ack(PUBREC, 1, 0x97))
    assert client.received() == [(b"two", 2, 2, False)]


# --- in ---------------------------------------------------------------------------------------


def test_a_repeated_qos_2_publish_is_not_new_until_released(client: Client) -> None:
    session = client.session
    assert session.receive_publish(Publish(b"t", b"x", 2, packet_id=7))
    assert not session.receive_publish(Publish(b"t", b"x", 2, dup=True, packet_id=7))
    assert client.received() == []  # the first one is not safe yet
    session.acknowledge(session.attachment, 7, 2, 0)
    assert client.received() == [(PUBREC, 7, 0)]
    assert not session.receive_publish(Publish(b"t", b"x", 2, packet_id=7))
    assert client.received() == [(PUBREC, 7, 0)]
    session.receive_ack(Ack(PUBREL, 7))
    assert client.received() == [(PUBCOMP, 7, 0)]
    assert session.receive_publish(Publish(b"t", b"y", 2, packet_id=7))


def test_a_qos_2_id_is_remembered_over_connections(client: Client) -> None:
    session = client.session
    session.receive_publish(Publish(b"t", b"x", 2, packet_id=7))
    session.detach()
    session.acknowledge(session.attachment, 7, 2, 0)
    client.attach()
    assert not session.receive_publish(Publish(b"t", b"x", 2, dup=True, packet_id=7))
    assert client.received() == [(PUBREC, 7, 0)]


def test_a_qos_2_publish_repeated_on_the_next_connection_is_answered_once_it_is_safe(
    client: Client,
) -> None:
    session = client.session
    session.receive_publish(Publish(b"t", b"x", 2, packet_id=7))
    earlier = session.attachment
    session.detach()
    client.attach()
    assert not session.receive_publish(Publish(b"t", b"x", 2, dup=True, packet_id=7))
    assert client.received() == []  # not safe yet
    session.acknowledge(earlier, 7, 2, 0)
    assert client.received() == [(PUBREC, 7, 0)]


def test_a_qos_2_publish_that_was_not_stored_is_new_when_it_comes_again(
    client: Client,
) -> None:
    session = client.session
    session.receive_publish(Publish(b"t", b"x", 2, packet_id=7))
    session.detach()
    session.forget(7)
    client.attach()
    assert session.receive_publish(Publish(b"t", b"x", 2, dup=True, packet_id=7))


def test_a_new_connection_has_the_whole_receive_maximum() -> None:
    client = Client(5)
    client.attach(receive_max=2)
    session = client.session
    for packet_id in (1, 2):
        session.receive_publish(Publish(b"t", b"", 2, packet_id=packet_id))
        session.acknowledge(session.attachment, packet_id, 2, 0)
    session.detach()
    client.attach(receive_max=2)
    for packet_id in (3, 4):
        session.receive_publish(Publish(b"t", b"", 2, packet_id=packet_id))
    with pytest.raises(ReceiveMaximumExceeded):
        session.receive_publish(Publish(b"t", b"", 2, packet_id=5))
    session.detach()
    client.attach(receive_max=2)
    assert session.receive_publish(Publish(b"t", b"", 2, packet_id=5))  # was not taken before


def test_an_acknowledgement_for_an_earlier_connection_is_not_sent(client: Client) -> None:
    session = client.session
    session.receive_publish(Publish(b"t", b"x", 1, packet_id=7))
    earlier = session.attachment
    session.detach()
    client.attach()
    session.acknowledge(earlier, 7, 1, 0)
    assert client.received() == []


def test_more_publishes_than_announced_end_the_connection() -> None:
    client = Client(5)
    client.attach(receive_max=2)
    session = client.session
    session.receive_publish(Publish(b"t", b"", 1, packet_id=1))
    session.receive_publish(Publish(b"t", b"", 2, packet_id=2))
    session.acknowledge(session.attachment, 1, 1, 0)
    session.receive_publish(Publish(b"t", b"", 1, packet_id=3))
    with pytest.raises(ReceiveMaximumExceeded):
        session.receive_publish(Publish(b"t", b"", 1, packet_id=4))


def test_a_released_qos_2_publish_makes_room() -> None:
    client = Client(5)
    client.attach(receive_max=1)
    session = client.session
    for packet_id in (1, 2, 3):
        session.receive_publish(Publish(b"t", b"", 2, packet_id=packet_id))
        session.acknowledge(session.attachment, packet_id, 2, 0)
        session.receive_ack(Ack(PUBREL, packet_id))


def test_topic_aliases_last_as_long_as_the_connection() -> None:
    client = Client(5)
    client.attach()
    session = client.session
    first = Publish(b"long/name", b"", properties={TOPIC_ALIAS: 3})
    session.receive_publish(first)
    assert first.properties == {}
    second = Publish(b"", b"", properties={TOPIC_ALIAS: 3})
    session.receive_publish(second)
    assert second.topic == b"long/name"
    with pytest.raises(TopicAliasInvalid):
        session.receive_publish(Publish(b"x", b"", properties={TOPIC_ALIAS: 11}))
    session.detach()
    client.attach()
    with pytest.raises(UnexpectedPacket):
        session.receive_publish(Publish(b"", b"", properties={TOPIC_ALIAS: 3}))


def test_a_pubrel_of_nothing_is_answered_as_unknown() -> None:
    client = Client(5)
    client.attach()
    client.session.receive_ack(Ack(PUBREL, 3))
    assert client.received() == [(PUBCOMP, 3, 0x92)]


# --- what takes time to read ------------------------------------------------------------------


def test_what_is_on_its_way_from_the_disk_holds_up_what_comes_after(client: Client) -> None:
    client.session.detach()
    for number in range(3):
        client.deliver(b"%d" % number, 1)
    client.cold = {1}
    client.attach()
    assert client.received() == [(b"0", 1, 1, False)]
    client.deliver(b"3", 0)
    client.session.receive_ack(Ack(PUBACK, 1))
    assert client.received() == []
    client.cold = set()
    client.session.recalling = False
    client.session.drain()
    assert client.received() == [
        (b"1", 1, 2, False),
        (b"2", 1, 3, False),
        (b"3", 0, 0, False),
    ]
    assert client.session.dropped.total == 0


def test_what_is_sent_again_keeps_its_order_when_it_takes_time(client: Client) -> None:
    for number in range(3):
        client.deliver(b"%d" % number, 1)
    client.received()
    client.session.detach()
    client.cold = {1}
    client.attach()
    assert client.received() == [(b"0", 1, 1, True)]
    client.cold = set()
    client.session.recalling = False
    client.session.drain()
    assert client.received() == [(b"1", 1, 2, True), (b"2", 1, 3, True)]


def test_a_connection_that_is_gone_when_it_comes_gets_nothing(client: Client) -> None:
    client.session.detach()
    client.deliver(b"0", 1)
    client.cold = {0}
    client.attach()
    client.session.detach()
    client.cold = set()
    client.session.recalling = False
    client.session.drain()
    assert client.session.output.size == 0
    client.attach()
    assert client.received() == [(b"0", 1, 1, False)]


def test_what_goes_over_the_connection_is_counted() -> None:
    client = Client(queue_max=1)
    client.attach(window=1)
    session, traffic = client.session, client.traffic
    session.receive_publish(Publish(b"t", b"12345", 1, packet_id=1))
    session.acknowledge(session.attachment, 1, 1, 0)
    assert (traffic.publishes_received, traffic.publish_bytes_received) == (1, 5)
    assert (traffic.packets_sent, traffic.publishes_sent) == (1, 0)
    for payload in (b"a", b"bcd", b"e"):  # one is sent, one waits, one is too much
        client.log.append(Publish(b"t", payload))
        session.deliver(client.log[-1], 1, False, b"", LOG, len(client.log) - 1)
    assert (traffic.packets_sent, traffic.publishes_sent, traffic.drops.total) == (2, 1, 1)
    session.receive_ack(Ack(PUBACK, 1))
    assert (traffic.packets_sent, traffic.publishes_sent) == (3, 2)
    assert traffic.publish_bytes_sent == 4
    session.answer(Suback(9, [0], None))
    assert traffic.packets_sent == 4
    assert session.dropped.queue == traffic.drops.queue == 1
