"""The end of a transaction in one partition: a control batch of one record (KIP-98).

    key    version i16 (0), kind i16: 0 abort, 1 commit
    value  version i16 (0), epoch of the transaction coordinator i32

The coordinator of a transaction writes one into every partition that the transaction has
touched. It takes one offset like any record, and clients never show it to anybody. Kafka reads
on where it meets a newer version, and so is done here. Source: `EndTransactionMarker`,
`ControlRecordType`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.errors import CorruptBatch
from isthmus.record.batch import BatchBuilder, RecordReader

if TYPE_CHECKING:
    from isthmus.record.batch import RecordBatch

VERSION: Final = 0
ABORT: Final = 0
COMMIT: Final = 1
_KEY = struct.Struct(">hh")
_VALUE = struct.Struct(">hi")


class EndMarker(NamedTuple):
    """What a marker says."""

    commits: bool
    coordinator_epoch: int


def build_marker(
    producer_id: int, producer_epoch: int, marker: EndMarker, timestamp_ms: int
) -> RecordBatch:
    """Return the control batch that ends a transaction of `producer_id`."""
    builder = BatchBuilder()
    builder.append(
        timestamp_ms,
        _KEY.pack(VERSION, COMMIT if marker.commits else ABORT),
        _VALUE.pack(VERSION, marker.coordinator_epoch),
    )
    return builder.seal(0, producer_id, producer_epoch, transactional=True, control=True)


def read_marker(batch: RecordBatch) -> EndMarker | None:
    """Return what a control batch says; None where compaction has taken its record.

    Raises CorruptBatch for a control batch that does not end a transaction.
    """
    reader = RecordReader(batch)
    record = reader.next()
    if record is None:
        return None
    key, value = record.key or b"", record.value or b""
    if len(key) < _KEY.size or len(value) < _VALUE.size:
        raise CorruptBatch(f"a marker with a key of {len(key)}, a value of {len(value)} bytes")
    version, kind = _KEY.unpack_from(key)
    value_version, coordinator_epoch = _VALUE.unpack_from(value)
    if version < VERSION or value_version < VERSION or kind not in (ABORT, COMMIT):
        raise CorruptBatch(f"a control record of kind {kind} does not end a transaction")
    return EndMarker(kind == COMMIT, coordinator_epoch)
