"""Bytes that no client of the protocol sends: an error or a closed connection, and no harm.

After each attack the connection is closed, the log holds one warning about it, the connections
of two well-behaved clients that were open all the time still work, and memory has not grown.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final

import pytest
from tests.e2e import raw_kafka, raw_mqtt
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.raw_mqtt import RawMqtt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.server_process import Address, ServerProcess

MEMORY_BYTES_MORE: Final = 8 << 20
PATIENCE_S: Final = 1.0


def tls_hello() -> bytes:
    """Return the first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    line = context.wrap_bio(incoming, outgoing, server_hostname="example.org")
    with contextlib.suppress(ssl.SSLWantReadError):
        line.do_handshake()
    return outgoing.read()


HTTP: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl\r\nAccept: */*\r\n\r\n"
RANDOM: Final = random.Random(7)
HELLO: Final = raw_mqtt.connect("attacker")
MQTT_ATTACKS: Final = {
    "HTTP request": HTTP,
    "TLS hello": tls_hello(),
    "random bytes": b"\xf0" + RANDOM.randbytes(1000),
    "random bytes after CONNECT": HELLO + b"\xf0" + RANDOM.randbytes(1000),
    "truncated CONNECT": HELLO[:9],
    "truncated PUBLISH": HELLO + raw_mqtt.publish("a/b", b"x" * 100)[:20],
    "PUBLISH before CONNECT": raw_mqtt.publish("a/b", b"x"),
    "second CONNECT": HELLO + HELLO,
    "CONNECT of 256 MB": b"\x10\xff\xff\xff\x7f",
    "PUBLISH of 256 MB": HELLO + b"\x30\xff\xff\xff\x7f\x00\x03a/b",
    "length without end": HELLO + b"\x30\xff\xff\xff\xff\xff",
    "wrong protocol name": raw_mqtt.packet(1, raw_mqtt.text("MQTX") + b"\x05\x02\0\0\0\0\0"),
    "QoS 3": HELLO + raw_mqtt.packet(raw_mqtt.PUBLISH, b"\0\1a\0\1\0", 6),
    "+ in a topic name": HELLO + raw_mqtt.publish("a/+", b"x"),
    "# in a topic name": HELLO + raw_mqtt.publish("a/#", b"x"),
    "topic name that is no UTF-8": HELLO + raw_mqtt.publish(b"a/\xff", b"x"),
    "topic name with a zero": HELLO + raw_mqtt.publish(b"a\0b", b"x"),
    "empty topic name": HELLO + raw_mqtt.publish("", b"x"),
    "SUBSCRIBE with packet id 0": HELLO + raw_mqtt.subscribe(0, "a", 1),
    "packet type 0": HELLO + b"\x00\x00",
    "property twice": HELLO + raw_mqtt.packet(3, b"\0\1a\4\x01\0\x01\0x"),
}
REASONS: Final = {
    "PUBLISH of 256 MB": {0x95},
    "second CONNECT": {0x82},
    "QoS 3": {0x81},
    "+ in a topic name": {0x90, 0x81},
    "# in a topic name": {0x90, 0x81},
    "empty topic name": {0x82, 0x90},
    "packet type 0": {0x81, 0x82},
    "property twice": {0x82},
}
KAFKA_ATTACKS: Final = {
    "HTTP request": HTTP,
    "TLS hello": tls_hello(),
    "random bytes": RANDOM.randbytes(1000),
    "random body": raw_kafka.frame(RANDOM.randbytes(1000)),
    "truncated frame": raw_kafka.request(raw_kafka.METADATA, 1)[:9],
    "frame of 2 GB": b"\x7f\xff\xff\xff" + b"\0" * 100,
    "negative size": b"\xff\xff\xff\xff" + b"\0" * 100,
    "empty frame": raw_kafka.frame(b""),
    "frame of 3 bytes": raw_kafka.frame(b"\0\3\0"),
    "unknown key": raw_kafka.request(999, 0),
    "negative key": raw_kafka.frame(b"\xff\xff\0\0\0\0\0\7\0\3raw"),
    "version too new": raw_kafka.request(raw_kafka.METADATA, 99),
    "version removed": raw_kafka.request(raw_kafka.FETCH, 0),
    "array longer than the request": raw_kafka.request(
        raw_kafka.METADATA, 1, b"\x7f\xff\xff\xff"
    ),
    "body missing": raw_kafka.request(raw_kafka.LIST_OFFSETS, 1),
    "flexible array of 4 billion": raw_kafka.request(
        raw_kafka.METADATA, 12, b"\0\xff\xff\xff\xff\x0f"
    ),
}


class Bystanders:
    """An MQTT and a Kafka client, connected before the attack."""

    def __init__(self, server: ServerProcess) -> None:
        self.mqtt = RawMqtt(server.mqtt)
        self.mqtt.open("bystander")
        self.mqtt.send(raw_mqtt.subscribe(1, "bystander", 1))
        self.mqtt.expect(raw_mqtt.SUBACK)
        self.kafka = raw_kafka.connect(server.kafka)
        self.check()

    def check(self) -> None:
        """Fail unless both are served on their old connections."""
        self.mqtt.send(raw_mqtt.publish("bystander", b"still here"))
        assert self.mqtt.expect(raw_mqtt.PUBLISH).payload() == b"still here"
        assert raw_kafka.is_answering(self.kafka)

    def leave(self) -> None:
        self.mqtt.cut()
        self.kafka.close()


@pytest.fixture(scope="module")
def server(own_server: ServerProcess) -> ServerProcess:
    return own_server


@pytest.fixture(scope="module")
def bystanders(server: ServerProcess) -> Iterator[Bystanders]:
    both = Bystanders(server)
    yield both
    both.leave()


def attack(address: Address, data: bytes) -> bytes:
    """Send bytes, wait for the server to close, and return what it said.

    What might be the beginning of something longer is ended by closing our half.
    """
    said = bytearray()
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(address, TIMEOUT_S) as connection,
    ):
        connection.sendall(data)
        connection.settimeout(PATIENCE_S)
        try:
            while more := connection.recv(1 << 16):
                said += more
        except TimeoutError:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(TIMEOUT_S)
            while more := connection.recv(1 << 16):
                said += more
    return bytes(said)


def complaints(server: ServerProcess) -> list[str]:
    """Return what was logged above the level of clients that come and go."""
    return [line for line in server.log_lines() if line.split()[1] in ("warning", "error")]


def check_one_complaint(server: ServerProcess, before: int, name: str) -> None:
    """Check that one more line was logged; none where a client only went away too early."""
    expected = 0 if name.startswith("truncated") else 1
    if expected:
        wait_until(lambda: len(complaints(server)) > before, "a log line")
    time.sleep(0.05)
    lines = complaints(server)[before:]
    assert len(lines) == expected, lines


@pytest.mark.parametrize("name", MQTT_ATTACKS)
def test_on_the_mqtt_port(name: str, server: ServerProcess, bystanders: Bystanders) -> None:
    before, rss = len(complaints(server)), server.rss_bytes()
    said = attack(server.mqtt, MQTT_ATTACKS[name])
    check_one_complaint(server, before, name)
    bystanders.check()
    assert server.rss_bytes() < rss + MEMORY_BYTES_MORE
    if name in REASONS:
        rest = bytearray(said)
        packets = iter(lambda: raw_mqtt.split(rest), None)
        reasons = [one.body[0] for one in packets if one.kind == raw_mqtt.DISCONNECT]
        assert reasons, said
        assert set(reasons) <= REASONS[name], hex(reasons[0])


@pytest.mark.parametrize("name", KAFKA_ATTACKS)
def test_on_the_kafka_port(name: str, server: ServerProcess, bystanders: Bystanders) -> None:
    before, rss = len(complaints(server)), server.rss_bytes()
    attack(server.kafka, KAFKA_ATTACKS[name])
    check_one_complaint(server, before, name)
    bystanders.check()
    assert server.rss_bytes() < rss + MEMORY_BYTES_MORE


def test_a_version_of_api_versions_too_new_is_answered(server: ServerProcess) -> None:
    """UNSUPPORTED_VERSION in a body of version 0, so the client can step down (KIP-511)."""
    with raw_kafka.connect(server.kafka) as connection:
        connection.sendall(raw_kafka.request(raw_kafka.API_VERSIONS, 99))
        answer = raw_kafka.receive(connection)
        assert answer[:4] == (7).to_bytes(4, "big")
        assert int.from_bytes(answer[4:6], "big") == 35
        assert raw_kafka.is_answering(connection)


def test_many_slow_clients_get_no_memory_for_what_they_claim(
    server: ServerProcess, bystanders: Bystanders
) -> None:
    """A hundred requests of 90 MiB, of which a byte comes now and then."""
    before = server.rss_bytes()
    slow = [raw_kafka.connect(server.kafka) for _ in range(100)]
    for connection in slow:
        connection.sendall((90 << 20).to_bytes(4, "big"))
    for byte in raw_kafka.request(raw_kafka.METADATA, 1)[4:9]:
        for connection in slow:
            connection.sendall(bytes([byte]))
        bystanders.check()
    assert server.rss_bytes() < before + 2 * MEMORY_BYTES_MORE
    for connection in slow:
        connection.close()
    bystanders.check()


@pytest.mark.parametrize("port", ["mqtt", "kafka"])
def test_memory_stays_flat_under_random_bytes(
    port: str, server: ServerProcess, bystanders: Bystanders
) -> None:
    """Hundreds of connections: random bytes, most of them behind a beginning that is valid."""
    chance = random.Random(42)
    beginnings = {"mqtt": (b"", HELLO, HELLO[:12]), "kafka": (b"", b"\0\0\0\x20\0\3\0\1")}[port]

    def storm(count: int) -> int:
        for _ in range(count):
            with (
                contextlib.suppress(ConnectionError),
                socket.create_connection(getattr(server, port), TIMEOUT_S) as connection,
            ):
                data = chance.choice(beginnings) + chance.randbytes(chance.randrange(1, 3000))
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass
        return server.rss_bytes()

    settled = storm(200)
    assert storm(400) < settled + MEMORY_BYTES_MORE
    bystanders.check()


def test_the_server_says_nothing_unexpected(server: ServerProcess) -> None:
    """All of the above left no traceback behind."""
    assert not [line for line in server.log_lines() if "Traceback" in line]
