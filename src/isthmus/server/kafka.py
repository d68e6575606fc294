"""One Kafka connection: bytes in, requests to their handlers, responses out in order.

A request is gathered into memory of its own, because the batches in it go to the log as they
are. How much memory is decided by what has arrived, never by what the size prefix claims. Short
requests are read through one buffer that all connections share (kafka_shore.py).

Responses leave in the order of their requests. A request begins when the one before is
answered; only Produce requests may follow one another while earlier ones wait for the disk, so
that a client's pipeline shares the syncs. Who sends ahead is no longer read from; who does not
read its responses gets no further requests begun; who is silent for long is cut off, because a
peer that vanished says no goodbye.

The one `except` of this edge is `_guard`: a ProtocolError costs the connection and one line in
the log; anything else is our bug, is logged with its traceback, and costs the connection too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from isthmus.broker.identity import CERTIFICATE, Identity, Principal
from isthmus.errors import (
    ConnectionThrottled,
    Malformed,
    ProtocolError,
    Refused,
    TooLarge,
    UnexpectedPacket,
)
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import RequestUnsupported
from isthmus.kafka.frames import (
    decode_request,
    encode_response_buffers,
    parse_request_header,
)
from isthmus.server.kafka_api.call import Call
from isthmus.server.kafka_api.guards import may_begin
from isthmus.server.kafka_api.sasl import sasl_token
from isthmus.server.kafka_api.table import HANDLERS, unsupported_answer
from isthmus.server.kafka_login import TOKEN_BYTES_MAX
from isthmus.server.peers import origin_of, user_behind
from isthmus.server.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.access import Rights
    from isthmus.server.admission import Arrival
    from isthmus.server.kafka_listener import KafkaListener
    from isthmus.server.kafka_login import Login
    from isthmus.server.sender import Part

logger = logging.getLogger(__name__)

SIZE_BYTES = 4
FRAME_BYTES_MIN = 64 * 1024  # what a request that is not all here yet gets at first
FRAME_GROWTH = 4
AHEAD_BYTES_MAX = 64 * 1024  # of requests that cannot begin yet
PIPELINE_MAX = 64  # Produce requests of one connection under way
PIPELINE_BYTES_MAX = 32 << 20
TURN_S = 0.02  # after so long the others have their turn, however much one has sent ahead
WRITE_HIGH_BYTES = 1 << 20


class KafkaConnection(asyncio.BufferedProtocol):
    """One socket that speaks Kafka."""

    __slots__ = (
        "_advances",
        "_arrival",
        "_can_write",
        "_frame",
        "_frame_have",
        "_frame_size",
        "_is_opening",
        "_is_paused",
        "_is_silent",
        "_listener",
        "_number",
        "_out",
        "_queue",
        "_queue_bytes",
        "_rest",
        "_sender",
        "_sends",
        "_shore",
        "_transport",
        "_under_way",
        "_under_way_bytes",
        "_unsent_bytes",
        "_waits_until_ms",
        "_wake",
        "address",
        "identity",
        "login",
        "principal",
        "rights",
    )

    identity: Identity  # known once the connection is made

    def __init__(self, listener: KafkaListener, arrival: Arrival | None = None) -> None:
        self.address = ("127.0.0.1", 0)  # what this client is told to connect to
        self._listener = listener
        self._arrival = arrival  # None: not admitted, or gone
        self._shore = listener.shore
        self._transport: asyncio.Transport | None = None
        self._sender: Sender | None = None
        self._number = 0
        self._rest = b""  # less than a size prefix
        self._frame: bytearray | None = None  # a request of which not all is here
        self._frame_have = 0
        self._frame_size = 0
        self._queue: deque[bytearray] = deque()  # whole requests that have not begun
        self._queue_bytes = 0
        self._under_way: deque[Call] = deque()
        self._under_way_bytes = 0
        self._out: list[Part] = []  # responses in their order
        self._sends = False  # at the end of this turn
        self._advances = False
        self._can_write = True
        self._unsent_bytes = 0  # when the client was found to be slow
        self._is_paused = False
        self._wake: Callable[[], None] | None = None  # cancels the end of a wait, see `mute`
        self._waits_until_ms = 0
        self._is_silent = False  # since the last look, see `cut_if_idle`
        self._is_opening = False  # nobody is known yet to have come
        self.rights: tuple[int, Principal, Rights] | None = None  # as the guards last saw them
        self.login: Login | None = None  # None: nobody is asked who it is
        self.principal: Principal | None = None  # None: nobody has logged in yet

    # --- asyncio calls these ------------------------------------------------------------------

    def connection_made(self, base: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", base)  # uvloop's is one without saying so
        shore = self._shore
        shore.accepted += 1
        self._number = shore.accepted
        if not self._is_let_in(transport):
            return
        self._transport = transport
        shore.connections.add(self)
        host, port = transport.get_extra_info("sockname")[:2]
        self.address = self._listener.told(host, port)
        transport.set_write_buffer_limits(WRITE_HIGH_BYTES)
        self._sender = Sender(transport, self._advance)
        logger.debug(
            "connected connection=%d peer=%s listener=%s user=%s",
            self._number,
            self.identity,
            self._listener.name,
            self.identity.user or "-",
        )

    def _is_let_in(self, transport: asyncio.Transport) -> bool:
        """Find out whose connection it is, and whether it may stay."""
        shore, listener = self._shore, self._listener
        origin = origin_of(transport)
        arrival = self._arrival
        try:
            if arrival is None:
                arrival = listener.admission.arrive(origin, tells=False)
            arrival.is_taken = True
            origin = arrival.origin
            if shore.quotas.is_any:
                shore.throttling.connected(origin[0])
            user = user_behind(transport, listener.names)
            refused = shore.refuses_user(user)
            if refused is not None:
                raise refused
        except Refused as error:
            if arrival is not None:
                listener.admission.give_up(arrival)
            self._arrival = None
            listener.admission.refused(error)
            shore.lines.warning(
                logger,
                (origin[0], type(error).__name__),
                "connection refused peer=%s listener=%s reason=%s",
                Identity(*origin, listener.name),
                listener.name,
                error,
            )
            if isinstance(error, ConnectionThrottled):
                shore.runtime.later(error.wait_ms, transport.abort)
            else:
                transport.abort()
            return False
        self._arrival = arrival
        self.identity = identity = Identity(*origin, listener.name, user)
        if listener.door is None:
            self.principal = Principal(user, "", identity, way=CERTIFICATE if user else "")
        else:
            self.login = listener.door.begin(identity)
            self.principal = self.login.principal
        if self.principal is not None:
            listener.admission.opened()
        else:
            self._is_opening = True
            limit_ms = listener.admission.limits.connect_timeout_s * 1000
            shore.runtime.later(limit_ms, self._cut_if_unknown)
        return True

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._frame is None:
            return self._shore.receive_buffer
        if self._frame_have == len(self._frame):
            frame = bytearray(min(self._frame_size, FRAME_GROWTH * self._frame_have))
            frame[: self._frame_have] = self._frame
            self._frame = frame
        return memoryview(self._frame)[self._frame_have :]

    def buffer_updated(self, nbytes: int) -> None:
        self._is_silent = False
        self._shore.counts.received_bytes += nbytes
        if self._transport is not None:
            self._guard(self._receive, nbytes)

    def eof_received(self) -> bool:
        return False  # close

    def pause_writing(self) -> None:
        self._can_write = False
        if self._transport is not None:
            self._unsent_bytes = self._transport.get_write_buffer_size()
            self._shore.unsent_bytes += self._unsent_bytes

    def resume_writing(self) -> None:
        self._can_write = True
        self._all_sent()
        self._advance()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._sender is not None:
            self._sender.close()
        arrival, self._arrival = self._arrival, None
        if arrival is not None and self._is_opening:
            self._listener.admission.give_up(arrival)
        elif arrival is not None:
            self._listener.admission.leave(arrival.origin[0])
        self._all_sent()
        self._forget()
        logger.debug("disconnected connection=%d error=%s", self._number, exc or "none")

    # --- handlers call these ------------------------------------------------------------------

    def answered(self, call: Call) -> None:
        """Send what is answered, in the order of the requests, and begin what has waited.

        Of a pipeline many requests become durable in one turn: their responses go out as one.
        """
        if self._transport is None:
            return
        under_way = self._under_way
        while under_way and under_way[0].response is not None:
            first = under_way.popleft()
            self._under_way_bytes -= first.size
            self._out += first.response or ()
        if not under_way:
            self._send()
        elif self._out and not self._sends:
            self._sends = True
            self._shore.runtime.defer(self._send)
        if (self._queue or self._is_paused) and not self._advances:
            # Not at once: the answer may come from deep within a group or a commit.
            self._shore.runtime.defer(self._advance)

    def _send(self) -> None:
        """Send the responses that wait for others of the same turn."""
        self._sends = False
        out, self._out = self._out, []
        if out and self._sender is not None and self._transport is not None:
            self._shore.counts.sent_bytes += sum(map(len, out))
            self._sender.send(out)

    def logged_in(self) -> None:
        """The client has shown who it is, for the first time or again."""
        assert self.login is not None
        self.principal = self.login.principal
        if self._is_opening:
            self._is_opening = False
            self._listener.admission.opened()
        said = self._number, self.identity, self.principal, self.login.mechanism
        logger.debug("logged in connection=%d peer=%s user=%s mechanism=%s", *said)

    def mute(self, wait_ms: int) -> None:
        """Begin no further request for a while: the client is beyond a quota [KIP-219]."""
        runtime = self._shore.runtime
        until_ms = runtime.monotonic_ms() + wait_ms
        if self._transport is None or until_ms <= self._waits_until_ms:
            return
        if self._wake is not None:
            self._wake()
        self._waits_until_ms = until_ms
        self._wake = runtime.later(wait_ms, self._go_on)

    def _go_on(self) -> None:
        self._wake = None
        self._advance()

    @property
    def takes_spans(self) -> bool:
        """Whether records may be sent as a `FileSpan`."""
        return self._sender is not None and self._sender.takes_spans

    def encode(self, call: Call, body: dict[str, Any]) -> list[Part]:
        """Return the response to a call; where that fails the connection ends."""
        found: list[Part] = []

        def make() -> None:
            found[:] = encode_response_buffers(
                call.api_key, call.version, call.correlation_id, body
            )

        self._guard(make)
        return found

    def drop(self, reason: str = "") -> None:
        """Close once what was written is sent."""
        transport = self._transport
        if transport is None:
            return
        if reason:
            logger.warning(
                "connection closed connection=%d peer=%s reason=%s",
                self._number,
                self.identity,
                reason,
            )
        self._send()
        self._forget()
        transport.close()

    def _cut_if_unknown(self) -> None:
        if self._is_opening:
            self.drop("nobody has logged in within connect_timeout_s")

    def cut_if_idle(self) -> None:
        """End the connection if nothing came since the last call and nobody waits for us."""
        transport = self._transport
        if transport is None or self._under_way or self._wake or not self._is_silent:
            self._is_silent = True
            return
        logger.debug("idle connection=%d peer=%s", self._number, self.identity)
        self._forget()
        transport.abort()  # who is gone reads no rest

    # --- receiving ----------------------------------------------------------------------------

    def _receive(self, nbytes: int) -> None:
        if self._frame is None:
            self._split(self._shore.receive_buffer[:nbytes])
        else:
            self._frame_have += nbytes
            if self._frame_have == self._frame_size:
                frame, self._frame = self._frame, None
                self._enqueue(frame)
        self._advance()

    def _split(self, data: memoryview) -> None:
        """Take requests out of what arrived; the start of one goes into memory of its own."""
        position = 0
        if self._rest:
            position = SIZE_BYTES - len(self._rest)
            self._rest += data[:position]
            if len(self._rest) < SIZE_BYTES:
                return
        while self._rest or len(data) - position >= SIZE_BYTES:
            if self._rest:
                prefix, self._rest = self._rest, b""
            else:
                prefix = bytes(data[position : position + SIZE_BYTES])
                position += SIZE_BYTES
            size = int.from_bytes(prefix, "big", signed=True)
            self._check_size(size)
            have = min(size, len(data) - position)
            if have == size:
                self._enqueue(bytearray(data[position : position + size]))
            else:
                room = min(size, max(FRAME_BYTES_MIN, FRAME_GROWTH * have))
                self._frame = bytearray(room)
                self._frame[:have] = data[position : position + have]
                self._frame_have, self._frame_size = have, size
                return
            position += size
        self._rest = bytes(data[position:])

    def _check_size(self, size: int) -> None:
        if size < 0:
            raise Malformed(f"a request of {size} bytes")
        limit = self._shore.settings.request_size_max
        if self.principal is None:
            limit = min(limit, TOKEN_BYTES_MAX)
        if size > limit:
            raise TooLarge(f"a request of {size} bytes, where {limit} may be")

    def _enqueue(self, frame: bytearray) -> None:
        self._queue.append(frame)
        self._queue_bytes += len(frame)

    # --- one request after the other ----------------------------------------------------------

    def _advance(self) -> None:
        """Begin the requests that may begin; read on, or do not."""
        if self._advances or self._transport is None:
            return
        self._advances = True
        began_s = perf_counter()
        while self._queue and self._may_begin(self._queue[0]):
            frame = self._queue.popleft()
            self._queue_bytes -= len(frame)
            self._guard(self._begin, frame)
            if self._queue and perf_counter() - began_s > TURN_S:
                self._shore.runtime.defer(self._advance)  # others have their turn first
                break
        self._advances = False
        self._steer_reading()

    def _may_begin(self, frame: bytearray) -> bool:
        if self._transport is None or self._sender is None or not self._can_write:
            return False
        if self._sender.is_waiting or self._wake is not None:
            return False
        if not self._under_way:
            return True
        return (
            frame[:2] == b"\x00\x00"
            and self._under_way[-1].api_key == ApiKey.PRODUCE
            and len(self._under_way) < PIPELINE_MAX
            and self._under_way_bytes < PIPELINE_BYTES_MAX
        )

    def _begin(self, frame: bytearray) -> None:
        login = self.login
        if login is not None and login.is_raw:
            call = Call(self._shore, self, ApiKey.SASL_AUTHENTICATE, 0, 0, None, len(frame))
            self._under_way.append(call)
            self._under_way_bytes += call.size
            sasl_token(call, bytes(frame))
            return
        try:
            api_key, version, correlation_id, client_id, start = parse_request_header(frame)
            handler = HANDLERS.get(api_key)
            if handler is None:
                raise RequestUnsupported(api_key, version, correlation_id)
        except RequestUnsupported as error:
            if error.api_key != ApiKey.API_VERSIONS:
                raise
            # It gets an answer in the version that every client understands [KIP-511].
            call = Call(self._shore, self, error.api_key, 0, error.correlation_id, None, 0)
            self._under_way.append(call)
            call.answer(unsupported_answer())
            return
        if login is not None and not login.admits(api_key):
            raise UnexpectedPacket(f"API key {api_key} of a client that is not logged in")
        call = Call(self._shore, self, api_key, version, correlation_id, client_id, len(frame))
        call.request = decode_request(api_key, version, frame, start)
        self._under_way.append(call)
        self._under_way_bytes += call.size
        if may_begin(call):
            handler(call)
        if self._shore.quotas.is_any:
            call.worked_s = perf_counter() - call.began_s

    def _steer_reading(self) -> None:
        """Read no further while much has come that cannot begin yet."""
        transport = self._transport
        if transport is None:
            return
        ahead = self._queue_bytes
        frame = self._frame
        if frame is not None and (self._queue or not self._may_begin(frame)):
            ahead += self._frame_have
        is_ahead = ahead > AHEAD_BYTES_MAX
        if is_ahead != self._is_paused:
            self._is_paused = is_ahead
            if is_ahead:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def _all_sent(self) -> None:
        self._shore.unsent_bytes -= self._unsent_bytes
        self._unsent_bytes = 0

    def _guard(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except ProtocolError as error:
            self.drop(f"{type(error).__name__}: {error}")
        except Exception:
            logger.exception(
                "connection failed connection=%d peer=%s", self._number, self.identity
            )
            self.drop()

    def _forget(self) -> None:
        self._transport = None
        self._shore.lost(self)
        self._queue.clear()
        self._out.clear()
        self._frame = None
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()
        under_way, self._under_way = self._under_way, deque()
        for call in under_way:
            call.abandon()
