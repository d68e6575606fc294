"""Clients that want to keep the server from its other clients: it stays up, small and fair.

A bystander was connected before each of them and is served after it; the server's memory has
not grown beyond what such a client may cost.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from tests.certificates import Authority
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.raw_mqtt import (
    CONNACK,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    RawMqtt,
    connect,
    packet,
    publish,
    raw_connection,
    raw_session,
    subscribe,
    text,
    uint16,
    varint,
)
from tests.e2e.server_process import ServerProcess, address_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.server_process import Address

CONNECT_TIMEOUT_S = 2
GROWTH_BYTES_MAX = 128 << 20  # 100,000 subscriptions take half of it
LINES_MAX = 20
DEEP = "/".join(["x"] * 32_768)  # as long as a topic name may be
UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)


@pytest.fixture(scope="module")
def server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("server")
    certificate = Authority(directory / "ca").issue("server", "localhost")
    listeners = [
        'address = "tcp://127.0.0.1:0", name = "plain"',
        'address = "tls://127.0.0.1:0", name = "encrypted"',
        'address = "ws://127.0.0.1:0/mqtt", name = "web"',
        'address = "tcp://127.0.0.1:0", name = "large", packet_size_max = 268_435_460',
    ]
    settings = {
        "mqtt.listeners": f"[{', '.join(f'{{{each}}}' for each in listeners)}]",
        "mqtt.connect_timeout_s": str(CONNECT_TIMEOUT_S),
        "mqtt.subscriptions_per_session_max": "100_000",
        "tls.certificate": str(certificate),
    }
    process = ServerProcess(directory, settings)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def plain(server: ServerProcess) -> Address:
    return server.mqtt


@pytest.fixture(autouse=True)
def _unharmed(server: ServerProcess) -> Iterator[None]:
    """Check the bystander, the memory, and that nothing was thrown that nobody caught."""
    before, lines = server.rss_bytes(), len(server.log_lines())
    with raw_session(server.mqtt, "bystander") as bystander:
        bystander.send(subscribe(1, "bystander", 1))
        bystander.expect(SUBACK)
        yield
        bystander.send(publish("bystander", b"still here", qos=1, packet_id=9))
        said = {bystander.receive().kind for _ in range(2)}  # type: ignore[union-attr]
        assert said == {PUBLISH, PUBACK}
    assert server.rss_bytes() - before < GROWTH_BYTES_MAX
    new = server.log_lines()[lines:]
    assert not [line for line in new if "Traceback" in line]
    assert len([line for line in new if " warning " in line]) < LINES_MAX


def client_hello() -> bytes:
    """Return the first flight of a TLS client."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname="x"
    )
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_connections_that_open_slowly(server: ServerProcess, plain: Address) -> None:
    """A byte now and then, never the last one: of CONNECT, of TLS, of a WebSocket's request."""
    beginnings = [connect("slow"), client_hello(), UPGRADE]
    began_s = time.monotonic()
    slow = [
        (socket.create_connection(address_of(at), TIMEOUT_S), beginning[:-1])
        for at, beginning in zip(server.mqtt_listeners, beginnings, strict=False)
        for _ in range(60)
    ]
    for at in range(10):
        for connection, beginning in slow:
            with contextlib.suppress(ConnectionError):
                connection.send(beginning[at : at + 1])
        with raw_session(plain, f"quick-{at}"):  # others come in meanwhile
            pass
    for connection, _ in slow:
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""
        connection.close()
    assert time.monotonic() - began_s > CONNECT_TIMEOUT_S - 0.01


def test_a_hundred_thousand_subscriptions_of_one_client(plain: Address) -> None:
    with raw_session(plain, "greedy") as greedy:
        for first in range(0, 100_000, 1_000):
            filters = b"".join(
                text(f"devices/{number}/+") + b"\x01" for number in range(first, first + 1_000)
            )
            greedy.send(packet(SUBSCRIBE, uint16(1) + b"\0" + filters, 2))
        for _ in range(100):
            assert set(greedy.expect(SUBACK).body[3:]) == {1}
        greedy.send(subscribe(2, "one/more", 1))
        assert greedy.expect(SUBACK).body[-1] == 0x97
        greedy.send(publish("devices/77/x", b"found"))
        assert greedy.expect(PUBLISH).payload() == b"found"


@pytest.mark.parametrize("end", ["x", "+", "#"])
def test_a_topic_filter_of_thirty_thousand_levels(plain: Address, end: str) -> None:
    deep = DEEP[:-1] + end if end == "x" else DEEP.replace("x", "+")[:-1] + end
    with raw_session(plain, "deep") as client:
        for _ in range(20):
            client.send(subscribe(1, deep, 1))
            assert client.expect(SUBACK).body[-1] == 0x8F


def test_a_topic_name_of_thirty_thousand_levels(plain: Address) -> None:
    with raw_session(plain, "deep") as client:
        for _ in range(20):
            client.send(publish(DEEP, b"x", qos=1, packet_id=1))
            assert client.expect(PUBACK).body[2] == 0x90


def test_a_will_of_thirty_thousand_levels(plain: Address) -> None:
    for version in (4, 5):
        with raw_connection(plain) as client:
            client.send(connect("deep", version=version, will=(DEEP, b"x", 1, True)))
            client.expect(CONNACK)  # that it is let in or refused, but answered


def test_clients_that_connect_and_leave_without_end(
    server: ServerProcess, plain: Address
) -> None:
    lines = len(server.log_lines())
    for _ in range(1_000):
        with raw_connection(plain) as wire:
            wire.send(connect("restless"))
            wire.expect(CONNACK)
    wait_until(
        lambda: any("connected, repeated" in line for line in server.log_lines()[lines:]),
        "a line that says how often",
    )
    assert len(server.log_lines()[lines:]) < 600


def test_packets_that_claim_to_be_large(server: ServerProcess) -> None:
    """Only what has come takes memory."""
    large = address_of(server.mqtt_listeners[3])
    head = bytes([PUBLISH << 4]) + varint(268_435_455) + text("t")
    before = server.rss_bytes()
    wires = []
    for number in range(300):
        wires.append(RawMqtt(large))
        wires[-1].open(f"claim-{number}")
        wires[-1].send(head + bytes(2_000))
    with raw_session(server.mqtt, "other") as other:
        other.send(publish("t", b"", qos=1, packet_id=1))
        other.expect(PUBACK)
    assert server.rss_bytes() - before < GROWTH_BYTES_MAX
    for wire in wires:
        wire.cut()


def test_a_log_that_nobody_reads(own_process: None, tmp_path: Path) -> None:
    """64 KiB of lines are in the pipe, and clients are served as before; none is lost."""
    server = ServerProcess(tmp_path / "unread", settings={"log.repeats_s": "0"})
    server.directory.mkdir()
    os.mkfifo(server.log_path)
    unread = os.open(server.log_path, os.O_RDWR | os.O_NONBLOCK)  # not waiting for the server
    try:
        server.start()
        for number in range(400):
            with raw_connection(server.mqtt) as connection:
                connection.open(f"unread-{number}")
        found = b""

        def is_read() -> bool:
            nonlocal found
            with contextlib.suppress(BlockingIOError):
                found += os.read(unread, 1 << 16)
            return b"client=unread-399 peer=" in found

        wait_until(is_read, "that all lines have come")
        assert len(found) > 1 << 16
        assert all(b"client=unread-%d peer=" % number in found for number in range(400))
    finally:
        server.stop()
        os.close(unread)
