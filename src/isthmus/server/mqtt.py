"""One MQTT connection: bytes in, packets to the broker, bytes out.

The only things here are the socket's: the shared receive buffer, time-outs, and what is said to
a client before its connection ends. All connections read into one buffer, because a read is
used up before the next one begins; what is left of a packet waits in the connection's decoder.

The one `except` of this edge is in `buffer_updated`: a ProtocolError becomes the reason that
the client is told; anything else is our bug, is logged with its traceback, and costs this
connection only.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from isthmus.broker.identity import Identity
from isthmus.errors import IsthmusError, KeepAliveTimeout, ProtocolError, UnexpectedPacket
from isthmus.mqtt.codec import Decoder, encode
from isthmus.mqtt.handshake import fits
from isthmus.mqtt.packets import CONNACK, CONNECT, DISCONNECT, Connack, Connect, Disconnect
from isthmus.mqtt.properties import MAXIMUM_PACKET_SIZE, REASON_STRING
from isthmus.mqtt.reasons import connack_code, reason_in
from isthmus.server.tls import user_of
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from isthmus.broker.clients import Clients
    from isthmus.broker.sessions import SessionEntry
    from isthmus.mqtt.handshake import Offer, Terms
    from isthmus.server.proxy import Origin

logger = logging.getLogger(__name__)

RECEIVE_BYTES = 64 * 1024  # libuv reads up to 32 times before it lets another socket read
LINGER_MS = 5_000  # a closing connection has this long to take what was written
WRITE_HIGH_BYTES = 1 << 20  # the transport holds this much before deliveries queue in the log


class MqttShore:
    """What all MQTT connections of the server share."""

    def __init__(self, clients: Clients, *, connections_max: int) -> None:
        self.clients = clients
        self.connections_max = connections_max
        self.connections: set[MqttConnection] = set()
        self.receive_buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.accepted = 0
        self.refused = 0

    def close(self, error: IsthmusError) -> None:
        """Tell every client why, and close all connections."""
        for connection in list(self.connections):
            connection.close(error)


class MqttListener:
    """One way in: what the connections that come through it are offered, and their number."""

    def __init__(
        self,
        shore: MqttShore,
        name: str,
        offer: Offer,
        *,
        connections_max: int,
        connect_timeout_s: int,
        user_from: str = "none",
    ) -> None:
        self.shore = shore
        self.name = name
        self.offer = offer
        self.connections_max = connections_max
        self.connect_timeout_s = connect_timeout_s
        self.user_from = user_from  # what in a client's certificate is its user, if anything
        self.connections = 0  # open now

    def connection(self, origin: Origin | None = None) -> MqttConnection:
        """Return the protocol of a new connection; `origin` is whom a proxy connects."""
        return MqttConnection(self, origin)

    @property
    def is_full(self) -> bool:
        """Whether another connection would be one too many, here or on the shore."""
        shore = self.shore
        return (
            self.connections >= self.connections_max
            or len(shore.connections) >= shore.connections_max
        )


class MqttConnection(asyncio.BufferedProtocol):
    """One socket that speaks MQTT."""

    __slots__ = (
        "_cancel_timer",
        "_decoder",
        "_entry",
        "_heard_ms",
        "_holds",
        "_listener",
        "_number",
        "_origin",
        "_shore",
        "_silence_max_ms",
        "_terms",
        "_transport",
        "_unsent",
        "identity",
    )

    identity: Identity  # known once the connection is made

    def __init__(self, listener: MqttListener, origin: Origin | None = None) -> None:
        self._listener = listener
        self._origin = origin
        self._shore = listener.shore
        self._decoder = Decoder(listener.offer.packet_size_max)
        self._transport: asyncio.Transport | None = None
        self._entry: SessionEntry | None = None
        self._terms: Terms | None = None
        self._number = 0
        self._heard_ms = 0
        self._holds = 0  # reasons why nothing is read just now
        self._silence_max_ms = 0
        self._unsent = 0  # bytes that waited for the client at the last look
        self._cancel_timer: Any = None

    # --- asyncio calls these ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shore = self._shore
        self._transport = transport = cast("asyncio.Transport", transport)
        shore.accepted += 1
        self._number = shore.accepted
        listener = self._listener
        self.identity, reason = identity_of(transport, listener, self._origin)
        if listener.is_full:
            reason = "too many connections"
        if reason:
            shore.refused += 1
            logger.warning(
                "connection refused peer=%s listener=%s reason=%s",
                self.identity,
                listener.name,
                reason,
            )
            self._transport = None
            transport.abort()
            return
        shore.connections.add(self)
        listener.connections += 1
        transport.set_write_buffer_limits(WRITE_HIGH_BYTES)
        self._cancel_timer = shore.clients.runtime.later(
            listener.connect_timeout_s * 1000, self._connect_timed_out
        )

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shore.receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._transport is None:
            return
        try:
            self._receive(self._shore.receive_buffer[:nbytes])
        except ProtocolError as error:
            self.close(error)
        except Exception:
            logger.exception(
                "connection failed connection=%d peer=%s", self._number, self.identity
            )
            self._drop()

    def eof_received(self) -> bool:
        return False  # close

    def connection_lost(self, exc: BaseException | None) -> None:
        self._forget()
        if self._entry is not None:
            self._shore.clients.lost(self._entry, self)
            logger.info(
                "disconnected connection=%d client=%s error=%s",
                self._number,
                self._entry.session.client_id,
                exc or "none",
            )

    def pause_writing(self) -> None:
        # A client that does not read gets no more acknowledgements, so it may send no more
        # either.
        self._hold_reading()
        if self._entry is not None and self._entry.connection is self:
            self._entry.session.paused = True

    def resume_writing(self) -> None:
        self._resume_reading()
        if self._entry is not None and self._entry.connection is self:
            self._shore.clients.resume(self._entry)

    # --- the broker calls these ---------------------------------------------------------------

    @property
    def offer(self) -> Offer:
        """What the listener allows its clients."""
        return self._listener.offer

    def transmit(self, data: bytes) -> None:
        """Send bytes to the client."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self, error: IsthmusError) -> None:
        """Say why, as far as the client's protocol version can, and close [MQTT-4.13.1-1]."""
        if self._transport is None:
            return
        logger.warning(
            "connection closed connection=%d peer=%s client=%s error=%s reason=%s",
            self._number,
            self.identity,
            self._entry.session.client_id if self._entry is not None else "-",
            type(error).__name__,
            error,
        )
        if self._entry is not None:
            self._shore.clients.lost(self._entry, self)  # sends what was answered before
        answer: Any = None
        version = self._decoder.version
        if self._terms is None:
            answer = self._refusal(error)
        elif version == 5:
            answer = Disconnect(reason_in(DISCONNECT, error), {REASON_STRING: str(error)})
            if not self._terms.problem_info or not fits(answer, 5, self._terms.packet_size_max):
                answer.properties = None  # [MQTT-3.14.2-3]
        if answer is not None:
            self._send(answer)
        self._drop()

    # --- inside -------------------------------------------------------------------------------

    def _receive(self, data: memoryview) -> None:
        decoder = self._decoder
        packets: list[Any] = decoder.feed(data)
        self._heard_ms = self._shore.clients.runtime.monotonic_ms()
        if packets and self._entry is None and not self._open(packets.pop(0)):
            return
        if packets:
            assert self._entry is not None
            clients = self._shore.clients
            if not clients.receive(self._entry, self, packets):
                self._drop()
                return
            if clients.congested(self._resume_reading):
                self._hold_reading()
        if decoder.error is not None:
            raise decoder.error

    def _open(self, connect: Connect) -> bool:
        if connect.type != CONNECT:
            raise UnexpectedPacket("the first packet is no CONNECT")  # [MQTT-3.1.0-1]
        opened = self._shore.clients.connect(connect, self)
        if isinstance(opened, Connack):
            logger.warning(
                "connection refused connection=%d peer=%s reason=0x%02x",
                self._number,
                self.identity,
                opened.reason,
            )
            asked = connect.properties or {}
            if fits(opened, connect.protocol_version, asked.get(MAXIMUM_PACKET_SIZE, 0)):
                self._send(opened)
            self._drop()
            return False
        self._entry, self._terms = opened
        self._cancel_timer()
        self._cancel_timer = None
        if self._terms.keep_alive_s:
            self._silence_max_ms = self._terms.keep_alive_s * 1500  # [MQTT-3.1.2-22]
            self._watch(self._silence_max_ms)
        logger.info(
            "connected connection=%d client=%s peer=%s listener=%s user=%s version=%d"
            " keep_alive_s=%d",
            self._number,
            self._terms.client_id,
            self.identity,
            self.identity.listener,
            self.identity.user or "-",
            self._terms.version,
            self._terms.keep_alive_s,
        )
        return True

    def _refusal(self, error: IsthmusError) -> Connack | None:
        """Return the CONNACK for a CONNECT that could not be read, if one can be sent."""
        version = self._decoder.version
        reason = reason_in(CONNACK, error)
        if not version or (version < 5 and connack_code(reason) is None):
            return None
        return Connack(False, reason, None)

    def _connect_timed_out(self) -> None:
        self.close(KeepAliveTimeout("no CONNECT within the time allowed"))

    def _watch(self, delay_ms: int) -> None:
        self._cancel_timer = self._shore.clients.runtime.later(delay_ms, self._check_keep_alive)

    def _check_keep_alive(self) -> None:
        now_ms = self._shore.clients.runtime.monotonic_ms()
        if self._holds and self._takes_output():
            self._heard_ms = now_ms  # it may have spoken: we did not listen
        silence_ms = now_ms - self._heard_ms
        if silence_ms >= self._silence_max_ms:
            self.close(KeepAliveTimeout(f"nothing heard for {silence_ms} ms"))
        else:
            self._watch(self._silence_max_ms - silence_ms)

    def _takes_output(self) -> bool:
        """Say whether the client has all, or took some since the last look.

        Where nothing is read, that tells a busy client from one that is gone or never reads.
        """
        assert self._transport is not None
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        return self._unsent == 0 or self._unsent != before

    def _hold_reading(self) -> None:
        self._holds += 1
        if self._holds == 1 and self._transport is not None:
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._holds -= 1
        if self._holds == 0 and self._transport is not None:
            self._transport.resume_reading()

    def _send(self, packet: Any) -> None:
        assert self._transport is not None
        out = WriteBuffer()
        encode(packet, self._decoder.version or 4, out)
        self._transport.write(out.take())

    def _drop(self) -> None:
        """Close once what was written is sent."""
        transport = self._transport
        self._forget()
        if transport is not None:
            transport.close()
            self._shore.clients.runtime.later(LINGER_MS, transport.abort)

    def _forget(self) -> None:
        self._transport = None
        if self in self._shore.connections:
            self._shore.connections.remove(self)
            self._listener.connections -= 1
        if self._cancel_timer is not None:
            self._cancel_timer()
            self._cancel_timer = None


def identity_of(
    transport: asyncio.BaseTransport, listener: MqttListener, origin: Origin | None
) -> tuple[Identity, str]:
    """Return who is at the other end, of a proxy if need be, and why it is refused, if it is.

    A certificate that was checked but names no user must not make its owner anonymous.
    """
    peer = origin or transport.get_extra_info("peername")
    address, port = peer[:2] if isinstance(peer, tuple) else ("unix", 0)
    shown = transport.get_extra_info("peercert") if listener.user_from != "none" else None
    user = user_of(shown, listener.user_from) if shown else ""
    reason = "its certificate names no user" if shown and not user else ""
    return Identity(address, port, listener.name, user), reason
