"""What clients may use, as an administrator says through Kafka's API [KIP-546].

A quota belongs to an entity: a user, a client id, a user with a client id, or an IP address;
None as a name stands for all that have no quota of their own. Of the eight places where a quota
of one client may stand, the most exact one that has it counts, as in Apache Kafka:

    user and client id, user and all clients, user,
    all users and client id, all users and all clients, all users, client id, all clients

They are kept in a compacted log topic, made with the first of them: the key is the entity as
JSON, the value its limits. A change is answered, and counts, when it is durable. Not here: what
was used (throttling.py); MQTT clients have limits of their own (limits.py).
"""

from __future__ import annotations

import logging
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from isthmus.broker.appends import append_own, counting
from isthmus.broker.state_log import StateLog
from isthmus.errors import ConfigInvalid, IsthmusError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from isthmus.broker.appends import Appends, Done
    from isthmus.record.batch import RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

logger = logging.getLogger(__name__)

QUOTAS_LOG_TOPIC: Final = "__isthmus_quotas"
COMPACTED: Final = {"cleanup.policy": "compact"}
ENTITIES_MAX: Final = 100_000
FRACTION_MAX: Final = 1e-6  # of what has to be a whole number: so exact are doubles

USER, CLIENT_ID, IP = "user", "client-id", "ip"
KINDS: Final = (USER, CLIENT_ID, IP)

PRODUCER: Final = "producer_byte_rate"
CONSUMER: Final = "consumer_byte_rate"
REQUEST: Final = "request_percentage"
MUTATION: Final = "controller_mutation_rate"
CONNECTION: Final = "connection_creation_rate"

Entity: TypeAlias = "tuple[tuple[str, str | None], ...]"  # kinds and names, in order of kinds


class Bound(NamedTuple):
    """What a limit may be: up to `most`, and whether it is a whole number."""

    most: float = sys.float_info.max
    is_whole: bool = False


OF_CLIENTS: Final[Mapping[str, Bound]] = {
    PRODUCER: Bound(2.0**63, is_whole=True),
    CONSUMER: Bound(2.0**63, is_whole=True),
    REQUEST: Bound(),
    MUTATION: Bound(),
}
OF_ADDRESSES: Final[Mapping[str, Bound]] = {CONNECTION: Bound(2.0**31 - 1, is_whole=True)}


def entity_of(names: Mapping[str, str | None]) -> Entity:
    """Return an entity as it is kept. Raises ConfigInvalid for what none can be."""
    if not names:
        raise ConfigInvalid("an entity without a name")
    for kind, name in names.items():
        if kind not in KINDS:
            raise ConfigInvalid(f"entities are of the types {', '.join(KINDS)}, not {kind!r}")
        if name == "":
            raise ConfigInvalid(f"the {kind} has an empty name")
    address = names.get(IP)
    if IP in names and len(names) > 1:
        raise ConfigInvalid("an ip goes with no user and no client-id")
    if address is not None:
        try:
            names = {IP: str(ip_address(address))}
        except ValueError:
            raise ConfigInvalid(f"{address} is no IP address") from None
    return tuple(sorted(names.items()))


def check_limit(entity: Entity, key: str, limit: float) -> None:
    """Raise ConfigInvalid where an entity cannot have this limit."""
    bound = (OF_ADDRESSES if entity[0][0] == IP else OF_CLIENTS).get(key)
    if bound is None:
        raise ConfigInvalid(f"{key} is no quota of {' and '.join(kind for kind, _ in entity)}")
    if not limit > 0:
        raise ConfigInvalid(f"{key} has to be greater than 0")
    if limit > bound.most:
        raise ConfigInvalid(f"{key} is too large")
    if bound.is_whole and limit % 1.0 > FRACTION_MAX:
        raise ConfigInvalid(f"{key} has to be a whole number")


class Quotas:
    """All quotas there are, by entity."""

    def __init__(self, runtime: Runtime, log: Log, appends: Appends) -> None:
        """Read them back."""
        self._runtime = runtime
        self._appends = appends
        self.is_any = False  # whether anybody has a quota: every request looks at it
        self._limits: dict[Entity, dict[str, float]] = {}
        self._kept = StateLog(runtime, log, appends, QUOTAS_LOG_TOPIC, COMPACTED, 1)
        self._kept.load(self._replay, lambda: None)

    def __iter__(self) -> Iterator[tuple[Entity, Mapping[str, float]]]:
        """Go through the entities and their limits, in order of their names."""
        return iter(sorted(self._limits.items(), key=lambda row: repr(row[0])))

    def of(self, entity: Entity) -> Mapping[str, float]:
        """Return the limits of an entity."""
        return self._limits.get(entity, {})

    def limit_of(
        self, key: str, user: str, client_id: str
    ) -> tuple[tuple[str, str], float] | None:
        """Return the quota that a client has, and who shares it; None: it has none.

        Those share it who have the same name and client id, where these are not empty: each
        user has a quota of all users for itself.
        """
        limits = self._limits
        by_client, by_any = (CLIENT_ID, client_id), (CLIENT_ID, None)
        for name in (user, None):
            by_user = (USER, name)
            for client in (by_client, by_any):
                found = limits.get((client, by_user))
                if found is not None and key in found:
                    return (user, client_id), found[key]
            found = limits.get((by_user,))
            if found is not None and key in found:
                return (user, ""), found[key]
        for client in (by_client, by_any):
            found = limits.get((client,))
            if found is not None and key in found:
                return ("", client_id), found[key]
        return None

    def limit_of_address(self, address: str) -> float | None:
        """Return how many connections a second may come from an address; None: any number."""
        for name in (address, None):
            found = self._limits.get(((IP, name),))
            if found is not None:
                return found.get(CONNECTION)
        return None

    def check(self, entity: Entity, limits: Mapping[str, float]) -> None:
        """Raise ConfigInvalid where an entity cannot have these, or is one too many."""
        for key, limit in limits.items():
            check_limit(entity, key, limit)
        if limits and entity not in self._limits and len(self._limits) >= ENTITIES_MAX:
            raise ConfigInvalid(f"{ENTITIES_MAX} entities have quotas, and no more can")

    def set(self, changes: Mapping[Entity, Mapping[str, float]], by: str, done: Done) -> None:
        """Replace the limits of entities, which were checked; `done` when that counts.

        All change or none. An entity without limits is forgotten. `by` is who wants it.
        """
        rows = [(_key_of(entity), _value_of(limits)) for entity, limits in changes.items()]

        def stored() -> None:
            for entity, limits in changes.items():
                self._put(entity, limits)
                logger.info("quotas set by=%s entity=%r limits=%r", by, entity, limits)

        try:
            partition = self._kept.partition_for("")
        except IsthmusError as error:
            done(error)
            return
        counts = counting(stored, done)
        append_own(self._appends, partition, self._runtime.now_ms(), rows, counts)

    def _put(self, entity: Entity, limits: Mapping[str, float]) -> None:
        if limits:
            self._limits[entity] = dict(limits)
        else:
            self._limits.pop(entity, None)
        self.is_any = bool(self._limits)

    def _replay(self, _index: int, batch: RecordBatch) -> None:
        for record in batch.records():
            try:
                names = msgspec.json.decode(record.key or b"", type=dict[str, str | None])
                limits = msgspec.json.decode(record.value or b"{}", type=dict[str, float])
                entity = entity_of(names)
                self.check(entity, limits)
            except (msgspec.MsgspecError, ConfigInvalid) as error:
                logger.warning("quota skipped offset=%d error=%s", record.offset, error)
                continue
            self._put(entity, limits)


def _key_of(entity: Entity) -> bytes:
    return msgspec.json.encode(dict(entity))


def _value_of(limits: Mapping[str, float]) -> bytes | None:
    return msgspec.json.encode(limits, order="sorted") if limits else None
