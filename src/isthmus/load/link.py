"""One MQTT client of a load: its connection from the first byte to the last, and again.

A link is opened, says CONNECT, subscribes, and from then on passes bytes between its transport
and its part, a Publisher or a Subscriber. It is told when its socket is ready and never waits.
Whoever drives it keeps the other clients, the clock and the rules of the load (mqtt.py).
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from isthmus.errors import ProtocolError
from isthmus.mqtt import packets
from isthmus.mqtt.codec import Decoder, encode
from isthmus.mqtt.packets import VERSION_5, Connack, Connect, Disconnect, Pingreq, Suback
from isthmus.mqtt.properties import (
    MAXIMUM_PACKET_SIZE,
    MAXIMUM_QOS,
    REASON_STRING,
    RECEIVE_MAXIMUM,
    RETAIN_AVAILABLE,
    SERVER_KEEP_ALIVE,
    SESSION_EXPIRY,
)
from isthmus.mqtt.reasons import ConnackCode, ReasonCode
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.load.plan import MqttPlan
    from isthmus.load.publisher import Publisher
    from isthmus.load.subscriber import Subscriber
    from isthmus.load.transport import Opener, Transport

SESSION_EXPIRY_S: Final = 3_600  # of a persistent one whose load does not end in order
RECEIVE_MAXIMUM_MAX: Final = 65_535
CONTROL_BYTES_MAX: Final = 268_435_460  # what the codec is asked to read is here already


class LinkError(Exception):
    """A connection that cannot be or that has ended, with the reason in a few words."""


class Stage(Enum):
    """How far a link has come."""

    CLOSED = auto()
    OPENING = auto()
    CONNECTING = auto()
    SUBSCRIBING = auto()
    READY = auto()


class Link:
    """One client. Where it raises LinkError or OSError its connection is of no more use."""

    __slots__ = (
        "_decoder",
        "_kept",
        "_opener",
        "_out",
        "_plan",
        "_transport",
        "_unsent",
        "client_id",
        "filters",
        "is_returning",
        "keep_alive_s",
        "opened_ns",
        "part",
        "publisher",
        "sent_ns",
        "stage",
    )

    def __init__(
        self,
        plan: MqttPlan,
        opener: Opener,
        client_id: str,
        part: Publisher | Subscriber,
        filters: list[str] | None = None,
        publisher: Publisher | None = None,
    ) -> None:
        self._plan = plan
        self._opener = opener
        self._transport: Transport | None = None
        self._decoder = Decoder(CONTROL_BYTES_MAX, plan.version)
        self._out = WriteBuffer()  # what the link itself has to say
        self._unsent = memoryview(b"")
        self._kept = b""
        self.client_id = client_id
        self.part = part
        self.publisher = publisher  # the part, where it is one
        self.filters = filters or []
        self.stage = Stage.CLOSED
        self.is_returning = False
        self.opened_ns = 0
        self.sent_ns = 0
        self.keep_alive_s = plan.keep_alive_s

    @property
    def fileno(self) -> int:
        assert self._transport is not None
        return self._transport.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the socket to take them."""
        return bool(self._unsent) or (
            self._transport is not None and self._transport.wants_write
        )

    @property
    def has_more(self) -> bool:
        """Whether there is more to read that the socket does not announce."""
        return self._transport is not None and self._transport.has_more

    def open(self, now_ns: int) -> None:
        """Begin to connect."""
        self._unsent = memoryview(b"")
        self._kept = b""
        self._out.clear()
        self._decoder = Decoder(CONTROL_BYTES_MAX, self._plan.version)
        self._transport = self._opener.open()
        self.stage = Stage.OPENING
        self.opened_ns = now_ns

    def go_on(self, now_ns: int) -> None:
        """Go on opening: the socket has become ready."""
        assert self._transport is not None
        if self._transport.handshake():
            self.stage = Stage.CONNECTING
            self._say(self._connect())
            self.flush(now_ns)

    def read(self, room: memoryview, clock: Callable[[], int]) -> None:
        """Read what has come, once, into `room`, which is for all links."""
        assert self._transport is not None
        kept = len(self._kept)
        if kept:
            room[:kept] = self._kept
        try:
            size = self._transport.receive_into(room[kept:])
            if size is None:
                return
            if size == 0:
                raise LinkError("the server closed the connection")
            size += kept
            rest = self.part.feed(room, size, clock())
        except ProtocolError as error:
            raise LinkError(f"the server sent what is no MQTT: {error}") from None
        self._kept = bytes(room[rest:size])
        if self.part.control:
            for packet in self.part.control:
                self._take(packet)
            self.part.control.clear()

    def flush(self, now_ns: int) -> bool:
        """Send what there is; return whether all of it was taken."""
        transport = self._transport
        assert transport is not None
        transport.flush()
        if self._unsent:
            self._unsent = self._unsent[transport.send(self._unsent) :]
            if self._unsent:
                return False
        for out in (self._out, self.part.out) if self.stage is Stage.READY else (self._out,):
            if not out.size:
                continue
            self.sent_ns = now_ns
            with out.view() as view:
                taken = transport.send(view)
                left = b"" if taken == len(view) else bytes(view[taken:])
            out.clear()
            if left:
                self._unsent = memoryview(bytes(self._unsent) + left)
        return not self._unsent and not transport.wants_write

    def ping(self) -> None:
        """Say something where there was nothing to say for long [MQTT-3.1.2-20]."""
        self._say(Pingreq())

    def leave(self, now_ns: int) -> None:
        """Say good-bye, forgetting the session, and close."""
        if self.stage not in (Stage.CLOSED, Stage.OPENING):
            properties = None
            if self._plan.persistent and self._plan.version == VERSION_5:
                properties = {SESSION_EXPIRY: 0}
            self._say(Disconnect(properties=properties))
            try:
                self.flush(now_ns)
            except OSError:
                self.close()  # who is gone needs no good-bye
        self.close()

    def close(self) -> None:
        """Close the connection as it is."""
        if self._transport is not None:
            self._transport.close()
        self._transport = None
        self.stage = Stage.CLOSED

    # --- control packets ----------------------------------------------------------------------

    def _say(self, packet: packets.AnyPacket) -> None:
        encode(packet, self._plan.version, self._out)

    def _connect(self) -> Connect:
        plan = self._plan
        properties = None
        if plan.version == VERSION_5:
            properties = {RECEIVE_MAXIMUM: RECEIVE_MAXIMUM_MAX}
            if plan.persistent:
                properties[SESSION_EXPIRY] = SESSION_EXPIRY_S
        return Connect(
            plan.version,
            self.client_id,
            clean_start=not plan.persistent,
            keep_alive_s=plan.keep_alive_s,
            username=plan.user,
            password=plan.password,
            properties=properties,
        )

    def _take(self, data: bytes) -> None:
        """Act upon a packet that is not about a message."""
        found = self._decoder.feed(data)
        if self._decoder.error is not None:
            raise LinkError(f"the server sent what is no MQTT: {self._decoder.error}")
        (packet,) = found
        if isinstance(packet, Connack) and self.stage is Stage.CONNECTING:
            self._connected(packet)
        elif isinstance(packet, Suback) and self.stage is Stage.SUBSCRIBING:
            self._subscribed(packet)
        elif isinstance(packet, Disconnect):
            text = reason_text(packet.reason, packet.properties)
            raise LinkError(f"the server disconnected: {text}")
        elif packet.type != packets.PINGRESP:
            raise LinkError(f"the server sent {packets.NAMES[packet.type]} unasked")

    def _connected(self, connack: Connack) -> None:
        plan = self._plan
        if connack.reason:
            text = (
                reason_text(connack.reason, connack.properties)
                if plan.version == VERSION_5
                else RETURN_CODES.get(connack.reason, f"return code {connack.reason}")
            )
            raise LinkError(f"the server refused the connection: {text}")
        offer = connack.properties or {}
        self._check_offer(offer)
        self.keep_alive_s = offer.get(SERVER_KEEP_ALIVE, plan.keep_alive_s)
        self.part.resume(session_present=connack.session_present)
        if self.publisher is not None:
            self.publisher.allow(offer.get(RECEIVE_MAXIMUM, RECEIVE_MAXIMUM_MAX))
        if self.filters and not (connack.session_present and self.is_returning):
            entries = [(each, plan.qos_granted) for each in self.filters]
            self._say(packets.Subscribe(1, entries))
            self.stage = Stage.SUBSCRIBING
        else:
            self._is_ready()

    def _is_ready(self) -> None:
        self.stage = Stage.READY
        self.is_returning = True

    def _check_offer(self, offer: packets.Properties) -> None:
        """Refuse a server that does not take what is to be sent."""
        plan = self._plan
        if self.publisher is None:
            return
        if plan.qos > offer.get(MAXIMUM_QOS, 2):
            raise LinkError(f"the server takes no QoS above {offer[MAXIMUM_QOS]}")
        if plan.retain and not offer.get(RETAIN_AVAILABLE, 1):
            raise LinkError("the server takes no retained messages")
        if plan.packet_bytes > offer.get(MAXIMUM_PACKET_SIZE, CONTROL_BYTES_MAX):
            raise LinkError(
                f"the server takes no packet above {offer[MAXIMUM_PACKET_SIZE]} bytes, and"
                f" these have {plan.packet_bytes}"
            )

    def _subscribed(self, suback: Suback) -> None:
        for topic_filter, reason in zip(self.filters, suback.reasons, strict=False):
            if reason >= 0x80:
                text = reason_text(reason, suback.properties)
                raise LinkError(f"the subscription to {topic_filter} was refused: {text}")
            if reason < self._plan.qos_granted:
                raise LinkError(f"the server grants only QoS {reason} for {topic_filter}")
        self._is_ready()


RETURN_CODES: Final = {
    ConnackCode.UNACCEPTABLE_PROTOCOL_VERSION: "unacceptable protocol version",
    ConnackCode.IDENTIFIER_REJECTED: "client identifier rejected",
    ConnackCode.SERVER_UNAVAILABLE: "server unavailable",
    ConnackCode.BAD_USER_NAME_OR_PASSWORD: "bad user name or password",
    ConnackCode.NOT_AUTHORIZED: "not authorized",
}
REASON_TEXTS: Final = {
    value: name.lower().replace("_", " ")
    for name, value in vars(ReasonCode).items()
    if name.isupper() and value >= 0x80
}


def reason_text(reason: int, properties: packets.Properties | None) -> str:
    """Return a reason code in words, with the server's own words behind it."""
    text = REASON_TEXTS.get(reason, f"reason 0x{reason:02x}")
    said = (properties or {}).get(REASON_STRING)
    return f"{text} ({said})" if said else text
