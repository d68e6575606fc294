"""Who is kept out because an administrator said so: client ids, users, addresses, networks.

A ban counts from the moment it is given; its record in `__bans` (compacted; the key says who,
the value until when and why) lets it outlive the server. One that is over is found no more,
and its record goes when it is met. Whose connection ends for a ban is said in `guard.py`.
"""

from __future__ import annotations

import logging
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from isthmus.broker.appends import append_own
from isthmus.broker.recent_records import readable_records
from isthmus.errors import ConfigInvalid, QuotaExceeded, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.broker.appends import Done
    from isthmus.broker.broker import Broker
    from isthmus.errors import IsthmusError
    from isthmus.storage.log import Partition

logger = logging.getLogger(__name__)

BANS_LOG_TOPIC: Final = "__bans"
BANS_CONFIGS: Final = {"cleanup.policy": "compact"}
BANS_MAX: Final = 100_000
REASON_MAX: Final = 300  # characters
FORM: Final = 1

Kind = Literal["client", "user", "address"]
KINDS: Final[tuple[Kind, ...]] = ("client", "user", "address")


class Ban(msgspec.Struct, frozen=True):
    """One ban. `who` is a client id, a user name, or an address or network (`10.0.0.0/8`)."""

    kind: Kind
    who: str
    until_ms: int = 0  # by the wall clock; 0: for good
    reason: str = ""
    since_ms: int = 0

    def is_over(self, now_ms: int) -> bool:
        """Whether it keeps nobody out any more."""
        return 0 < self.until_ms <= now_ms


class Terms(msgspec.Struct, array_like=True, frozen=True):
    """The value of a record."""

    form: int
    until_ms: int
    since_ms: int
    reason: str


class Bans:
    """All bans, by what they name."""

    def __init__(self, broker: Broker, partition: Partition) -> None:
        """Read the table from its partition."""
        self._broker = broker
        self._partition = partition
        self._bans: dict[tuple[Kind, str], Ban] = {}
        self._lengths: dict[tuple[int, int], int] = {}  # networks by version of IP and length
        for batch in partition.batches(partition.start_offset):
            for record in readable_records(batch):
                assert record.key is not None, "we wrote it"
                self._keep(record.key, record.value)

    def __len__(self) -> int:
        return len(self._bans)

    def __iter__(self) -> Iterator[Ban]:
        now_ms = self._broker.runtime.now_ms()
        return (ban for ban in self._bans.values() if not ban.is_over(now_ms))

    def add(self, ban: Ban, done: Done | None = None) -> Ban:
        """Begin a ban, or change it; return it as it is kept.

        `done(error)` is called once it is durable, or cannot be. Raises ConfigInvalid for an
        address that is none, QuotaExceeded where there are too many.
        """
        now_ms = self._broker.runtime.now_ms()
        who, reason = normal(ban.kind, ban.who), ban.reason[:REASON_MAX]
        if len(self._bans) >= BANS_MAX and (ban.kind, who) not in self._bans:
            self._sweep(now_ms)
            if len(self._bans) >= BANS_MAX:
                raise QuotaExceeded(f"there are {BANS_MAX} bans already")
        kept = Ban(ban.kind, who, ban.until_ms, reason, now_ms)
        self._put(kept)
        terms = Terms(FORM, kept.until_ms, now_ms, reason)
        self._write([(key_of(ban.kind, who), msgspec.msgpack.encode(terms))], done)
        return kept

    def remove(self, kind: Kind, who: str, done: Done | None = None) -> bool:
        """End a ban; False if there is none. Raises ConfigInvalid like `add`."""
        ban = self._bans.get((kind, normal(kind, who)))
        if ban is None:
            return False
        self._take(ban)
        self._write([(key_of(kind, ban.who), None)], done)
        return True

    def of(self, kind: Kind, who: str) -> Ban | None:
        """Return the ban of a client id or user, or that which an address falls under."""
        if not self._bans:
            return None
        if kind != "address":
            return self._valid(self._bans.get((kind, who)))
        try:
            address = ip_address(who.partition("%")[0])
        except ValueError:  # who comes through a file has none
            return None
        address = getattr(address, "ipv4_mapped", None) or address
        for version, length in list(self._lengths):
            if version == address.version:
                network = ip_network(f"{address}/{length}", strict=False)
                ban = self._valid(self._bans.get(("address", str(network))))
                if ban is not None:
                    return ban
        return None

    # --- inside -------------------------------------------------------------------------------

    def _valid(self, ban: Ban | None) -> Ban | None:
        if ban is not None and ban.is_over(self._broker.runtime.now_ms()):
            self._take(ban)
            self._write([(key_of(ban.kind, ban.who), None)], None)
            return None
        return ban

    def _sweep(self, now_ms: int) -> None:
        over = [ban for ban in self._bans.values() if ban.is_over(now_ms)]
        for ban in over:
            self._take(ban)
        if over:
            self._write([(key_of(ban.kind, ban.who), None) for ban in over], None)

    def _keep(self, key: bytes, value: bytes | None) -> None:
        """Take a record of an earlier run; one of a form that is not known is left alone."""
        text, _, who = key.decode().partition(":")
        kind = next((each for each in KINDS if each == text), None)
        if kind is None:
            return
        present = self._bans.get((kind, who))
        if value is None:
            if present is not None:
                self._take(present)
            return
        terms = read_terms(value)
        if terms is not None:
            self._put(Ban(kind, who, terms.until_ms, terms.reason, terms.since_ms))

    def _put(self, ban: Ban) -> None:
        if ban.kind == "address" and (ban.kind, ban.who) not in self._bans:
            length = length_of(ban.who)
            self._lengths[length] = self._lengths.get(length, 0) + 1
        self._bans[ban.kind, ban.who] = ban

    def _take(self, ban: Ban) -> None:
        del self._bans[ban.kind, ban.who]
        if ban.kind == "address":
            length = length_of(ban.who)
            self._lengths[length] -= 1
            if not self._lengths[length]:
                del self._lengths[length]

    def _write(self, rows: list[tuple[bytes, bytes | None]], done: Done | None) -> None:
        def stored(error: IsthmusError | None) -> None:
            # Of a StorageError the log tells, once.
            if error is not None and not isinstance(error, StorageError):
                logger.warning("ban not stored error=%s", error)
            if done is not None:
                done(error)

        now_ms = self._broker.runtime.now_ms()
        append_own(self._broker, self._partition, now_ms, rows, stored)


def normal(kind: Kind, who: str) -> str:
    """Return how a ban names somebody. Raises ConfigInvalid."""
    if kind != "address":
        if not who:
            raise ConfigInvalid(f"a ban of a {kind} needs to say which")
        return who
    try:
        return str(ip_network(who, strict=False))
    except ValueError as error:
        raise ConfigInvalid(f"{error}") from None


def key_of(kind: Kind, who: str) -> bytes:
    """Return the key of a record."""
    return f"{kind}:{who}".encode()


def read_terms(value: bytes) -> Terms | None:
    """Return what a record says; None for one of another form, or malformed."""
    try:
        terms = msgspec.msgpack.decode(value, type=Terms)
    except msgspec.DecodeError:
        return None
    return terms if terms.form == FORM else None


def length_of(network: str) -> tuple[int, int]:
    """Return a network's version of IP and the length of its prefix."""
    parsed = ip_network(network)
    return parsed.version, parsed.prefixlen
