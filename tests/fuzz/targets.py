"""What is fed with bytes that nobody chose: a target takes some, and raises if it must not.

A target is a whole machine over a simulated world, with what must hold of it whatever comes.
They run under atheris, which looks for bytes that take new ways through the code (`make fuzz`),
and over the corpus in the plain tests. Not here: what the right answer is; the wire cases, the
conformance tests and `property/test_mqtt_machine.py` know that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from tests.conformance.raw_client import connect, subscribe
from tests.e2e.raw_mqtt import PINGREQ, packet
from tests.fuzz.kafka_strangers import Strangers, mended
from tests.unit.broker.shore import Shore
from tests.unit.server.mqtt_wire import FakeTransport, Wire, listener_of

from isthmus.broker.scram import NONCE_BYTES, Exchange, keys_of
from isthmus.broker.users import parse_users
from isthmus.errors import ConfigError, Malformed, NotAuthorized, ProtocolError
from isthmus.mqtt.codec import Decoder
from isthmus.server.mqtt_listener import MqttShore
from isthmus.server.proxy import FIXED_BYTES, REST_BYTES_MAX, bytes_missing, origin_in
from isthmus.server.websocket import WebSocketConnection

if TYPE_CHECKING:
    from collections.abc import Callable

PACKET_SIZE_MAX: Final = 1 << 16
SCRAM_KEYS: Final = keys_of("SCRAM-SHA-256", b"nobody knows", b"salt", 4096)
UPGRADE: Final = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)


class NoBugs(logging.Handler):
    """A bug of the server's own is logged with its traceback; held, this raises it instead."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            raise record.exc_info[1]

    def __enter__(self) -> None:
        logging.getLogger("isthmus").addHandler(self)

    def __exit__(self, *_reason: object) -> None:
        logging.getLogger("isthmus").removeHandler(self)


def decoder(data: bytes) -> None:
    """Bytes are packets or an error of the peer's, the same however they are cut."""
    if not data:
        return
    version, data = (0, 3, 4, 5)[data[0] & 3], data[1:]
    found = []
    for size in (len(data), 7, 1):
        reader = Decoder(PACKET_SIZE_MAX, version)
        packets = []
        for start in range(0, len(data), size or 1):
            packets += reader.feed(data[start : start + size])
            packets += reader.go_on()
        assert reader.error is None or isinstance(reader.error, ProtocolError)
        found.append(([repr(one) for one in packets], type(reader.error)))
    assert found[0] == found[1] == found[2]


def session(data: bytes) -> None:
    """A client may say what it likes: the connection lives or is closed, the others live."""
    if not data:
        return
    shore = MqttShore(Shore().clients, connections_max=3)
    bystander = Wire(shore, 5)
    bystander.send_bytes(connect("bystander") + subscribe(1, ("#", 1)))
    version = (3, 4, 5)[data[0] % 3]
    client = Wire(shore, version)
    client.send_bytes(connect("c", version=version) + data[1:])
    if client.transport.closed:
        client.connection.connection_lost(None)
    shore.clients.runtime.advance(10_000)
    bystander.transport.sent.clear()
    bystander.send_bytes(packet(PINGREQ))
    assert bystander.transport.sent.endswith(b"\xd0\x00")
    assert not bystander.transport.closed


def websocket(data: bytes) -> None:
    """Whatever comes behind the handshake, or instead of it, is a frame or the end."""
    if not data:
        return
    shore = MqttShore(Shore().clients, connections_max=3)
    inner = listener_of(shore).connection()
    page = WebSocketConnection(inner, path="/mqtt", origins=())
    transport = FakeTransport()
    page.connection_made(transport)
    data = data[1:] if data[0] & 1 else UPGRADE + data[1:]
    while data and not transport.is_closing():
        buffer = page.get_buffer(-1)
        size = min(len(buffer), len(data))
        buffer[:size], data = data[:size], data[size:]
        page.buffer_updated(size)
    shore.clients.runtime.settle()
    shore.clients.runtime.advance(10_000)


def proxy(data: bytes) -> None:
    """A header is read to its end and not beyond it, or refused."""
    read = b""
    try:
        while missing := bytes_missing(read):
            assert 0 < missing <= FIXED_BYTES + REST_BYTES_MAX - len(read)
            if len(read) + missing > len(data):
                return
            read = data[: len(read) + missing]
        origin = origin_in(read)
    except Malformed:
        return
    assert origin is None or 0 <= origin[1] <= 65_535


def kafka(data: bytes) -> None:
    """A client may say what it likes before or without logging in, as `data[0]` has it."""
    if not data:
        return
    how, data = data[0], data[1:]
    strangers = Strangers(who_log_in=bool(how & 1))
    strangers.say(mended(data) if how & 2 else data, chunk=7 if how & 4 else len(data) + 1)
    strangers.check()


def users_file(data: bytes) -> None:
    """A text is users or a line that is named; what was read is written as the same users."""
    text = data.decode("utf-8", "replace")
    try:
        users = parse_users(text, "f")
    except ConfigError as error:
        assert str(error).startswith("f:")
        return
    written = "".join(f"{name}:{user.text}\n" for name, user in users.items())
    again = parse_users(written, "f")
    assert {name: user.text for name, user in again.items()} == {
        name: user.text for name, user in users.items()
    }


def scram(data: bytes) -> None:
    """Messages of a client who knows no password let it in never."""
    server = Exchange(lambda *_: (SCRAM_KEYS, True), bytes(NONCE_BYTES))
    try:
        for message in data.split(b"\n")[:3]:
            server.step(message)
            assert not server.is_done
    except NotAuthorized:
        return


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    one.__name__: one for one in (decoder, session, websocket, proxy, kafka, users_file, scram)
}
