"""What is asked about leaders and replicas, answered truthfully for one broker with one copy.

ElectLeaders: each partition has its leader. AlterPartitionReassignments: a partition is where
it can be, and nowhere else. AlterReplicaLogDirs: there is one directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import IsthmusError, TopicUnknown
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.log_topics import RequestRefused, refusal_of

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call
    from isthmus.server.kafka_shore import KafkaShore

ELECTIONS: Final = (0, 1)  # of the preferred leader; of any replica, also one that is behind


def elect_leaders(call: Call) -> None:
    """Say that each partition has its leader; of all at once nothing [KIP-183, KIP-460]."""
    request = call.request
    is_none = request["election_type"] not in ELECTIONS
    rows = []
    for one in request["topic_partitions"] or ():
        name = one["topic"]
        found = []
        for index in one["partitions"]:
            code, text = ErrorCode.ELECTION_NOT_NEEDED, f"{name}-{index} has its leader"
            if call.shore.log.partition(name, index) is None:
                code, text = (
                    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                    f"no partition {name}-{index}",
                )
            if is_none:
                code, text = ErrorCode.INVALID_REQUEST, "no such kind of election"
            found.append({"partition_id": index, "error_code": code, "error_message": text})
        rows.append({"topic": name, "partition_result": found})
    code = ErrorCode.INVALID_REQUEST if is_none else ErrorCode.NONE
    call.answer({"error_code": code, "replica_election_results": rows})


def alter_partition_reassignments(call: Call) -> None:
    """Accept that a partition stays where it is, and refuse anything else [KIP-455]."""
    request = call.request
    rows = []
    for topic in request["topics"]:
        found = []
        for one in topic["partitions"]:
            row: dict[str, Any] = {
                "partition_index": one["partition_index"],
                "error_message": None,
            }
            try:
                _check_reassignment(call.shore, topic["name"], **one)
            except IsthmusError as error:
                row["error_code"] = refusal_of(error)
                row["error_message"] = str(error)
            found.append(row)
        rows.append({"name": topic["name"], "partitions": found})
    allows = request["allow_replication_factor_change"]
    call.answer(
        {
            "allow_replication_factor_change": allows,
            "error_message": None,
            "responses": rows,
        }
    )


def _check_reassignment(
    shore: KafkaShore, name: str, partition_index: int, replicas: list[int] | None
) -> None:
    """Raise IsthmusError where a partition would have to move, or a move to be stopped."""
    if shore.log.partition(name, partition_index) is None:
        raise TopicUnknown(f"no partition {name}-{partition_index}")
    if replicas is None:
        raise RequestRefused(
            ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, f"{name}-{partition_index} does not move"
        )
    if replicas != [shore.node_id]:
        raise RequestRefused(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"brokers {replicas}, and there is only {shore.node_id}",
        )


def list_partition_reassignments(call: Call) -> None:
    """Answer that nothing moves [KIP-455]."""
    call.answer({"error_message": None, "topics": []})


def alter_replica_log_dirs(call: Call) -> None:
    """Accept the directory in which everything is, and refuse any other [KIP-113]."""
    log = call.shore.log
    rows: dict[str, dict[str, Any]] = {}
    for directory in call.request["dirs"]:
        for topic in directory["topics"]:
            row = rows.setdefault(
                topic["name"], {"topic_name": topic["name"], "partitions": []}
            )
            for index in topic["partitions"]:
                code = ErrorCode.NONE
                if directory["path"] != log.directory:
                    code = ErrorCode.LOG_DIR_NOT_FOUND
                elif log.partition(topic["name"], index) is None:
                    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                row["partitions"].append({"partition_index": index, "error_code": code})
    call.answer({"results": [*rows.values()]})
