"""Where a consumer group of the classic protocol is, and what moves it on.

The table `NEXT` is the whole life of a group; the machine that walks it is in group.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from isthmus.kafka.errors import ErrorCode


class State(Enum):
    """Where a group is; the values are Kafka's names of the states."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


class Event(Enum):
    """What moves a group."""

    REBALANCE = "a member came, changed or went"
    ALL_JOINED = "every member joined"
    NONE_LEFT = "no member is left"
    ASSIGNED = "the leader's assignment is stored"
    DELETED = "deleted"


NEXT: Final[dict[State, dict[Event, State]]] = {
    State.EMPTY: {Event.REBALANCE: State.PREPARING, Event.DELETED: State.DEAD},
    State.PREPARING: {Event.ALL_JOINED: State.COMPLETING, Event.NONE_LEFT: State.EMPTY},
    State.COMPLETING: {Event.REBALANCE: State.PREPARING, Event.ASSIGNED: State.STABLE},
    State.STABLE: {Event.REBALANCE: State.PREPARING},
    State.DEAD: {},
}

# A heartbeat is also the news of where the group is.
HEARTBEAT_ANSWER: Final[dict[State, ErrorCode]] = {
    State.EMPTY: ErrorCode.UNKNOWN_MEMBER_ID,
    State.PREPARING: ErrorCode.REBALANCE_IN_PROGRESS,
    State.COMPLETING: ErrorCode.NONE,
    State.STABLE: ErrorCode.NONE,
    State.DEAD: ErrorCode.COORDINATOR_NOT_AVAILABLE,
}
