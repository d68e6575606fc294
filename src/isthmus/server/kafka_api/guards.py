"""Which rights each request needs, and how it is answered without them, as Apache Kafka does.

Every request that has a handler has a guard here; `FREE` is for those that anybody may send.
How guards work is in `rights.py`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.access_rules import (
    ALTER,
    ALTER_CONFIGS,
    CLUSTER,
    CLUSTER_ACTION,
    CLUSTER_NAME,
    CONSUMER_GROUP,
    DELETE,
    DESCRIBE,
    DESCRIBE_CONFIGS,
    IDEMPOTENT_WRITE,
    LOG,
    READ,
    TRANSACTION,
    WRITE,
)
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api import guards_of_shares
from isthmus.server.kafka_api.guards_of_topics import (
    create_topics,
    delete_topics,
    describe_topic_partitions,
    metadata,
    offset_for_leader_epoch,
)
from isthmus.server.kafka_api.rights import DENIED, Asking, numbered_rows, partition_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.server.kafka_api.call import Call
    from isthmus.server.kafka_api.rights import Row

NO_GROUP: Final = DENIED[CONSUMER_GROUP]
NO_TRANSACTION: Final = DENIED[TRANSACTION]
NO_CLUSTER: Final = DENIED[CLUSTER]
NO_TOPIC: Final = DENIED[LOG]
FAILED: Final = "Authorization failed."
GROUP_TOPICS_FIRST_VERSION: Final = 8  # OffsetFetch of many groups
BY_BROKERS_FIRST_VERSION: Final = 4  # AddPartitionsToTxn
KEYS_FIRST_VERSION: Final = 4  # FindCoordinator
UNQUOTED: Final = {"error_code": NO_CLUSTER, "error_message": FAILED, "entries": None}
NOWHERE: Final = {"node_id": -1, "host": "", "port": -1, "error_message": FAILED}
COORDINATORS: Final = {  # by the type of key: what is asked, and of what
    0: (DESCRIBE, CONSUMER_GROUP),
    1: (DESCRIBE, TRANSACTION),
}
CONFIGURED: Final = {2: LOG, 32: CONSUMER_GROUP}  # by the type of resource; else the cluster


def may_begin(call: Call) -> bool:
    """Look at a request before its handler does; False: it is answered already.

    Who has not logged in gets here with nothing but what anybody may send.
    """
    connection, access = call.connection, call.shore.security.access
    principal = connection.principal
    if access.is_open_for_kafka or principal is None:
        return True
    known = connection.rights
    if known is None or known[:2] != (access.generation, principal):
        known = access.generation, principal, access.rights_of(principal)
        connection.rights = known
    call.rights = known[2]
    return GUARDS[call.api_key](Asking(call, call.rights))


def free(_: Asking) -> bool:
    """Anybody may send this."""
    return True


def cluster(
    asking: Asking,
    operation: str,
    denied: Callable[[dict[str, Any]], dict[str, Any]] = lambda _: {"error_code": NO_CLUSTER},
) -> bool:
    """Ask for a right on the cluster; `denied(request)` is the answer without it."""
    if asking.on_cluster(operation):
        return True
    asking.call.answer(denied(asking.call.request))
    return False


def group(asking: Asking, operation: str = READ, **more: Any) -> bool:
    """Ask for a right on the group that the request is about."""
    if asking.may(operation, CONSUMER_GROUP, asking.call.request["group_id"]):
        return True
    return asking.refuse(NO_GROUP, **more)


def rows_of_names(
    asking: Asking, asked: str, answered: str, key: str, operation: str, kind: str, **more: Any
) -> bool:
    """Answer with an error for each name in a list with which an operation is not allowed."""
    request = asking.call.request
    kept, denied = asking.part(request[asked], lambda name: asking.may(operation, kind, name))
    request[asked] = kept
    rows = [{key: name, "error_code": DENIED[kind], **more} for name in denied]
    asking.add_rows(answered, rows)
    return True


# --- groups -----------------------------------------------------------------------------------


def join_group(asking: Asking) -> bool:
    """Reading from a group is being its member."""
    name = None if asking.call.version >= 7 else ""
    return group(asking, READ, protocol_name=name)


def describe_groups(asking: Asking) -> bool:
    """Groups, and what one may do with each."""
    if asking.call.request["include_authorized_operations"]:
        _authorize(asking, "groups", CONSUMER_GROUP, "group_id", "authorized_operations")
    return rows_of_names(asking, "groups", "groups", "group_id", DESCRIBE, CONSUMER_GROUP)


def consumer_group_describe(asking: Asking) -> bool:
    """The same, and nothing of log topics that one may not know of."""
    request = asking.call.request
    if request["include_authorized_operations"]:
        _authorize(asking, "groups", CONSUMER_GROUP, "group_id", "authorized_operations")

    def hide(body: dict[str, Any]) -> None:
        for row in body.get("groups", ()):
            names = {
                part["topic_name"]
                for member in row.get("members", ())
                for which in ("assignment", "target_assignment")
                if which in member
                for part in member[which]["topic_partitions"]
            }
            if not all(asking.may(DESCRIBE, LOG, name) for name in names):
                row["error_code"] = NO_TOPIC
                row["error_message"] = "The group has topics that may not be described."
                row["members"] = []

    asking.call.amend(hide)
    return rows_of_names(asking, "group_ids", "groups", "group_id", DESCRIBE, CONSUMER_GROUP)


def list_groups(asking: Asking) -> bool:
    """All groups with a right on the cluster, else those that one may describe."""
    if not asking.on_cluster(DESCRIBE):
        asking.keep_rows(
            "groups", lambda row: asking.may(DESCRIBE, CONSUMER_GROUP, row["group_id"])
        )
    return True


def consumer_group_heartbeat(asking: Asking) -> bool:
    """A member names only what it may know of."""
    names = asking.call.request["subscribed_topic_names"] or ()
    if group(asking) and not all(asking.may(DESCRIBE, LOG, name) for name in names):
        return asking.refuse(NO_TOPIC)
    return asking.call.response is None


def offset_commit(asking: Asking) -> bool:
    """Of a group that one reads from, for log topics that one reads."""
    if not asking.may(READ, CONSUMER_GROUP, asking.call.request["group_id"]):
        return asking.all_topics(NO_GROUP, partition_rows)
    return asking.topics(READ, "topics", partition_rows)


def offset_fetch(asking: Asking) -> bool:
    """Of groups that one may describe, and log topics likewise."""
    call = asking.call
    request = call.request
    if call.version < GROUP_TOPICS_FIRST_VERSION:
        if not asking.may(DESCRIBE, CONSUMER_GROUP, request["group_id"]):
            topics = [unfetched(one, NO_GROUP) for one in request["topics"] or ()]
            return asking.refuse(NO_GROUP, topics=topics if call.version < 2 else [])
        if request["topics"] is None:
            asking.keep_rows("topics", partial(asking.may_topic, DESCRIBE))
            return True
        return asking.topics(DESCRIBE, "topics", unfetched)
    groups, denied = asking.part(
        request["groups"], lambda one: asking.may(DESCRIBE, CONSUMER_GROUP, one["group_id"])
    )
    request["groups"] = groups
    missing: dict[str, list[Row]] = {}
    for one in groups:
        if one["topics"] is not None:
            one["topics"], hidden = asking.part(
                one["topics"], partial(asking.may_topic, DESCRIBE)
            )
            missing[one["group_id"]] = [unfetched(topic, NO_TOPIC) for topic in hidden]

    def complete(body: dict[str, Any]) -> None:
        for row in body.get("groups", ()):
            seen = [one for one in row.get("topics", ()) if asking.may_topic(DESCRIBE, one)]
            row["topics"] = [*seen, *missing.get(row["group_id"], ())]

    call.amend(complete)
    rows = [{"group_id": one["group_id"], "error_code": NO_GROUP} for one in denied]
    asking.add_rows("groups", rows)
    return True


def unfetched(topic: Row, code: ErrorCode) -> Row:
    """Return the rows of offsets that are not told."""
    row = numbered_rows(topic, code)
    for partition in row["partitions"]:
        partition.update(committed_offset=-1, metadata="")
    return row


def offset_delete(asking: Asking) -> bool:
    """Of a group that one may delete, for log topics that one reads."""
    return group(asking, DELETE) and asking.topics(READ, "topics", partition_rows)


def find_coordinator(asking: Asking) -> bool:
    """Of groups and transactions that one may describe."""
    call = asking.call
    request = call.request
    asked = COORDINATORS.get(request["key_type"])

    def may(key: str) -> bool:
        if asked is None:
            return asking.on_cluster(CLUSTER_ACTION)
        return asking.may(*asked, key)

    code = DENIED[asked[1]] if asked is not None else NO_CLUSTER
    if call.version < KEYS_FIRST_VERSION:
        return may(request["key"]) or asking.refuse(code, **NOWHERE)
    request["coordinator_keys"], denied = asking.part(request["coordinator_keys"], may)
    rows = [{"key": key, "error_code": code, **NOWHERE} for key in denied]
    asking.add_rows("coordinators", rows)
    return True


# --- transactions -----------------------------------------------------------------------------


def init_producer_id(asking: Asking) -> bool:
    """A transaction that one writes, or anything that one writes [KIP-679]."""
    transaction = asking.call.request["transactional_id"]
    if transaction is not None:
        allowed = asking.may(WRITE, TRANSACTION, transaction)
        return allowed or asking.refuse(NO_TRANSACTION, producer_epoch=-1)
    allowed = asking.on_cluster(IDEMPOTENT_WRITE) or asking.rights.allows_some(WRITE)
    return allowed or asking.refuse(NO_CLUSTER, producer_epoch=-1)


def add_partitions_to_txn(asking: Asking) -> bool:
    """All log topics, or none of them; brokers ask for many transactions."""
    call = asking.call
    if call.version >= BY_BROKERS_FIRST_VERSION:
        return cluster(asking, CLUSTER_ACTION)
    request = call.request
    topics = request["v3_and_below_topics"]
    denied = {each["name"] for each in topics if not asking.may(WRITE, LOG, each["name"])}
    whole: ErrorCode | None = None
    if not asking.may(WRITE, TRANSACTION, request["v3_and_below_transactional_id"]):
        whole = NO_TRANSACTION
    if whole is None and not denied:
        return True
    rows = []
    for each in topics:
        own = NO_TOPIC if each["name"] in denied else ErrorCode.OPERATION_NOT_ATTEMPTED
        partitions = [
            {"partition_index": index, "partition_error_code": whole or own}
            for index in each["partitions"]
        ]
        rows.append({"name": each["name"], "results_by_partition": partitions})
    call.answer({"results_by_topic_v3_and_below": rows})
    return False


def transaction(asking: Asking) -> bool:
    """A transaction that one writes, and a group that one reads from, if it names one."""
    request = asking.call.request
    if not asking.may(WRITE, TRANSACTION, request["transactional_id"]):
        return asking.refuse(NO_TRANSACTION)
    return "group_id" not in request or group(asking)


def txn_offset_commit(asking: Asking) -> bool:
    """The same, and log topics that one reads."""
    request = asking.call.request
    if not asking.may(WRITE, TRANSACTION, request["transactional_id"]):
        return asking.all_topics(NO_TRANSACTION, partition_rows)
    return offset_commit(asking)


def write_txn_markers(asking: Asking) -> bool:
    """For brokers, and for whoever looks after a cluster."""
    if asking.on_cluster(ALTER) or asking.on_cluster(CLUSTER_ACTION):
        return True
    asking.call.answer(
        {
            "markers": [
                {
                    "producer_id": marker["producer_id"],
                    "topics": [numbered_rows(one, NO_CLUSTER) for one in marker["topics"]],
                }
                for marker in asking.call.request["markers"]
            ]
        }
    )
    return False


def describe_transactions(asking: Asking) -> bool:
    """Those that one may describe, without log topics that one may not know of."""

    def hide(body: dict[str, Any]) -> None:
        for row in body.get("transaction_states", ()):
            row["topics"] = [
                one for one in row.get("topics", ()) if asking.may(DESCRIBE, LOG, one["topic"])
            ]

    asking.call.amend(hide)
    names, answered = "transactional_ids", "transaction_states"
    return rows_of_names(asking, names, answered, "transactional_id", DESCRIBE, TRANSACTION)


def list_transactions(asking: Asking) -> bool:
    """Those that one may describe."""
    asking.keep_rows(
        "transaction_states",
        lambda row: asking.may(DESCRIBE, TRANSACTION, row["transactional_id"]),
    )
    return True


# --- administration ---------------------------------------------------------------------------


def configs(asking: Asking, operation: str, answered: str) -> bool:
    """Settings of log topics and groups by rights on these, all others by the cluster's."""
    request = asking.call.request

    def may(resource: Row) -> bool:
        kind = CONFIGURED.get(resource["resource_type"], CLUSTER)
        name = CLUSTER_NAME if kind == CLUSTER else resource["resource_name"]
        return asking.may(operation, kind, name)

    request["resources"], denied = asking.part(request["resources"], may)
    rows = [
        {
            "error_code": DENIED[CONFIGURED.get(one["resource_type"], CLUSTER)],
            "error_message": FAILED,
            "resource_type": one["resource_type"],
            "resource_name": one["resource_name"],
        }
        for one in denied
    ]
    asking.add_rows(answered, rows)
    return True


def create_partitions(asking: Asking) -> bool:
    """Of log topics that one may alter."""
    return asking.topics(
        ALTER,
        "results",
        lambda one, code: {"name": one["name"], "error_code": code, "error_message": FAILED},
    )


def describe_cluster(asking: Asking) -> bool:
    """Anybody may see the cluster; what one may do with it needs a right of its own."""
    field = "cluster_authorized_operations"
    if asking.call.request["include_cluster_authorized_operations"]:
        allowed = asking.authorized(CLUSTER, CLUSTER_NAME) if asking.on_cluster(DESCRIBE) else 0
        asking.call.amend(lambda body: body.update({field: allowed}))
    return True


def unmoved(request: dict[str, Any]) -> dict[str, Any]:
    """Return the refusal of AlterReplicaLogDirs."""
    rows = [
        {
            "topic_name": topic["name"],
            "partitions": [
                {"partition_index": index, "error_code": NO_CLUSTER}
                for index in topic["partitions"]
            ],
        }
        for path in request["dirs"]
        for topic in path["topics"]
    ]
    return {"results": rows}


def elect_leaders(asking: Asking) -> bool:
    """For whoever looks after the cluster."""
    if asking.on_cluster(ALTER):
        return True
    rows = [
        {
            "topic": topic["topic"],
            "partition_result": [
                {"partition_id": index, "error_code": NO_CLUSTER, "error_message": FAILED}
                for index in topic["partitions"]
            ],
        }
        for topic in asking.call.request["topic_partitions"] or ()
    ]
    answer: dict[str, Any] = {"replica_election_results": rows}
    if asking.call.version:
        answer["error_code"] = NO_CLUSTER
    asking.call.answer(answer)
    return False


def unassigned(request: dict[str, Any]) -> dict[str, Any]:
    """Return the refusal of AlterPartitionReassignments."""
    refused = {"error_code": NO_CLUSTER, "error_message": FAILED}
    rows = [
        {
            "name": topic["name"],
            "partitions": [
                {"partition_index": one["partition_index"], **refused}
                for one in topic["partitions"]
            ],
        }
        for topic in request["topics"]
    ]
    return {**refused, "responses": rows}


def unaltered(request: dict[str, Any]) -> dict[str, Any]:
    """Return the refusal of AlterUserScramCredentials."""
    named = [*request["deletions"], *request["upsertions"]]
    rows = [
        {"user": name, "error_code": NO_CLUSTER, "error_message": FAILED}
        for name in dict.fromkeys(one["name"] for one in named)
    ]
    return {"results": rows}


def unquoted(request: dict[str, Any]) -> dict[str, Any]:
    """Return the refusal of AlterClientQuotas."""
    refused = {"error_code": NO_CLUSTER, "error_message": FAILED}
    return {"entries": [{"entity": one["entity"], **refused} for one in request["entries"]]}


def uncreated(request: dict[str, Any]) -> dict[str, Any]:
    """Return the refusal of CreateAcls."""
    row = {"error_code": NO_CLUSTER, "error_message": FAILED}
    return {"results": [row for _ in request["creations"]]}


def undeleted(request: dict[str, Any]) -> dict[str, Any]:
    """Return the refusal of DeleteAcls."""
    row = {"error_code": NO_CLUSTER, "error_message": FAILED}
    return {"filter_results": [row for _ in request["filters"]]}


def _authorize(asking: Asking, rows: str, kind: str, key: str, field: str) -> None:
    """Say in each row of an answer that says it what one may do with what it is about."""

    def amend(body: dict[str, Any]) -> None:
        for row in body.get(rows, ()):
            if field in row:
                row[field] = asking.authorized(kind, row[key])

    asking.call.amend(amend)


unwatermarked = partial(partition_rows, low_watermark=-1)
FREE: Final = frozenset(
    {
        ApiKey.PRODUCE,  # both look themselves
        ApiKey.FETCH,
        ApiKey.SASL_HANDSHAKE,
        ApiKey.API_VERSIONS,
        ApiKey.SASL_AUTHENTICATE,
        ApiKey.CREATE_DELEGATION_TOKEN,  # these look themselves, too
        ApiKey.RENEW_DELEGATION_TOKEN,
        ApiKey.EXPIRE_DELEGATION_TOKEN,
        ApiKey.DESCRIBE_DELEGATION_TOKEN,
    }
)
GUARDS: Final[Mapping[int, Callable[[Asking], bool]]] = {
    **dict.fromkeys(FREE, free),
    ApiKey.LIST_OFFSETS: lambda asking: asking.topics(DESCRIBE, "topics", partition_rows),
    ApiKey.METADATA: metadata,
    ApiKey.OFFSET_COMMIT: offset_commit,
    ApiKey.OFFSET_FETCH: offset_fetch,
    ApiKey.FIND_COORDINATOR: find_coordinator,
    ApiKey.JOIN_GROUP: join_group,
    ApiKey.HEARTBEAT: group,
    ApiKey.LEAVE_GROUP: group,
    ApiKey.SYNC_GROUP: group,
    ApiKey.DESCRIBE_GROUPS: describe_groups,
    ApiKey.LIST_GROUPS: list_groups,
    ApiKey.CREATE_TOPICS: create_topics,
    ApiKey.DELETE_TOPICS: delete_topics,
    ApiKey.DELETE_RECORDS: lambda asking: asking.topics(DELETE, "topics", unwatermarked),
    ApiKey.INIT_PRODUCER_ID: init_producer_id,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: offset_for_leader_epoch,
    ApiKey.ADD_PARTITIONS_TO_TXN: add_partitions_to_txn,
    ApiKey.ADD_OFFSETS_TO_TXN: transaction,
    ApiKey.END_TXN: transaction,
    ApiKey.WRITE_TXN_MARKERS: write_txn_markers,
    ApiKey.TXN_OFFSET_COMMIT: txn_offset_commit,
    ApiKey.DESCRIBE_ACLS: partial(cluster, operation=DESCRIBE),
    ApiKey.CREATE_ACLS: partial(cluster, operation=ALTER, denied=uncreated),
    ApiKey.DELETE_ACLS: partial(cluster, operation=ALTER, denied=undeleted),
    ApiKey.DESCRIBE_CONFIGS: partial(configs, operation=DESCRIBE_CONFIGS, answered="results"),
    ApiKey.ALTER_CONFIGS: partial(configs, operation=ALTER_CONFIGS, answered="responses"),
    ApiKey.ALTER_REPLICA_LOG_DIRS: partial(cluster, operation=ALTER, denied=unmoved),
    ApiKey.DESCRIBE_LOG_DIRS: partial(cluster, operation=DESCRIBE),
    ApiKey.CREATE_PARTITIONS: create_partitions,
    ApiKey.DELETE_GROUPS: lambda asking: rows_of_names(
        asking, "groups_names", "results", "group_id", DELETE, CONSUMER_GROUP
    ),
    ApiKey.ELECT_LEADERS: elect_leaders,
    ApiKey.INCREMENTAL_ALTER_CONFIGS: partial(
        configs, operation=ALTER_CONFIGS, answered="responses"
    ),
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: partial(cluster, operation=ALTER, denied=unassigned),
    ApiKey.LIST_PARTITION_REASSIGNMENTS: partial(cluster, operation=DESCRIBE),
    ApiKey.OFFSET_DELETE: offset_delete,
    ApiKey.DESCRIBE_CLIENT_QUOTAS: partial(
        cluster, operation=DESCRIBE_CONFIGS, denied=lambda _: dict(UNQUOTED)
    ),
    ApiKey.ALTER_CLIENT_QUOTAS: partial(cluster, operation=ALTER_CONFIGS, denied=unquoted),
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: partial(cluster, operation=DESCRIBE),
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: partial(cluster, operation=ALTER, denied=unaltered),
    ApiKey.UPDATE_FEATURES: partial(cluster, operation=ALTER),
    ApiKey.DESCRIBE_CLUSTER: describe_cluster,
    ApiKey.DESCRIBE_PRODUCERS: lambda asking: asking.topics(READ, "topics", numbered_rows),
    ApiKey.DESCRIBE_TRANSACTIONS: describe_transactions,
    ApiKey.LIST_TRANSACTIONS: list_transactions,
    ApiKey.CONSUMER_GROUP_HEARTBEAT: consumer_group_heartbeat,
    ApiKey.CONSUMER_GROUP_DESCRIBE: consumer_group_describe,
    ApiKey.SHARE_GROUP_HEARTBEAT: consumer_group_heartbeat,
    ApiKey.SHARE_GROUP_DESCRIBE: consumer_group_describe,
    ApiKey.SHARE_FETCH: guards_of_shares.of_group,
    ApiKey.SHARE_ACKNOWLEDGE: guards_of_shares.of_group,
    ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS: guards_of_shares.describe_offsets,
    ApiKey.ALTER_SHARE_GROUP_OFFSETS: guards_of_shares.alter_offsets,
    ApiKey.DELETE_SHARE_GROUP_OFFSETS: guards_of_shares.delete_offsets,
    ApiKey.LIST_CONFIG_RESOURCES: partial(cluster, operation=DESCRIBE_CONFIGS),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: describe_topic_partitions,
}
