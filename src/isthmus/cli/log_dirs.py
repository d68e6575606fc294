"""How many bytes partitions take on disk: DescribeLogDirs, which librdkafka does not offer.

Two requests: ApiVersions, to learn whether the other side knows the request, then
DescribeLogDirs. Works with Apache Kafka too; there each broker is asked, and the largest
replica of a partition counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.cli.kafka_socket import KafkaSocket
from isthmus.errors import Malformed
from isthmus.kafka.api import ApiKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.cli.kafka_login import KafkaServer

VERSION_MAX: Final = 4  # what later versions add is of no interest here


def sizes_of(
    server: KafkaServer, brokers: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Return the bytes of each partition, by log topic and index.

    Empty where a broker does not answer that: sizes are an extra to whoever asks for them.
    """
    found: dict[tuple[str, int], int] = {}
    try:
        for host, port in brokers:
            with KafkaSocket(server, host, port) as connection:
                for key, size in _ask_sizes(connection):
                    found[key] = max(size, found.get(key, 0))
    except (OSError, Malformed):
        return {}
    return found


def _ask_sizes(connection: KafkaSocket) -> list[tuple[tuple[str, int], int]]:
    offered = connection.ask(ApiKey.API_VERSIONS, 0, {})["api_keys"]
    ranges = {row["api_key"]: (row["min_version"], row["max_version"]) for row in offered}
    low, high = ranges.get(ApiKey.DESCRIBE_LOG_DIRS, (VERSION_MAX + 1, 0))
    version = min(high, VERSION_MAX)
    if version < max(low, 1):
        return []
    answer = connection.ask(ApiKey.DESCRIBE_LOG_DIRS, version, {"topics": None})
    return [
        ((topic["name"], row["partition_index"]), row["partition_size"])
        for result in answer["results"]
        for topic in result["topics"]
        for row in topic["partitions"]
        if not row["is_future_key"]
    ]
