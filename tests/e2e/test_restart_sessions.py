"""Persistent MQTT sessions are there again, after an orderly end and after SIGKILL."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.e2e.kafka_libraries import ConfluentKafka
from tests.e2e.kafka_record import Record
from tests.e2e.mqtt_programs import (
    Inbox,
    Message,
    message_of,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.patience import wait_until
from tests.e2e.raw_mqtt import (
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    ack,
    publish,
    raw_session,
    subscribe,
)
from tests.e2e.test_restart import END, restart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.server_process import Address, ServerProcess

BOTH_VERSIONS = pytest.mark.parametrize("version", [4, 5])
LASTING = {"clean": False, "session_expiry_s": 1000}


@contextlib.contextmanager
def lasting_client(
    server: Address, version: int, inbox: Inbox, client_id: str = "device"
) -> Iterator[tuple[Client, bool]]:
    """Hold a paho client whose session lasts, and say whether the session was there."""
    options: dict[str, Any] = {"clean_session": False} if version == 4 else {}
    client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, **options)
    present: list[bool] = []
    client.on_message = lambda _client, _data, one: inbox.put(message_of(one))
    client.on_connect = lambda _client, _data, flags, *_: present.append(flags.session_present)
    lasting: dict[str, Any] = {}
    if version == 5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 1000
        lasting = {"clean_start": False, "properties": properties}
    client.connect(*server, **lasting)
    client.loop_start()
    try:
        wait_until(lambda: present, "CONNACK")
        yield client, present[0]
    finally:
        client.disconnect()
        client.loop_stop()


@END
@BOTH_VERSIONS
def test_messages_of_the_time_before_come_after(
    version: int, end: str, fresh_server: ServerProcess
) -> None:
    """At QoS 1 and 2, from both shores, while the client was away; and its subscription."""
    inbox = Inbox()
    with lasting_client(fresh_server.mqtt, version, inbox) as (client, present):
        assert not present
        paho_subscribe(client, "plant/#", 2)
    with paho_client(fresh_server.mqtt) as client:
        paho_publish(client, [Message("plant/a", b"%d" % n, n % 2 + 1) for n in range(200)])
    ConfluentKafka().produce(fresh_server.kafka, "mqtt", [Record(b"plant/a", b"record")])
    restart(fresh_server, end)
    with lasting_client(fresh_server.mqtt, version, inbox) as (client, present):
        assert present
        arrived = inbox.wait(201)
        for qos in (1, 2):
            mine = [one.payload for one in arrived if one.qos == qos]
            expected = [b"%d" % number for number in range(qos - 1, 200, 2)]
            assert mine == expected + [b"record"] * (qos - 1)
        with paho_client(fresh_server.mqtt) as publisher:
            paho_publish(publisher, [Message("plant/b", b"after", 1)])
        assert inbox.wait(202)[-1].payload == b"after"
        inbox.stays_at(202)


@END
def test_a_session_without_expiry_does_not_come_back(
    end: str, fresh_server: ServerProcess
) -> None:
    with raw_session(fresh_server.mqtt, "device", clean=False) as session:
        session.send(subscribe(1, "t", 1))
        restart(fresh_server, end)
    with raw_session(fresh_server.mqtt, "device", clean=False) as session:
        assert not session.session_present


@END
def test_a_qos_2_publish_repeated_after_the_restart_is_one_record(
    end: str, fresh_server: ServerProcess
) -> None:
    """The client saw no PUBREC; its id is known to the next run of the server."""
    with raw_session(fresh_server.mqtt, "device", **LASTING) as session:
        session.send(publish("t", b"x", qos=2, packet_id=7))
        session.expect(PUBREC)
        session.cut()
    restart(fresh_server, end)
    with raw_session(fresh_server.mqtt, "device", **LASTING) as session:
        assert session.session_present
        session.send(publish("t", b"x", qos=2, packet_id=7, dup=True))
        assert session.expect(PUBREC).packet_id == 7
        session.send(ack(PUBREL, 7))
        assert session.expect(PUBCOMP).packet_id == 7
    restart(fresh_server, end)
    with raw_session(fresh_server.mqtt, "device", **LASTING) as session:
        session.send(publish("t", b"y", qos=2, packet_id=7))
        session.expect(PUBREC)
    records = ConfluentKafka().consume(fresh_server.kafka, "mqtt", 2)
    assert [record.value for record in records] == [b"x", b"y"]


@END
def test_a_qos_2_delivery_goes_on_where_it_was(end: str, fresh_server: ServerProcess) -> None:
    with raw_session(fresh_server.mqtt, "device", **LASTING) as session:
        session.send(subscribe(1, "t", 2))
        session.expect(SUBACK)
        with paho_client(fresh_server.mqtt) as client:
            paho_publish(client, [Message("t", b"%d" % n, 2) for n in range(2)])
        one, two = (session.expect(PUBLISH) for _ in range(2))
        session.send(ack(PUBREC, one.packet_id))
        session.expect(PUBREL)
        session.cut()
    restart(fresh_server, end)
    with raw_session(fresh_server.mqtt, "device", **LASTING) as session:
        assert session.expect(PUBREL).packet_id == one.packet_id
        again = session.expect(PUBLISH)
        assert (again.packet_id, again.dup) == (two.packet_id, True)
        assert again.payload(5) == b"1"
        session.send(ack(PUBCOMP, one.packet_id) + ack(PUBREC, two.packet_id))
        session.expect(PUBREL)
        session.send(ack(PUBCOMP, two.packet_id))


def set_will(client: Client, payload: bytes, delay_s: int) -> None:
    """Give a paho client a will at `wills` that waits for a while [MQTT 3.1.3.2.2]."""
    properties = Properties(PacketTypes.WILLMESSAGE)
    properties.WillDelayInterval = delay_s
    client.will_set("wills", payload, 2, properties=properties)


def test_wills_of_clients_that_stay_away_are_sent(
    start_server: Callable[..., ServerProcess],
) -> None:
    """Once, whatever becomes of the server then; that of a client that is back, never."""
    server = start_server(settings={"mqtt.will_grace_s": "1"})
    session = Properties(PacketTypes.CONNECT)
    session.SessionExpiryInterval = 1000
    lasting = {"clean_start": False, "properties": session}
    inbox = Inbox()
    with (
        lasting_client(server.mqtt, 5, inbox) as (watcher, _),
        paho_client(
            server.mqtt, "away", prepare=lambda c: set_will(c, b"gone", 0), **lasting
        ) as away,
        paho_client(
            server.mqtt, "back", prepare=lambda c: set_will(c, b"never", 1000), **lasting
        ) as back,
    ):
        paho_subscribe(watcher, "wills", 2)
        for client in (watcher, away, back):
            client.loop_stop()  # or their threads would connect again
        restart(server, "kill")
        with (
            lasting_client(server.mqtt, 5, inbox),
            paho_client(server.mqtt, "back", **lasting),
        ):
            assert inbox.wait(1)[0].payload == b"gone"
        restart(server, "kill")
        with lasting_client(server.mqtt, 5, inbox):
            inbox.stays_at(1, for_s=1.2)
