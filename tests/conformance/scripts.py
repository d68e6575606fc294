"""Sessions to play with more than one server: what clients do, and what they are sent."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Final

from tests.conformance.raw_client import (
    ASSIGNED_CLIENT_ID,
    CONTENT_TYPE,
    CORRELATION_DATA,
    MAXIMUM_PACKET_SIZE,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    REASON_STRING,
    RECEIVE_MAXIMUM,
    RESPONSE_TOPIC,
    SERVER_KEEP_ALIVE,
    SESSION_EXPIRY,
    SHARED_AVAILABLE,
    SUBSCRIPTION_ID,
    TOPIC_ALIAS,
    TOPIC_ALIAS_MAXIMUM,
    USER_PROPERTY,
    WILL_DELAY,
    Answer,
    Message,
    RawClient,
    Will,
    ack,
    connect,
    disconnect,
    prop,
    publish,
    subscribe,
    unsubscribe,
)
from tests.e2e.raw_mqtt import PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBREC, PUBREL, packet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.server_process import Address

    Script = Callable[["Stage"], None]

NAMES: Final = (
    "",
    *("CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE"),
    *("SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"),
)
FREE: Final = frozenset(
    (
        *(REASON_STRING, ASSIGNED_CLIENT_ID, SERVER_KEEP_ALIVE, RECEIVE_MAXIMUM),
        *(TOPIC_ALIAS_MAXIMUM, MAXIMUM_PACKET_SIZE, SHARED_AVAILABLE),
    )
)
KEPT: Final = prop(SESSION_EXPIRY, 3600)


class Stage:
    """Where a script plays: clients of one server and one version, and what they were sent."""

    def __init__(self, server: Address, version: int) -> None:
        self.version = version
        self.seen: list[Any] = []
        self._server = server
        self._clients: list[RawClient] = []

    def dial(self) -> RawClient:
        client = RawClient(self._server, self.version)
        self._clients.append(client)
        return client

    def join(self, client_id: str, **options: Any) -> RawClient:
        """Connect, and see the CONNACK."""
        client = self.dial()
        client.send(connect(client_id, version=self.version, **self.fit(options)))
        self.see(client.receive())
        return client

    def fit(self, options: dict[str, Any]) -> dict[str, Any]:
        """Leave out what only MQTT 5 has; there, a session that is kept has to say so."""
        if self.version == 5:
            return options
        kept = options.pop("properties", b"") == KEPT
        return options | ({"clean": False} if kept else {})

    def see(self, *arrived: Message | Answer | None) -> None:
        for one in arrived:
            self.seen.append(
                "closed"
                if one is None
                else shown(one)
                if isinstance(one, Answer)
                else told(one)
            )

    def settle(self, *clients: RawClient) -> None:
        """See all that has come to each, and whether it is closed."""
        for client in clients:
            with contextlib.suppress(OSError):
                client.send(packet(PINGREQ))
            while True:
                one = client.receive()
                if isinstance(one, Answer) and one.kind == PINGRESP:
                    break
                self.see(one)
                if one is None:
                    break

    def end(self, client: RawClient, *sent: bytes) -> None:
        """Send, and see what comes until the server closes or answers a ping."""
        client.send(*sent)
        self.settle(client)

    def close(self) -> None:
        for client in self._clients:
            client.cut()


def shown(answer: Answer) -> tuple[Any, ...]:
    said = {key: value for key, value in sorted(answer.properties.items()) if key not in FREE}
    present = ("present",) if answer.session_present else ()
    return (NAMES[answer.kind], answer.packet_id, answer.reasons or (0,), *present, said)


def told(message: Message) -> tuple[Any, ...]:
    flags = ("retain" if message.retain else "") + ("dup" if message.dup else "")
    said = dict(sorted(message.properties.items()))
    return ("PUBLISH", message.topic_name, message.payload, message.qos, flags, said)


# --- the scripts ------------------------------------------------------------------------------


def each_quality(stage: Stage) -> None:
    publisher, subscriber = stage.join("publisher"), stage.join("subscriber")
    for qos in range(3):
        stage.see(subscriber.subscribe(f"a/{qos}", qos, packet_id=qos + 1))
    for number, (level, qos) in enumerate(itertools.product(range(3), range(3))):
        answer = publisher.publish(f"a/{level}", b"%d" % number, qos, packet_id=number + 1)
        stage.see(answer)
        stage.settle(subscriber)


def nobody_subscribed(stage: Stage) -> None:
    client = stage.join("c")
    for qos in range(3):
        stage.see(client.publish("a", b"x", qos, packet_id=5))


def the_same_id_again(stage: Stage) -> None:
    client, watcher = stage.join("c"), stage.join("watcher")
    stage.see(watcher.subscribe("a", 2))
    for again in (False, True):
        client.send(publish("a", b"once", 2, 9, dup=again, version=stage.version))
        stage.see(client.receive())
    client.send(ack(PUBREL, 9))
    stage.settle(client, watcher)
    for _ in range(2):
        stage.see(client.publish("a", b"qos 1", 1, packet_id=9))
    stage.settle(watcher)


def the_same_id_a_third_time(stage: Stage) -> None:
    client = stage.join("c")
    for again in (False, True):
        client.send(publish("a", b"once", 2, 9, dup=again, version=stage.version))
        stage.see(client.receive())
    stage.end(client, publish("a", b"once", 2, 9, dup=True, version=stage.version))


def acknowledgements_of_nothing(stage: Stage) -> None:
    client = stage.join("c")
    for kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        client.send(ack(kind, 77))
        stage.settle(client)


def filters_of_all_kinds(stage: Stage) -> None:
    client = stage.join("c")
    entries = [("a/+", 0), ("+", 1), ("#", 2), ("/", 0), ("a//b", 1), ("$SYS/#x", 0)][:5]
    client.send(subscribe(7, *entries, version=stage.version))
    stage.settle(client)
    for name in ("a/b", "a", "/", "a//b", "a/", "x/y/z"):
        client.publish(name, name.encode(), 1)
        stage.settle(client)
    stage.see(client.unsubscribe("a/+", "never", "#", packet_id=8))
    client.publish("a/b", b"after")
    stage.settle(client)


def filters_that_are_none(stage: Stage) -> None:
    for topic_filter in ("a/#/b", "a+", "", "#a"):
        client = stage.join("c")
        stage.end(client, subscribe(1, (topic_filter, 0), version=stage.version))


def overlapping_filters(stage: Stage) -> None:
    client = stage.join("c")
    for number, (topic_filter, qos) in enumerate((("a/#", 2), ("a/+", 1), ("a/b", 0)), 1):
        stage.see(client.subscribe(topic_filter, qos, packet_id=number))
    client.publish("a/b", b"x", 2)
    stage.settle(client)


def a_filter_again(stage: Stage) -> None:
    client = stage.join("c")
    client.publish("a", b"kept", 1, retain=True)
    for qos in (2, 0, 1):
        stage.see(client.subscribe("a", qos))
        stage.settle(client)
    client.publish("a", b"live", 2)
    stage.settle(client)
    client.publish("a", b"", 1, retain=True)


def retained_messages(stage: Stage) -> None:
    client, other = stage.join("c"), stage.join("other")
    for name in ("r/1", "r/2", "r/2/3"):
        client.publish(name, name.encode(), 2, retain=True)
    stage.see(other.subscribe("r/+", 1))
    stage.settle(other)
    client.publish("r/1", b"", 1, retain=True)
    client.publish("r/2", b"not retained", 1)
    stage.settle(other)
    later = stage.join("later")
    stage.see(later.subscribe("r/#", 2))
    stage.settle(later)
    for name in ("r/2", "r/2/3"):
        client.publish(name, b"", 1, retain=True)


def a_session_that_waits(stage: Stage) -> None:
    client, publisher = stage.join("kept", properties=KEPT), stage.join("publisher")
    stage.see(client.subscribe("a/#", 2))
    client.leave()
    for number in range(6):
        publisher.publish("a/x", b"%d" % number, number % 3, packet_id=number + 1)
    again = stage.join("kept", properties=KEPT, clean=False)
    stage.settle(again)
    again.leave()
    stage.join("kept")


def a_will(stage: Stage) -> None:
    watcher = stage.join("watcher")
    stage.see(watcher.subscribe("will/#", 2))
    for qos in range(3):
        stage.join("c", will=Will(f"will/{qos}", b"gone", qos)).cut()
        stage.see(watcher.message())
    stage.join("c", will=Will("will/x")).leave()
    first = stage.join("c", will=Will("will/taken", b"over", 1))
    stage.join("c")
    stage.see(*first.rest())
    stage.settle(watcher)


def a_second_connect(stage: Stage) -> None:
    client = stage.join("c")
    stage.end(client, connect("c", version=stage.version))


def what_is_malformed(stage: Stage) -> None:
    for bad in (
        packet(0),
        packet(12, b"", 1),
        packet(PUBREL, b"\0\1", 0),
        packet(3, b"\0\1a\0\1\0", 6),
        publish("a/+", b"", version=stage.version),
        publish("", b"", version=stage.version),
        publish(b"\xff", b"", version=stage.version),
        publish("a", b"", 1, 0, version=stage.version),
        subscribe(0, ("a", 0), version=stage.version),
        subscribe(1, version=stage.version),
        unsubscribe(1, version=stage.version),
        subscribe(1, ("a", 3), version=stage.version),
        b"\xc0\xff\xff\xff\xff\x01",
    ):
        stage.end(stage.join("c"), bad)


def names_with_a_dollar(stage: Stage) -> None:
    client = stage.join("c")
    stage.see(client.subscribe("#", 0))
    for qos in range(3):
        stage.see(client.publish("$mine/x", b"x", qos, packet_id=qos + 1))
    stage.settle(client)


# --- of MQTT 5 only ---------------------------------------------------------------------------


def no_id(stage: Stage) -> None:
    answer = stage.dial()
    answer.send(connect("", version=5))
    connack = answer.expect(2)
    stage.see(connack)
    stage.seen.append(len(connack.properties[ASSIGNED_CLIENT_ID]) == 1)


def all_properties(stage: Stage) -> None:
    client = stage.join("c")
    client.subscribe("a", 1, prop(SUBSCRIPTION_ID, 268_435_455))
    properties = (
        prop(PAYLOAD_FORMAT, 1)
        + prop(MESSAGE_EXPIRY, 1000)
        + prop(CONTENT_TYPE, "c")
        + prop(RESPONSE_TOPIC, "r")
        + prop(CORRELATION_DATA, b"\0")
        + prop(USER_PROPERTY, ("b", "1"))
        + prop(USER_PROPERTY, ("a", "1"))
        + prop(USER_PROPERTY, ("b", "1"))
    )
    client.publish("a", b"x", 1, properties=properties)
    stage.settle(client)


def options_of_subscribe(stage: Stage) -> None:
    client, other = stage.join("c"), stage.join("other")
    client.publish("o", b"kept", 1, retain=True)
    for options in (0x04 | 1, 0x08 | 1, 0x10 | 1, 0x20 | 1):
        stage.see(client.subscribe("o", options))
        stage.settle(client)
        client.publish("o", b"own", 1)
        other.publish("o", b"new", 1, retain=True)
        stage.settle(client)
        stage.see(client.unsubscribe("o"))
    client.publish("o", b"", 1, retain=True)


def aliases(stage: Stage) -> None:
    client = stage.join("c")
    client.subscribe("a/#")
    for name, alias in (("a/1", 1), ("", 1), ("a/2", 1), ("", 1), ("a/3", 2)):
        client.publish(name, b"x", 0, properties=prop(TOPIC_ALIAS, alias))
        stage.settle(client)
    stage.end(client, publish("a", properties=prop(TOPIC_ALIAS, 0)))
    stage.end(stage.join("c"), publish("", properties=prop(TOPIC_ALIAS, 3)))


def receive_maximum_of_a_client(stage: Stage) -> None:
    client, publisher = stage.join("c", properties=prop(RECEIVE_MAXIMUM, 2)), stage.join("p")
    client.subscribe("a", 1)
    for number in range(4):
        publisher.publish("a", b"%d" % number)
    got = client.messages()
    stage.see(*got)
    client.send(ack(PUBACK, got[0].packet_id))
    stage.settle(client)


def packets_too_large_for_a_client(stage: Stage) -> None:
    client = stage.join("c", properties=prop(MAXIMUM_PACKET_SIZE, 60))
    client.subscribe("a", 2)
    for size in (10, 100, 11):
        for qos in range(3):
            client.publish("a", bytes(size), qos, packet_id=qos + 1)
        stage.settle(client)


def a_will_that_waits(stage: Stage) -> None:
    watcher = stage.join("watcher")
    watcher.subscribe("will", 1)
    will = Will("will", b"late", 1, properties=prop(WILL_DELAY, 3600))
    client = stage.join("c", properties=KEPT, will=will)
    stage.join("c", properties=KEPT, clean=False)
    stage.see(*client.rest())
    stage.settle(watcher)


def reasons_to_go(stage: Stage) -> None:
    watcher = stage.join("watcher")
    watcher.subscribe("will", 1)
    for reason in (0x00, 0x04, 0x80):
        client = stage.join("c", will=Will("will", b"%d" % reason, 1))
        client.send(disconnect(reason))
        stage.see(*client.rest())
        stage.settle(watcher)
    stage.end(stage.join("c"), disconnect(0, prop(SESSION_EXPIRY, 5)))
    stage.end(stage.join("c"), disconnect(0x8E))


def wrong_properties(stage: Stage) -> None:
    for bad in (
        publish("a", properties=prop(SUBSCRIPTION_ID, 1)),
        publish("a", properties=prop(MESSAGE_EXPIRY, 1) * 2),
        publish("a", properties=prop(RESPONSE_TOPIC, "a/+")),
        publish("a", properties=bytes([PAYLOAD_FORMAT, 2])),
        publish("a", properties=prop(SESSION_EXPIRY, 1)),
        subscribe(1, ("a", 0), properties=prop(SUBSCRIPTION_ID, 0)),
        subscribe(1, ("a", 0x40)),
        subscribe(1, ("a", 0x30)),
        subscribe(1, ("$share/g/a", 4)),
        ack(PUBREC, 1, 0x05),
    ):
        stage.end(stage.join("c"), bad)


BOTH: Final = (
    each_quality,
    nobody_subscribed,
    the_same_id_again,
    the_same_id_a_third_time,
    acknowledgements_of_nothing,
    filters_of_all_kinds,
    filters_that_are_none,
    overlapping_filters,
    a_filter_again,
    retained_messages,
    a_session_that_waits,
    a_will,
    a_second_connect,
    what_is_malformed,
    names_with_a_dollar,
)
ONLY_5: Final = (
    no_id,
    all_properties,
    options_of_subscribe,
    aliases,
    receive_maximum_of_a_client,
    packets_too_large_for_a_client,
    a_will_that_waits,
    reasons_to_go,
    wrong_properties,
)


def played(script: Script, server: Address, version: int) -> list[Any]:
    stage = Stage(server, version)
    try:
        script(stage)
    finally:
        stage.close()
    return stage.seen
