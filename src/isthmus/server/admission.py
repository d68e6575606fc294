"""Who may come in through one listener: how many at a time, and how fast, in all and from one
address.

Counted from the moment a socket is accepted. A client that is one too many is refused when its
CONNECT has come, so that it learns why; but only so many may wait for that, and what is being
opened has a limit of its own, beyond which a socket is closed at once.

An address of IPv6 counts with its whole /64: that much a single machine is given. What comes
through a file counts as no address.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from isthmus.broker.limits import LOCAL, Bucket, network_of
from isthmus.errors import ConnectionRateExceeded, IsthmusError, ServerBusy

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.config_listeners import ConnectionLimits
    from isthmus.runtime import Runtime
    from isthmus.server.proxy import Origin

REFUSALS_MAX: Final = 256  # that wait for their CONNECT, to be told why
ADDRESSES_SWEPT: Final = 10_000  # remembered before those that are needed no more are dropped


class Arrival:
    """One socket that was admitted and has no session yet."""

    __slots__ = ("admitted_ms", "is_taken", "origin", "refusal", "user")

    def __init__(self, origin: Origin, refusal: IsthmusError | None, admitted_ms: int) -> None:
        self.origin = origin
        self.user = ""  # whom a proxy says that it is
        self.refusal = refusal  # what its CONNECT is to be answered with
        self.admitted_ms = admitted_ms  # by the clock that never goes back
        self.is_taken = False  # by its protocol, which then says what becomes of it


class Total:
    """The connections of all listeners together."""

    def __init__(self, maximum: int) -> None:
        self.now = 0
        self.maximum = maximum


class Admission:
    """The counts of one listener, and what they may be."""

    def __init__(
        self,
        limits: ConnectionLimits,
        total: Total,
        runtime: Runtime,
        refuses: Callable[[str], IsthmusError | None],
    ) -> None:
        """Begin with nobody; `refuses` says why nobody may come from an address, if so."""
        self.limits = limits
        self.connections = 0  # let in, or on their way
        self.opening = 0  # those on their way, and those that will be refused
        self.refusing = 0
        self.refusals: Counter[str] = Counter()  # of connections, by the error's name
        self.on_room: Callable[[], None] | None = None  # called once, when less is opening
        self._total = total
        self._refuses = refuses
        self._now_ms = runtime.monotonic_ms
        self._rate = Bucket(limits.connection_rate_max, self._now_ms())
        self._connections_of: dict[str, int] = {}  # by address
        self._rate_of: dict[str, Bucket] = {}
        self._sweep_at = ADDRESSES_SWEPT

    @property
    def is_busy(self) -> bool:
        """Whether no more may begin to open just now."""
        return self.opening >= self.limits.handshakes_max

    def begin(self) -> None:
        """Count a socket that was accepted. Raises ServerBusy for one that is to be closed."""
        if self.is_busy:
            raise ServerBusy("as many connections are being opened as may be")
        self.opening += 1

    def admit(self, origin: Origin, *, tells: bool = True) -> Arrival:
        """Count whose socket it is; that may be to have its CONNECT refused.

        Raises what it would be told where it is to be closed at once: because too many wait to
        be told, or because that would cost as much as letting it in (not `tells`).
        """
        network = network_of(origin[0])
        error = self._refuses(origin[0]) or self._refusal(network)
        if error is None:
            self.connections += 1
            self._total.now += 1
            self._connections_of[network] = self._connections_of.get(network, 0) + 1
        elif self.refusing < REFUSALS_MAX and tells:
            self.refusing += 1
        else:
            raise error
        return Arrival(origin, error, self._now_ms())

    def arrive(self, origin: Origin, *, tells: bool = True) -> Arrival:
        """Begin and admit a socket of which all is known. Raises what it is closed for."""
        self.begin()
        try:
            return self.admit(origin, tells=tells)
        except IsthmusError:
            self.give_up()
            raise

    def refused(self, error: Exception) -> None:
        """Count a connection whose client was not let in."""
        self.refusals[type(error).__name__] += 1

    def opened(self) -> None:
        """An admitted connection has its session, and will `leave`."""
        self.opening -= 1
        if self.on_room is not None and not self.is_busy:
            call, self.on_room = self.on_room, None
            call()

    def give_up(self, arrival: Arrival | None = None) -> None:
        """A socket that had begun will have no session; `arrival`: it was admitted."""
        self.opened()
        if arrival is None:
            return
        if arrival.refusal is None:
            self.leave(arrival.origin[0])
        else:
            self.refusing -= 1

    def leave(self, address: str) -> None:
        """A connection from there that had its session is over."""
        self.connections -= 1
        self._total.now -= 1
        network = network_of(address)
        self._connections_of[network] -= 1
        if not self._connections_of[network]:
            del self._connections_of[network]

    def _refusal(self, network: str) -> IsthmusError | None:
        limits, total = self.limits, self._total
        if network != LOCAL:
            rate = limits.address_connection_rate_max
            if rate and not self._take_one(network, rate):
                return ConnectionRateExceeded("too many connections a second from one address")
            most = limits.address_connections_max
            if most and self._connections_of.get(network, 0) >= most:
                return ServerBusy("as many connections from one address as may be")
        if self.connections >= limits.connections_max or total.now >= total.maximum:
            return ServerBusy("the server has as many connections as it takes")
        rate = limits.connection_rate_max
        if rate and not self._rate.take_one(rate, self._now_ms()):
            return ConnectionRateExceeded("too many connections a second")
        return None

    def _take_one(self, network: str, rate: int) -> bool:
        now_ms = self._now_ms()
        bucket = self._rate_of.get(network)
        if bucket is None:
            if len(self._rate_of) >= self._sweep_at:
                self._sweep(rate, now_ms)
            bucket = self._rate_of[network] = Bucket(rate, now_ms)
        return bucket.take_one(rate, now_ms)

    def _sweep(self, rate: int, now_ms: int) -> None:
        """Forget the addresses that would be taken the same if they were new."""
        self._rate_of = {
            network: bucket
            for network, bucket in self._rate_of.items()
            if not bucket.is_full(rate, now_ms)
        }
        self._sweep_at = max(ADDRESSES_SWEPT, 2 * len(self._rate_of))
