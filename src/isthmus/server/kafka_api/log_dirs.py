"""DescribeLogDirs: the data directory, what each partition takes of it, and what room is left.

There is one directory. Sizes are those of the batches kept, as Kafka counts them: indexes and
the other files beside them are not in it. Unknown partitions are left out of the answer, as in
Kafka (`ReplicaManager.describeLogDirs`). Once the log takes no more records its error shows
here, with the sizes all the same, because whoever asks is looking for what went wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.errors import StorageError
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from isthmus.server.kafka_api.call import Call
    from isthmus.storage.log import Log, Partition


def describe_log_dirs(call: Call) -> None:
    """Answer with the one directory [KIP-113, KIP-827]."""
    log = call.shore.log
    error = ErrorCode.NONE if log.error is None else ErrorCode.KAFKA_STORAGE_ERROR
    total = usable = -1  # Kafka's way to say that it is not known
    try:
        total, usable = log.volume()
    except StorageError:
        error = ErrorCode.KAFKA_STORAGE_ERROR
    result = {
        "error_code": error,
        "log_dir": log.directory,
        "topics": list(_topics(log, call.request["topics"])),
        "total_bytes": total,
        "usable_bytes": usable,
    }
    call.answer({"results": [result]})


def _topics(log: Log, asked: list[dict[str, Any]] | None) -> Iterator[dict[str, Any]]:
    """Yield what is asked for, all where nothing is named."""
    if asked is None:
        for name, log_topic in log.topics.items():
            yield {"name": name, "partitions": _partitions(log_topic.partitions)}
        return
    wanted: dict[str, set[int]] = {}
    for one in asked:
        wanted.setdefault(one["topic"], set()).update(one["partitions"])
    for name, indexes in wanted.items():
        known = (log.partition(name, index) for index in sorted(indexes))
        rows = _partitions(partition for partition in known if partition is not None)
        if rows:
            yield {"name": name, "partitions": rows}


def _partitions(partitions: Iterable[Partition]) -> list[dict[str, Any]]:
    return [
        {"partition_index": partition.index, "partition_size": partition.size_bytes}
        for partition in partitions
    ]
