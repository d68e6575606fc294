"""At the start: MQTT sessions as they were, and what came for them since they were written.

First `__mqtt_sessions` is read, the newest value of each key counts. Then one scan of the log
serves all sessions: from the smallest mark to the end, each record is matched once, with the
broker's own cache of topic names, and comes to wait in the queue of every session that had not
seen it yet. What the scan cannot know is the publisher, so No Local does not count there.

A place that is not in the log any more (retention, a deleted log topic) or not yet (a power cut
took it) is dropped and counted. Not here: writing, see session_log.py.
"""

from __future__ import annotations

import logging
from sys import intern
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from isthmus.broker.held_batches import HeldBatches
from isthmus.broker.identity import Identity, Principal
from isthmus.broker.mapping import publish_of
from isthmus.broker.publishing import MQTT_SEQUENCE
from isthmus.broker.recent_records import readable_records
from isthmus.broker.session_log import Logged, Row, key_of
from isthmus.broker.session_records import (
    CHECKPOINT_KEY,
    GROUP_KEY,
    KIND_FILTER,
    KIND_QUEUE,
    KIND_WILL,
    MARKS_KEY,
    GroupState,
    Marks,
    PartitionsById,
    QueuePart,
    SessionState,
    SubscriptionTerms,
    decode,
    decode_will,
    delivery_of,
    filter_key,
    marks_generation,
    one_of,
    queue_key,
    split_key,
    will_key,
)
from isthmus.broker.subscriptions import Subscription
from isthmus.mqtt.delivery import DROP_GONE
from isthmus.mqtt.session import Session
from isthmus.topics.filter import SHARED_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isthmus.broker.broker import Broker
    from isthmus.broker.publishing import Destination
    from isthmus.broker.sessions import SessionEntry, SessionTable
    from isthmus.broker.shared import ShareGroup
    from isthmus.mqtt.delivery import Delivery
    from isthmus.mqtt.packets import Publish
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Partition

logger = logging.getLogger(__name__)

PACKET_IDS_SKIPPED: Final = 0x4000
NO_GROUPS: Final[frozenset[str]] = frozenset()  # one for all: each has 216 bytes
NAMES_MAX: Final = 10_000  # topic filters that are looked for among those read before
FAR: Final = 2**62  # an offset after all others

NEW: Final = (0, 0, 0, 0)  # the marks of a partition that is younger than the marks

# Written, durable, decided; of a transaction whose marker is the mark itself, released.
PartitionMarks: TypeAlias = "dict[Partition, tuple[int, int, int, int]]"


class Written:
    """What the log topic holds of one client or group, as it stands there."""

    __slots__ = ("filters", "generation", "marks", "offset", "parts", "state", "will")

    def __init__(self) -> None:
        self.state: bytes | None = None
        self.offset = -1  # of the state
        self.marks = b""  # that were in force when the state was written
        self.generation = -1  # of their key
        self.filters: dict[bytes, bytes] = {}
        self.parts: dict[int, bytes] | None = None  # None: none
        self.will: bytes | None = None

    def take(self, rest: bytes, value: bytes | None) -> None:
        """Take note of a record that is not the state; `rest` says what it is about."""
        kind, name = rest[:1], rest[1:]
        if kind == KIND_FILTER:
            if value is None:
                self.filters.pop(name, None)
            else:
                self.filters[name] = value
        elif kind == KIND_QUEUE and name.isdigit():
            if self.parts is None:
                self.parts = {}
            if value is None:
                self.parts.pop(int(name), None)
            else:
                self.parts[int(name)] = value
        elif kind == KIND_WILL:
            self.will = value


def recover(
    broker: Broker, table: SessionTable, as_now: Callable[[Principal], Principal]
) -> list[Subscription]:
    """Bring all sessions back that have not expired. Raises StorageError.

    `as_now` says what somebody of an earlier run is by now. Returns the subscriptions whose
    retained messages had not all been sent.
    """
    began_ms = broker.runtime.monotonic_ms()
    recovery = Recovery(broker, table, as_now)
    recovery.read()
    recovery.restore()
    broker.permits.principals_changed(table.entries.values())
    scanned = recovery.scan()
    if recovery.marks:
        logger.info(
            "sessions restored sessions=%d records_scanned=%d ms=%d",
            len(table.entries),
            scanned,
            broker.runtime.monotonic_ms() - began_ms,
        )
    return [one for one in recovery.ungreeted if one.session in recovery.marks]


class Recovery:
    """One start."""

    def __init__(
        self, broker: Broker, table: SessionTable, as_now: Callable[[Principal], Principal]
    ) -> None:
        self._broker = broker
        self._as_now = as_now
        self._log = broker.session_log
        self._table = table
        self._partitions = PartitionsById(broker.log)
        self._written: dict[bytes, Written] = {}
        self._checkpoint: Marks | None = None
        self._checkpoint_value = b""
        self._marks_by_value: dict[bytes, PartitionMarks] = {}
        self.marks: dict[Session | ShareGroup, PartitionMarks] = {}
        self.ungreeted: list[Subscription] = []
        # by how they are stored, the terms of subscriptions and topic filters: many are alike
        self._terms: dict[bytes, SubscriptionTerms | None] = {}
        self._names: dict[bytes, str | None] = {}

    # --- what was written ---------------------------------------------------------------------

    def read(self) -> None:
        """Read the log topic; the newest value of a key counts."""
        partition = self._log.partition
        marks, generation = b"", -1
        for batch in partition.batches(partition.start_offset):
            for record in readable_records(batch):
                key = record.key or b""
                owner, _, rest = key.partition(b"\0")
                if not owner:  # it is no session's
                    if key.startswith(MARKS_KEY):
                        marks, generation = record.value or b"", marks_generation(key)
                        continue
                    if key == CHECKPOINT_KEY:
                        self._checkpoint_value = record.value or b""
                        continue
                    owner, rest = split_key(key)
                written = self._written.get(owner)
                if written is None:
                    written = self._written[owner] = Written()
                if rest:
                    written.take(rest, record.value)
                elif record.value is None:
                    del self._written[owner]
                else:
                    written.state, written.offset = record.value, record.offset
                    written.marks, written.generation = marks, generation
        self._checkpoint = decode(self._checkpoint_value, Marks)

    # --- sessions as they were ----------------------------------------------------------------

    def restore(self) -> None:
        """Make the sessions."""
        now_ms = self._broker.runtime.now_ms()
        generations: set[int] = set()
        rows: list[Row] = []
        shares: list[tuple[bytes, Written]] = []
        for client in [*self._written]:
            written = self._written.pop(client)  # its memory serves for what is made of it
            if written.state is None:  # it was never completely written, and never shall be
                rows += [(filter_key(client, name), None) for name in written.filters]
                rows += [(queue_key(client, number), None) for number in written.parts or ()]
                rows += [(will_key(client), None)] if written.will is not None else []
                continue
            if not self._is_covered(written):
                generations.add(written.generation)
            if client.startswith(GROUP_KEY):
                shares.append((client, written))
                continue
            state = decode(written.state, SessionState)
            client_id = _text(client)
            if state is None or client_id is None:
                logger.warning("session not readable client=%r", client)
                continue
            # The connections of the run before ended with it, now at the latest.
            principal = self._as_now(principal_of(state, client_id))
            detached_at_ms = state.detached_at_ms or now_ms
            entry = self._table.restore(client_id, state.expiry_s, detached_at_ms, principal)
            session = entry.session
            session.changed = state.detached_at_ms == 0
            logged = Logged()
            self._restore_will(entry, logged, written)
            self._restore_deliveries(session, state)
            self._restore_queue(session, logged, state, written)
            self._log.logged[session] = logged if logged.is_needed(session) else None
            self._restore_subscriptions(session, written)
            self.marks[session] = self._marks_of(written)
        for key, written in shares:  # now they have their members
            self._restore_group(key, written, rows)
        self._log.resume(generations, rows)
        for session in [each for each in self.marks if isinstance(each, Session)]:
            if self._table.end_if_expired(cast("SessionEntry", session.owner)):
                del self.marks[session]

    def _restore_will(self, entry: SessionEntry, logged: Logged, written: Written) -> None:
        if written.will is None:
            return
        entry.will = logged.will = decode_will(written.will)
        if entry.will is None:
            logger.warning("will not readable client=%s", entry.session.client_id)

    def _restore_group(self, key: bytes, written: Written, rows: list[Row]) -> None:
        name, _, topic_filter = key[len(GROUP_KEY) :].partition(b"\0")
        shared = SHARED_PREFIX.encode() + name + b"/" + topic_filter
        group = self._broker.subscriptions.groups.get(_text(shared) or "")
        state = decode(written.state or b"", GroupState)
        if group is None or state is None:
            if group is not None:
                logger.warning("group not readable topic_filter=%r", shared)
            rows += [(queue_key(key, number), None) for number in written.parts or ()]
            rows.append((key, None))
            return
        logged = self._log.logged[group] = Logged()
        partitions = self._partitions.find(state.partitions)
        for number, offset, qos in state.unfinished:
            partition = one_of(partitions, number)
            if partition is not None and offset < partition.end_offset:
                group.restore(partition, offset, qos)
            else:
                group.drop(DROP_GONE, 1)
        self._restore_queue(group, logged, state, written)
        self.marks[group] = self._marks_of(written)

    def _restore_deliveries(self, session: Session, state: SessionState) -> None:
        # A power cut may have taken QoS 2 deliveries whose ids the client holds: keep away.
        packet_id = (state.packet_id - 1 + PACKET_IDS_SKIPPED) % 65535 + 1
        if not state.partitions and not state.inflight and not state.unreleased:
            session.restore(packet_id, {}, {})
            return
        partitions = self._partitions.find(state.partitions)
        inflight: dict[int, Delivery] = {}
        for packet_id, number, offset, terms, identifiers in state.inflight:
            partition = one_of(partitions, number)
            if partition is not None and offset >= partition.end_offset:
                partition = None
            if partition is None:
                session.changed = True  # the place may soon hold another message
            delivery = delivery_of(partition, offset, terms, identifiers)
            if partition is None and delivery.qos == 1:
                session.drop(DROP_GONE, 1)
            else:
                inflight[packet_id] = delivery
        places: dict[int, tuple[object, int]] = {}
        for packet_id, number, offset in state.unreleased:
            partition = one_of(partitions, number)
            # Where the crash came before the message was written, the id was never taken.
            if partition is None or offset < partition.end_offset:
                places[packet_id] = (partition, offset)
            else:
                session.changed = True
        session.restore(packet_id, inflight, places)

    def _restore_queue(
        self,
        owner: Session | ShareGroup,
        logged: Logged,
        state: SessionState | GroupState,
        written: Written,
    ) -> None:
        queue = owner.queue
        for partition, first, last, terms, identifiers in self._runs(
            owner, logged, state, written.parts or {}
        ):
            qos, retain = terms & 0x03, bool(terms & 0x04)
            kept = range(0)
            if partition is not None and qos > 0:
                kept = range(
                    max(first, partition.start_offset), min(last + 1, partition.end_offset)
                )
                for offset in kept:
                    queue.push(partition, offset, qos, retain, identifiers)
            if len(kept) <= last - first:
                owner.drop(DROP_GONE, last - first + 1 - len(kept))
        ends = [end for _, end in logged.parts]
        logged.pushed = queue.pushed = max(state.pushed, *ends, 0)
        if queue.pushed - queue.length != state.popped:  # not all of it is here again
            queue.renumber()
            owner.changed = True

    def _runs(
        self,
        owner: Session | ShareGroup,
        logged: Logged,
        state: SessionState | GroupState,
        parts: dict[int, bytes],
    ) -> Iterator[tuple[Partition | None, int, int, int, bytes]]:
        """Return what waited: (partition, first and last offset, terms, identifiers)."""
        for start in sorted(parts):
            part = decode(parts[start], QueuePart)
            if part is None:
                logger.warning("queue not readable owner=%r number=%d", key_of(owner), start)
                continue
            partitions = self._partitions.find(part.partitions)
            number = start
            for place, first, last, terms, identifiers in part.runs:
                sent = max(state.popped - number, 0)
                number += last - first + 1
                # Where the crash came before the state was written, the scan finds the rest.
                unknown = max(number - state.pushed, 0)
                if first + sent <= last - unknown:
                    partition = one_of(partitions, place)
                    yield partition, first + sent, last - unknown, terms, identifiers
            logged.parts += ((start, number),)

    def _restore_subscriptions(self, session: Session, written: Written) -> None:
        own: list[Subscription] = []
        for name, value in written.filters.items():
            terms = self._terms.get(value)
            if terms is None:
                terms = self._terms[value] = decode(value, SubscriptionTerms)
            topic_filter = self._names.get(name)
            if topic_filter is None:
                if len(self._names) >= NAMES_MAX:
                    self._names.clear()
                topic_filter = self._names[name] = _text(name)
            if terms is None or topic_filter is None:
                logger.warning("subscription not readable client=%s", session.client_id)
                continue
            subscription = Subscription(session, topic_filter, terms.options, terms.identifier)
            own.append(subscription)
            if terms.ungreeted:
                self.ungreeted.append(subscription)
        self._broker.subscriptions.restore(session, own)

    def _marks_of(self, written: Written) -> PartitionMarks:
        """Return how far the log was matched for a session, at most to where it ends now.

        Log topics that no route led to when the session was written stand in a checkpoint only.
        """
        value = self._checkpoint_value if self._is_covered(written) else written.marks
        found = self._marks_by_value.get(value)
        if found is None:
            marks = self._by_partition(self._checkpoint) | self._by_partition(
                decode(value, Marks)
            )
            found = self._marks_by_value[value] = marks
        return found

    def _is_covered(self, written: Written) -> bool:
        """Whether a checkpoint says of a state how far the log was matched."""
        return self._checkpoint is not None and written.offset < self._checkpoint.before

    def _by_partition(self, marks: Marks | None) -> PartitionMarks:
        found: PartitionMarks = {}
        if marks is None:
            return found
        undecided = {(topic_id, index): offset for topic_id, index, offset in marks.undecided}
        released = {(topic_id, index): offset for topic_id, index, offset in marks.released}
        for topic_id, written, durable in marks.log_topics:
            ids = [(topic_id, index) for index in range(len(written))]
            for place, partition in enumerate(self._partitions.find(ids)):
                if partition is not None and place < len(durable):
                    ends = written[place], durable[place], undecided.get(ids[place], FAR)
                    first, second, third = (min(end, partition.end_offset) for end in ends)
                    decided = min(second, third)
                    found[partition] = first, second, decided, released.get(ids[place], 0)
        return found

    # --- what came since ----------------------------------------------------------------------

    def scan(self) -> int:
        """Match what came after the marks; return how many records were looked at."""
        if len(self._broker.subscriptions.tree) == 0:
            return 0
        count = 0
        all_marks = {id(marks): marks for marks in self.marks.values()}.values()
        for name in self._broker.routes.log_topics():
            topic = self._broker.log.topics.get(name)
            for partition in topic.partitions if topic is not None else ():
                start = min(marks.get(partition, NEW)[2] for marks in all_marks)
                count += self._scan(partition, max(start, partition.start_offset))
        return count

    def _scan(self, partition: Partition, start: int) -> int:
        count = 0
        held = HeldBatches()
        for batch in partition.batches(start):
            count += batch.count
            if batch.is_control:
                place = held.take(batch)
                if place is not None:
                    self._match_transaction(partition, batch, *place)
            elif batch.is_transactional:
                held.hold(batch)
            else:
                self._match(partition, batch)
        return count

    def _match_transaction(
        self, partition: Partition, marker: RecordBatch, first: int, last: int
    ) -> None:
        for batch in partition.batches(max(first, partition.start_offset)):
            if batch.base_offset > last:
                break
            if batch.producer_id == marker.producer_id:
                self._match(partition, batch, marker.base_offset)

    def _match(self, partition: Partition, batch: RecordBatch, decided_at: int = -1) -> None:
        """Give the records of a batch to those who had not seen them yet.

        `decided_at`: where the marker lies with which they came to be delivered.
        """
        now_ms = self._broker.runtime.now_ms()
        # What says nothing of its QoS was published at QoS 0 or came over the other shore.
        qos = 0 if batch.base_sequence == MQTT_SEQUENCE else 2
        for record in readable_records(batch):
            destination = self._broker.destinations.match(partition.log_topic, record)
            if destination is None or not (destination.receivers or destination.groups):
                continue
            publish = publish_of(record, destination.topic_name, now_ms, qos)
            if (
                publish is not None
                and publish.qos > 0
                and record.offset >= partition.start_offset
            ):
                self._push(publish, destination, partition, record.offset, decided_at)

    def _push(
        self,
        publish: Publish,
        destination: Destination,
        partition: Partition,
        offset: int,
        decided_at: int,
    ) -> None:
        came_at = max(offset, decided_at)

        def is_new(owner: Session | ShareGroup, qos: int) -> bool:
            written, durable, _, released = self.marks[owner].get(partition, NEW)
            mark = durable if qos == 2 else written
            return (came_at, offset) >= (mark, released)

        for receiver in destination.receivers:
            qos = min(publish.qos, receiver.qos)
            if qos > 0 and is_new(receiver.session, qos):
                retain = publish.retain and receiver.retain_as_published
                receiver.session.deliver(
                    publish, qos, retain, receiver.identifiers, partition, offset
                )
        for group in destination.groups:
            if group in self.marks and is_new(group, publish.qos):
                group.deliver(publish, destination.key, partition, offset)


def principal_of(state: SessionState, client_id: str) -> Principal:
    """Return whose session it is, by what was known when it was written."""
    groups = frozenset(state.groups) if state.groups else NO_GROUPS
    identity = Identity(state.address, 0, state.listener)
    way = intern(state.way)  # one of a few
    return Principal(state.user, client_id, identity, groups=groups, way=way)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
