"""Members of the classic protocol in a group of the consumer protocol, and the way over.

While the consumers of a group are changed from one protocol to the other, one by one, both
kinds are in it, and the server assigns for all. To those of the classic protocol it looks like
a group in which somebody else leads: they join, and are told their epoch as the generation;
they sync, and get what the server has assigned; a heartbeat tells them to join again when they
are to give something up, or something has become free.

The first member of the consumer protocol takes a classic group over (`to_consumer`); when the
last one goes, the others have a classic group again (`to_classic`). Source: KIP-848, online
upgrade and downgrade. Not here: when that is allowed, and storing (broker/groups.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.kafka.consumer_protocol import (
    PROTOCOL_TYPE,
    read_assignment,
    read_subscription,
    write_assignment,
)
from isthmus.kafka.consumer_types import (
    ClassicTerms,
    Holding,
    KeptGroup,
    MemberState,
    Subscription,
)
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group_types import (
    GroupSnapshot,
    JoinAnswer,
    MemberSnapshot,
    SyncAnswer,
)

if TYPE_CHECKING:
    from isthmus.kafka.consumer_group import ConsumerGroup
    from isthmus.kafka.consumer_types import ConsumerMember
    from isthmus.kafka.group import Group
    from isthmus.kafka.group_types import Join


def join(group: ConsumerGroup, join: Join, fresh: str, now_ms: int) -> JoinAnswer:
    """Let a member in, or in again; `fresh` is what makes a new member id unique."""
    said = read_subscription(join.protocols[0][1]) if join.protocols else None
    names = [name for name, _ in join.protocols]
    protocol = next((name for name in names if name in _common(group, join, names)), None)
    if join.protocol_type != PROTOCOL_TYPE or said is None or protocol is None:
        return JoinAnswer(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, join.member_id)
    known = group.members.get(join.member_id)
    if join.instance_id is not None:
        known = group.static_member(join.instance_id)
        if join.member_id and (known is None or known.member_id != join.member_id):
            unknown = known is None
            code = ErrorCode.UNKNOWN_MEMBER_ID if unknown else ErrorCode.FENCED_INSTANCE_ID
            return JoinAnswer(code, join.member_id)
    member_id = join.member_id or f"{join.instance_id or join.client_id}-{fresh}"
    if not join.member_id and join.instance_id is None and join.needs_known_id:
        return JoinAnswer(ErrorCode.MEMBER_ID_REQUIRED, member_id)
    if known is None and group.is_full:
        return JoinAnswer(ErrorCode.GROUP_MAX_SIZE_REACHED, join.member_id)
    is_current = known is not None and said.generation in (-1, known.holding.epoch)
    owned = group.reads.places(said.owned) if is_current else frozenset()
    subscription = Subscription(
        join.instance_id,
        said.rack_id,
        join.client_id,
        join.client_host,
        join.rebalance_timeout_ms,
        said.topic_names,
        "",
        None,
        ClassicTerms(join.session_timeout_ms, join.protocols),
    )
    member, _ = group.enter(member_id, known, subscription, owned, now_ms)
    member.act_due_ms = now_ms + join.rebalance_timeout_ms  # to sync
    epoch = member.holding.epoch
    return JoinAnswer(ErrorCode.NONE, member_id, epoch, PROTOCOL_TYPE, protocol)


def sync(
    group: ConsumerGroup,
    identity: tuple[str, str | None, int],
    protocol: tuple[str | None, str | None],
    now_ms: int,
) -> SyncAnswer:
    """Answer with the member's share; `identity` is (id, instance id, generation)."""
    member = _find(group, *identity)
    if isinstance(member, ErrorCode):
        return SyncAnswer(member)
    classic = _terms(member)
    names = [name for name, _ in classic.protocols]
    if protocol[0] not in (None, PROTOCOL_TYPE) or protocol[1] not in (None, *names):
        return SyncAnswer(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    group.is_alive(member, now_ms)
    holding = member.holding
    if group.epoch > holding.epoch and holding.state is not MemberState.UNREVOKED:
        _ask_to_join(member, now_ms)
        return SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)
    member.act_due_ms = None
    metadata = classic.protocols[0][1]
    share = write_assignment(group.by_name(holding.assigned), metadata)
    return SyncAnswer(ErrorCode.NONE, PROTOCOL_TYPE, protocol[1] or names[0], share)


def heartbeat(
    group: ConsumerGroup, identity: tuple[str, str | None, int], now_ms: int
) -> ErrorCode:
    """Note that a member lives; tell it where it has to join again."""
    member = _find(group, *identity)
    if isinstance(member, ErrorCode):
        return member
    group.is_alive(member, now_ms)
    group.look()
    holding = member.holding
    is_free = holding.state is MemberState.UNRELEASED and not group.waits_for_others(member)
    if group.epoch > holding.epoch or holding.state is MemberState.UNREVOKED or is_free:
        _ask_to_join(member, now_ms)
        return ErrorCode.REBALANCE_IN_PROGRESS
    return ErrorCode.NONE


def leave(group: ConsumerGroup, member_id: str, instance_id: str | None) -> ErrorCode:
    """Let a member go; a static one of either protocol may be named by its instance id."""
    member = group.static_member(instance_id) if instance_id is not None else None
    if member is None or member_id:
        found = _find(group, member_id, instance_id)
        if isinstance(found, ErrorCode):
            return found
        member = found
    group.remove([member])
    return ErrorCode.NONE


def _find(
    group: ConsumerGroup, member_id: str, instance_id: str | None, generation: int | None = None
) -> ConsumerMember | ErrorCode:
    """Return the member of the classic protocol that has this identity."""
    if instance_id is not None:
        holder = group.static_member(instance_id)
        if holder is not None and holder.member_id != member_id:
            return ErrorCode.FENCED_INSTANCE_ID
        if holder is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
    member = group.members.get(member_id)
    if member is None or member.subscription.classic is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if generation is not None and generation != member.holding.epoch:
        return ErrorCode.ILLEGAL_GENERATION
    return member


def _ask_to_join(member: ConsumerMember, now_ms: int) -> None:
    """The member is told to join again, and has its rebalance timeout to do so."""
    if member.act_due_ms is None:
        member.act_due_ms = now_ms + member.subscription.rebalance_timeout_ms


def _terms(member: ConsumerMember) -> ClassicTerms:
    classic = member.subscription.classic
    assert classic is not None
    return classic


def _common(group: ConsumerGroup, join: Join, names: list[str]) -> set[str]:
    """Return those of these protocols that all other members of the classic protocol know."""
    common = set(names)
    for member in group.members.values():
        classic = member.subscription.classic
        is_itself = member.member_id == join.member_id
        if classic is not None and not is_itself:
            common &= {name for name, _ in classic.protocols}
    return common


# --- from one protocol to the other -----------------------------------------------------------


def to_consumer(group: Group, into: ConsumerGroup, now_ms: int) -> bool:
    """Fill a new group with the members of a classic one; False where one is not understood.

    The classic group stays as it is.
    """
    if group.protocol_type != PROTOCOL_TYPE:
        return False
    kept = KeptGroup()
    kept.epoch = kept.target_epoch = max(group.generation, 1)
    for member in group.members.values():
        metadata = member.metadata_for(group.protocol_name) or member.protocols[0][1]
        said, share = read_subscription(metadata), read_assignment(member.assignment)
        if said is None or share is None:
            return False
        kept.subscriptions[member.member_id] = Subscription(
            member.instance_id,
            said.rack_id,
            member.client_id,
            member.client_host,
            member.rebalance_timeout_ms,
            said.topic_names,
            "",
            None,
            ClassicTerms(member.session_timeout_ms, member.protocols),
        )
        places = into.reads.places(share)
        kept.targets[member.member_id] = places
        held = dict.fromkeys(places, kept.epoch)
        kept.holdings[member.member_id] = Holding(
            kept.epoch, kept.epoch, MemberState.STABLE, held, {}
        )
    into.restore(kept, now_ms)
    into.store_again(into.all_rows())
    return True


def to_classic(group: ConsumerGroup, into: Group, now_ms: int) -> None:
    """Fill a new classic group with the members, all of them classic; they join it again."""
    members = [*group.members.values()]
    common = set.intersection(*({name for name, _ in _terms(one).protocols} for one in members))
    first = _terms(members[0]).protocols
    protocol = next(name for name, _ in first if name in common)
    snapshots = []
    for member in members:
        said, terms = member.subscription, _terms(member)
        metadata = dict(terms.protocols)[protocol]
        share = group.by_name(group.targets.get(member.member_id, ()))
        snapshots.append(
            MemberSnapshot(
                member.member_id,
                said.instance_id,
                said.client_id,
                said.client_host,
                said.rebalance_timeout_ms,
                terms.session_timeout_ms,
                metadata,
                write_assignment(share, metadata),
            )
        )
    leader = members[0].member_id
    snapshot = GroupSnapshot(PROTOCOL_TYPE, group.epoch, protocol, leader, tuple(snapshots))
    protocols = {member.member_id: _terms(member).protocols for member in members}
    into.take_over(snapshot, protocols, now_ms)
