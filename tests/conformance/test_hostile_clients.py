"""What the specification allows and a server must survive: clients that cost all they can.

Each test does what a hostile or broken client may do, then looks at the server's memory and at
how long the server computes before it answers the ping of a bystander. The bounds are wide;
without a limit in the server each of these would be far beyond them.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    CORRELATION_DATA,
    RECEIVE_MAXIMUM,
    SESSION_EXPIRY,
    TOPIC_ALIAS,
    USER_PROPERTY,
    Will,
    ack,
    connect,
    prop,
    publish,
    subscribe,
)
from tests.e2e.patience import TICK_S
from tests.e2e.raw_mqtt import CONNECT, PUBACK, PUBLISH, PUBREC, PUBREL, SUBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conformance.raw_client import RawClient
    from tests.e2e.server_process import ServerProcess

    Join = Callable[..., RawClient]
    Dial = Callable[..., RawClient]

GROWTH_BYTES_MAX = 48 << 20
WORK_S_MAX = 2.0


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {
        "mqtt.output_bytes_max": "65536",
        "mqtt.subscriptions_per_session_max": "2000",
        "mqtt.connect_timeout_s": "3",
    }


@pytest.fixture(autouse=True)
def _bounded(server: ServerProcess, join: Join) -> Iterator[None]:
    bystander = join()
    before = server.rss_bytes()
    yield
    began_s = server.cpu_s()
    assert bystander.settled() == []
    assert server.cpu_s() - began_s < WORK_S_MAX
    assert server.rss_bytes() - before < GROWTH_BYTES_MAX


def test_qos_2_ids_that_are_never_released(join: Join, unique: str) -> None:
    """[MQTT-2.2.1-3] bounds them before 5.0, Receive Maximum since."""
    client = join(version=4)
    for first in range(1, 65_536, 5000):
        ids = range(first, min(first + 5000, 65_536))
        client.send(*[publish(unique, b"", 2, number, version=4) for number in ids])
        for number in ids:
            assert client.expect(PUBREC).packet_id == number
    client.send(ack(PUBREL, 77))
    client.send(publish(unique, b"", 2, 77, version=4))


def test_deliveries_that_are_never_acknowledged(join: Join, unique: str) -> None:
    """[MQTT-4.9.0-2] What waits is a place in the log."""
    client, publisher = join(), join()
    client.subscribe(unique, 1)
    for _ in range(50):
        publisher.send(*[publish(unique, b"x" * 1000, 1, number + 1) for number in range(1000)])
        for _ in range(1000):
            publisher.expect(PUBACK)
    assert len({client.message().packet_id for _ in range(1024)}) == 1024
    assert client.settled() == []


def test_a_client_that_does_not_read(join: Join, unique: str) -> None:
    """[MQTT-4.6.0-5] It gets everything once it reads, and holds nobody up."""
    slow, publisher = join(), join()
    slow.subscribe(unique, 0)
    for number in range(600):
        publisher.send(publish(unique, b"%06d" % number + b"x" * 100_000))
        if number % 100 == 99:
            publisher.settled()
    got = [int(payload[:6]) for payload in (slow.message().payload for _ in range(600))]
    assert got == list(range(600))


def test_a_client_that_comes_back_to_much_and_does_not_read(join: Join, unique: str) -> None:
    """[MQTT-4.4.0-1] What is sent again is bounded as what is sent."""
    kept = prop(SESSION_EXPIRY, 3600)
    client, publisher = join(unique, properties=kept), join()
    client.subscribe(unique, 1)
    for _ in range(500):
        publisher.publish(unique, b"x" * 200_000)
    for _ in range(500):
        client.message()
    client.cut()
    for _ in range(3):
        client = join(unique, properties=kept, clean=False)
        client.cut()
    client = join(unique, properties=kept, clean=False)
    assert [len(client.message().payload) for _ in range(500)] == [200_000] * 500


def test_subscriptions_without_end(join: Join, unique: str) -> None:
    """[MQTT-3.9.3-2]"""
    client = join()
    reasons: set[int] = set()
    for first in range(0, 10_000, 1000):
        entries = [(f"{unique}/" + "+/" * 50 + str(number), 1) for number in range(1000)]
        client.send(subscribe(1, *[(f"{name}/{first}", qos) for name, qos in entries]))
        reasons.update(client.expect(SUBACK).reasons)
    assert reasons == {1, 0x97}
    assert client.subscribe(f"{unique}/" + "+/" * 50 + "0/0", 2).reason == 2  # it is there
    for _ in range(100):
        client.publish("/".join([unique] * 52), b"", 1)


def test_100_000_subscriptions(join: Join, unique: str) -> None:
    """[MQTT-3.9.3-2]: the first of them stand, the others are refused one by one."""
    client = join()
    granted = 0
    for first in range(0, 100_000, 5000):
        names = (f"{unique}/{number}" for number in range(first, first + 5000))
        client.send(subscribe(1, *[(name, 0) for name in names]))
        granted += client.expect(SUBACK).reasons.count(0)
    assert granted == 2000
    client.publish(f"{unique}/1999", b"the last")
    assert client.payloads() == [b"the last"]


@pytest.mark.parametrize("version", [4, 5])
def test_the_longest_name_with_the_most_levels(
    version: int, join: Join, dial: Dial, unique: str
) -> None:
    """[MQTT-4.7.3-3]: 65,535 bytes that are 30,000 levels are refused, and nothing more."""
    deep = (unique + "/" * 29_999).ljust(65_535, "x")
    client = join(version=version)
    assert client.subscribe(deep).reason == (0x8F if version == 5 else 0x80)
    if version == 5:
        assert client.publish(deep, b"", 1).reason == 0x90
        assert client.unsubscribe(deep).reason == 0x8F
    watcher = join()
    watcher.subscribe("#")
    with_will = dial(version)
    with_will.send(connect(unique, version=version, will=Will(deep)))
    with_will.receive()
    with_will.cut()
    join(unique, version)  # so its will is due
    assert watcher.messages() == []


def test_claims_of_256_megabytes(join: Join, dial: Dial) -> None:
    """[MQTT-3.2.2-15]: nothing is set aside for what has not come."""
    for kind in (CONNECT, PUBLISH):
        for _ in range(100):
            client = join() if kind == PUBLISH else dial()
            client.send(bytes([kind << 4]) + b"\xff\xff\xff\x7f" + bytes(1000))
            assert client.ended() in (None, 0x95)


def test_connects_that_come_byte_by_byte(dial: Dial, unique: str) -> None:
    """The time for a CONNECT is one for all of it [MQTT 5.0, 3.1.4]."""
    began_s = time.monotonic()
    clients = [dial() for _ in range(100)]
    slow = connect(unique * 50)
    for number in range(6):
        for client in clients:
            with contextlib.suppress(
                OSError
            ):  # this machine was slower still, and it is closed
                client.send(slow[number : number + 1])
        time.sleep(0.2)
    assert [client.rest() for client in clients] == [[]] * 100
    assert time.monotonic() - began_s > 3 - TICK_S


def test_a_subscribe_with_more_filters_than_anyone_needs(join: Join) -> None:
    """[MQTT-4.13.1-1]"""
    client = join()
    client.send(subscribe(1, *[("a", 0)] * 200_000))
    assert client.ended() == 0x95


def test_the_same_subscription_again_and_again(join: Join, unique: str) -> None:
    """[MQTT-3.8.4-3]"""
    client = join()
    for _ in range(20):
        client.send(subscribe(1, *[(unique, 0)] * 5000))
        assert len(client.expect(SUBACK).reasons) == 5000


def test_aliases_with_the_longest_names(join: Join, unique: str) -> None:
    """[MQTT-3.3.2-9]"""
    for _ in range(5):
        client = join()
        for alias in range(1, 65):
            name = f"{unique}{alias:03}".ljust(65_535, "y")
            client.send(publish(name, b"", properties=prop(TOPIC_ALIAS, alias)))
        client.publish("", b"", 1, properties=prop(TOPIC_ALIAS, 64))


def test_more_user_properties_than_anyone_needs(join: Join, unique: str) -> None:
    """[MQTT 5.0, 2.2.2.2]"""
    client = join()
    client.subscribe(unique)
    client.publish(unique, b"", properties=prop(USER_PROPERTY, ("a", "b")) * 10_000)
    assert len(client.message().properties[USER_PROPERTY]) == 10_000
    client.send(publish(unique, b"", properties=prop(USER_PROPERTY, ("a", "b")) * 10_001))
    assert client.ended() == 0x95


def test_sessions_that_come_and_go(join: Join, unique: str) -> None:
    """[MQTT-4.1.0-2]"""
    for number in range(300):
        client = join(f"{unique}/{number}", properties=prop(RECEIVE_MAXIMUM, 1))
        client.subscribe(f"{unique}/{number}", 1)
        large = prop(CORRELATION_DATA, b"x" * 60_000)
        client.publish(f"{unique}/{number}", b"x", 1, properties=large)
        client.cut()
