"""MQTT in WebSocket, over a transport turned by hand; the client is from `websockets`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.broker.shore import Shore
from tests.unit.server.mqtt_wire import FakeTransport, listener_of
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from isthmus.broker.identity import Identity, Principal
from isthmus.errors import ServerShuttingDown
from isthmus.mqtt.codec import Decoder, encode
from isthmus.mqtt.packets import Connack, Connect, Disconnect, Publish, Subscribe
from isthmus.server.mqtt_listener import MqttShore
from isthmus.server.websocket import WebSocketConnection
from isthmus.wire.buffer import WriteBuffer


class Browser:
    """The other end: HTTP and frames by `websockets`, MQTT by our codec."""

    def __init__(
        self,
        *,
        path: str = "/mqtt",
        origins: tuple[str, ...] = (),
        rate: int = 0,
        judge: Any = None,
        **client: Any,
    ) -> None:
        self.shore = MqttShore(Shore().clients, connections_max=3)
        self.transport = FakeTransport()
        door = listener_of(
            self.shore,
            packet_size_max=1 << 20,
            client_messages_rate_max=rate,
            authenticate=judge,
        )
        inner = door.connection()
        self.server = WebSocketConnection(inner, path="/mqtt", origins=origins)
        self.server.connection_made(self.transport)
        self.client = ClientProtocol(
            parse_uri(f"ws://localhost{path}"),
            **{"subprotocols": [Subprotocol("mqtt")], "max_size": None, **client},
        )
        self.frames: list[Frame] = []
        self.response: Response | None = None
        self.client.send_request(self.client.connect())

    def exchange(self, sizes: Any = None) -> None:
        """Carry bytes both ways until both are silent; `sizes` cuts what the client sends."""
        while (data := b"".join(self.client.data_to_send())) or self.transport.sent:
            while data and not self.transport.is_closing():
                buffer = self.server.get_buffer(-1)
                size = min(len(buffer), len(data), next(sizes) if sizes else 1 << 16)
                buffer[:size], data = data[:size], data[size:]
                self.server.buffer_updated(size)
            self.shore.clients.runtime.settle()
            answer, self.transport.sent = bytes(self.transport.sent), bytearray()
            if answer:
                self.client.receive_data(answer)
            for event in self.client.events_received():
                if isinstance(event, Response):
                    self.response = event
                else:
                    self.frames.append(event)

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.client.send_binary(piece)
        self.exchange()

    def packets(self) -> list[Any]:
        frames, self.frames = self.frames, []
        assert {frame.opcode for frame in frames} <= {Opcode.BINARY}
        return Decoder(1 << 20, 5).feed(b"".join(frame.data for frame in frames))


def encoded(*packets: Any) -> bytes:
    out = WriteBuffer()
    for packet in packets:
        encode(packet, 5, out)
    return out.take()


CONNECT = encoded(Connect(5, "c"))


def test_mqtt_is_spoken_inside() -> None:
    """[MQTT-6.0.0-4; MQTT 3.1.1: MQTT-6.0.0-4]"""
    browser = Browser()
    browser.exchange()
    assert browser.response is not None and browser.response.status_code == 101
    assert browser.client.subprotocol == "mqtt"
    payload = bytes(200_000)
    browser.send(CONNECT, encoded(Subscribe(1, [("a", 0)], None), Publish(b"a", payload)))
    connack, _, publish = browser.packets()
    assert connack == Connack(False, 0, connack.properties) and publish.payload == payload


def test_each_packet_to_a_client_has_a_frame_of_its_own() -> None:
    """However many go out at once; some clients stop at the end of a frame's first packet."""
    browser = Browser()
    browser.exchange()
    payloads = [b"x" * size for size in (0, 119, 120, 65_527, 65_528)]
    publishes = [encoded(Publish(b"a", payload)) for payload in payloads]
    browser.send(CONNECT + encoded(Subscribe(1, [("a", 0)], None)) + b"".join(publishes))
    assert [frame.data for frame in browser.frames[2:]] == publishes
    assert {125, 126, 65_535, 65_536} <= {len(each) for each in publishes}


@given(st.lists(st.integers(1, 40), min_size=1), st.lists(st.integers(1, 30), min_size=1))
def test_packets_frames_and_reads_end_where_they_like(
    frames: list[int], reads: list[int]
) -> None:
    """[MQTT-6.0.0-2; MQTT 3.1.1: MQTT-6.0.0-2]"""
    browser = Browser()
    data = CONNECT + encoded(Subscribe(1, [("a", 0)], None), Publish(b"a", b"x" * 50))
    browser.exchange(repeat(reads))
    sizes, pings = repeat(frames), 0
    while data:
        size = next(sizes)
        if size % 3:
            browser.client.send_binary(data[:size])
        else:  # the same, in fragments with a ping between
            browser.client.send_binary(data[: size // 2], fin=False)
            browser.client.send_ping(b"now")
            pings += 1
            browser.client.send_continuation(data[size // 2 : size], fin=True)
        data = data[size:]
    browser.exchange(repeat(reads))
    pongs = [frame for frame in browser.frames if frame.opcode is Opcode.PONG]
    assert [frame.data for frame in pongs] == [b"now"] * pings
    browser.frames = [frame for frame in browser.frames if frame.opcode is not Opcode.PONG]
    connack, _, publish = browser.packets()
    assert (connack.reason, publish.payload) == (0, b"x" * 50)


def repeat(sizes: list[int]) -> Any:
    while True:
        yield from sizes


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"path": "/other"}, 404),
        ({"path": "/mqtt?token=1"}, 101),
        ({"subprotocols": None}, 400),
        ({"subprotocols": [Subprotocol("chat")]}, 400),
        ({"subprotocols": [Subprotocol("chat"), Subprotocol("mqttv3.1")]}, 101),
        ({"origins": ("https://a.example",), "origin": Origin("https://b.example")}, 403),
        ({"origins": ("https://a.example",), "origin": Origin("https://a.example")}, 101),
        ({"origins": ("https://a.example",)}, 101),
    ],
)
def test_who_asks_for_something_else_is_told_so(how: dict[str, Any], status: int) -> None:
    """[MQTT-6.0.0-3; MQTT 3.1.1: MQTT-6.0.0-3]"""
    browser = Browser(**how)
    browser.exchange()
    assert browser.response is not None and browser.response.status_code == status
    assert browser.transport.closed == (status != 101)
    assert len(browser.shore.connections) == (status == 101)


def frame(first: int, data: bytes) -> bytes:
    """Return a frame by hand, masked with zeros: FIN, reserved bits and opcode as given."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xff" + size.to_bytes(8)
    return bytes([first]) + length + bytes(4) + data


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(0x81, CONNECT), 1003),
        (frame(0x80, CONNECT), 1002),
        (frame(0xC2, CONNECT), 1002),
        (frame(0x83, CONNECT), 1002),
        (frame(0x09, b""), 1002),
        (frame(0x89, bytes(126)), 1002),
        (frame(0x02, b"") + frame(0x82, CONNECT), 1002),
        (b"\x82\xff" + (1 << 62).to_bytes(8) + bytes(4), 1009),
        (frame(0x02, b"") + frame(0x80, bytes((1 << 20) + 1)), 1009),
        (b"\x82\x05" + CONNECT[:5], 1002),  # not masked
    ],
)
def test_frames_that_are_none_end_the_connection(
    frames: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """[MQTT-6.0.0-1; MQTT 3.1.1: MQTT-6.0.0-1]"""
    browser = Browser()
    browser.exchange()
    with caplog.at_level("INFO"):
        browser.client.writes.append(frames)
        browser.exchange()
    assert browser.transport.closed
    assert browser.client.close_rcvd is not None and browser.client.close_rcvd.code == code
    (record,) = caplog.records
    assert "WebSocket" in record.getMessage()
    assert not browser.shore.connections


@pytest.mark.parametrize("junk", [CONNECT, b"\x16\x03\x01" + bytes(300), b"x" * 10_000])
def test_what_is_no_websocket_is_closed_with_one_line(
    junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser()
    browser.client.data_to_send()
    browser.client.writes.append(junk)
    with caplog.at_level("INFO"):
        buffer = browser.server.get_buffer(-1)
        buffer[: len(junk)] = junk
        browser.server.buffer_updated(len(junk))
        browser.server.eof_received()
        if not browser.transport.is_closing():  # a line that goes on; the time runs out
            browser.shore.clients.runtime.advance(10_000)
    assert browser.transport.closed
    assert len(caplog.records) == 1


@pytest.mark.parametrize("behind", [b"", frame(0x80, b"")], ids=["", "no beginning"])
def test_what_comes_with_the_handshake_is_answered_behind_it(behind: bytes) -> None:
    """In the same read: a frame that ends the connection, and one that is none behind it."""
    frames = frame(0x82, b"\xc0\0") + behind
    browser = Browser()
    data = b"".join(browser.client.data_to_send()) + frames
    buffer = browser.server.get_buffer(-1)
    buffer[: len(data)] = data
    browser.server.buffer_updated(len(data))
    head, _, rest = bytes(browser.transport.sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert rest[:1] == b"\x88"
    assert browser.transport.closed


def test_the_server_says_goodbye_in_both_protocols() -> None:
    browser = Browser()
    browser.exchange()
    browser.send(CONNECT)
    browser.packets()
    browser.shore.close(ServerShuttingDown("over"))
    assert browser.transport.closed
    browser.client.receive_data(bytes(browser.transport.sent))
    data, goodbye = browser.client.events_received()
    (disconnect,) = Decoder(1 << 20, 5).feed(data.data)
    assert isinstance(disconnect, Disconnect) and disconnect.reason == 0x8B
    assert goodbye.opcode is Opcode.CLOSE


def test_a_client_that_closes_is_answered_and_gone() -> None:
    browser = Browser()
    browser.exchange()
    browser.send(CONNECT)
    browser.client.send_close(1001)
    browser.exchange()
    assert browser.transport.closed
    assert browser.client.close_rcvd is not None and browser.client.close_rcvd.code == 1001
    browser.server.connection_lost(None)
    assert not browser.shore.connections


def test_of_a_large_frame_no_more_is_read_than_the_connection_wants() -> None:
    browser = Browser(rate=10)
    browser.exchange()
    browser.send(encoded(Connect(5, "c"), Subscribe(1, [("t", 0)], None)))
    browser.packets()
    browser.send(encoded(*[Publish(b"t", b"%d" % number) for number in range(100)]))
    first = len(browser.packets())
    assert 10 < first < 50
    assert not browser.transport.reading
    got = first
    runtime: Any = browser.shore.clients.runtime
    while got < 100:
        runtime.advance(1_000)
        browser.exchange()
        got += len(browser.packets())
    assert got == 100
    runtime.advance(10_000)
    assert browser.transport.reading


def test_what_comes_in_one_frame_behind_connect_waits_for_the_verdict() -> None:
    openings: list[Any] = []
    browser = Browser(judge=lambda _, opening: openings.append(opening))
    browser.exchange()
    payload = bytes(200_000)  # more than is held for a client that is not let in yet
    browser.send(
        encoded(Connect(5, "c"), Subscribe(1, [("t", 0)], None), Publish(b"t", payload))
    )
    assert not browser.transport.reading
    openings[0].accept(Principal("", "c", Identity("", 0, "")))
    browser.shore.clients.runtime.settle()
    browser.exchange()
    connack, suback, publish = browser.packets()
    assert (connack.reason, suback.reasons, publish.payload) == (0, [0], payload)
    assert browser.transport.reading
