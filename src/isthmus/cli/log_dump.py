"""What `isthmus log dump` prints: rows of what is in the files, batches or records of the log.

Each function yields rows, dicts of one shape after another; `Rows` prints them as columns or as
JSON lines. Files are opened for reading only, logs are read in chunks from where they are
wanted on, and a server may be writing meanwhile.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import click

from isthmus.cli.log_decoders import decoded, text_of
from isthmus.cli.offline import CouldNotLook, at_time
from isthmus.errors import CorruptBatch
from isthmus.record.compression import NAMES
from isthmus.storage.local.audit import SEGMENT
from isthmus.storage.local.beside import aborted_rows, offset_entries, time_entries
from isthmus.storage.local.catalog import CATALOG_FILE, Catalog
from isthmus.storage.local.checkpoints import (
    CLEAN_SHUTDOWN_FILE,
    COMPACTION_FILE,
    LEADER_EPOCH_FILE,
    META_PROPERTIES_FILE,
    PARTITION_METADATA_FILE,
    RECOVERY_POINT_FILE,
    START_OFFSET_FILE,
    LeaderEpochs,
    id_text,
    parse_compaction,
    parse_offsets,
    parse_partition_metadata,
    parse_properties,
)
from isthmus.storage.local.directory import LOCK_FILE
from isthmus.storage.local.index import OffsetIndex
from isthmus.storage.local.journal import SUFFIX as JOURNAL_SUFFIX
from isthmus.storage.local.journal_format import parse_header, parse_rounds
from isthmus.storage.local.scan import Scan
from isthmus.storage.producers import ProducerTable
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.inspect import Inspection, Place

    Row = dict[str, Any]

TEXT_MAX: Final = 60  # characters of one cell
LAST_TEXT_MAX: Final = 400  # and of the last one in a row
_FAR: Final = 2**62


class Rows:
    """Prints rows as they come; a header where their shape changes."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._shape: tuple[str, ...] = ()
        self._widths: list[int] = []

    def show(self, row: Row) -> None:
        """Print one row."""
        if self._as_json:
            click.echo(json.dumps(row, ensure_ascii=False))
            return
        *cells, last = row.values()
        cells = [*map(cell_of, cells), cell_of(last, text_max=LAST_TEXT_MAX)]
        if tuple(row) != self._shape:
            self._shape = tuple(row)
            self._widths = [
                max(len(name), len(cell)) for name, cell in zip(row, cells, strict=True)
            ]
            self._print(list(self._shape))
        self._widths = [
            max(width, len(cell)) for width, cell in zip(self._widths, cells, strict=True)
        ]
        self._print(cells)

    def _print(self, cells: list[str]) -> None:
        padded = (cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def cell_of(value: Any, text_max: int = TEXT_MAX) -> str:
    """Return a value for a column: short, on one line."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        value = " ".join(f"{name}={cell_of(part)}" for name, part in value.items())
    text = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in str(value))
    return text if len(text) <= text_max else f"{text[: text_max - 1]}…"


# --- the log ----------------------------------------------------------------------------------


class LogDump:
    """The batches or records of one segment after another, from `offset` on."""

    def __init__(self, files: Files, offset: int, *, records: bool) -> None:
        self._files = files
        self._offset = offset
        self._records = records

    def partition(self, look: Inspection, place: Place) -> Iterator[Row]:
        """Yield the rows of a partition. Raises OSError."""
        directory = look.path / place.name
        names = self._files.names(directory)
        bases = [int(match[1]) for match in map(SEGMENT.fullmatch, names) if match is not None]
        first = max((base for base in bases if base <= self._offset), default=0)
        for base in bases:
            if base >= first:
                yield from self.segment(directory / f"{base:020d}.log")

    def segment(self, path: Path) -> Iterator[Row]:
        """Yield the rows of one file. Raises OSError."""
        log_topic = path.parent.name.rpartition("-")[0]
        start = self._start(path)
        descriptor = self._files.open_read(path)
        try:
            size = self._files.size(path)
            scan = Scan(
                self._files,
                descriptor,
                start,
                size,
                int(path.stem),
                verify=True,
                gap_end=self._gap_end(path.parent),
            )
            told = 0
            for position, batch in scan:
                for lost in scan.damage[told:]:
                    yield damage_row(path, lost.position, lost.end, lost.offset)
                told = len(scan.damage)
                if batch.next_offset <= self._offset:
                    continue
                if self._records:
                    yield from record_rows(log_topic, batch, self._offset)
                else:
                    yield batch_row(path, position, batch)
            if scan.position < size:
                yield self._tail_row(path, scan.position, size)
        finally:
            self._files.close(descriptor)

    def _start(self, path: Path) -> int:
        """Return a position from which to look for the offset."""
        index = OffsetIndex(int(path.stem))
        data = self._files.read_file(path.with_suffix(".index"))
        if data is None or not index.load(data, self._files.size(path)):
            return 0
        entry = index.entry_before(self._offset)
        return 0 if entry is None else entry[1]

    def _gap_end(self, directory: Path) -> int:
        data = self._files.read_file(directory / COMPACTION_FILE)
        try:
            return 0 if data is None else parse_compaction(data)[1]
        except ValueError:
            return _FAR

    def _tail_row(self, path: Path, position: int, size: int) -> Row:
        row = damage_row(path, position, size, -1)
        if self._files.is_locked(path.parent.parent / LOCK_FILE):
            row["what"] = "being written"
        return row


def damage_row(path: Path, position: int, end: int, offset: int) -> Row:
    """Return what stands for bytes that are no batch."""
    what = "no batch" if offset < 0 else f"damaged, from offset {offset} on"
    return {"file": path.name, "position": position, "end": end, "what": what}


def batch_row(path: Path, position: int, batch: RecordBatch) -> Row:
    """Return a batch by its header."""
    producer = "-"
    if batch.producer_id >= 0:
        producer = f"{batch.producer_id}/{batch.producer_epoch}@{batch.base_sequence}"
    kinds = {"control": batch.is_control, "transactional": batch.is_transactional}
    return {
        "file": path.name,
        "position": position,
        "size": batch.size,
        "offset": batch.base_offset,
        "last_offset": batch.last_offset,
        "records": batch.count,
        "epoch": batch.leader_epoch,
        "newest": at_time(batch.max_timestamp),
        "codec": NAMES[batch.compression],
        "producer": producer,
        "kind": "+".join(name for name, is_so in kinds.items() if is_so) or "-",
    }


def record_rows(log_topic: str, batch: RecordBatch, offset: int) -> Iterator[Row]:
    """Yield the records of a batch from `offset` on, or why they cannot be read."""
    try:
        records = batch.records()
    except CorruptBatch as error:
        yield {"offset": batch.base_offset, "unreadable": str(error)}
        return
    for record in records:
        if record.offset < offset:
            continue
        row: Row = {"offset": record.offset, "time": at_time(record.timestamp)}
        says = decoded(log_topic, batch, record)
        if says is not None:
            yield {**row, "says": says}
            continue
        headers = {name: text_of(value) for name, value in record.headers}
        value = {"key": text_of(record.key), "value": text_of(record.value)}
        yield {**row, **value, "headers": headers}


# --- files beside the log ---------------------------------------------------------------------


def index_rows(data: bytes, path: Path) -> Iterator[Row]:
    """The entries of an `.index`."""
    for offset, position in offset_entries(data, int(path.stem)):
        yield {"last_offset": offset, "position": position}


def time_index_rows(data: bytes, path: Path) -> Iterator[Row]:
    """The entries of a `.timeindex`."""
    for timestamp, offset in time_entries(data, int(path.stem)):
        yield {"timestamp_ms": timestamp, "time": at_time(timestamp), "offset": offset}


def aborted_index_rows(data: bytes, _: Path) -> Iterator[Row]:
    """The entries of a `.txnindex`."""
    for row in aborted_rows(data):
        yield row._asdict()


def snapshot_rows(data: bytes, _: Path) -> Iterator[Row]:
    """The producers of a `.snapshot`."""
    table = ProducerTable(_FAR)
    table.restore(data)
    for producer_id, known in table:
        yield {
            "producer_id": producer_id,
            "epoch": known.epoch,
            "last_sequence": known.last_sequence,
            "newest": at_time(known.timestamp),
            "transaction_start": known.transaction_start,
            "batches": [list(sent[:4]) for sent in known.batches],
        }


def epoch_rows(data: bytes, _: Path) -> Iterator[Row]:
    """Where each leader epoch begins."""
    for epoch, start in LeaderEpochs.parse(data):
        yield {"leader_epoch": epoch, "start_offset": start}


def compaction_rows(data: bytes, _: Path) -> Iterator[Row]:
    """How far a partition is compacted."""
    clean_offset, gap_end = parse_compaction(data)
    yield {"clean_offset": clean_offset, "gaps_before": gap_end}


def metadata_rows(data: bytes, _: Path) -> Iterator[Row]:
    """Whose directory it is."""
    yield {"topic_id": id_text(parse_partition_metadata(data))}


def point_rows(data: bytes, _: Path) -> Iterator[Row]:
    """Up to where each partition is on the disk for sure."""
    for (log_topic, index), offset in parse_offsets(data).items():
        yield {"log_topic": log_topic, "partition": index, "recovery_point": offset}


def start_rows(data: bytes, _: Path) -> Iterator[Row]:
    """Where partitions begin from whose oldest segment records were deleted."""
    for (log_topic, index), offset in parse_offsets(data).items():
        yield {"log_topic": log_topic, "partition": index, "start_offset": offset}


def journal_rows(data: bytes, _: Path) -> Iterator[Row]:
    """The rounds of the newest use of a file of the journal: copies on the way to segments."""
    header = parse_header(data)
    if header is None:
        raise ValueError("its first page is no header: it was never used")
    yield {"sequence": header.sequence, "oldest_needed": header.oldest}
    for found in parse_rounds(memoryview(data), header.seed):
        for entry, payload in found.entries:
            yield {
                "round": found.number,
                "at": found.position,
                "topic_id": id_text(entry.topic_id),
                "partition": entry.partition,
                "file": f"{entry.base_offset:020d}.log",
                "position": entry.position,
                "size": entry.size,
                "end_offset": entry.end_offset,
                "is_whole": crc32c(payload) == entry.crc,
            }


def identity_rows(data: bytes, _: Path) -> Iterator[Row]:
    """Whose data directory it is."""
    yield dict(parse_properties(data))


def mark_rows(data: bytes, _: Path) -> Iterator[Row]:
    """The mark of a close in good order."""
    yield {"closed": data.decode()}


def catalog_rows(catalog: Catalog) -> Iterator[Row]:
    """The log topics."""
    yield {"leader_epoch": catalog.leader_epoch}
    for topic in catalog.topics.values():
        yield {
            "log_topic": topic.name,
            "topic_id": id_text(topic.topic_id),
            "partitions": topic.partitions,
            "deleting": topic.deleting,
            "configs": topic.configs,
        }


READERS: Final[Mapping[str, Callable[[bytes, Path], Iterator[Row]]]] = {
    ".index": index_rows,
    ".timeindex": time_index_rows,
    ".txnindex": aborted_index_rows,
    ".snapshot": snapshot_rows,
    JOURNAL_SUFFIX: journal_rows,
    LEADER_EPOCH_FILE: epoch_rows,
    COMPACTION_FILE: compaction_rows,
    PARTITION_METADATA_FILE: metadata_rows,
    RECOVERY_POINT_FILE: point_rows,
    START_OFFSET_FILE: start_rows,
    META_PROPERTIES_FILE: identity_rows,
    CLEAN_SHUTDOWN_FILE: mark_rows,
}
_NUMBERED: Final = re.compile(r"(?:\d{20}|\d+(?=\.wal))(\.[a-z]+)")


def file_rows(files: Files, path: Path, dump: LogDump) -> Iterator[Row]:
    """Yield what one file holds, whichever it is. Raises OSError, CouldNotLook."""
    numbered = _NUMBERED.fullmatch(path.name)
    kind = path.name if numbered is None else numbered[1]
    if kind == ".log":
        yield from dump.segment(path)
        return
    if kind == CATALOG_FILE:
        catalog = Catalog(files, path.parent)
        catalog.load()
        yield from catalog_rows(catalog)
        return
    if kind not in READERS:
        raise CouldNotLook(f"{path} is no file that this command knows")
    try:
        yield from READERS[kind](files.read_file(path) or b"", path)
    except (ValueError, CorruptBatch) as error:
        raise CouldNotLook(f"{path} cannot be read: {error}") from error


def overview_rows(files: Files, look: Inspection) -> Iterator[Row]:
    """Yield what a directory holds as a whole."""
    data = files.read_file(look.path / META_PROPERTIES_FILE)
    if data is not None:
        yield dict(parse_properties(data))
    if look.catalog is not None:
        yield from catalog_rows(look.catalog)
    for place in look.places:
        names = files.names(look.path / place.name)
        logs = [name for name in names if SEGMENT.fullmatch(name)]
        sizes = [files.size(look.path / place.name / name) for name in logs]
        yield {
            "log_topic": place.log_topic,
            "partition": place.index,
            "start_offset": int(logs[0][:20]) if logs else 0,
            "recovery_point": look.points.get((place.log_topic, place.index)),
            "segments": len(logs),
            "bytes": sum(sizes),
        }
