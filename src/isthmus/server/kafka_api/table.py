"""Which requests are served: this table decides, and ApiVersions tells.

What is advertised is exactly what has a handler, in the ranges of Apache Kafka 4.3; and of the
features that change what clients do, those that are here whole.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.features import SUPPORTED
from isthmus.kafka.api import ApiKey, advertised
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.acls import create_acls, delete_acls, describe_acls
from isthmus.server.kafka_api.alter_configs import alter_configs, incremental_alter_configs
from isthmus.server.kafka_api.cluster import describe_cluster, list_config_resources
from isthmus.server.kafka_api.configs import describe_configs
from isthmus.server.kafka_api.consumer_groups import (
    consumer_group_describe,
    consumer_group_heartbeat,
)
from isthmus.server.kafka_api.delegation_tokens import (
    create_delegation_token,
    describe_delegation_token,
    expire_delegation_token,
    renew_delegation_token,
)
from isthmus.server.kafka_api.delete_records import delete_records
from isthmus.server.kafka_api.features import update_features
from isthmus.server.kafka_api.fetch import fetch
from isthmus.server.kafka_api.group_admin import delete_groups, describe_groups, list_groups
from isthmus.server.kafka_api.group_offsets import (
    offset_commit,
    offset_delete,
    offset_fetch,
)
from isthmus.server.kafka_api.groups import heartbeat, join_group, leave_group, sync_group
from isthmus.server.kafka_api.list_offsets import list_offsets, offset_for_leader_epoch
from isthmus.server.kafka_api.log_dirs import describe_log_dirs
from isthmus.server.kafka_api.metadata import find_coordinator, metadata
from isthmus.server.kafka_api.partitions import create_partitions, describe_topic_partitions
from isthmus.server.kafka_api.produce import produce
from isthmus.server.kafka_api.quotas import alter_client_quotas, describe_client_quotas
from isthmus.server.kafka_api.replicas import (
    alter_partition_reassignments,
    alter_replica_log_dirs,
    elect_leaders,
    list_partition_reassignments,
)
from isthmus.server.kafka_api.sasl import sasl_authenticate, sasl_handshake
from isthmus.server.kafka_api.scram_users import (
    alter_user_scram_credentials,
    describe_user_scram_credentials,
)
from isthmus.server.kafka_api.share_fetch import share_acknowledge, share_fetch
from isthmus.server.kafka_api.share_groups import share_group_describe, share_group_heartbeat
from isthmus.server.kafka_api.share_offsets import (
    alter_share_group_offsets,
    delete_share_group_offsets,
    describe_share_group_offsets,
)
from isthmus.server.kafka_api.topics import create_topics, delete_topics
from isthmus.server.kafka_api.transaction_admin import (
    describe_producers,
    describe_transactions,
    list_transactions,
    write_txn_markers,
)
from isthmus.server.kafka_api.transactions import (
    add_offsets_to_txn,
    add_partitions_to_txn,
    end_txn,
    init_producer_id,
    txn_offset_commit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.server.kafka_api.call import Call

# What a client may call itself [KIP-511].
SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
NAMED_FIRST_VERSION: Final = 3
FEATURES_FROM_ZERO: Final = 4  # before, a feature's range cannot begin there (KAFKA-17492)


def api_versions(call: Call) -> None:
    """Answer with the table of what is served [KIP-35, KIP-511]."""
    request = call.request
    if call.version >= NAMED_FIRST_VERSION:
        names = (request["client_software_name"], request["client_software_version"])
        if not all(SOFTWARE.fullmatch(name) for name in names):
            call.answer({"error_code": ErrorCode.INVALID_REQUEST})
            return
    features = call.shore.features
    supported = [
        {"name": name, "min_version": levels.least, "max_version": levels.most}
        for name, levels in SUPPORTED.items()
        if levels.least or call.version >= FEATURES_FROM_ZERO
    ]
    finalized = [
        {"name": name, "max_version_level": level, "min_version_level": level}
        for name, level in features.finalized.items()
    ]
    call.answer(
        {
            "api_keys": advertised(HANDLERS),
            "supported_features": supported,
            "finalized_features": finalized,
            "finalized_features_epoch": features.epoch,
        }
    )


def unsupported_answer() -> dict[str, Any]:
    """Return the answer to an ApiVersions request of a version that is not spoken here.

    It still says which versions of ApiVersions are, so that the client can ask again.
    """
    return {
        "error_code": ErrorCode.UNSUPPORTED_VERSION,
        "api_keys": advertised([ApiKey.API_VERSIONS]),
    }


HANDLERS: Final[Mapping[int, Callable[[Call], None]]] = {
    ApiKey.PRODUCE: produce,
    ApiKey.FETCH: fetch,
    ApiKey.LIST_OFFSETS: list_offsets,
    ApiKey.METADATA: metadata,
    ApiKey.OFFSET_COMMIT: offset_commit,
    ApiKey.OFFSET_FETCH: offset_fetch,
    ApiKey.FIND_COORDINATOR: find_coordinator,
    ApiKey.JOIN_GROUP: join_group,
    ApiKey.HEARTBEAT: heartbeat,
    ApiKey.LEAVE_GROUP: leave_group,
    ApiKey.SYNC_GROUP: sync_group,
    ApiKey.DESCRIBE_GROUPS: describe_groups,
    ApiKey.LIST_GROUPS: list_groups,
    ApiKey.SASL_HANDSHAKE: sasl_handshake,
    ApiKey.API_VERSIONS: api_versions,
    ApiKey.CREATE_TOPICS: create_topics,
    ApiKey.DELETE_TOPICS: delete_topics,
    ApiKey.DELETE_RECORDS: delete_records,
    ApiKey.INIT_PRODUCER_ID: init_producer_id,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: offset_for_leader_epoch,
    ApiKey.ADD_PARTITIONS_TO_TXN: add_partitions_to_txn,
    ApiKey.ADD_OFFSETS_TO_TXN: add_offsets_to_txn,
    ApiKey.END_TXN: end_txn,
    ApiKey.WRITE_TXN_MARKERS: write_txn_markers,
    ApiKey.TXN_OFFSET_COMMIT: txn_offset_commit,
    ApiKey.DESCRIBE_ACLS: describe_acls,
    ApiKey.CREATE_ACLS: create_acls,
    ApiKey.DELETE_ACLS: delete_acls,
    ApiKey.DESCRIBE_CONFIGS: describe_configs,
    ApiKey.ALTER_CONFIGS: alter_configs,
    ApiKey.ALTER_REPLICA_LOG_DIRS: alter_replica_log_dirs,
    ApiKey.DESCRIBE_LOG_DIRS: describe_log_dirs,
    ApiKey.CREATE_PARTITIONS: create_partitions,
    ApiKey.SASL_AUTHENTICATE: sasl_authenticate,
    ApiKey.CREATE_DELEGATION_TOKEN: create_delegation_token,
    ApiKey.RENEW_DELEGATION_TOKEN: renew_delegation_token,
    ApiKey.EXPIRE_DELEGATION_TOKEN: expire_delegation_token,
    ApiKey.DESCRIBE_DELEGATION_TOKEN: describe_delegation_token,
    ApiKey.DELETE_GROUPS: delete_groups,
    ApiKey.ELECT_LEADERS: elect_leaders,
    ApiKey.INCREMENTAL_ALTER_CONFIGS: incremental_alter_configs,
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: alter_partition_reassignments,
    ApiKey.LIST_PARTITION_REASSIGNMENTS: list_partition_reassignments,
    ApiKey.OFFSET_DELETE: offset_delete,
    ApiKey.DESCRIBE_CLIENT_QUOTAS: describe_client_quotas,
    ApiKey.ALTER_CLIENT_QUOTAS: alter_client_quotas,
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: describe_user_scram_credentials,
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: alter_user_scram_credentials,
    ApiKey.CONSUMER_GROUP_HEARTBEAT: consumer_group_heartbeat,
    ApiKey.CONSUMER_GROUP_DESCRIBE: consumer_group_describe,
    ApiKey.UPDATE_FEATURES: update_features,
    ApiKey.SHARE_GROUP_HEARTBEAT: share_group_heartbeat,
    ApiKey.SHARE_GROUP_DESCRIBE: share_group_describe,
    ApiKey.SHARE_FETCH: share_fetch,
    ApiKey.SHARE_ACKNOWLEDGE: share_acknowledge,
    ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS: describe_share_group_offsets,
    ApiKey.ALTER_SHARE_GROUP_OFFSETS: alter_share_group_offsets,
    ApiKey.DELETE_SHARE_GROUP_OFFSETS: delete_share_group_offsets,
    ApiKey.DESCRIBE_CLUSTER: describe_cluster,
    ApiKey.LIST_CONFIG_RESOURCES: list_config_resources,
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: describe_topic_partitions,
    ApiKey.DESCRIBE_PRODUCERS: describe_producers,
    ApiKey.DESCRIBE_TRANSACTIONS: describe_transactions,
    ApiKey.LIST_TRANSACTIONS: list_transactions,
}
