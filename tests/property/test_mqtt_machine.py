"""One connection after another, with packets legal and illegal in any order.

The model knows what the specifications say of a packet in each state of a connection: which
answer, or which reason before the end. It writes and reads bytes by hand, so it shares no line
with the server. A second client watches all the while: it gets what was published, once and in
order, and is asked after each step whether it still is well.
"""

from __future__ import annotations

from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.conformance.raw_client import (
    RESPONSE_TOPIC,
    SESSION_EXPIRY,
    SUBSCRIPTION_ID,
    TOPIC_ALIAS,
    ack,
    connect,
    disconnect,
    prop,
    publish,
    subscribe,
    unsubscribe,
)
from tests.e2e.raw_mqtt import (
    AUTH,
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    Packet,
    packet,
    split,
    text,
    uint16,
)
from tests.unit.broker.shore import Shore
from tests.unit.server.mqtt_wire import Wire

from isthmus.server.mqtt_listener import MqttShore

MALFORMED, PROTOCOL_ERROR = 0x81, 0x82
RECEIVE_MAXIMUM: Final = 100  # as the listener of mqtt_wire offers
ALIAS_MAXIMUM: Final = 10
IDS = st.integers(1, 5)

# What is wrong in any version once a connection is open: the packet, and the reason of MQTT 5.
WRONG: Final[dict[str, tuple[bytes, int]]] = {
    "type 0": (packet(0), MALFORMED),
    "a second CONNECT": (connect("again"), PROTOCOL_ERROR),
    "CONNACK": (packet(CONNACK, b"\0\0\0"), PROTOCOL_ERROR),
    "PINGRESP": (packet(PINGRESP), PROTOCOL_ERROR),
    "SUBACK": (packet(SUBACK, uint16(1) + b"\0\0"), PROTOCOL_ERROR),
    "UNSUBACK": (packet(UNSUBACK, uint16(1) + b"\0\0"), PROTOCOL_ERROR),
    "PINGREQ with flags": (packet(PINGREQ, b"", 1), MALFORMED),
    "PINGREQ with a body": (packet(PINGREQ, b"x"), MALFORMED),
    "PUBREL with flags": (packet(PUBREL, uint16(1), 0), MALFORMED),
    "SUBSCRIBE with flags": (packet(SUBSCRIBE, uint16(1) + b"\0", 0), MALFORMED),
    "UNSUBSCRIBE with flags": (packet(UNSUBSCRIBE, uint16(1) + b"\0", 1), MALFORMED),
    "PUBACK cut short": (packet(PUBACK, b"\0"), MALFORMED),
    "packet id 0": (ack(PUBACK, 0), PROTOCOL_ERROR),
    "QoS 3": (packet(PUBLISH, text("t") + uint16(1), 6), MALFORMED),
    "DUP at QoS 0": (packet(PUBLISH, text("t"), 8), MALFORMED),
    "a length of five bytes": (b"\xc0\xff\xff\xff\xff\x01", MALFORMED),
    "a padded length": (b"\xc0\x80\x00", MALFORMED),
}
WRONG_IN_5: Final[dict[str, tuple[bytes, int]]] = {
    "an unknown alias": (publish("", properties=prop(TOPIC_ALIAS, 9)), PROTOCOL_ERROR),
    "alias 0": (publish("t", properties=prop(TOPIC_ALIAS, 0)), 0x94),
    "an alias too large": (publish("t", properties=prop(TOPIC_ALIAS, ALIAS_MAXIMUM + 1)), 0x94),
    "a subscription identifier": (
        publish("t", properties=prop(SUBSCRIPTION_ID, 1)),
        PROTOCOL_ERROR,
    ),
    "no topic name": (publish(""), PROTOCOL_ERROR),
    "a wildcard in a name": (publish("a/+"), 0x90),
    "a wildcard in an answer's name": (
        publish("t", properties=prop(RESPONSE_TOPIC, "a/#")),
        PROTOCOL_ERROR,
    ),
    "U+0000 in a name": (publish("a\0b"), MALFORMED),
    "not UTF-8 in a name": (publish(b"\xff"), MALFORMED),
    "AUTH without a method": (packet(AUTH, b"\x18\0"), PROTOCOL_ERROR),
    "a reason that is none": (ack(PUBACK, 1, 0x92), PROTOCOL_ERROR),
    "no filter": (subscribe(1), PROTOCOL_ERROR),
    "nothing to unsubscribe from": (unsubscribe(1), PROTOCOL_ERROR),
    "a reserved option": (subscribe(1, ("t", 0x40)), MALFORMED),
    "retain handling 3": (subscribe(1, ("t", 0x30)), PROTOCOL_ERROR),
    "no local, shared": (subscribe(1, ("$share/g/t", 4)), PROTOCOL_ERROR),
    "a property of another packet": (
        packet(PUBREC, uint16(1) + b"\0\2" + prop(TOPIC_ALIAS, 1)[:2]),
        MALFORMED,
    ),
    "an expiry out of nothing": (disconnect(0, prop(SESSION_EXPIRY, 5)), PROTOCOL_ERROR),
}


class ConnectionMachine(RuleBasedStateMachine):
    """A client that may do anything, and a bystander that must not feel it."""

    def __init__(self) -> None:
        super().__init__()
        self.shore = MqttShore(Shore().clients, connections_max=3)
        self.bystander = Wire(self.shore, 5)
        self.bystander.send_bytes(connect("bystander"))
        self.bystander.send_bytes(subscribe(1, ("a/#", 0)))
        self.taken(self.bystander)
        self.published: list[bytes] = []
        self.seen: list[bytes] = []
        self.number = 0
        self.version = 5
        self.wire: Wire | None = None
        self.is_open = False
        self.held: set[int] = set()  # QoS 2 ids that are not released
        self.aliases: set[int] = set()

    # --- bytes --------------------------------------------------------------------------------

    def taken(self, wire: Wire) -> list[Packet]:
        """Return what was sent to a client since the last time."""
        received, wire.transport.sent = wire.transport.sent, bytearray()
        found = []
        while received:
            one = split(received)
            assert one is not None, "a packet that is not whole"
            found.append(one)
        return found

    def say(self, data: bytes) -> list[tuple[int, bytes]]:
        """Send bytes, and return the answers; the bystander's messages are not among them."""
        assert self.wire is not None
        self.wire.send_bytes(data)
        return [(one.kind, one.body) for one in self.taken(self.wire)]

    def ends_with(self, data: bytes, reason: int) -> None:
        """Send what must end the connection, for this reason in the words of its version."""
        answers = self.say(data)
        if self.version < 5:
            assert answers == []
        else:
            ((kind, body),) = answers
            assert (kind, body[0]) == (DISCONNECT, reason)
        self.ended()

    def ended(self) -> None:
        assert self.wire is not None
        assert self.wire.transport.closed
        self.wire.connection.connection_lost(None)
        self.wire, self.is_open = None, False
        self.held.clear()  # the session was for one connection
        self.aliases.clear()

    # --- the door -----------------------------------------------------------------------------

    @precondition(lambda self: self.wire is None)
    @rule(version=st.sampled_from([4, 5]))
    def dial(self, version: int) -> None:
        self.version = version
        self.wire = Wire(self.shore, version)

    @precondition(lambda self: self.wire is not None and not self.is_open)
    @rule()
    def come_in(self) -> None:
        ((kind, body),) = self.say(connect("c", version=self.version))
        assert (kind, body[1]) == (CONNACK, 0)
        self.is_open = True

    @precondition(lambda self: self.wire is not None and not self.is_open)
    @rule(
        first=st.sampled_from(
            [
                packet(PINGREQ),
                disconnect(),
                publish("a/x"),
                ack(PUBREL, 1),
                b"GET / HTTP/1.1\r\n",
            ]
        )
    )
    def say_something_else_first(self, first: bytes) -> None:
        """[MQTT-3.1.0-1]: there is no version yet to be told anything in."""
        assert self.say(first) == []
        self.ended()

    @precondition(lambda self: self.is_open)
    @rule(how=st.sampled_from(["leave", "cut"]))
    def go(self, how: str) -> None:
        if how == "leave":
            assert self.say(disconnect()) == []
        else:
            assert self.wire is not None
            self.wire.transport.close()
        self.ended()

    # --- what is legal ------------------------------------------------------------------------

    def payload(self) -> bytes:
        self.number += 1
        return b"%d" % self.number

    @precondition(lambda self: self.is_open)
    @rule(qos=st.integers(0, 2), packet_id=IDS, dup=st.booleans(), alias=st.integers(0, 3))
    def publish(self, qos: int, packet_id: int, dup: bool, alias: int) -> None:
        said, name = b"", "a/name"
        if alias and self.version == 5:
            said = prop(TOPIC_ALIAS, alias)
            name = "" if alias in self.aliases else name
            self.aliases.add(alias)
        payload = self.payload()
        answers = self.say(
            publish(
                name,
                payload,
                qos,
                packet_id,
                dup=dup and qos > 0,
                properties=said,
                version=self.version,
            )
        )
        if qos == 0:
            assert answers == []
        else:
            assert answers == [(PUBACK if qos == 1 else PUBREC, uint16(packet_id))]
        if qos < 2 or packet_id not in self.held:  # [MQTT-4.3.3-10]
            self.published.append(payload)
        if qos == 2:
            self.held.add(packet_id)

    @precondition(lambda self: self.is_open)
    @rule(packet_id=IDS)
    def release(self, packet_id: int) -> None:
        known = packet_id in self.held
        said = b"" if known or self.version < 5 else b"\x92"
        assert self.say(ack(PUBREL, packet_id)) == [(PUBCOMP, uint16(packet_id) + said)]
        self.held.discard(packet_id)

    @precondition(lambda self: self.is_open)
    @rule(kind=st.sampled_from([PUBACK, PUBREC, PUBCOMP]), packet_id=IDS)
    def acknowledge_what_was_never_sent(self, kind: int, packet_id: int) -> None:
        said = b"\x92" if self.version == 5 else b""
        assert self.say(ack(kind, packet_id)) == (
            [(PUBREL, uint16(packet_id) + said)] if kind == PUBREC else []
        )

    @precondition(lambda self: self.is_open)
    @rule(packet_id=IDS, topic_filter=st.sampled_from(["b/+", "b/#", "b", "a/#/b", "+a"]))
    def subscribe(self, packet_id: int, topic_filter: str) -> None:
        granted = 1
        if "/#/" in topic_filter or topic_filter == "+a":
            granted = 0x8F if self.version == 5 else 0x80
        ((kind, body),) = self.say(
            subscribe(packet_id, (topic_filter, 1), version=self.version)
        )
        assert (kind, body[:2], body[-1]) == (SUBACK, uint16(packet_id), granted)

    @precondition(lambda self: self.is_open)
    @rule(packet_id=IDS)
    def unsubscribe(self, packet_id: int) -> None:
        ((kind, body),) = self.say(unsubscribe(packet_id, "b/+", version=self.version))
        assert (kind, body[:2]) == (UNSUBACK, uint16(packet_id))

    @precondition(lambda self: self.is_open)
    @rule()
    def ping(self) -> None:
        assert self.say(packet(PINGREQ)) == [(PINGRESP, b"")]

    # --- what is not --------------------------------------------------------------------------

    @precondition(lambda self: self.is_open)
    @rule(name=st.sampled_from(sorted(WRONG)))
    def break_a_rule(self, name: str) -> None:
        """[MQTT-4.13.1-1; MQTT 3.1.1: MQTT-4.8.0-1]"""
        self.ends_with(*WRONG[name])

    @precondition(lambda self: self.is_open and self.version == 5)
    @rule(name=st.sampled_from(sorted(WRONG_IN_5)))
    def break_a_rule_of_5(self, name: str) -> None:
        self.ends_with(*WRONG_IN_5[name])

    @precondition(lambda self: self.is_open and self.version == 5)
    @rule()
    def exceed_the_receive_maximum(self) -> None:
        """[MQTT-3.3.4-7]"""
        for number in range(10, 10 + RECEIVE_MAXIMUM - len(self.held)):
            payload = self.payload()
            self.published.append(payload)
            ((kind, _),) = self.say(publish("a/name", payload, 2, number))
            assert kind == PUBREC
        self.ends_with(publish("a/name", b"one too many", 2, 9), 0x93)

    @precondition(lambda self: self.is_open)
    @rule(first=st.sampled_from([PUBLISH << 4, SUBSCRIBE << 4 | 2, PUBACK << 4]))
    def claim_256_megabytes(self, first: int) -> None:
        """[MQTT-3.2.2-15]: it is known before the rest comes."""
        self.ends_with(bytes([first]) + b"\xff\xff\xff\x7f", 0x95)

    # --- what holds in every state ------------------------------------------------------------

    @invariant()
    def the_bystander_is_well(self) -> None:
        self.bystander.send_bytes(packet(PINGREQ))
        *messages, last = self.taken(self.bystander)
        assert (last.kind, last.body) == (PINGRESP, b"")
        assert {one.kind for one in messages} <= {PUBLISH}
        self.seen += [one.payload() for one in messages]
        assert self.seen == self.published

    @invariant()
    def only_who_is_there_is_known(self) -> None:
        assert len(self.shore.connections) == 1 + (self.wire is not None)
        entries: dict[str, Any] = self.shore.clients.sessions.entries
        assert set(entries) == {"bystander"} | ({"c"} if self.is_open else set())


ConnectionMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_any_order_of_packets = ConnectionMachine.TestCase
