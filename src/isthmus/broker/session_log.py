"""MQTT sessions that outlive the process: written down in the log topic `__mqtt_sessions`.

A persistent session is there again after the end of the server, whatever end that was. What
cannot be found out from the log otherwise is written in the turn in which it happens, and
stands in the log before anything of it leaves the process: that the session exists, its
subscriptions, its will, and each step of a QoS 2 handshake. The rest (what is in flight at
QoS 1, what waits) is written at a checkpoint, once a minute where it changed, after each
thousandth acknowledgement, and at an orderly end; the log itself tells what came since
[DESIGN 5]. So after a crash QoS 1 repeats what came since then, and QoS 2 repeats nothing.

Each batch that holds session states begins with marks: how far the log was matched when they
were written. A checkpoint ends with marks that hold for all sessions that it did not have to
write, so a session at rest costs nothing.

The log topic is compacted, so marks need keys that nothing overwrites as long as a state relies
on them. They are numbered, and the numbers begin again, in another generation, with each
checkpoint: what was written before the last one relies on the checkpoint.

The group of a shared subscription is written down as a session is, as soon as one of its
members is persistent; what it hands out at QoS 2 stands in one batch with who has it now.

A queue is written in parts, each only once; its deliveries are numbered in the order in which
they came to wait, and the state tells which numbers wait no more.

Reading it all back is in session_recovery.py, the form of the records in session_records.py.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

from isthmus.broker.session_records import (
    CHECKPOINT_KEY,
    FORM,
    GroupState,
    Marks,
    PartitionNumbers,
    QueuePart,
    SessionState,
    SubscriptionTerms,
    encode,
    encode_will,
    filter_key,
    group_key,
    marks_key,
    pack_terms,
    queue_key,
    will_key,
)
from isthmus.broker.shared import ShareGroup
from isthmus.errors import IsthmusError, StorageError
from isthmus.mqtt.delivery import AWAIT_PUBACK
from isthmus.mqtt.session import STEP_IN
from isthmus.record.batch import BatchBuilder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.broker.appends import Done
    from isthmus.broker.broker import Broker
    from isthmus.broker.sessions import SessionEntry
    from isthmus.broker.subscriptions import Subscription
    from isthmus.mqtt.packets import Will
    from isthmus.mqtt.session import Session
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import LogTopic, Partition

logger = logging.getLogger(__name__)

SESSIONS_LOG_TOPIC: Final = "__mqtt_sessions"
SESSIONS_CONFIGS: Final = {
    "cleanup.policy": "compact",
    "max.message.bytes": "300000000",
    "segment.bytes": "16777216",  # all of it is read at the start, so it is compacted soon
}
CHECKPOINT_MS: Final = 60_000
SESSIONS_PER_TURN: Final = 200  # of a checkpoint, so that messages go on meanwhile
PARTS_MAX: Final = 1_000  # of one queue; then it is written as one part again
BATCH_BYTES_MAX: Final = 1 << 20

Row = tuple[bytes, bytes | None]


class Logged:
    """What the log holds of one session or group, beside its state."""

    __slots__ = ("parts", "pushed", "will")

    def __init__(self) -> None:
        self.will: Will | None = None
        self.pushed = 0  # deliveries with a number below this one are written
        self.parts: tuple[tuple[int, int], ...] = ()  # first number, one past the last

    def is_needed(self, owner: Session | ShareGroup) -> bool:
        """Whether it says more than that there is nothing, now that the owner is written."""
        return self.will is not None or bool(self.parts) or owner.queue.length > 0


def key_of(owner: Session | ShareGroup) -> bytes:
    """Return the key of the state of a session or a group."""
    if isinstance(owner, ShareGroup):
        return group_key(owner.name, owner.topic_filter)
    return owner.client_id.encode()


class SessionLog:
    """Writes down what becomes of persistent sessions, at most once per turn of the loop."""

    def __init__(self, broker: Broker, partition: Partition) -> None:
        self.partition = partition
        # None: nothing but the state, as of most sessions at rest
        self.logged: dict[Session | ShareGroup, Logged | None] = {}
        self.is_urgent = False  # something is due that must be written before output is sent
        self.errors = 0
        self._broker = broker
        self._builder = BatchBuilder()
        self._due: dict[Session | ShareGroup, bool] = {}  # True: somebody will rely on it
        self._rows: list[Row] = []
        self._asking: list[Done] = []  # who waits until all of it is durable
        self._checkpoint: list[Session | ShareGroup] = []  # still to be written for it
        self._generation = 0  # of the keys of marks
        self._number = 0  # of the next marks
        self._newest = b""  # marks of the checkpoint that was begun last
        self._is_complete = False  # it is durable

    # --- what happens to sessions -------------------------------------------------------------

    def note(self, entry: SessionEntry) -> None:
        """A client has connected or disconnected, or its will was sent."""
        session = entry.session
        if session.persistent:
            self._due[session] = True
            self._broker.schedule()
        elif session in self.logged:
            self.end(session)

    def note_step(self, session: Session) -> None:
        """Deliveries have gone on; of QoS 2, what the client released must become durable."""
        if session.persistent:
            self._due[session] = self._due.get(session, False) or session.step >= STEP_IN
        else:
            session.step = 0

    def subscribed(self, subscription: Subscription, *, ungreeted: bool = False) -> None:
        """A persistent session has a subscription, be it a new one or one with new options.

        `ungreeted`: retained messages are still to be sent.
        """
        session = subscription.session
        value = SubscriptionTerms(
            FORM, subscription.options, subscription.identifier, ungreeted
        )
        key = filter_key(session.client_id.encode(), subscription.topic_filter.encode())
        self._rows.append((key, encode(value)))
        self._due[session] = True
        if subscription.is_shared:
            self._due[self._broker.subscriptions.groups[subscription.topic_filter]] = True
        self._broker.schedule()

    def unsubscribed(self, session: Session, topic_filter: str) -> None:
        """A persistent session has a subscription no more."""
        key = filter_key(session.client_id.encode(), topic_filter.encode())
        self._rows.append((key, None))
        self._due[session] = True
        self._broker.schedule()

    def note_group(self, group: ShareGroup) -> None:
        """A group has handed out a message that nobody else may get, not after a crash either.

        That is written down if anything of the group is.
        """
        if group in self.logged or group in self._due:
            self._due.setdefault(group, False)
            self.is_urgent = True

    def end_group(self, group: ShareGroup) -> None:
        """A group has no members any more."""
        self._due.pop(group, None)
        if group in self.logged:
            logged = self.logged.pop(group) or Logged()
            key = key_of(group)
            self._rows += [(queue_key(key, number), None) for number, _ in logged.parts]
            self._rows.append((key, None))
            self._broker.schedule()

    def end(self, session: Session) -> None:
        """A session is over, or will be when its connection is; it still has subscriptions."""
        self._due.pop(session, None)
        if session not in self.logged and not session.persistent:
            return
        logged = self.logged.pop(session, None)
        session.persistent = False
        client = session.client_id.encode()
        for topic_filter in self._broker.subscriptions.of(session):
            self._rows.append((filter_key(client, topic_filter.encode()), None))
        if logged is not None:
            self._rows += [(queue_key(client, number), None) for number, _ in logged.parts]
            if logged.will is not None:
                self._rows.append((will_key(client), None))
        self._rows.append((client, None))
        self._broker.schedule()

    def when_durable(self, done: Done) -> None:
        """Tell `done` once what has happened in this turn is durable, or cannot be now."""
        if self._due or self._rows:
            self._asking.append(done)
        else:
            done(None)

    # --- checkpoints --------------------------------------------------------------------------

    def start(self) -> None:
        """Take a checkpoint now, and one every minute from here on."""
        self.checkpoint()
        self._broker.runtime.later(CHECKPOINT_MS, self._begin_checkpoint)

    def checkpoint(self) -> None:
        """Write all that changed at once; for the start and the orderly end."""
        self._checkpoint = []
        self._due |= dict.fromkeys(self._changed(), False)
        errors = self.errors
        marks = self._begin_generation()
        while self.commit():
            self._broker.log.flush()
        if self.errors == errors:
            self._rows.append((CHECKPOINT_KEY, marks))
            self.commit()
            self._broker.log.flush()

    def _begin_checkpoint(self) -> None:
        self._broker.runtime.later(CHECKPOINT_MS, self._begin_checkpoint)
        if self._checkpoint:
            return  # the one before is not done
        errors = self.errors
        marks = self._begin_generation()
        self._checkpoint = list(self._changed())

        def go_on() -> None:
            chosen = self._checkpoint[-SESSIONS_PER_TURN:]
            del self._checkpoint[-SESSIONS_PER_TURN:]
            for session in chosen:
                if session in self.logged:
                    self._due.setdefault(session, False)
            self._broker.turn()
            if self._checkpoint:
                self._broker.runtime.defer(go_on)
            elif self.errors == errors:
                self._rows.append((CHECKPOINT_KEY, marks))
                self._broker.turn()

        go_on()

    def _begin_generation(self) -> bytes:
        """Return the marks of a checkpoint; those of the one before are needed no more."""
        if self._is_complete:
            self._generation = 1 if self._generation == 0 else 0
            self._number = 0
            self._is_complete = False
        self._newest = self._marks(everywhere=True)
        return self._newest

    def _changed(self) -> Iterable[Session | ShareGroup]:
        return [each for each in self.logged if each.changed]

    def _marks(self, *, everywhere: bool) -> bytes:
        """Return how far the log is matched.

        A checkpoint names every log topic: the routes of the next start may lead to others.
        """
        topics = self._broker.log.topics
        found: Iterable[LogTopic | None] = topics.values()
        if not everywhere:
            found = map(topics.get, self._broker.routes.log_topics())
        behind = self._broker.relays.behind
        rows = []
        undecided = []
        released = []
        for topic in found:
            if topic is None or topic.name.startswith("__"):
                continue
            written = [partition.end_offset for partition in topic.partitions]
            durable = [partition.durable_offset for partition in topic.partitions]
            rows.append((topic.topic_id, written, durable))
            undecided += [
                (topic.topic_id, partition.index, partition.last_stable_offset)
                for partition in topic.partitions
                if partition.last_stable_offset < partition.durable_offset
            ]
            for partition in topic.partitions if behind else ():
                relay = behind.get(partition)
                if relay is not None:
                    index, oldest = partition.index, partition.last_stable_offset
                    written[index] = relay.at
                    durable[index] = min(durable[index], relay.at)
                    undecided.append((topic.topic_id, index, min(oldest, relay.oldest)))
                    released.append((topic.topic_id, index, relay.released_before))
        before = self.partition.end_offset if everywhere else 0
        return encode(Marks(FORM, before, rows, undecided, released))

    # --- once per turn ------------------------------------------------------------------------

    def commit(self) -> bool:
        """Append what there is to write, for the next flush of the log; False if nothing is."""
        due, rows = self._due, self._rows
        if not due and not rows:
            return False
        self._due, self._rows = {}, []
        self.is_urgent = False
        for each in due:
            if not isinstance(each, ShareGroup):
                self._add_will(each, rows)
        ticket = _Written(self, list(due), rows.copy())
        ticket.wants_durable = bool(rows) or any(due.values())
        ticket.asking, self._asking = self._asking, []
        if due:
            key = marks_key(self._generation, self._number)
            rows.append((key, self._marks(everywhere=False)))
            self._number += 1
        is_split = True
        for each in due:
            if isinstance(each, ShareGroup):
                self._add_group(each, rows)
                is_split = False  # it has handed to sessions what it holds no more
                continue
            self._add_state(each, rows)
            if each.incoming.released:
                ticket.released.append((each, each.attachment, each.take_released()))
        now_ms = self._broker.runtime.now_ms()
        builder = self._builder
        batches: list[RecordBatch] = []
        for key, value in rows:
            builder.append(now_ms, key, value)
            if is_split and builder.size >= BATCH_BYTES_MAX:
                batches.append(builder.seal())
        if builder.count:
            batches.append(builder.seal())
        ticket.batches = len(batches)
        for batch in batches:
            self.partition.append(batch, ticket, trusted=True)
        return True

    def _logged_of(self, owner: Session | ShareGroup) -> Logged:
        logged = self.logged.get(owner)
        if logged is None:
            logged = self.logged[owner] = Logged()
        return logged

    def _add_will(self, session: Session, rows: list[Row]) -> None:
        """Write the session's will where it is another one than the log has, or none."""
        logged = self._logged_of(session)
        will = cast("SessionEntry", session.owner).will
        if will is not logged.will:
            logged.will = will
            key = will_key(session.client_id.encode())
            rows.append((key, None if will is None else encode_will(will)))

    def _add_state(self, session: Session, rows: list[Row]) -> None:
        logged = self._logged_of(session)
        gone = self._add_queue(session, logged, rows)
        entry = cast("SessionEntry", session.owner)
        principal = entry.principal
        numbers = PartitionNumbers(self._broker.log)
        inflight = [
            (
                packet_id,
                numbers.number(delivery.partition),
                delivery.offset,
                pack_terms(delivery.qos, delivery.retain, delivery.state),
                delivery.identifiers,
            )
            for packet_id, delivery in session.inflight.items()
            if delivery.share is None or delivery.state != AWAIT_PUBACK  # that is the group's
        ]
        unreleased = [
            (packet_id, numbers.number(partition), offset)
            for packet_id, (partition, offset) in (session.incoming.places or {}).items()
        ]
        state = SessionState(
            FORM,
            entry.expiry_s,
            entry.detached_at_ms,
            session.next_packet_id,
            session.queue.pushed - session.queue.length,
            session.queue.pushed,
            numbers.ids,
            inflight,
            unreleased,
            principal.user,
            sorted(principal.groups),
            principal.way,
            principal.listener,
            principal.address,
        )
        rows.append((key_of(session), encode(state)))
        rows += gone
        session.changed = False
        session.step = 0
        if not logged.is_needed(session):
            self.logged[session] = None

    def _add_group(self, group: ShareGroup, rows: list[Row]) -> None:
        queue = group.queue
        gone = self._add_queue(group, self._logged_of(group), rows)
        numbers = PartitionNumbers(self._broker.log)
        unfinished = [
            (numbers.number(each.partition), each.offset, each.qos)
            for each in group.unfinished()
        ]
        popped = queue.pushed - queue.length
        state = GroupState(FORM, popped, queue.pushed, numbers.ids, unfinished)
        rows.append((key_of(group), encode(state)))
        rows += gone
        group.changed = bool(unfinished)  # it is not told when these are done

    def _add_queue(
        self, owner: Session | ShareGroup, logged: Logged, rows: list[Row]
    ) -> list[Row]:
        """Write what came to wait since the last time; return the ends of what waits no more.

        These go behind the state, which says so: a crash may come between two batches.
        """
        key = key_of(owner)
        queue = owner.queue
        if len(logged.parts) >= PARTS_MAX:
            queue.renumber()
        popped = queue.pushed - queue.length
        gone: list[Row] = [
            (queue_key(key, number), None) for number, end in logged.parts if end <= popped
        ]
        logged.parts = logged.parts[len(gone) :]
        fresh = min(queue.pushed - logged.pushed, queue.length)
        logged.pushed = queue.pushed
        if not fresh:
            return gone
        numbers = PartitionNumbers(self._broker.log)
        runs = [
            (
                numbers.number(run.partition),
                run.first,
                run.last,
                pack_terms(run.qos, run.retain),
                run.identifiers,
            )
            for run in queue.newest(fresh)
        ]
        number = queue.pushed - fresh
        rows.append((queue_key(key, number), encode(QueuePart(FORM, numbers.ids, runs))))
        logged.parts += ((number, queue.pushed),)
        return gone

    # --- from the log -------------------------------------------------------------------------

    def resume(self, generations: set[int], rows: list[Row]) -> None:
        """States in the log rely on marks of these generations, and `rows` are to be written.

        For the start, before the first checkpoint.
        """
        self._generation = min(set(range(len(generations) + 1)) - generations)
        self._rows += rows

    def settle(self, ticket: _Written) -> None:
        """What was written is durable, and that packet ids are released: they are free."""
        if any(value is self._newest for _, value in ticket.rows):
            self._is_complete = True
        for session, attachment, packet_ids in ticket.released:
            session.complete(attachment, packet_ids)
            self._broker.touch(session)
        for done in ticket.asking:
            done(None)

    def settle_failed(self, ticket: _Written, error: IsthmusError) -> None:
        """The log does not hold it: write all of it again, with the next checkpoint."""
        self.errors += 1
        if not isinstance(error, StorageError):  # of those the log tells, once
            logger.warning(
                "sessions not stored sessions=%d error=%s", len(ticket.owners), error
            )
        if self._broker.log.error is None:
            again = [row for row in ticket.rows if row[0] != CHECKPOINT_KEY]
            self._rows = again + self._rows
        for owner in ticket.owners:
            owner.queue.renumber()
            owner.changed = True
        for session, attachment, _ in ticket.released:
            entry = cast("SessionEntry", session.owner)
            if entry.connection is not None and session.attachment == attachment:
                entry.connection.close(error)
        for done in ticket.asking:
            done(error)


class _Written:
    """Waits for one write, of one batch or more."""

    __slots__ = ("_log", "asking", "batches", "owners", "released", "rows", "wants_durable")

    def __init__(
        self, log: SessionLog, owners: list[Session | ShareGroup], rows: list[Row]
    ) -> None:
        self._log = log
        self.owners = owners  # of the states that are written
        self.rows = rows  # but for the sessions' states and queues
        self.released: list[tuple[Session, int, list[int]]] = []
        self.asking: list[Done] = []
        self.batches = 0  # that are not durable yet
        self.wants_durable = True

    def written(self, base_offset: int) -> None:
        """What was noted may leave the process at the end of the turn."""

    def durable(self) -> None:
        self.batches -= 1
        if self.batches == 0:
            self._log.settle(self)

    def failed(self, error: IsthmusError) -> None:
        if self.batches > 0:
            self.batches = -1
            self._log.settle_failed(self, error)
