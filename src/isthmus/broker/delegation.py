"""Delegation tokens: logins that somebody hands to programs of its own [KIP-48, KIP-373].

A token has an id, and an HMAC that is made of the id and the master key of the server. Who has
both logs in by SCRAM, with the id as user name and the HMAC in base64 as password, and is the
token's owner. A token expires; until it does, it may be given more time, up to an end that is
set when it is made.

The `__delegation_tokens` log topic keeps everything but the HMAC, so nobody logs in by what is
on the disk alone. A change counts when it is durable. Without a master key there are no tokens.
Not here: who may have, renew and see one (kafka_api/delegation_tokens.py), and the
conversation (passwords.py).
"""

from __future__ import annotations

import base64
import hmac
import logging
from collections import Counter
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from isthmus.broker.appends import append_own, counting
from isthmus.broker.destinations import ensure_own
from isthmus.broker.recent_records import readable_records
from isthmus.broker.scram import HASHES, ITERATIONS_MIN, SALT_BYTES, ScramKeys, keys_of
from isthmus.errors import QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from isthmus.broker.appends import Appends, Done
    from isthmus.errors import IsthmusError
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log, Partition

logger = logging.getLogger(__name__)

DELEGATION: Final = "delegation-token"  # the way of those who log in by one
TOKENS_LOG_TOPIC: Final = "__delegation_tokens"
TOKENS_CONFIGS: Final = {"cleanup.policy": "compact", "segment.bytes": "16777216"}
TOKENS_MAX: Final = 100_000
REQUESTED_MAX: Final = 10_000  # by one user, so that nobody takes all
SWEPT_MAX: Final = 1_000  # in one turn, so that messages go on meanwhile
REST_MS: Final = 1_000  # until it goes on, where there are more
ID_BYTES: Final = 16
FORM: Final = 1


class DelegationToken(NamedTuple):
    """One token; its times are those of the wall clock, in ms."""

    id: str
    owner: str
    requester: str  # who asked for it, for the owner
    renewers: tuple[str, ...]
    issued_ms: int
    expires_ms: int
    until_ms: int  # it cannot be renewed beyond this
    hmac: bytes

    @property
    def password(self) -> bytes:
        """What SCRAM takes for one."""
        return base64.b64encode(self.hmac)

    def is_managed_by(self, user: str) -> bool:
        """Whether somebody may renew it, and end it."""
        return user == self.owner or user in self.renewers


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """The value of a record, whose key is the id."""

    form: int
    owner: str
    requester: str
    renewers: tuple[str, ...]
    issued_ms: int
    expires_ms: int
    until_ms: int


def read_kept(value: bytes) -> Kept | None:
    """Read a record's value; None: it is of another form."""
    try:
        kept = msgspec.msgpack.decode(value, type=Kept)
    except msgspec.MsgspecError:
        return None
    return kept if kept.form == FORM else None


class DelegationTerms(NamedTuple):
    """What the settings say of tokens."""

    master_key: bytes = b""  # empty: there are none
    lifetime_ms_max: int = 604_800_000
    renewal_ms_max: int = 86_400_000
    sweep_ms: int = 3_600_000


class DelegationTokens:
    """All tokens of the server."""

    def __init__(
        self, runtime: Runtime, log: Log, appends: Appends, terms: DelegationTerms
    ) -> None:
        """Read the log topic. Raises StorageError."""
        self.terms = terms
        self._runtime = runtime
        self._appends = appends
        self._partition: Partition | None = None
        self._tokens: dict[str, DelegationToken] = {}
        self._by_hmac: dict[bytes, str] = {}
        self._requested: Counter[str] = Counter()  # by whom
        self._scram: dict[tuple[str, str], ScramKeys] = {}  # of those who have logged in
        if self.is_enabled:
            self._partition = ensure_own(log, TOKENS_LOG_TOPIC, TOKENS_CONFIGS).partitions[0]
            self._load(self._partition)
            runtime.later(terms.sweep_ms, self._sweep)

    @property
    def is_enabled(self) -> bool:
        """Whether there may be tokens at all."""
        return bool(self.terms.master_key)

    def __iter__(self) -> Iterator[DelegationToken]:
        """Go through all tokens, those too that have expired and were not swept yet."""
        return iter([*self._tokens.values()])

    def find(self, token_id: str) -> DelegationToken | None:
        """Return a token that has not expired."""
        token = self._tokens.get(token_id)
        return None if token is None or self.has_expired(token) else token

    def by_hmac(self, code: bytes) -> DelegationToken | None:
        """Return the token of an HMAC, even if it has expired."""
        token_id = self._by_hmac.get(code)
        return None if token_id is None else self._tokens[token_id]

    def has_expired(self, token: DelegationToken) -> bool:
        """Whether its time is over."""
        return token.expires_ms < self._runtime.now_ms()

    # --- changes ------------------------------------------------------------------------------

    def issue(
        self,
        owner: str,
        requester: str,
        renewers: tuple[str, ...],
        lifetime_ms: int,
        done: Callable[[DelegationToken, IsthmusError | None], object],
    ) -> None:
        """Make a token; `lifetime_ms` up to 0: as long as the settings allow.

        Raises QuotaExceeded.
        """
        if len(self._tokens) >= TOKENS_MAX:
            raise QuotaExceeded(f"there are {TOKENS_MAX} tokens, and no room for more")
        if self._requested[requester] >= REQUESTED_MAX:
            raise QuotaExceeded(f"{requester} has asked for {REQUESTED_MAX} tokens")
        now_ms, terms = self._runtime.now_ms(), self.terms
        if lifetime_ms <= 0:
            lifetime_ms = terms.lifetime_ms_max
        until_ms = now_ms + min(lifetime_ms, terms.lifetime_ms_max)
        token_id = base64.urlsafe_b64encode(self._runtime.random_bytes(ID_BYTES)).rstrip(b"=")
        token = DelegationToken(
            token_id.decode(),
            owner,
            requester,
            renewers,
            issued_ms=now_ms,
            expires_ms=min(until_ms, now_ms + terms.renewal_ms_max),
            until_ms=until_ms,
            hmac=self._hmac_of(token_id.decode()),
        )
        self._keep(token, partial(_issued, token, done))

    def extend(self, token: DelegationToken, period_ms: int, done: Done) -> int:
        """Have a token expire in `period_ms`, or at its end; return when that is."""
        expires_ms = min(token.until_ms, self._runtime.now_ms() + period_ms)
        self._keep(token._replace(expires_ms=expires_ms), done)
        return expires_ms

    def remove(self, tokens: Sequence[DelegationToken], done: Done) -> None:
        """End tokens: they let nobody in from now on, unless that cannot be written down."""

        def stored() -> None:
            self._drop(tokens)  # once more: a renewal may have become durable meanwhile
            for one in tokens:
                logger.info("delegation token ended token=%s owner=%s", one.id, one.owner)

        def finished(error: IsthmusError | None) -> None:
            if error is not None:
                for one in tokens:
                    self._put(one)
            done(error)

        self._drop(tokens)
        self._write([(one.id.encode(), None) for one in tokens], stored, finished)

    def _keep(self, token: DelegationToken, done: Done) -> None:
        value = msgspec.msgpack.encode(Kept(FORM, *token[1:-1]))
        self._write([(token.id.encode(), value)], partial(self._put, token), done)

    def _put(self, token: DelegationToken) -> None:
        if token.id not in self._tokens:
            self._requested[token.requester] += 1
        self._tokens[token.id] = token
        self._by_hmac[token.hmac] = token.id

    def _drop(self, tokens: Iterable[DelegationToken]) -> None:
        for one in tokens:
            if self._tokens.pop(one.id, None) is not None:
                del self._by_hmac[one.hmac]
                self._requested[one.requester] -= 1
            for mechanism in HASHES:
                self._scram.pop((one.id, mechanism), None)

    def _sweep(self) -> None:
        expired = [*islice(filter(self.has_expired, self._tokens.values()), SWEPT_MAX)]
        if expired:
            self.remove(expired, lambda _: None)
        rest_ms = REST_MS if len(expired) == SWEPT_MAX else self.terms.sweep_ms
        self._runtime.later(rest_ms, self._sweep)

    # --- logging in ---------------------------------------------------------------------------

    def keys(self, mechanism: str, token: DelegationToken) -> ScramKeys | None:
        """Return what a client is checked against, once `make_keys` has made it."""
        return self._scram.get((token.id, mechanism))

    def make_keys(self, mechanism: str, token: DelegationToken) -> ScramKeys:
        """Return that; slow, and not for the loop. The salt is always the same."""
        salt = self._salt(mechanism, token.id)
        return keys_of(mechanism, token.password, salt, ITERATIONS_MIN)

    def note_keys(self, token: DelegationToken, keys: ScramKeys) -> None:
        """Have that ready from now on."""
        if token.id in self._tokens:
            self._scram[token.id, keys.mechanism] = keys

    def decoy_keys(self, mechanism: str, token_id: str) -> ScramKeys:
        """Return what a token that is not there would have, by all that can be seen of it."""
        never = bytes(hmac.new(b"", digestmod=HASHES[mechanism]).digest_size)
        salt = self._salt(mechanism, token_id)
        return ScramKeys(mechanism, ITERATIONS_MIN, salt, never, never)

    def _salt(self, mechanism: str, token_id: str) -> bytes:
        purpose = f"{mechanism}\0{token_id}".encode()  # a NUL is in no id
        return hmac.digest(self.terms.master_key, purpose, "sha256")[:SALT_BYTES]

    def _hmac_of(self, token_id: str) -> bytes:
        return hmac.digest(self.terms.master_key, token_id.encode(), "sha512")

    # --- the log topic ------------------------------------------------------------------------

    def _load(self, partition: Partition) -> None:
        for batch in partition.batches(partition.start_offset):
            for record in readable_records(batch):
                token_id = (record.key or b"").decode()
                known = self._tokens.get(token_id)
                if known is not None:
                    self._drop([known])
                if record.value is not None:
                    self._read(token_id, record.value)

    def _read(self, token_id: str, value: bytes) -> None:
        kept = read_kept(value)
        if kept is None:
            logger.error("delegation token not readable token=%s", token_id)
            return
        self._put(
            DelegationToken(
                token_id,
                kept.owner,
                kept.requester,
                kept.renewers,
                kept.issued_ms,
                kept.expires_ms,
                kept.until_ms,
                self._hmac_of(token_id),
            )
        )

    def _write(
        self, rows: list[tuple[bytes, bytes | None]], stored: Callable[[], None], done: Done
    ) -> None:
        assert self._partition is not None, "there are no tokens without a master key"
        counts = counting(stored, done)
        append_own(self._appends, self._partition, self._runtime.now_ms(), rows, counts)


def _issued(
    token: DelegationToken,
    done: Callable[[DelegationToken, IsthmusError | None], object],
    error: IsthmusError | None,
) -> None:
    if error is None:
        about = (token.id, token.owner, token.requester)
        logger.info("delegation token issued token=%s owner=%s requester=%s", *about)
    done(token, error)
