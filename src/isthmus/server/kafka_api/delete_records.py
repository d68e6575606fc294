"""DeleteRecords: let partitions begin later [KIP-107].

A partition is answered with its low watermark, where it begins from now on, once that is on
the disk. Each succeeds or fails alone; the answer goes out when the last one is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import IsthmusError, TopicUnknown
from isthmus.server.kafka_api.log_topics import check_not_internal, refusal_of

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call
    from isthmus.storage.log import Partition

NO_WATERMARK: Final = -1


class _Deletion:
    """One request under way."""

    __slots__ = ("_call", "_left", "topics")

    def __init__(self, call: Call) -> None:
        self.topics: list[dict[str, Any]] = []
        self._call = call
        self._left = 1  # one more than partitions that are not known yet, until all are asked

    def delete(self, partition: Partition, offset: int, row: dict[str, Any]) -> None:
        """Delete the records before `offset`; the row gets what comes of it."""

        def done(error: IsthmusError | None) -> None:
            if error is None:
                row["low_watermark"] = partition.start_offset
            else:
                row["error_code"] = refusal_of(error)
            self.answered()

        self._left += 1
        partition.delete_before(offset, done)

    def answered(self) -> None:
        """One partition is known."""
        self._left -= 1
        if not self._left:
            self._call.answer({"topics": self.topics})


def delete_records(call: Call) -> None:
    """Delete what comes before an offset, in each partition asked for."""
    deletion = _Deletion(call)
    for topic in call.request["topics"]:
        rows: list[dict[str, Any]] = []
        deletion.topics.append({"name": topic["name"], "partitions": rows})
        for one in topic["partitions"]:
            row = {"partition_index": one["partition_index"], "low_watermark": NO_WATERMARK}
            rows.append(row)
            try:
                partition = _find(call, topic["name"], one["partition_index"])
            except IsthmusError as error:
                row["error_code"] = refusal_of(error)
            else:
                deletion.delete(partition, one["offset"], row)
    deletion.answered()


def _find(call: Call, name: str, index: int) -> Partition:
    partition = call.shore.log.partition(name, index)
    if partition is None:
        raise TopicUnknown(f"no partition {index} of a log topic {name}")
    check_not_internal(name)
    return partition
