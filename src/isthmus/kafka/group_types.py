"""What goes into a consumer group, what comes out, and what is kept of it.

Plain values around the machine in `group.py`: the requests with their wire form taken off, the
answers before it is put on, one member, and the snapshot that `group_records.py` writes as
Kafka does. No rule of the protocol is here.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from isthmus.kafka.errors import ErrorCode


class Join(NamedTuple):
    """One JoinGroup request; `protocols` in the order of the member's preference."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    needs_known_id: bool = False  # v4+: first get an id, then join with it [KIP-394]
    can_skip_assignment: bool = False  # v9: understands `skip_assignment` [KIP-814]


class JoinedMember(NamedTuple):
    """What the leader is told of one member."""

    member_id: str
    instance_id: str | None
    metadata: bytes


class JoinAnswer(NamedTuple):
    """The answer to a JoinGroup; only the leader gets `members`."""

    error: ErrorCode
    member_id: str
    generation: int = -1
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str = ""
    skip_assignment: bool = False
    members: tuple[JoinedMember, ...] = ()


class SyncAnswer(NamedTuple):
    """The answer to a SyncGroup."""

    error: ErrorCode
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


class MemberSnapshot(NamedTuple):
    """One member as it is stored."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


class GroupSnapshot(NamedTuple):
    """A group as it is stored: all that a restart must know of it."""

    protocol_type: str
    generation: int
    protocol_name: str | None
    leader: str | None
    members: tuple[MemberSnapshot, ...]


class Member:
    """One member of a group, with the calls of its client that wait."""

    __slots__ = (
        "assignment",
        "client_host",
        "client_id",
        "due_ms",
        "instance_id",
        "is_new",
        "join_reply",
        "member_id",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "sync_reply",
    )

    def __init__(self, member_id: str, join: Join) -> None:
        self.member_id = member_id
        self.instance_id = join.instance_id
        self.is_new = True  # its first join was not answered yet
        self.assignment = b""
        self.due_ms = 0  # monotonic; without a sign of life until then it is removed
        self.join_reply: Callable[[JoinAnswer], None] | None = None
        self.sync_reply: Callable[[SyncAnswer], None] | None = None
        self.update(join)

    def update(self, join: Join) -> None:
        """Take over what the newest JoinGroup says."""
        self.client_id = join.client_id
        self.client_host = join.client_host
        self.session_timeout_ms = join.session_timeout_ms
        self.rebalance_timeout_ms = join.rebalance_timeout_ms
        self.protocols = join.protocols

    def metadata_for(self, protocol_name: str | None) -> bytes:
        """Return what the member sent with this protocol, empty where it did not offer it."""
        return next((data for name, data in self.protocols if name == protocol_name), b"")

    @property
    def excused(self) -> bool:
        """Whether a missing heartbeat is our doing: a client waits for an answer of ours.

        A new member has no id to heartbeat with and gets a long time limit instead.
        """
        return not self.is_new and (self.join_reply is not None or self.sync_reply is not None)

    def answer_join(self, answer: JoinAnswer) -> None:
        """Answer the JoinGroup that waits, if one does."""
        reply, self.join_reply = self.join_reply, None
        if reply is not None:
            reply(answer)

    def answer_sync(self, answer: SyncAnswer) -> None:
        """Answer the SyncGroup that waits, if one does."""
        reply, self.sync_reply = self.sync_reply, None
        if reply is not None:
            reply(answer)

    def snapshot(self, protocol_name: str | None, assignment: bytes) -> MemberSnapshot:
        """Return what is stored of the member."""
        return MemberSnapshot(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            self.rebalance_timeout_ms,
            self.session_timeout_ms,
            self.metadata_for(protocol_name),
            assignment,
        )

    @classmethod
    def restored(cls, kept: MemberSnapshot, group: GroupSnapshot) -> Member:
        """Return the member of a stored group."""
        protocols = ((group.protocol_name or "", kept.subscription),)
        member = cls(
            kept.member_id,
            Join(
                kept.member_id,
                kept.instance_id,
                kept.client_id,
                kept.client_host,
                kept.session_timeout_ms,
                kept.rebalance_timeout_ms,
                group.protocol_type,
                protocols,
            ),
        )
        member.is_new = False
        member.assignment = kept.assignment
        return member


def common_protocols(members: Iterable[Member]) -> set[str]:
    """Return the protocols that all these members, at least one, know."""
    return set.intersection(*({name for name, _ in one.protocols} for one in members))


def select_protocol(members: Collection[Member]) -> str:
    """Return the protocol that all members know and most of them prefer."""
    common = common_protocols(members)
    votes = Counter(
        next(name for name, _ in member.protocols if name in common) for member in members
    )
    return votes.most_common(1)[0][0]
