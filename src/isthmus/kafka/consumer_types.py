"""What goes into a group of the consumer protocol, what comes out, and what is kept of it.

Plain values around the machine in `consumer_group.py`: the heartbeat with its wire form taken
off, the answer before it is put on, one member, and the rows that `consumer_records.py` writes
as Kafka does. No rule of the protocol is here.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

from isthmus.kafka.errors import RefusedWithCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.kafka.assignors import TopicPlace


T = TypeVar("T")


class HeartbeatRefused(RefusedWithCode):
    """A heartbeat that changes nothing; `code` and text are for its client."""


class GroupState(Enum):
    """Where a group of the consumer protocol is; the values are Kafka's names."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"
    STABLE = "Stable"
    DEAD = "Dead"


class MemberState(IntEnum):
    """How far a member is with its assignment; the values are those of its record."""

    STABLE = 0
    UNREVOKED = 1  # it has to give up partitions first
    UNRELEASED = 2  # it waits for partitions that others have to give up


Held: TypeAlias = "dict[TopicPlace, int]"  # a partition, and the epoch it was assigned in


class Terms(NamedTuple):
    """What holds for a group, in milliseconds."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000
    assignment_interval_ms: int = 0  # a new assignment is made no sooner after the last


class Topics(Protocol):
    """What a group knows of the log topics there are."""

    def find(self, name: str) -> tuple[bytes, int] | None:
        """Return topic id and number of partitions."""

    def matching(self, pattern: str) -> frozenset[str]:
        """Return the log topics whose whole name a regular expression matches.

        Raises HeartbeatRefused, for what is no regular expression.
        """


def sees_all(_: str) -> bool:
    """Nobody asks who may know of which log topic."""
    return True


class Heartbeat(NamedTuple):
    """One ConsumerGroupHeartbeat; None where it says that nothing has changed."""

    member_id: str
    epoch: int
    instance_id: str | None
    rack_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int  # -1: as before
    topic_names: frozenset[str] | None
    pattern: str | None  # empty: none
    assignor: str | None
    owned: frozenset[TopicPlace] | None
    sees: Callable[[str], bool] = sees_all  # of which log topics the sender may know

    @property
    def is_full(self) -> bool:
        """Whether it says all, and so wants to be told all."""
        says_what = self.topic_names is not None or self.pattern is not None
        is_whole = self.rebalance_timeout_ms >= 0 and says_what and self.owned is not None
        return self.epoch == 0 or is_whole


class HeartbeatAnswer(NamedTuple):
    """What a member is told; `assigned` only where it has changed, or all was asked for."""

    member_id: str
    epoch: int
    heartbeat_interval_ms: int = 0
    assigned: frozenset[TopicPlace] | None = None


class ClassicTerms(NamedTuple):
    """What a member of the classic protocol said that others need not say."""

    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]  # in the order of its preference


class Subscription(NamedTuple):
    """What a member said of itself."""

    instance_id: str | None
    rack_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    topic_names: frozenset[str]
    pattern: str
    assignor: str | None
    classic: ClassicTerms | None = None  # None: it speaks the consumer protocol


class Holding(NamedTuple):
    """What a member has, and how far it is."""

    epoch: int
    previous_epoch: int
    state: MemberState
    assigned: Held
    revoking: Held

    @property
    def all_places(self) -> set[TopicPlace]:
        """What nobody else may have."""
        return self.assigned.keys() | self.revoking.keys()


NEW_HOLDING = Holding(0, 0, MemberState.STABLE, {}, {})


class ConsumerMember:
    """One member of a group."""

    __slots__ = (
        *("act_due_ms", "due_ms", "holding", "looked", "matched"),
        *("member_id", "sees", "subscription"),
    )

    def __init__(self, member_id: str, subscription: Subscription) -> None:
        self.member_id = member_id
        self.subscription = subscription
        self.holding = NEW_HOLDING
        self.due_ms = 0  # monotonic; without a heartbeat until then it is removed
        self.act_due_ms: int | None = None  # until then it has to do what it was asked to
        # Of which log topics it may know; None: it was not heard since the start.
        self.sees: Callable[[str], bool] | None = None
        self.matched: frozenset[str] = frozenset()  # of its pattern, that it may know of
        self.looked: tuple[object, object] | None = None  # what that was made of


# --- what is kept: a row whose value is None says that it is gone -----------------------------


class GroupRow(NamedTuple):
    """A digest of the log topics that the group reads, and its epoch."""

    digest: int
    epoch: int | None


class TargetEpochRow(NamedTuple):
    """The epoch that the target assignment was made for."""

    epoch: int | None


class SubscriptionRow(NamedTuple):
    """What a member said of itself."""

    member_id: str
    subscription: Subscription | None


class TargetRow(NamedTuple):
    """What a member is to have."""

    member_id: str
    places: frozenset[TopicPlace] | None


class HoldingRow(NamedTuple):
    """What a member has."""

    member_id: str
    holding: Holding | None


class Begun(NamedTuple):
    """What a share group has begun to read of a log topic."""

    name: str
    partitions: frozenset[int]


class InitializedRow(NamedTuple):
    """What a share group has begun to read, by the ids of log topics."""

    topics: Mapping[bytes, Begun] | None


class PatternRow(NamedTuple):
    """What a regular expression has matched."""

    pattern: str
    topic_names: frozenset[str] | None


Row: TypeAlias = (
    GroupRow
    | TargetEpochRow
    | SubscriptionRow
    | TargetRow
    | HoldingRow
    | PatternRow
    | InitializedRow
)


class KeptGroup:
    """What the rows of one group, read in their order, come to."""

    __slots__ = (
        "digest",
        "epoch",
        "holdings",
        "initialized",
        "patterns",
        "subscriptions",
        "target_epoch",
        "targets",
    )

    def __init__(self) -> None:
        self.epoch: int | None = None  # None: there is no such group
        self.digest = 0
        self.target_epoch = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.targets: dict[str, frozenset[TopicPlace]] = {}
        self.holdings: dict[str, Holding] = {}
        self.patterns: dict[str, frozenset[str]] = {}
        self.initialized: Mapping[bytes, Begun] = {}

    def take(self, row: Row) -> None:
        """Take in one row, newer than all before."""
        match row:
            case GroupRow(digest, epoch):
                self.digest, self.epoch = digest, epoch
            case TargetEpochRow(epoch):
                self.target_epoch = epoch or 0
            case SubscriptionRow(member_id, subscription):
                _put(self.subscriptions, member_id, subscription)
            case TargetRow(member_id, places):
                _put(self.targets, member_id, places)
            case HoldingRow(member_id, holding):
                _put(self.holdings, member_id, holding)
            case PatternRow(pattern, topic_names):
                _put(self.patterns, pattern, topic_names)
            case InitializedRow(topics):
                self.initialized = topics or {}


def _put(kept: dict[str, T], name: str, value: T | None) -> None:
    if value is None:
        kept.pop(name, None)
    else:
        kept[name] = value
