"""One MQTT connection: bytes in, packets to the broker, bytes out.

The only things here are the socket's: the shared receive buffer, time-outs, and what is said to
a client before its connection ends. All connections read into one buffer, because a read is
used up before the next one begins; what is left of a packet waits in the connection's decoder.

The one `except` of this edge is in `_guarded`: a ProtocolError becomes the reason that
the client is told; anything else is our bug, is logged with its traceback, and costs this
connection only.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast

from isthmus.broker.identity import Identity
from isthmus.errors import (
    IsthmusError,
    KeepAliveTimeout,
    ProtocolError,
    Redirected,
    ServerBusy,
    TooLarge,
    UnexpectedPacket,
)
from isthmus.mqtt.codec import Decoder, encode
from isthmus.mqtt.handshake import fits
from isthmus.mqtt.packets import (
    CONNACK,
    DISCONNECT,
    VERSION_5,
    Auth,
    Connack,
    Connect,
    Disconnect,
)
from isthmus.mqtt.properties import (
    MAXIMUM_PACKET_SIZE,
    REASON_STRING,
    REQUEST_PROBLEM_INFO,
    SERVER_REFERENCE,
)
from isthmus.mqtt.reasons import connack_code, reason_in, text_of
from isthmus.server.tls import KeyedContext, user_of
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.clients import Clients
    from isthmus.broker.sessions import SessionEntry
    from isthmus.mqtt.handshake import Offer, Terms
    from isthmus.mqtt.opening import Opening
    from isthmus.server.proxy import Origin

Answer = TypeVar("Answer", Connack, Disconnect)

logger = logging.getLogger(__name__)

RECEIVE_BYTES = 64 * 1024  # libuv reads up to 32 times before it lets another socket read
LINGER_MS = 5_000  # a closing connection has this long to take what was written
REFUSALS_MAX = 256  # connections beyond the limit that wait for their CONNECT, to be told why
REFUSED_BYTES_MAX = 4096  # of such a CONNECT
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
        authenticate: Callable[[Identity, Opening], None] | None = None,
    ) -> None:
        self.shore = shore
        self.name = name
        self.offer = offer
        self.connections_max = connections_max
        self.connect_timeout_s = connect_timeout_s
        self.user_from = user_from  # what in a client's certificate is its user, if anything
        self.authenticate = authenticate  # what decides who comes in; None: whoever connects
        self.connections = 0  # open now

    def connection(self, origin: Origin | None = None) -> MqttConnection:
        """Return the protocol of a new connection; `origin` is whom a proxy connects."""
        return MqttConnection(self, origin)

    def is_full(self, margin: int = 0) -> bool:
        """Whether another connection is one too many, here or on the shore.

        `margin`: so many more are let in, only to be told.
        """
        shore = self.shore
        return (
            self.connections >= self.connections_max + margin
            or len(shore.connections) >= shore.connections_max + margin
        )


class MqttConnection(asyncio.BufferedProtocol):
    """One socket that speaks MQTT."""

    __slots__ = (
        "_cancel_timer",
        "_connect",
        "_decoder",
        "_entry",
        "_heard_ms",
        "_holds",
        "_is_beyond_limit",
        "_listener",
        "_number",
        "_opening",
        "_origin",
        "_shore",
        "_silence_max_ms",
        "_terms",
        "_transport",
        "_unsent",
        "_waits",
        "connected_at_ms",
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
        self._connect: Connect | None = None  # until it is answered
        self._opening: Opening | None = None  # as long as the client may send AUTH
        self._waits = False  # for a verdict, and is not read
        self._is_beyond_limit = False
        self._number = 0
        self._heard_ms = 0
        self._holds = 0  # reasons why nothing is read just now
        self._silence_max_ms = 0
        self._unsent = 0  # bytes that waited for the client at the last look
        self._cancel_timer: Any = None
        self.connected_at_ms = 0

    # --- asyncio calls these ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shore = self._shore
        self._transport = transport = cast("asyncio.Transport", transport)
        shore.accepted += 1
        self._number = shore.accepted
        listener = self._listener
        self.identity, reason = identity_of(transport, listener, self._origin)
        self._is_beyond_limit = listener.is_full()
        if listener.is_full(REFUSALS_MAX):
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
        if self._is_beyond_limit:
            shore.refused += 1
            size_max = min(self._decoder.packet_size_max, REFUSED_BYTES_MAX)
            self._decoder.packet_size_max = size_max
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
        self._guarded(self._receive, self._shore.receive_buffer[:nbytes])

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except ProtocolError as error:
            self.close(error)
        except Exception:
            self._failed()

    def _failed(self) -> None:
        """Log the bug of ours that is being handled, and end this connection only."""
        logger.exception("connection failed connection=%d peer=%s", self._number, self.identity)
        try:
            self.close(IsthmusError("the server met an error of its own"))
        except Exception:  # the same bug, perhaps, in what it has left behind
            logger.exception("connection not closed properly connection=%d", self._number)
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

    @property
    def authenticate(self) -> Callable[[Identity, Opening], None] | None:
        """What decides who comes in through the listener; None: whoever connects."""
        return self._listener.authenticate

    @property
    def keep_alive_s(self) -> int:
        """Seconds that the client may be silent, as it was told; 0: for ever."""
        return self._terms.keep_alive_s if self._terms is not None else 0

    def transmit(self, data: bytes) -> None:
        """Send bytes to the client."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self, error: IsthmusError) -> None:
        """Say why, as far as the client's protocol version can, and close [MQTT-4.13.1-1]."""
        if self._transport is None:
            return
        logger.warning(
            "connection %s connection=%d peer=%s listener=%s client=%s error=%s reason=%s",
            "refused" if self._terms is None else "closed",
            self._number,
            self.identity,
            self._listener.name,
            self._entry.session.client_id if self._entry is not None else "-",
            type(error).__name__,
            error,
        )
        if self._entry is not None:
            self._shore.clients.lost(self._entry, self)  # sends what was answered before
        answer = self._farewell(error) if self._terms is not None else self._refusal(error)
        if answer is not None:
            self._send(answer)
        self._drop()

    # --- letting the client in ----------------------------------------------------------------

    def _before_connack(self, packets: list[Any]) -> None:
        """Take a CONNECT, then what the way in asks of its client."""
        for packet in packets:
            if self._opening is None:
                self._open(packet)
            elif packet.type == DISCONNECT:
                self._drop()
            else:
                self._opening.receive(packet)
            if self._transport is None:
                return
        if self._opening is None or not self._opening.is_deciding:
            if packets:
                self._go_on()
        elif not self._waits:
            self._waits = True
            self._hold_reading()

    def _open(self, connect: Connect) -> None:
        self._connect = connect
        try:
            if self._is_beyond_limit:
                raise ServerBusy("the server has as many connections as it takes")
            self._opening = self._shore.clients.open(connect, self)
        except IsthmusError as error:
            self.close(error)

    def _go_on(self) -> None:
        """Take what the client has sent without waiting for an answer."""
        if self._transport is not None:
            self._act(self._decoder.go_on())

    def _verdict(self) -> None:
        """The client may go on; if it had to wait, by itself."""
        if self._waits:
            self._waits = False
            self._resume_reading()
            self._guarded(self._go_on)

    def send_auth(self, packet: Auth) -> None:
        """Send the question of an authentication method, or its end."""
        if self._transport is None:
            return
        asked: dict[int, Any] = {}
        if self._connect is not None:
            asked = self._connect.properties or {}
        size_max = asked.get(MAXIMUM_PACKET_SIZE, 0)
        if self._terms is not None:
            size_max = self._terms.packet_size_max
        if not fits(packet, VERSION_5, size_max):
            self.close(TooLarge("the client takes no AUTH"))
            return
        self._send(packet)
        self._verdict()

    def authenticate_again(self, packet: Auth) -> None:
        """Take an AUTH of a client that is in. Raises UnexpectedPacket [MQTT-4.12.0-7]."""
        if self._opening is None:
            raise UnexpectedPacket("AUTH from a client without an authentication method")
        self._opening.receive(packet)

    def opened(self, entry: SessionEntry, terms: Terms) -> None:
        """The client is in, and CONNACK is on its way."""
        self._entry, self._terms = entry, terms
        self.connected_at_ms = self._shore.clients.runtime.now_ms()
        if self._opening is not None and not self._opening.goes_on:
            self._opening = None
        self._connect = None
        self._cancel_timer()
        self._cancel_timer = None
        if terms.keep_alive_s:
            self._silence_max_ms = terms.keep_alive_s * 1500  # [MQTT-3.1.2-22]
            self._watch(self._silence_max_ms)
        logger.info(
            "connected connection=%d client=%s peer=%s listener=%s user=%s version=%d"
            " keep_alive_s=%d",
            self._number,
            terms.client_id,
            self.identity,
            self.identity.listener,
            entry.principal,
            terms.version,
            terms.keep_alive_s,
        )
        self._verdict()

    # --- inside -------------------------------------------------------------------------------

    def _receive(self, data: memoryview) -> None:
        packets: list[Any] = self._decoder.feed(data)
        self._heard_ms = self._shore.clients.runtime.monotonic_ms()
        self._act(packets)

    def _act(self, packets: list[Any]) -> None:
        if self._entry is None:
            self._before_connack(packets)
        elif packets:
            clients = self._shore.clients
            if not clients.receive(self._entry, self, packets):
                self._drop()
                return
            if clients.congested(self._resume_reading):
                self._hold_reading()
        if self._decoder.error is not None:
            raise self._decoder.error

    def _refusal(self, error: IsthmusError) -> Connack | None:
        """Return the CONNACK that refuses a CONNECT, if one can be sent.

        Of a CONNECT that could not be read nobody knows what its client takes.
        """
        version = self._decoder.version
        reason = reason_in(CONNACK, error)
        if not version or (version < 5 and connack_code(reason) is None):
            return None
        if version < 5 or self._connect is None:
            return Connack(False, reason, None)
        asked = self._connect.properties or {}
        return _explained(
            Connack(False, reason, None),
            error,
            asked.get(MAXIMUM_PACKET_SIZE, 0),
            problem_info=asked.get(REQUEST_PROBLEM_INFO, 1) == 1,
        )

    def _farewell(self, error: IsthmusError) -> Disconnect | None:
        """Return the DISCONNECT that says why, to a client of MQTT 5."""
        terms = self._terms
        assert terms is not None
        if terms.version < 5:
            return None
        return _explained(
            Disconnect(reason_in(DISCONNECT, error), None),
            error,
            terms.packet_size_max,
            problem_info=terms.problem_info,
        )

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
        if self._opening is not None:
            self._opening.end()
            self._opening = None
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
    context = getattr(transport.get_extra_info("ssl_object"), "context", None)
    shown = transport.get_extra_info("peercert") if listener.user_from != "none" else None
    user, reason = "", ""
    if isinstance(context, KeyedContext):
        user = context.asked.identity
        reason = "" if user else "it resumes a session and shows no key"
    elif shown:
        user = user_of(shown, listener.user_from)
        reason = "" if user else "its certificate names no user"
    return Identity(address, port, listener.name, user), reason


def _explained(
    packet: Answer, error: IsthmusError, packet_size_max: int, *, problem_info: bool
) -> Answer | None:
    """Return a CONNACK or DISCONNECT with as much beside its reason as its client takes.

    The Server Reference, where there is one, is worth more than the Reason String; None: not
    even the bare packet [MQTT-3.2.2-19, MQTT-3.14.2-3].
    """
    text = {REASON_STRING: text_of(error)} if problem_info else {}
    reference: dict[int, str] = {}
    if isinstance(error, Redirected) and error.reference:
        reference[SERVER_REFERENCE] = error.reference
    for properties in ({**reference, **text}, reference, None):
        packet.properties = properties
        if fits(packet, VERSION_5, packet_size_max):
            return packet
    return None
