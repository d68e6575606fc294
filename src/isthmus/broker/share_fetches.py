"""Members of share groups are given records, and say what became of them [KIP-932].

A share fetch names no offsets: what a member gets is what its group has not given to others.
Records go out as they are stored, in whole batches, with a list of those that are the member's
to work on. Where there is nothing for it, the fetch waits: for the log, for another member that
gives something back, for a lock that lapses.

Of groups that read only what is decided, records of aborted transactions are given to nobody.
Not here: sessions (share_sessions.py), the rules (kafka/share_partition.py), the wire form
(server/kafka_api/share_fetch.py).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.broker.fetches import Parked
from isthmus.errors import CorruptBatch, IsthmusError
from isthmus.kafka.errors import ErrorCode, code_of
from isthmus.kafka.share_group import ShareGroup
from isthmus.kafka.share_partition import AckRefused, Acquisition, Offsets
from isthmus.kafka.share_records import ShareKey
from isthmus.record.batch import split_batches
from isthmus.record.markers import read_marker
from isthmus.storage.log import ISOLATION_DURABLE, ISOLATION_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from isthmus.broker.group_configs import GroupConfigs
    from isthmus.broker.groups import GroupTable
    from isthmus.broker.share_sessions import Member, Wanted
    from isthmus.broker.share_states import SharedPlace, ShareStates
    from isthmus.broker.topic_ids import TopicIds
    from isthmus.kafka.share_partition import AckBatch, Acquired
    from isthmus.record.batch import RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log, Partition

logger = logging.getLogger(__name__)

READS_MAX: Final = 8  # of one partition for one answer, where nothing of a read can be given


class ShareFetch(NamedTuple):
    """One request."""

    member: Member
    places: Sequence[Wanted]
    records_max: int
    batch_records: int = 1
    is_exact: bool = False
    bytes_max: int = 1 << 30
    bytes_min: int = 1
    wait_ms: int = 0


class ShareRead:
    """What was found in one partition, and what of it the member was given."""

    __slots__ = (
        "aborted",
        "acquired",
        "batches",
        "error",
        "is_loading",
        "offset",
        "place",
        "wanted",
    )

    def __init__(self, wanted: Wanted, place: SharedPlace | None, error: ErrorCode) -> None:
        self.wanted = wanted
        self.place = place
        self.error = error
        self.offset = -1  # where it was read
        self.is_loading = False
        self.batches: list[RecordBatch] = []
        self.aborted: Sequence[tuple[int, int]] = ()
        self.acquired: list[Acquired] = []

    @property
    def size(self) -> int:
        """How many bytes."""
        return sum(batch.size for batch in self.batches)


class ShareFetches:
    """Serves share fetches and acknowledgements."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        topic_ids: TopicIds,
        groups: GroupTable,
        states: ShareStates,
        configs: GroupConfigs,
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._topic_ids = topic_ids
        self._groups = groups
        self._states = states
        self._configs = configs
        self._parked: set[Parked] = set()

    @property
    def waiting(self) -> int:
        """How many fetches wait."""
        return len(self._parked)

    def recheck(self) -> None:
        """Look again at all that wait: a log topic was deleted."""
        for parked in [*self._parked]:
            parked.wake()

    # --- fetching -----------------------------------------------------------------------------

    def serve(
        self, fetch: ShareFetch, reply: Callable[[Sequence[ShareRead]], None]
    ) -> Callable[[], None] | None:
        """Answer through `reply`, at once or when there is something, or the time is up.

        Returns None when the answer was given, else what calls the waiting off.
        """
        reads = self._read(fetch, is_over=fetch.wait_ms <= 0)
        if self._suffices(reads, is_over=fetch.wait_ms <= 0):
            reply(reads)
            return None
        parked = Parked(self, self._runtime, fetch, reply)
        self._parked.add(parked)
        self._watch(parked, reads)
        return parked.cancel

    def look_again(self, parked: Parked, *, is_over: bool) -> None:
        """Answer a parked fetch if there is something now or its time is up, else wait on."""
        parked.unwatch()
        reads = self._read(parked.fetch, is_over=is_over)
        if self._suffices(reads, is_over=is_over):
            parked.cancel()
            parked.reply(reads)
        else:
            self._watch(parked, reads)

    def forget(self, parked: Parked) -> None:
        """Drop a parked fetch."""
        self._parked.discard(parked)

    @staticmethod
    def _suffices(reads: Sequence[ShareRead], *, is_over: bool) -> bool:
        if not reads or any(read.error or read.acquired for read in reads):
            return True
        return is_over and not any(read.is_loading for read in reads)

    def _read(self, fetch: ShareFetch, *, is_over: bool) -> list[ShareRead]:
        """Read what is there, and give of it to the member if that is enough."""
        reads = [self._find(fetch.member, wanted) for wanted in fetch.places]
        bytes_each = fetch.bytes_max // max(len(reads), 1)
        for read in reads:
            if not read.error and bytes_each > 0 and fetch.records_max > 0:
                self._look(read, bytes_each)
        is_enough = is_over or sum(read.size for read in reads) >= fetch.bytes_min
        left = fetch.records_max
        for read in reads:
            if not read.batches:
                continue
            if is_enough and left > 0:
                wish = Acquisition(
                    fetch.member.member_id, left, fetch.batch_records, is_exact=fetch.is_exact
                )
                self._give(read, wish, bytes_each)
                left -= sum(one.last - one.first + 1 for one in read.acquired)
            read.batches = _needed(read.batches, read.acquired)
        return reads

    def _find(self, member: Member, wanted: Wanted) -> ShareRead:
        """Return what is asked for, nothing of it read yet."""
        error = self._absence_of(*wanted)
        if error:
            return ShareRead(wanted, None, error)
        state = self._groups.states.get(member.group_id)
        group = None if state is None else state.group
        topic_id, index = wanted
        begun = group.initialized.get(topic_id) if isinstance(group, ShareGroup) else None
        if begun is None or index not in begun.partitions:
            return ShareRead(wanted, None, ErrorCode.GROUP_ID_NOT_FOUND)
        key = ShareKey(member.group_id, topic_id, index)
        place = self._states.places.get(key) or self._states.begin(key)
        return ShareRead(wanted, place, ErrorCode.NONE)

    def _absence_of(self, topic_id: bytes, index: int) -> ErrorCode:
        """Return why nothing can be read there, or NONE."""
        if self._states.is_loading:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER  # its client tries again
        name = self._topic_ids.name_of(topic_id)
        if name is None:
            return ErrorCode.UNKNOWN_TOPIC_ID
        is_there = self._log.partition(name, index) is not None
        return ErrorCode.NONE if is_there else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def _partition(self, wanted: Wanted) -> Partition:
        name = self._topic_ids.name_of(wanted[0])
        partition = None if name is None else self._log.partition(name, wanted[1])
        assert partition is not None
        return partition

    def _isolation(self, place: SharedPlace) -> int:
        terms = self._configs.share(place.key.group_id)
        return ISOLATION_DURABLE if terms.is_committed_only else ISOLATION_WRITTEN

    def _look(self, read: ShareRead, bytes_max: int) -> None:
        """Read from where the next record is that may be given out."""
        place, partition = read.place, self._partition(read.wanted)
        assert place is not None
        if place.partition is None:
            self._start(place, partition)
        shared = place.partition
        if shared is None:
            return
        shared.fit(partition.start_offset, partition.end_offset)
        read.offset, read.batches = shared.next_offset(), []
        if not shared.has_room() or read.offset >= partition.end_offset:
            return
        try:
            records = partition.read(read.offset, bytes_max, self._isolation(place))
            read.batches = [
                batch for buffer in records.buffers for batch in split_batches(buffer)
            ]
        except IsthmusError as error:
            read.error = code_of(error)
            return
        read.is_loading, read.aborted = records.is_loading, records.aborted

    def _give(self, read: ShareRead, wish: Acquisition, bytes_max: int) -> None:
        """Let the member have what was read, or what is behind it."""
        place = read.place
        assert place is not None
        for _ in range(READS_MAX):
            shared = place.partition
            if shared is None or not read.batches:
                return
            dead = _dead(read.batches, read.aborted)
            spans = [Offsets(batch.base_offset, batch.last_offset) for batch in read.batches]
            now_ms = self._runtime.monotonic_ms()
            read.acquired = shared.acquire(wish, spans, now_ms, dead)
            self._states.set_timer(place)
            if read.acquired or shared.next_offset() == read.offset:
                return
            self._look(read, bytes_max)

    def _start(self, place: SharedPlace, partition: Partition) -> None:
        """Decide where a share partition begins, now or when it was looked up."""
        if place.is_starting:
            return
        reset = self._configs.share(place.key.group_id).reset
        if reset.back_ms is None:
            is_latest = reset.is_latest
            self._states.start(
                place, partition.end_offset if is_latest else partition.start_offset
            )
            return
        place.is_starting = True

        def found(at: tuple[int, int] | None, error: IsthmusError | None) -> None:
            place.is_starting = False
            if error is not None:
                logger.warning("start of a share group not found error=%s", error)
                return
            if place.partition is None:
                self._states.start(place, partition.end_offset if at is None else at[0])
            place.wake()

        partition.offset_for_time(self._runtime.now_ms() - reset.back_ms, found)

    def _watch(self, parked: Parked, reads: Sequence[ShareRead]) -> None:
        """Have the fetch woken when there may be more for it than there just was."""
        for read in reads:
            place = read.place
            assert place is not None, "what has an error is answered"
            place.waiting[parked.wake] = None
            parked.cancels.append(partial(place.waiting.pop, parked.wake, None))
            partition, isolation = self._partition(read.wanted), self._isolation(place)
            if place.partition is None or not (place.partition.has_room() or read.is_loading):
                continue
            offset = read.offset
            if not read.is_loading:
                is_written = isolation == ISOLATION_WRITTEN
                end = partition.end_offset if is_written else partition.last_stable_offset
                offset = max(offset, end)
            parked.cancels.append(partition.wait(offset, parked.wake, isolation))

    # --- acknowledging ------------------------------------------------------------------------

    def acknowledge(
        self,
        member: Member,
        said: Mapping[Wanted, Sequence[AckBatch]],
        reply: Callable[[dict[Wanted, ErrorCode]], None],
    ) -> None:
        """Take in what a member says of its records; the answer comes when it is durable."""
        codes: dict[Wanted, ErrorCode] = {}

        def done(wanted: Wanted, code: ErrorCode) -> None:
            codes[wanted] = code
            if len(codes) == len(said):
                reply(codes)

        if not said:
            reply(codes)
        for wanted, batches in said.items():
            error = self._absence_of(*wanted)
            place = self._states.places.get(ShareKey(member.group_id, *wanted))
            shared = None if place is None else place.partition
            if not error and shared is None:
                error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION  # as far as this group goes
            if error or place is None or shared is None:
                done(wanted, error)
                continue
            try:
                now_ms = self._runtime.monotonic_ms()
                shared.acknowledge(member.member_id, batches, now_ms)
            except AckRefused as refused:
                done(wanted, refused.code)
                continue
            self._states.changed(place, partial(done, wanted))

    def release(self, member: Member) -> None:
        """Take from a member all that it has: it is gone."""
        for key in self._states.of_group(member.group_id):
            place = self._states.places[key]
            if place.partition is not None and place.partition.release(member.member_id):
                self._states.changed(place)


def _needed(batches: Sequence[RecordBatch], acquired: Sequence[Acquired]) -> list[RecordBatch]:
    """Return the batches from the one with the first record given to that with the last."""
    if not acquired:
        return []
    first, last = acquired[0].first, acquired[-1].last
    return [one for one in batches if one.last_offset >= first and one.base_offset <= last]


def _dead(batches: Sequence[RecordBatch], aborted: Sequence[tuple[int, int]]) -> list[Offsets]:
    """Return where records are that were written in transactions which were aborted."""
    if not aborted:
        return []
    waiting = sorted(aborted, key=lambda one: one[1], reverse=True)
    open_ids: set[int] = set()
    dead = []
    for batch in batches:
        while waiting and waiting[-1][1] <= batch.last_offset:
            open_ids.add(waiting.pop()[0])
        if batch.producer_id not in open_ids:
            continue
        if not batch.is_control:
            dead.append(Offsets(batch.base_offset, batch.last_offset))
        elif _aborts(batch):
            open_ids.discard(batch.producer_id)
    return dead


def _aborts(batch: RecordBatch) -> bool:
    try:
        marker = read_marker(batch)
    except CorruptBatch:
        return False
    return marker is not None and not marker.commits
