"""JoinGroup, SyncGroup, Heartbeat, LeaveGroup: the wire form of the consumer group machine.

The rules are in kafka/group.py, the groups in broker/groups.py. Members of these groups assign
partitions among themselves; the server does not know what is in their metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group_types import Join

if TYPE_CHECKING:
    from isthmus.kafka.group_types import JoinAnswer, SyncAnswer
    from isthmus.server.kafka_api.call import Call

ID_FIRST: Final = 4  # JoinGroup: an unknown member gets its id before it joins [KIP-394]
NULL_PROTOCOL: Final = 7  # JoinGroup: the protocol's name may be null
SKIPS_ASSIGNMENT: Final = 9  # JoinGroup [KIP-814]
LEAVE_MANY: Final = 3  # LeaveGroup [KIP-345]


def join_group(call: Call) -> None:
    """Let a member in; the answer comes when all others have come, too."""
    request, settings = call.request, call.shore.settings
    timeout_ms = request["session_timeout_ms"]
    shortest_ms = settings.group_session_timeout_min_ms
    if not shortest_ms <= timeout_ms <= settings.group_session_timeout_max_ms:
        refused = {"error_code": ErrorCode.INVALID_SESSION_TIMEOUT}
        named = {"protocol_name": "" if call.version < NULL_PROTOCOL else None}
        call.answer({**refused, **named, "member_id": request["member_id"]})
        return
    rebalance_ms = request["rebalance_timeout_ms"]
    join = Join(
        request["member_id"],
        request["group_instance_id"],
        call.client_id or "",
        f"/{call.connection.identity.address}",
        timeout_ms,
        timeout_ms if rebalance_ms < 0 else rebalance_ms,  # v0 has none
        request["protocol_type"],
        tuple((one["name"], one["metadata"]) for one in request["protocols"]),
        needs_known_id=call.version >= ID_FIRST,
        can_skip_assignment=call.version >= SKIPS_ASSIGNMENT,
    )

    def reply(answer: JoinAnswer) -> None:
        name = answer.protocol_name
        body: dict[str, Any] = {
            "error_code": answer.error,
            "generation_id": answer.generation,
            "protocol_type": answer.protocol_type,
            "protocol_name": "" if name is None and call.version < NULL_PROTOCOL else name,
            "leader": answer.leader,
            "member_id": answer.member_id,
            "members": [
                {
                    "member_id": member.member_id,
                    "group_instance_id": member.instance_id,
                    "metadata": member.metadata,
                }
                for member in answer.members
            ],
        }
        if answer.skip_assignment:
            body["skip_assignment"] = True
        call.answer(body)

    call.shore.groups.join(request["group_id"], join, reply)


def sync_group(call: Call) -> None:
    """Answer with the member's share, once the leader's assignment is stored."""
    request = call.request

    def reply(answer: SyncAnswer) -> None:
        call.answer(
            {
                "error_code": answer.error,
                "protocol_type": answer.protocol_type,
                "protocol_name": answer.protocol_name,
                "assignment": answer.assignment,
            }
        )

    call.shore.groups.sync(
        request["group_id"],
        (request["member_id"], request["group_instance_id"], request["generation_id"]),
        (request["protocol_type"], request["protocol_name"]),
        [(one["member_id"], one["assignment"]) for one in request["assignments"]],
        reply,
    )


def heartbeat(call: Call) -> None:
    """Note that a member lives, and tell it whether a rebalance is under way."""
    request = call.request
    member = (request["member_id"], request["group_instance_id"], request["generation_id"])
    call.answer({"error_code": call.shore.groups.heartbeat(request["group_id"], member)})


def leave_group(call: Call) -> None:
    """Let members go."""
    request = call.request
    leaving = [(request["member_id"], None)]
    if call.version >= LEAVE_MANY:
        leaving = [(one["member_id"], one["group_instance_id"]) for one in request["members"]]

    def left(codes: list[ErrorCode] | ErrorCode) -> None:
        if isinstance(codes, ErrorCode):
            call.answer({"error_code": codes})
        elif call.version < LEAVE_MANY:
            call.answer({"error_code": codes[0]})
        else:
            rows = [
                {"member_id": name, "group_instance_id": instance, "error_code": code}
                for (name, instance), code in zip(leaving, codes, strict=True)
            ]
            call.answer({"members": rows})

    call.shore.groups.leave(request["group_id"], leaving, left)
