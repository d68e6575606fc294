"""A client's end of one MQTT connection, over a transport that is turned by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.config_listeners import MqttLimits
from isthmus.mqtt.codec import Decoder, encode
from isthmus.mqtt.handshake import Offer
from isthmus.mqtt.packets import (
    Connack,
    Connect,
)
from isthmus.server.mqtt_listener import (
    MqttListener,
    MqttShore,
)
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.identity import Identity
    from isthmus.mqtt.opening import Opening
    from isthmus.server.mqtt import MqttConnection


class FakeTransport:
    """What a connection sees of its socket."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.sent = bytearray()
        self.closed = False
        self.aborted = False
        self.reading = True
        self.unsent = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self.address, 5000) if name == "peername" else default

    def set_write_buffer_limits(self, high: int, low: int | None = None) -> None:
        assert high > 0

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class Wire:
    """A client's end of one connection."""

    def __init__(
        self,
        shore: MqttShore,
        version: int = 5,
        listener: MqttListener | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.version = version
        self.shore = shore
        self.transport = FakeTransport(address)
        self.connection: MqttConnection = (listener or listener_of(shore)).connection()
        self.connection.connection_made(self.transport)

    def send_bytes(self, data: bytes) -> None:
        while data and not self.transport.closed:
            buffer = self.connection.get_buffer(-1)
            part, data = data[: len(buffer)], data[len(buffer) :]
            buffer[: len(part)] = part
            self.connection.buffer_updated(len(part))
        self.shore.clients.runtime.settle()

    def send(self, *packets: Any) -> None:
        out = WriteBuffer()
        for packet in packets:
            encode(packet, self.version, out)
        self.send_bytes(out.take())

    def connect(self, client_id: str = "c", keep_alive_s: int = 0, **fields: Any) -> Connack:
        will = fields.get("will")
        self.send(Connect(self.version, client_id, True, keep_alive_s, None, None, will, {}))
        (connack,) = self.packets()
        return connack

    def packets(self) -> list[Any]:
        data, self.transport.sent = bytes(self.transport.sent), bytearray()
        return Decoder(1 << 20, self.version).feed(data)


def listener_of(
    shore: MqttShore,
    *,
    packet_size_max: int = 1 << 16,
    keep_alive_max_s: int = 65535,
    authenticate: Callable[[Identity, Opening], None] | None = None,
    **limits: Any,
) -> MqttListener:
    offer = Offer(
        session_expiry_max_s=1000,
        receive_maximum=100,
        inflight_max=100,
        packet_size_max=packet_size_max,
        topic_alias_max=10,
        keep_alive_max_s=keep_alive_max_s,
    )
    own = MqttLimits(**{"connections_max": 3, **limits})
    return MqttListener(shore, "door", offer, own, authenticate=authenticate)
