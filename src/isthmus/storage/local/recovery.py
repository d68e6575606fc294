"""Loads a partition from its directory, after a clean end or any other.

After a clean end the files are as the indexes say, and only the last few kilobytes of the
newest segment are looked at. After any other end, everything from the recovery point on (the
offset up to which all was synced once) is read and its checksums are compared. Then:

- **What is torn is cut.** Where nothing good follows a bad batch, the file ends before it. Only
  records that were never acknowledged as durable can lie there.
- **What was on the disk is not torn.** Before the recovery point a bad end is damage like any
  other. It stays, is reported, and the log goes on behind it: no offset is given again.
- **What is damaged in the middle stays.** Where good batches follow a bad one, we cannot know
  whether those were acknowledged; so they are kept, the bad stretch is reported and readers
  step over it. The alternative, Kafka's, is to cut away all that follows, and a flipped bit
  would then cost every record after it. The price: after a power cut, unacknowledged records
  may be readable behind a gap of other unacknowledged ones.
- **The leader epoch grows,** because records that somebody has seen may be gone, so that
  consumers notice (KIP-320). The epoch itself comes from the catalog, which is durable, so it
  grows even when a power cut took every trace of a partition's last epoch.
- **What is left is written again and synced**, because it will be shown to readers as durable:
  by the caller, for all partitions at once. A sync alone would not do where the last server
  ended because one has failed. Where nothing lies behind the recovery point, it is so already.

The state of the producers is the newest snapshot that can be read, and the batches since. On
the same way the aborted transactions of what is checked are found again.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from isthmus.storage.aborted import AbortedIndex
from isthmus.storage.local.aborted import (
    rebuild_aborted,
    restore_newest,
    snapshot_path,
    snapshots_among,
)
from isthmus.storage.local.checkpoints import (
    COMPACTION_FILE,
    LEADER_EPOCH_FILE,
    LeaderEpochs,
    parse_compaction,
)
from isthmus.storage.local.scan import Damage
from isthmus.storage.local.segments import SegmentList
from isthmus.storage.local.swap import DELETED_SUFFIX, finish_swaps
from isthmus.storage.producers import ProducerTable

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.scan import Scan
    from isthmus.storage.local.segment import Segment
    from isthmus.storage.local.shared import Shared
    from isthmus.storage.topic_configs import TopicConfig

_SEGMENT: Final = re.compile(r"(\d{20})\.log")
_FAR: Final = 2**62  # an offset after all others

logger = logging.getLogger(__name__)


class Loaded:
    """What a partition begins with."""

    __slots__ = (
        "checked_bytes",
        "end_offset",
        "epoch_max",
        "epochs",
        "epochs_saved",
        "leftovers",
        "producers",
        "recovery_point",
        "segments",
        "snapshots",
        "start_offset",
        "unsynced",
        "unsynced_directories",
    )

    def __init__(self, segments: SegmentList, producers_max: int) -> None:
        self.segments = segments
        self.start_offset = 0
        self.end_offset = 0
        self.recovery_point = 0  # that the file on the disk names: the caller's to say
        self.checked_bytes = 0  # that lay behind it
        self.unsynced: list[
            tuple[Path, int]
        ] = []  # files that may not be on the disk, and where
        self.unsynced_directories: list[Path] = []
        self.epochs = LeaderEpochs()
        self.epoch_max = _FAR  # no batch can be of a later one
        self.epochs_saved = False
        self.producers = ProducerTable(producers_max)
        self.snapshots: list[int] = []  # offsets, ascending
        self.leftovers: list[Path] = []  # files of segments that were on their way out

    def note_epoch(self, batch: RecordBatch) -> None:
        """Learn of a leader epoch from a batch of it; no checksum covers what it says."""
        if batch.leader_epoch > self.epoch_max:
            logger.error(
                "%s: the batch at offset %d says leader epoch %d, which cannot be",
                self.segments.directory,
                batch.base_offset,
                batch.leader_epoch,
            )
        elif batch.leader_epoch > self.epochs.latest:
            self.epochs.begin(batch.leader_epoch, batch.base_offset)


def load_partition(
    shared: Shared,
    directory: Path,
    config: TopicConfig,
    *,
    leader_epoch: int,
    synced_offset: int,
    start_offset: int,
    clean: bool,
) -> Loaded:
    """Load a partition that was once on the disk up to `synced_offset`. Raises OSError.

    After a `clean` end that was all. After any other it is the recovery point, if its snapshot
    is there: from there on the producers have to be learnt anyway.

    The partition begins at `start_offset` or with its oldest segment, whatever is later. Its
    leader epoch will be `leader_epoch`, or a larger one where the directory knows better.
    """
    files = shared.files
    loaded = Loaded(
        SegmentList(files, shared.open_segments, shared.chunks, directory, config),
        shared.settings.producers_max,
    )
    names = _find_files(loaded, files, start_offset)
    recovery_point = 0
    if not clean:
        known = [offset for offset in loaded.snapshots if offset <= synced_offset]
        recovery_point = max(known, default=0)
    saved = _load_epochs(files, directory)
    loaded.epochs = saved or LeaderEpochs()
    if saved is not None:  # since then the partition was opened with one epoch at most
        loaded.epoch_max = max(leader_epoch, saved.latest + 1)
    begin = _load_snapshot(loaded, files, _FAR if clean else recovery_point)
    clean = clean and _load_clean(loaded)
    if clean:
        _replay(loaded, begin, loaded.end_offset)
    else:
        _replay(loaded, begin, recovery_point)
        _recover(loaded, recovery_point, begin, synced_offset, files)
    if loaded.end_offset < synced_offset:
        _go_on_behind(loaded, synced_offset)
    if loaded.end_offset < start_offset:
        _begin_anew(loaded, start_offset, files)
    if begin > loaded.end_offset:  # what the snapshot tells of is gone
        begin = _load_snapshot(loaded, files, loaded.end_offset)
        _replay(loaded, begin, loaded.end_offset)
        active = loaded.segments.active
        if active is not None:
            index = _aborted_before(loaded.end_offset, active, loaded.segments, files)
            active.replace_aborted(index)
    _find_lost_aborts(loaded, files, names, _FAR if clean else recovery_point)
    if saved is None and loaded.segments.active is not None and (clean or recovery_point):
        logger.warning("%s in %s is missing or wrong: rebuilt", LEADER_EPOCH_FILE, directory)
        loaded.epochs = LeaderEpochs()
        loaded.segments.walk(0, _FAR, loaded.note_epoch)
    loaded.start_offset = max(loaded.start_offset, start_offset)
    _begin_epoch(loaded, saved, leader_epoch, clean=clean)
    return loaded


def _find_files(loaded: Loaded, files: Files, start_offset: int) -> list[str]:
    """Take in what is there; return the names in the directory. Raises OSError."""
    directory = loaded.segments.directory
    finish_swaps(files, directory)
    load_compaction(loaded.segments, files)
    names = files.names(directory)
    bases = _numbers(_SEGMENT, names)
    for base in bases:
        segment = loaded.segments.restore(base, files.size(directory / f"{base:020d}.log"))
        segment.has_aborts = segment.index_paths[2].name in names
    loaded.start_offset = loaded.end_offset = bases[0] if bases else start_offset
    loaded.snapshots = snapshots_among(names)
    loaded.leftovers = [directory / name for name in names if name.endswith(DELETED_SUFFIX)]
    return names


def _begin_epoch(
    loaded: Loaded, saved: LeaderEpochs | None, leader_epoch: int, *, clean: bool
) -> None:
    as_saved = not loaded.epochs.cut_before(loaded.start_offset) and saved is not None
    newest = loaded.epochs.latest
    epoch = max(leader_epoch, newest if clean else newest + 1)
    if epoch > newest:
        loaded.epochs.begin(epoch, loaded.end_offset)
    loaded.epochs_saved = as_saved and epoch == newest


def _numbers(pattern: re.Pattern[str], names: list[str]) -> list[int]:
    matches = map(pattern.fullmatch, names)
    return sorted(int(match[1]) for match in matches if match is not None)


def load_compaction(segments: SegmentList, files: Files) -> None:
    """Read how far a partition is compacted, and where it may have gaps. Raises OSError."""
    data = files.read_file(segments.directory / COMPACTION_FILE)
    if data is None:
        return
    try:
        segments.clean_offset, segments.gap_end = parse_compaction(data)
    except ValueError:
        logger.warning("%s in %s is wrong", COMPACTION_FILE, segments.directory)
        segments.gap_end = _FAR  # where there are gaps nobody knows


def _load_epochs(files: Files, directory: Path) -> LeaderEpochs | None:
    data = files.read_file(directory / LEADER_EPOCH_FILE)
    try:
        return None if data is None else LeaderEpochs.parse(data)
    except ValueError:
        return None


# --- the log ----------------------------------------------------------------------------------


def _load_clean(loaded: Loaded) -> bool:
    """Find the end of the newest segment; False where the file is not what was left."""
    active = loaded.segments.active
    if active is None:
        return True
    scan = active.resume(_FAR, verify=False)
    if scan.damage or scan.position != active.size:
        logger.warning("%s is not as a clean end leaves it", active.path)
        return False
    active.settle(scan.position, scan.next_offset)
    loaded.end_offset = scan.next_offset
    return True


def _recover(
    loaded: Loaded, recovery_point: int, begin: int, synced_offset: int, files: Files
) -> None:
    """Check all from the recovery point on; cut what is torn, keep what follows damage.

    Epochs are learnt on the way, and from `begin` on what producers wrote.
    """
    segments = loaded.segments
    loaded.epochs.cut(recovery_point)
    first = max(begin, recovery_point)

    def visit(batch: RecordBatch) -> None:
        if batch.base_offset >= recovery_point:
            loaded.note_epoch(batch)
            loaded.checked_bytes += batch.size
        if batch.base_offset >= first:
            loaded.producers.replay(batch)

    walked: list[tuple[Segment, Scan]] = []
    for segment in segments.since(recovery_point):
        offset = max(recovery_point, segment.base_offset)
        index = _aborted_before(first, segment, segments, files)
        walked.append((segment, segment.resume(offset, verify=True, visit=visit)))
        for aborted in loaded.producers.aborted:
            index.append(aborted)
        loaded.producers.settle()
        index.cut(segment.next_offset)
        segment.replace_aborted(index)
    changed = _remove_unreadable(segments, walked, synced_offset, files)
    for number, (segment, scan) in enumerate(walked):
        found_bytes = segment.size
        if number + 1 < len(walked):
            following = walked[number + 1][0].base_offset
            if scan.position < segment.size or (
                scan.next_offset < following > segments.gap_end
            ):
                scan.damage.append(
                    Damage(scan.position, segment.size, scan.next_offset, following)
                )
        elif scan.next_offset >= synced_offset:
            _cut_torn(segment, scan)
        loaded.end_offset = scan.next_offset
        segments.report(segment, scan.damage)
        if scan.next_offset > recovery_point or segment.size < found_bytes:
            loaded.unsynced.append((segment.path, scan.start))
    if changed or loaded.unsynced:
        loaded.unsynced_directories.append(segments.directory)
    loaded.epochs.cut(loaded.end_offset)


def _cut_torn(segment: Segment, scan: Scan) -> None:
    """Let the newest segment end with its last good batch."""
    if scan.position < segment.size:
        logger.warning(
            "%s is torn: cut from %d to %d bytes", segment.path, segment.size, scan.position
        )
    segment.settle(scan.position, scan.next_offset)


def _go_on_behind(loaded: Loaded, offset: int) -> None:
    """Let the log go on at `offset`: the records up to there were on the disk, and are lost."""
    segments = loaded.segments
    logger.error(
        "%s lacks offsets %d to %d, which were on the disk: they are lost",
        segments.directory,
        loaded.end_offset,
        offset - 1,
    )
    if segments.active is None:
        loaded.start_offset = offset
    else:
        segments.active.next_offset = offset
        segments.add(offset)
    loaded.end_offset = offset


def _begin_anew(loaded: Loaded, start_offset: int, files: Files) -> None:
    """Begin at the start offset, with nothing.

    A power cut took the end of the log, and all that is left had been deleted before.
    """
    segments = loaded.segments
    while segments.active is not None:
        paths = segments.active.paths
        segments.drop_active()
        for path in paths:
            files.remove(path)
    loaded.unsynced.clear()
    segments.note_names()
    loaded.end_offset = start_offset


def _remove_unreadable(
    segments: SegmentList,
    walked: list[tuple[Segment, Scan]],
    synced_offset: int,
    files: Files,
) -> bool:
    """Remove the newest segments that hold nothing good: they belong to the torn tail."""
    count = len(walked)
    while len(walked) > 1 and walked[-1][1].next_offset == walked[-1][0].base_offset:
        if walked[-1][0].base_offset < synced_offset:
            break  # it was on the disk
        segment, _ = walked.pop()
        logger.warning("%s holds nothing that can be read: removed", segment.path)
        segments.drop_active()
        for path in segment.paths:
            files.remove(path)
    return len(walked) < count


# --- the producers ----------------------------------------------------------------------------


def _load_snapshot(loaded: Loaded, files: Files, limit: int) -> int:
    """Restore the newest snapshot up to `limit`; return the offset to go on from.

    Newer ones, those that cannot be read, and those from before the log begins are removed:
    behind a gap of deleted records a right sequence would look like a wrong one.
    """
    directory, first = loaded.segments.directory, loaded.segments.first_offset
    usable = [offset for offset in loaded.snapshots if first <= offset <= limit]
    begin = restore_newest(loaded.producers, files, directory, usable)
    kept = [offset for offset in usable if begin is not None and offset <= begin]
    for offset in loaded.snapshots:
        if offset not in kept:
            files.remove(snapshot_path(directory, offset))
    loaded.snapshots = kept
    return first if begin is None else begin


def _replay(loaded: Loaded, begin: int, end: int) -> None:
    """Learn what producers wrote from `begin` to `end`; who aborted is in the indexes."""
    loaded.segments.walk(begin, end, loaded.producers.replay)
    loaded.producers.settle()


def _aborted_before(
    offset: int, segment: Segment, segments: SegmentList, files: Files
) -> AbortedIndex:
    """Return the transactions that markers before `offset` abort in this segment."""
    if offset <= segment.base_offset:
        return AbortedIndex()
    index = segment.aborted()
    if index is None:
        return rebuild_aborted(segments, files, segment.base_offset, offset)
    index.cut(offset)
    return index


def _find_lost_aborts(loaded: Loaded, files: Files, names: list[str], limit: int) -> None:
    """Build `.txnindex` again for segments before `limit` whose other indexes are gone.

    No such file is needed where nothing was aborted, so that it is missing says nothing. But
    whoever removes the indexes of a segment to have them built again means this one too.
    """
    for segment in loaded.segments:
        path, _, aborted_path = segment.index_paths
        if (
            segment.base_offset < limit
            and path.name not in names
            and aborted_path.name not in names
            and not segment.is_small
        ):
            base, end = segment.base_offset, min(segment.next_offset, loaded.end_offset)
            segment.replace_aborted(rebuild_aborted(loaded.segments, files, base, end))
