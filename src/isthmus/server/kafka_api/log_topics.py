"""What the requests about log topics share: which may be made, and how.

Kafka's rules about names, replication and collisions, and ours about the log topics that the
server keeps its own state in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.delegation import TOKENS_LOG_TOPIC
from isthmus.broker.kept_rules import ACCESS_LOG_TOPIC
from isthmus.broker.users import USERS_LOG_TOPIC
from isthmus.errors import TopicInvalid, TopicUnknown
from isthmus.kafka.errors import ErrorCode, RefusedWithCode, code_of
from isthmus.storage.names import check_log_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isthmus.errors import IsthmusError
    from isthmus.server.kafka_shore import KafkaShore
    from isthmus.storage.log import LogTopic, Partition

INTERNAL: Final = frozenset(
    {
        *("__consumer_offsets", "__transaction_state", "__share_group_state"),
        *("__cluster_metadata", USERS_LOG_TOPIC, ACCESS_LOG_TOPIC, TOKENS_LOG_TOPIC),
    }
)
INTERNAL_PREFIXES: Final = ("__mqtt_", "__isthmus_")

PARTITIONS_MAX: Final = 10_000  # of one log topic

# Kafka's numbers of operations, as bits of `authorized_operations` [KIP-430].
READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE = 3, 4, 5, 6, 7, 8
CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE = 9, 10, 11, 12


class RequestRefused(RefusedWithCode):
    """One item of a request is refused with a code of Kafka's and a sentence."""


def refusal_of(error: IsthmusError) -> ErrorCode:
    """Return the code that a client gets for `error`."""
    return error.code if isinstance(error, RequestRefused) else code_of(error)


def is_internal(name: str) -> bool:
    """Whether the server keeps its own state in this log topic."""
    return name in INTERNAL or name.startswith(INTERNAL_PREFIXES)


def bits(operations: Iterable[int]) -> int:
    """Return operations as Kafka's bit field."""
    return sum(1 << operation for operation in operations)


TOPIC_OPERATIONS: Final = bits(
    (READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS)
)
CLUSTER_OPERATIONS: Final = bits(
    (
        CREATE,
        ALTER,
        DESCRIBE,
        CLUSTER_ACTION,
        DESCRIBE_CONFIGS,
        ALTER_CONFIGS,
        IDEMPOTENT_WRITE,
    )
)
GROUP_OPERATIONS: Final = bits((READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS))


def existing(shore: KafkaShore, name: str) -> LogTopic:
    """Return a log topic. Raises TopicUnknown."""
    log_topic = shore.log.topics.get(name)
    if log_topic is None:
        raise TopicUnknown(f"no log topic {name}")
    return log_topic


def check_not_internal(name: str) -> None:
    """Raise TopicInvalid for a log topic that clients may not make, change or delete."""
    if is_internal(name):
        raise TopicInvalid(f"{name} is kept by the server itself")


def changeable(shore: KafkaShore, name: str) -> LogTopic:
    """Return a log topic that clients may change. Raises TopicUnknown, TopicInvalid."""
    log_topic = existing(shore, name)
    check_not_internal(name)
    return log_topic


def partition_row(shore: KafkaShore, partition: Partition) -> dict[str, Any]:
    """Return a partition as Metadata and DescribeTopicPartitions tell it: all of it is here."""
    nodes = [shore.node_id]
    return {
        "partition_index": partition.index,
        "leader_id": shore.node_id,
        "leader_epoch": partition.leader_epoch,
        "replica_nodes": nodes,
        "isr_nodes": nodes,
    }


def check_new_name(shore: KafkaShore, name: str) -> None:
    """Raise TopicInvalid where a client may not make a log topic of this name."""
    check_log_topic(name)
    check_not_internal(name)
    # Kafka's metrics write '.' as '_', so it lets only one of two such names live.
    flat = name.replace(".", "_")
    if "_" in flat and name not in shore.log.topics:
        for other in shore.log.topics:
            if other.replace(".", "_") == flat:
                raise TopicInvalid(
                    f"{name} collides with {other}: '.' and '_' count as the same"
                )


def create(
    shore: KafkaShore, name: str, partitions: int, configs: Mapping[str, str]
) -> LogTopic:
    """Make a log topic that a client asked for. Raises what `Log.create` raises."""
    check_new_name(shore, name)
    log_topic = shore.log.create(name, partitions, configs)
    shore.broker.forget_log_topic()
    return log_topic


def accepts_replicas(shore: KafkaShore) -> bool:
    """Whether more than one replica may be asked for; it is one copy all the same."""
    return shore.settings.replication_factor_policy == "clamp"


def check_assignments(shore: KafkaShore, assignments: list[dict[str, Any]]) -> None:
    """Raise RequestRefused where a partition shall be on brokers that are not there."""
    for one in assignments:
        brokers = one["broker_ids"]
        if brokers != [shore.node_id] and not (
            accepts_replicas(shore) and shore.node_id in brokers
        ):
            raise RequestRefused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"brokers {brokers}, and there is only {shore.node_id}",
            )
