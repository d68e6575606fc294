"""ListGroups, DescribeGroups, DeleteGroups: what tools ask about consumer groups."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group import Group
from isthmus.kafka.group_states import State
from isthmus.server.kafka_api.log_topics import GROUP_OPERATIONS

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call

TELLS_UNKNOWN: Final = 6  # DescribeGroups: an unknown group is an error [KIP-1043]


def list_groups(call: Call) -> None:
    """Answer with all groups, or those of the states and types asked for."""
    groups = call.shore.groups.listed()
    if isinstance(groups, ErrorCode):
        call.answer({"error_code": groups})
        return
    states = {name.lower() for name in call.request["states_filter"]}
    types = {name.lower() for name in call.request["types_filter"]}
    rows = []
    for group_id, group in groups.items():
        row = {
            "group_id": group_id,
            "protocol_type": group.protocol_type if isinstance(group, Group) else group.kind,
            "group_state": group.state.value,
            "group_type": group.kind,
        }
        is_asked_for = not states or row["group_state"].lower() in states
        if is_asked_for and (not types or row["group_type"] in types):
            rows.append(row)
    call.answer({"groups": rows})


def describe_groups(call: Call) -> None:
    """Answer with state and members of each group asked for."""
    call.answer({"groups": [_described(call, name) for name in call.request["groups"]]})


def _described(call: Call, group_id: str) -> dict[str, Any]:
    row: dict[str, Any] = {"group_id": group_id}
    if call.request["include_authorized_operations"]:
        row["authorized_operations"] = GROUP_OPERATIONS
    group = call.shore.groups.described(group_id)
    if not isinstance(group, Group):
        unknown = ErrorCode.GROUP_ID_NOT_FOUND
        error = group if isinstance(group, ErrorCode) else unknown
        row["group_state"] = State.DEAD.value
        if error is not unknown:
            row["error_code"] = error
        elif call.version >= TELLS_UNKNOWN:
            text = f"there is no classic group {group_id}"
            return {
                "group_id": group_id,
                "group_state": State.DEAD.value,
                "error_code": unknown,
                "error_message": text,
            }
        return row
    row["group_state"] = group.state.value
    row["protocol_type"] = group.protocol_type
    is_stable = group.state is State.STABLE
    row["protocol_data"] = (group.protocol_name or "") if is_stable else ""
    row["members"] = []
    for member in group.members.values():
        one: dict[str, Any] = {
            "member_id": member.member_id,
            "group_instance_id": member.instance_id,
            "client_id": member.client_id,
            "client_host": member.client_host,
            "member_assignment": member.assignment,
        }
        if is_stable:
            one["member_metadata"] = member.metadata_for(group.protocol_name)
        row["members"].append(one)
    return row


def delete_groups(call: Call) -> None:
    """Delete groups without members; answered when all are gone for good."""
    names = [*dict.fromkeys(call.request["groups_names"])]
    codes: dict[str, ErrorCode] = {}

    def gone(group_id: str, code: ErrorCode) -> None:
        codes[group_id] = code
        if len(codes) == len(names):
            rows = [{"group_id": name, "error_code": codes[name]} for name in names]
            call.answer({"results": rows})

    if not names:
        call.answer({})
    for name in names:
        call.shore.groups.delete(name, partial(gone, name))
