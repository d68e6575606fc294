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
from typing import TYPE_CHECKING, Any, cast

from isthmus.broker.identity import Identity
from isthmus.broker.limits import Meter
from isthmus.errors import (
    IsthmusError,
    KeepAliveTimeout,
    MessageRateExceeded,
    ProtocolError,
    Refused,
    TooLarge,
    UnexpectedPacket,
)
from isthmus.mqtt.codec import Decoder, encode
from isthmus.mqtt.handshake import fits
from isthmus.mqtt.packets import DISCONNECT, PUBLISH, VERSION_5, Auth, Connect
from isthmus.mqtt.properties import MAXIMUM_PACKET_SIZE
from isthmus.server.farewells import farewell, refusal
from isthmus.server.peers import origin_of, user_behind
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.sessions import SessionEntry
    from isthmus.mqtt.handshake import Offer, Terms
    from isthmus.mqtt.opening import Opening
    from isthmus.mqtt.packets import Connack, Disconnect
    from isthmus.server.admission import Arrival
    from isthmus.server.mqtt_listener import MqttListener

logger = logging.getLogger(__name__)

LINGER_MS = 5_000  # a closing connection has this long to take what was written
REFUSED_BYTES_MAX = 4096  # of a CONNECT that is refused whatever it says
WRITE_HIGH_BYTES = 1 << 20  # the transport holds this much before deliveries queue in the log


# One client's share of a turn. What is read fits into it many times over, unless each message
# takes long: the first ones under their topic names do.
TURN_MS = 5
PACKETS_AT_A_TIME = 128  # between two looks at the clock

REFUSED = "connection refused connection=%d peer=%s listener=%s client=%s error=%s reason=%s"
CLOSED = "connection closed connection=%d peer=%s listener=%s client=%s error=%s reason=%s"


class MqttConnection(asyncio.BufferedProtocol):
    """One socket that speaks MQTT."""

    __slots__ = (
        "_arrival",
        "_cancel_timer",
        "_connect",
        "_decoder",
        "_entry",
        "_heard_ms",
        "_holds",
        "_is_counted",
        "_listener",
        "_meter",
        "_number",
        "_opening",
        "_rest",
        "_shore",
        "_silence_max_ms",
        "_terms",
        "_transport",
        "_turn_ms",
        "_unsent",
        "_waits",
        "connected_at_ms",
        "identity",
    )

    identity: Identity  # known once the connection is made

    def __init__(self, listener: MqttListener, arrival: Arrival | None = None) -> None:
        self._listener = listener
        self._arrival = arrival  # until the client has its session
        self._shore = listener.shore
        self._decoder = Decoder(listener.offer.packet_size_max)
        self._transport: asyncio.Transport | None = None
        self._entry: SessionEntry | None = None
        self._terms: Terms | None = None
        self._connect: Connect | None = None  # until it is answered
        self._opening: Opening | None = None  # as long as the client may send AUTH
        self._waits = False  # for a verdict, and is not read
        self._meter: Meter | None = None  # where the listener has rates
        self._number = 0
        self._heard_ms = 0
        self._holds = 0  # reasons why nothing is read just now
        self._turn_ms = 0  # when this turn's share of the loop began
        self._is_counted = False  # the share; it is over with the turn
        self._rest: list[Any] | None = (
            None  # packets that the next turn acts on, before it reads
        )
        self._silence_max_ms = 0
        self._unsent = 0  # bytes that waited for the client at the last look
        self._cancel_timer: Any = None
        self.connected_at_ms = 0

    # --- asyncio calls these ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shore = self._shore
        transport = cast("asyncio.Transport", transport)
        shore.accepted += 1
        self._number = shore.accepted
        listener = self._listener
        origin = origin_of(transport)
        try:
            arrival = self._arrival
            if arrival is None:
                arrival = self._arrival = listener.admission.arrive(origin)
            arrival.is_taken = True
            origin = arrival.origin
            user = arrival.user or user_behind(transport, listener.names)
        except Refused as error:
            self._turn_away(transport, Identity(*origin, listener.name), error)
            return
        self.identity = Identity(*origin, listener.name, user)
        if arrival.refusal is not None:
            size_max = min(self._decoder.packet_size_max, REFUSED_BYTES_MAX)
            self._decoder.packet_size_max = size_max
        self._transport = transport
        shore.connections.add(self)
        share = shore.clients.sessions.limits.output_max
        transport.set_write_buffer_limits(min(WRITE_HIGH_BYTES, share))
        runtime = shore.clients.runtime
        waited_ms = runtime.monotonic_ms() - arrival.admitted_ms
        self._cancel_timer = runtime.later(
            max(0, listener.limits.connect_timeout_s * 1000 - waited_ms),
            self._connect_timed_out,
        )

    def _turn_away(
        self, transport: asyncio.Transport, identity: Identity, error: Refused
    ) -> None:
        """Close a connection at once, unanswered."""
        if self._arrival is not None:
            self._listener.admission.give_up(self._arrival)
        self._listener.admission.refused(error)
        self._shore.lines.warning(
            logger,
            (identity.address, type(error).__name__),
            "connection refused peer=%s listener=%s reason=%s",
            identity,
            identity.listener,
            error,
        )
        transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._transport is None:
            return
        self._shore.traffic.bytes_received += nbytes
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
            self._shore.lines.info(
                logger,
                self.identity.address,
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

    @property
    def defer(self) -> Callable[[Callable[[], object]], object]:
        """What runs a call once, after the sockets of this turn."""
        return self._shore.clients.runtime.defer

    def transmit(self, data: bytes) -> None:
        """Send bytes to the client."""
        if self._transport is not None:
            shore = self._shore
            shore.traffic.bytes_sent += len(data)
            if shore.traces.is_on:
                version = self._decoder.version or 4
                shore.traces.sent(self.identity, self._client_id, version, data)
            self._transport.write(data)

    def close(self, error: IsthmusError) -> None:
        """Say why, as far as the client's protocol version can, and close [MQTT-4.13.1-1]."""
        if self._transport is None:
            return
        is_refused = self._terms is None
        if is_refused:
            self._listener.admission.refused(error)
        else:
            self._shore.closings[type(error).__name__] += 1
        self._shore.lines.warning(
            logger,
            (self.identity.address, type(error).__name__),
            REFUSED if is_refused else CLOSED,
            self._number,
            self.identity,
            self._listener.name,
            self._entry.session.client_id if self._entry is not None else "-",
            type(error).__name__,
            error,
        )
        if self._entry is not None:
            # sends what was answered before
            self._shore.clients.lost(self._entry, self, error)
        answer: Disconnect | Connack | None
        if self._terms is not None:
            answer = farewell(error, self._terms)
        else:
            answer = refusal(error, self._connect, self._decoder.version)
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
        self._shore.traffic.connects += 1
        try:
            if self._arrival is not None and self._arrival.refusal is not None:
                raise self._arrival.refusal
            self._opening = self._shore.clients.open(connect, self)
        except IsthmusError as error:
            self.close(error)

    def _go_on(self) -> None:
        """Take what the client has sent without waiting for an answer."""
        if self._transport is not None:
            packets = self._decoder.go_on()
            if self._listener.is_metered and self._entry is not None:
                self._measure(packets, 0)
            self._act(packets)

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
        self._arrival = None
        self._listener.admission.opened()
        self._cancel_timer()
        self._cancel_timer = None
        if terms.keep_alive_s:
            self._silence_max_ms = terms.keep_alive_s * 1500  # [MQTT-3.1.2-22]
            self._watch(self._silence_max_ms)
        self._shore.lines.info(
            logger,
            self.identity.address,
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

    @property
    def _client_id(self) -> str:
        """The client id, as far as it is known."""
        known = self._terms or self._connect
        return known.client_id if known is not None else ""

    def _receive(self, data: memoryview) -> None:
        packets: list[Any] = self._decoder.feed(data)
        self._heard_ms = self._shore.clients.runtime.monotonic_ms()
        if self._listener.is_metered and self._entry is not None:
            self._measure(packets, len(data))
        if not self._is_counted:
            self._turn_ms = self._heard_ms
        self._act(packets)
        if len(data) == len(self._listener.receive_buffer) and self._rest is None:
            # The loop reads on, many times, before it looks at another socket.
            if self._has_had_its_share():
                self._go_on_next_turn([])
            else:
                self._count_turn()

    def _measure(self, packets: list[Any], size: int) -> None:
        """Count what was read; above a rate, read on later. Raises MessageRateExceeded."""
        listener, now_ms = self._listener, self._heard_ms
        limits = listener.limits
        rates = limits.client_messages_rate_max, limits.client_bytes_rate_max
        if self._meter is None:
            self._meter = Meter(*rates, now_ms)
        messages = sum(packet.type == PUBLISH for packet in packets)
        wait_ms = self._meter.take(messages, size, *rates, now_ms)
        if wait_ms and limits.client_rate_action == "disconnect":
            raise MessageRateExceeded("more messages or bytes a second than a client may send")
        rates = limits.messages_rate_max, limits.bytes_rate_max
        wait_ms = max(wait_ms, listener.meter.take(messages, size, *rates, now_ms))
        if wait_ms:
            self._shore.held += 1
            self._hold_reading()
            self._shore.clients.runtime.later(wait_ms, self._resume_reading)

    def _act(self, packets: list[Any]) -> None:
        shore = self._shore
        shore.traffic.packets_received += len(packets)
        if shore.traces.is_on:
            shore.traces.received(self.identity, self._client_id, packets)
        if self._entry is None:
            self._before_connack(packets)
        elif self._rest is not None:
            self._rest += packets  # a transport may hand on what it had before it was stopped
        elif packets:
            self._work(self._entry, packets)
        if self._decoder.error is not None and self._rest is None:
            raise self._decoder.error

    def _work(self, entry: SessionEntry, packets: list[Any]) -> None:
        """Have the broker act on packets, on as many of them as this turn has time for."""
        shore = self._shore
        clients = shore.clients
        for start in range(0, len(packets), PACKETS_AT_A_TIME):
            if start and self._has_had_its_share():
                self._go_on_next_turn(packets[start:])
                break
            some = packets
            if len(packets) > PACKETS_AT_A_TIME:
                some = packets[start : start + PACKETS_AT_A_TIME]
            goes_on = clients.receive(entry, self, some)
            if shore.traces.is_on:
                shore.traces.accepted(self.identity, self._client_id, some)
            if not goes_on:
                self._drop()
                return
        if clients.congested(self._resume_reading):
            self._hold_reading()
        if self._decoder.is_held and self._rest is None:
            self._hold_reading()
            self.defer(self._continue)

    # --- one client's share of a turn ---------------------------------------------------------

    def _has_had_its_share(self) -> bool:
        return self._shore.clients.runtime.monotonic_ms() - self._turn_ms >= TURN_MS

    def _count_turn(self) -> None:
        if not self._is_counted:
            self._is_counted = True
            self.defer(self._next_turn)

    def _go_on_next_turn(self, rest: list[Any]) -> None:
        """Let others have their turn before the rest of the packets, and what is to be read."""
        self._rest = rest
        self._hold_reading()
        self._count_turn()

    def _next_turn(self) -> None:
        self._is_counted = False
        rest, self._rest = self._rest, None
        if rest is not None and self._transport is not None:
            self._turn_ms = self._shore.clients.runtime.monotonic_ms()
            self._resume_reading()
            self._guarded(self._work_on, rest)

    def _work_on(self, packets: list[Any]) -> None:
        assert self._entry is not None
        self._work(self._entry, packets)
        if self._decoder.error is not None and self._rest is None:
            raise self._decoder.error

    def _continue(self) -> None:
        """Go on, in another turn, with what there was too much of for one."""
        if self._transport is not None:
            self._guarded(self._do_more)

    def _do_more(self) -> None:
        assert self._entry is not None
        if self._shore.clients.subscribing.go_on(self._entry):
            self.defer(self._continue)
        else:
            self._resume_reading()
            self._go_on()

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
            # What it has said meanwhile is still to be read.
            self._heard_ms = self._shore.clients.runtime.monotonic_ms()
            self._transport.resume_reading()

    def _send(self, packet: Any) -> None:
        assert self._transport is not None
        out = WriteBuffer()
        encode(packet, self._decoder.version or 4, out)
        self._shore.traffic.packets_sent += 1
        self.transmit(out.take())

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
            if self._arrival is None:
                self._listener.admission.leave(self.identity.address)
            else:
                self._listener.admission.give_up(self._arrival)
        if self._cancel_timer is not None:
            self._cancel_timer()
            self._cancel_timer = None
