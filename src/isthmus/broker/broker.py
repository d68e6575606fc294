"""What happens to a message: from a session to the log, and from the log to everybody.

The broker joins the two shores. `receive` takes a client's packets; a PUBLISH goes into the
open batch of its partition. Once per turn of the loop `turn` gives the open batches to the log
and writes them. Then the log calls back through the tickets: *written* brings the messages to
the subscribers (QoS 0 and 1), *durable* brings publishers their acknowledgements and QoS 2
messages to their subscribers [DESIGN 3]. Nobody sees what the log does not hold.

`append` is the same path for a batch of the Kafka side, taken as it came.

One thread, no waiting, no sockets. Compiled. What surrounds a message is next door: sessions
and wills (sessions.py), subscriptions, routes, retained messages, the mapping to records.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from isthmus.broker.access import Access
from isthmus.broker.catching_up import CatchingUp
from isthmus.broker.delayed import Delayed
from isthmus.broker.destinations import Destinations, TopicDefaults, ensure_own
from isthmus.broker.mapping import headers_of, publish_of
from isthmus.broker.permits import Permits
from isthmus.broker.publishing import (
    MQTT_SEQUENCE,
    NO_OFFSET,
    Destination,
    OpenBatch,
    PublishTicket,
    RelayTicket,
    RetainedAcknowledgement,
    new_acknowledgement,
)
from isthmus.broker.recent_records import readable_records
from isthmus.broker.relays import Relays
from isthmus.broker.retained import RETAINED_CONFIGS, RETAINED_LOG_TOPIC, Retained
from isthmus.broker.rewrite import NO_REWRITINGS, Rewritings
from isthmus.broker.routes import DEFAULT_LOG_TOPIC
from isthmus.broker.session_log import SESSIONS_CONFIGS, SESSIONS_LOG_TOPIC, SessionLog
from isthmus.broker.sessions import end_connection
from isthmus.broker.shared import ShareGroup
from isthmus.broker.sparkplug import CERTIFICATES_LEVEL, certified, is_birth
from isthmus.broker.subscriptions import Subscriptions
from isthmus.broker.timers import Deadlines
from isthmus.broker.traces import Traces
from isthmus.broker.volatile import Volatile
from isthmus.errors import IsthmusError, NoSpace, NotAuthorized, Refused, StorageError
from isthmus.mqtt.packets import PUBACK, Ack, Publish
from isthmus.mqtt.reasons import ReasonCode, reason_in, text_of
from isthmus.mqtt.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.broker.publishing import Acknowledgement, Waiting
    from isthmus.broker.relays import Relay
    from isthmus.broker.routes import RouteTable
    from isthmus.mqtt.session import Session
    from isthmus.record.batch import RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log, Partition, Ticket

logger = logging.getLogger(__name__)

_NO_MATCHING_SUBSCRIBERS = int(ReasonCode.NO_MATCHING_SUBSCRIBERS)  # as a C integer
BATCH_BYTES_MAX = 1 << 20  # an open batch this large is closed before the turn ends
BACKLOG_BYTES_MAX = 16 << 20  # published and not yet acknowledged, over all publishers


class Broker:
    """The MQTT shore's messages, and every record's way to MQTT subscribers."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        routes: RouteTable,
        volatile: Log,
        *,
        access: Access | None = None,
        partitions_default: int = 1,
        message_bytes_max: int = 1 << 24,
        retained_max: int = 1_000_000,
        retained_bytes_max: int = 1 << 30,
        delayed_max: int = 100_000,
        delayed_max_s: int = 4_294_967,
        delayed_bytes_max: int = 1 << 30,
        rewritings: Rewritings = NO_REWRITINGS,
        sparkplug: bool = False,
        new_group: Callable[..., ShareGroup] = ShareGroup,
    ) -> None:
        """Open the broker's own log topics, creating them at the first start.

        `volatile` is a log in memory, for what is not to be stored. Without rules of `access`
        everybody may do everything. `new_group` makes those of shared subscriptions.
        """
        self.runtime, self.log, self.routes = runtime, log, routes
        self.deadlines = Deadlines(runtime)
        subscriptions = self.subscriptions = Subscriptions(partial(new_group, self))
        self.relays = Relays(self)
        self.traffic = Traffic()
        self.traces = Traces(runtime, subscriptions)
        self.published = self.delivered = self.backlog_bytes = 0
        self.undeliverable = 0  # records whose key is no topic name
        self.lost = 0  # not stored, and nobody told: QoS 0, wills, refused before MQTT 5
        self._tree = subscriptions.tree
        permits = self.permits = Permits(access or Access(), subscriptions)
        new_topics = TopicDefaults(partitions_default, message_bytes_max)
        self.destinations = Destinations(
            log, routes, subscriptions, permits, rewritings, new_topics
        )
        self._by_name = self.destinations.by_name
        self.volatile = Volatile(runtime, volatile)
        self.destinations.reserved[b"$SYS"] = self.volatile.receive
        self.is_sparkplug_aware = sparkplug
        if sparkplug:
            self.destinations.store(CERTIFICATES_LEVEL, is_birth)
        self._open: list[OpenBatch] = []
        self._touched: list[Session] = []
        self._scheduled = False
        self._now_ms = 0
        self._relief: list[Callable[[], None]] = []
        self.catching_up = CatchingUp(runtime, self.destinations, permits, self.touch)
        self._turn = self.turn
        partition = ensure_own(log, RETAINED_LOG_TOPIC, RETAINED_CONFIGS).partitions[0]
        self.retained = Retained(self, partition, retained_max, retained_bytes_max)
        self.delayed = Delayed(self, delayed_max, delayed_max_s, delayed_bytes_max)
        partition = ensure_own(log, SESSIONS_LOG_TOPIC, SESSIONS_CONFIGS).partitions[0]
        self.session_log = SessionLog(self, partition)
        self.destinations.ensure_topic(DEFAULT_LOG_TOPIC)
        self.relays.find(log, routes)

    # --- from the client ----------------------------------------------------------------------

    def receive(
        self, session: Session, packets: Sequence[Any], other: Callable[[Any], bool]
    ) -> bool:
        """Act on a session's packets, in order; False once the connection has ended.

        `other(packet)` takes what is not about messages; False ends the connection. Raises
        ProtocolError; what came before the offending packet has been done.
        """
        for packet in packets:
            if not session.connected:
                return False  # the packet before ended it
            kind = type(packet)
            if kind is Publish:
                if session.receive_publish(packet):
                    self.publish(session, packet)
            elif kind is Ack:
                session.receive_ack(packet)
            elif not other(packet):
                return False
        if session.output.size or session.step:
            self.touch(session)
        return True

    def publish(self, session: Session | None, publish: Publish) -> None:
        """Put a message into this turn's batch of its partition; `session` is the publisher.

        A publish with a packet id is acknowledged to it.
        """
        permits = self.permits
        if (
            permits.is_on
            and session is not None
            and not permits.may_publish(session, self.destinations.meant(publish.topic))
        ):
            why = NotAuthorized("the rules of access do not allow to publish this")
            self._refuse(session, publish, why)
            return
        destination = self._by_name.get(publish.topic)
        if destination is None:
            try:
                destination = self._find(session, publish)
            except IsthmusError as error:
                self._refuse(session, publish, error)
                return
            if destination is None:
                return
        self._put(destination, session, publish)

    def publish_own(self, publish: Publish, waiting: Waiting) -> None:
        """Publish for the server itself; `waiting` hears what became of it.

        It is durable then, whatever its QoS, or failed. The topic name does not begin with $.
        """
        if self.traces.is_on:
            self.traces.came("DELAYED", publish)
        try:
            destination = self._by_name.get(publish.topic) or self._find(None, publish)
        except IsthmusError as error:
            waiting.settle(error)
            return
        assert destination is not None, "nobody else takes such a name"
        open_batch = destination.open
        ticket = open_batch.ticket
        if ticket is None:
            ticket = self.begin(open_batch, PublishTicket(self, open_batch.partition))
        ticket.others.append(waiting)
        self._put(destination, None, publish)

    def _find(self, session: Session | None, publish: Publish) -> Destination | None:
        """Return where a message goes whose topic name is not known yet; None: it is taken.

        Raises Refused, StorageError.
        """
        destination = self.destinations.find(session, publish)
        if self.is_sparkplug_aware and is_birth(publish.topic):
            self._certify(publish)
        return destination

    def _certify(self, birth: Publish) -> None:
        """Keep a birth as its certificate, if there is such a topic name."""
        certificate = certified(birth)
        try:
            destination = self.destinations.known(certificate.topic)
        except IsthmusError:
            return
        self._put(destination, None, certificate)

    def say(
        self, topic_name: str, payload: bytes, *, qos: int = 0, retain: bool = False
    ) -> None:
        """Publish what the server itself has to say; the log does not get it."""
        publish = Publish(topic_name.encode(), payload, qos, retain)
        self._put(self.volatile.take(publish), None, publish)

    def _put(self, destination: Destination, session: Session | None, publish: Publish) -> None:
        """Add a message to the open batch of its partition."""
        open_batch = destination.open
        ticket = open_batch.ticket
        if ticket is None:
            ticket = self.begin(open_batch, PublishTicket(self, open_batch.partition))
        headers: Any = destination.headers[publish.qos + 3 * publish.retain]
        if publish.properties:
            headers = headers_of(publish, destination.topic_header, self._now_ms)
        open_batch.builder.append(self._now_ms, destination.key, publish.payload, headers)
        ticket.publishes.append(publish)
        ticket.destinations.append(destination)
        ticket.publishers.append(session)
        if publish.packet_id and session is not None:  # a will has no packet id
            if destination.version != self._tree.version_at(destination.slots):
                self.destinations.refresh(destination)
            reason = 0
            if not destination.receivers and not destination.groups:
                reason = _NO_MATCHING_SUBSCRIBERS
            ticket.acknowledgements.append(new_acknowledgement(session, publish, reason))
            if publish.qos == 2 and session.persistent:
                ticket.exactly_once = True
        if publish.retain:
            self._retain(session, publish, ticket)
        if open_batch.builder.size >= BATCH_BYTES_MAX:
            self._open.remove(open_batch)
            self._close([open_batch])

    def begin(self, open_batch: OpenBatch, ticket: PublishTicket) -> PublishTicket:
        """Begin a batch; it is given to the log at the end of this turn."""
        open_batch.ticket = ticket
        self._open.append(open_batch)
        self._now_ms = self.runtime.now_ms()
        self.schedule()
        return ticket

    def _retain(self, session: Session | None, publish: Publish, ticket: PublishTicket) -> None:
        """Have a message retained; a publisher who waits for it waits for that, too."""
        if ticket.partition is self.volatile.partition:
            return  # they are retained there
        if session is None or publish.packet_id == 0:
            self.retained.put(publish)
            return
        waiting = RetainedAcknowledgement(self, ticket.acknowledgements[-1])
        if self.retained.put(publish, waiting):
            ticket.acknowledgements.pop()
            ticket.others.append(waiting)

    def append(
        self,
        partition: Partition,
        batch: RecordBatch,
        ticket: Ticket | None,
        *,
        trusted: bool = False,
    ) -> None:
        """Append a batch of the Kafka side; it is written at the end of the turn.

        Its records reach MQTT subscribers where their log topic has a way back: those of a
        transaction when its marker comes, which is a batch that this server has built
        (`trusted`).
        """
        self.schedule()
        if self.routes.leads_back(partition.log_topic):
            batch.stamp(NO_OFFSET, -1)  # stays where the log has the batch already
            ticket = RelayTicket(self, partition, batch, ticket)
        partition.append(batch, ticket, trusted=trusted)

    # --- once per turn ------------------------------------------------------------------------

    def turn(self) -> None:
        """Write what this turn of the loop gathered, then send what is to be sent."""
        self._scheduled = False
        open_batches = self._open
        if open_batches:
            self._open = []
            self._close(open_batches)
        self.retained.commit()
        self._note_steps()
        self.session_log.commit()
        self._flush()
        if (self._note_steps() or self.session_log.is_urgent) and self.session_log.commit():
            self.log.flush()  # what was delivered at QoS 2 just now is about to be sent
        touched = self._touched
        self._touched = []
        for session in touched:
            session.touched = False
            if session.transmit is not None and session.output.size:
                session.transmit(session.output.take())
                if session.waiting() or session.refills:
                    self.catching_up.begin(session)  # there is room in the output

    def _flush(self) -> None:
        """Have written what was appended."""
        self.log.flush()
        self.volatile.flush()

    def commit(self) -> None:
        """Write what is open now, for a request that must see what came before it."""
        if self._open or self.retained.has_pending:
            self.turn()

    def touch(self, session: Session) -> None:
        """Have a session's output sent at the end of this turn."""
        if not session.touched:
            session.touched = True
            self._touched.append(session)
            self.schedule()

    def schedule(self) -> None:
        """Have `turn` run at the end of this turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self.runtime.defer(self._turn)

    def _note_steps(self) -> bool:
        """Have the QoS 2 steps of persistent sessions written down; say if there are any."""
        found = False
        for session in self._touched:
            if session.step:
                found = True
                self.session_log.note_step(session)
        return found

    def _close(self, open_batches: list[OpenBatch]) -> None:
        """Give open batches to the log."""
        closed: list[tuple[PublishTicket, RecordBatch]] = []
        exactly_once = False
        for open_batch in open_batches:
            ticket = open_batch.ticket
            assert ticket is not None
            open_batch.ticket = None
            ticket.size = open_batch.builder.size
            self.published += len(ticket.publishes)
            self.backlog_bytes += ticket.size
            exactly_once = exactly_once or ticket.exactly_once
            closed.append((ticket, open_batch.builder.seal(0, -1, -1, MQTT_SEQUENCE)))
        if exactly_once:
            self._write_ids([ticket for ticket, _ in closed if ticket.exactly_once])
        for ticket, batch in closed:
            ticket.partition.append(batch, ticket, trusted=True)

    def _write_ids(self, tickets: list[PublishTicket]) -> None:
        """Write down the ids of QoS 2 publishes, with the places where they are to stand.

        Before the messages: where a crash comes in between, an id names a place that is not in
        the log, so it was never taken.
        """
        self._flush()  # nothing stands between the end of a partition and the batch now
        for ticket in tickets:
            offset = ticket.partition.end_offset
            for place, publish in enumerate(ticket.publishes):
                session = ticket.publishers[place]
                if publish is not None and publish.qos == 2 and session is not None:
                    session.stored(publish.packet_id, ticket.partition, offset + place)
                    self.session_log.note_step(session)
        self.session_log.commit()
        self.log.flush()

    # --- from the log -------------------------------------------------------------------------

    def deliver_written(self, ticket: PublishTicket) -> None:
        """The batch is in the log: hand its messages to the subscribers at QoS 0 and 1."""
        if self.relays.behind and self.relays.put_off(ticket):
            return
        self._deliver(ticket, False)
        if not ticket.qos_2:
            ticket.forget_messages()
            if not ticket.acknowledgements and not ticket.others:
                self.count_backlog(-ticket.size)

    def deliver_durable(self, ticket: PublishTicket) -> None:
        """The batch is durable: hand out what is delivered at QoS 2."""
        self._deliver(ticket, True)

    def settle(self, ticket: PublishTicket) -> None:
        """The batch is durable: deliver at QoS 2 and acknowledge to the publishers."""
        self.count_backlog(-ticket.size)
        if ticket.qos_2:
            self._deliver(ticket, True)
            self.relays.durable(ticket.partition, ticket.base_offset)
        for waiting in ticket.acknowledgements:
            session = waiting.session
            packet_id, reason = waiting.packet_id, waiting.reason
            session.acknowledge(waiting.attachment, packet_id, waiting.qos, reason)
            if session.output.size and not session.touched:
                self.touch(session)
        for other in ticket.others:
            other.settle(None)

    def settle_failed(self, ticket: PublishTicket, error: IsthmusError) -> None:
        """The batch was refused or cannot become durable: nobody gets an acknowledgement.

        What is surely not in the log is refused with a reason (MQTT 5); otherwise the
        connection ends, so that the client sends again.
        """
        self.count_backlog(-ticket.size)
        if not ticket.qos_2:  # else it was written, and what asked for no more had its due
            for publish in ticket.publishes:
                if publish is not None and publish.packet_id == 0:
                    self.lost += 1
        if not isinstance(error, StorageError):  # of those the log tells, once
            logger.warning(
                "batch not stored log_topic=%s partition=%d waiting=%d error=%s",
                ticket.partition.log_topic,
                ticket.partition.index,
                len(ticket.acknowledgements) + len(ticket.others),
                error,
            )
        for waiting in ticket.acknowledgements:
            self._answer_failure(waiting, error)
        for other in ticket.others:
            other.settle(error)

    def answer(self, waiting: Acknowledgement, error: IsthmusError | None) -> None:
        """Tell one publisher how it went."""
        if error is not None:
            self._answer_failure(waiting, error)
            return
        session = waiting.session
        session.acknowledge(waiting.attachment, waiting.packet_id, waiting.qos, waiting.reason)
        self.touch(session)

    def _refuse(self, session: Session | None, publish: Publish, error: IsthmusError) -> None:
        """Answer a message that cannot be stored at all.

        Before MQTT 5 a client that may not publish is told nothing [MQTT-3.3.5-2 of 3.1.1]; any
        other failure ends its connection, because an acknowledgement would be a lie.
        """
        if not isinstance(error, StorageError):
            logger.debug("publish refused topic_name=%r error=%s", publish.topic, error)
        if session is None or publish.packet_id == 0:
            self.lost += 1
            return
        waiting = new_acknowledgement(session, publish, 0)
        if session.version < 5 and isinstance(error, NotAuthorized):
            self.lost += 1
            session.acknowledge(waiting.attachment, publish.packet_id, publish.qos, 0)
        else:
            self._answer_failure(waiting, error)

    def _answer_failure(self, waiting: Acknowledgement, error: IsthmusError) -> None:
        session = waiting.session
        if session.version == 5 and isinstance(error, (Refused, NoSpace)):
            reason = reason_in(PUBACK, error)
            session.acknowledge(
                waiting.attachment, waiting.packet_id, waiting.qos, reason, text_of(error)
            )
            self.touch(session)
            return
        if waiting.qos == 2:
            session.forget(waiting.packet_id)
        if session.connected and session.attachment == waiting.attachment:
            end_connection(session, error)

    def _deliver(self, ticket: PublishTicket, at_qos_2: bool) -> None:
        offset = ticket.base_offset
        publishes = ticket.publishes
        destinations = ticket.destinations
        publishers = ticket.publishers
        tree = self._tree
        for place in range(len(publishes)):
            publish = publishes[place]
            if publish is None or (at_qos_2 and publish.qos != 2):
                continue
            destination = destinations[place]
            assert destination is not None
            if destination.version != tree.version_at(destination.slots):
                self.destinations.refresh(destination)
            for receiver in destination.receivers:
                session = receiver.session
                if receiver.no_local and session is publishers[place]:
                    if receiver.own is None:
                        continue
                    receiver = receiver.own
                qos = publish.qos if publish.qos < receiver.qos else receiver.qos
                if (qos == 2) != at_qos_2:
                    ticket.qos_2 = True
                    continue
                session.deliver(
                    publish,
                    qos,
                    publish.retain and receiver.retain_as_published,
                    receiver.identifiers,
                    ticket.partition,
                    offset + place,
                )
                self.delivered += 1
                if not session.touched:
                    self.touch(session)
            if destination.groups:
                if publish.qos == 2 and not at_qos_2:
                    ticket.qos_2 = True
                    continue
                for group in destination.groups:
                    group.deliver(publish, destination.key, ticket.partition, offset + place)
                    self.delivered += 1

    def relay(self, relay: Relay, batch: RecordBatch, durable_with: int) -> PublishTicket:
        """Deliver the records of a batch, which may leave some for QoS 2.

        A record that says nothing of its QoS was published at QoS 0 by an MQTT client, or came
        over the other shore and counts as published at QoS 2: each subscriber gets what it was
        granted. `durable_with`: the offset of what brings the batch, itself or a marker.
        """
        partition = relay.partition
        is_ours = batch.base_sequence == MQTT_SEQUENCE
        ticket = PublishTicket(self, partition)
        ticket.base_offset = batch.base_offset
        now_ms = self.runtime.now_ms()
        for record in readable_records(batch):
            for _ in range(batch.base_offset + len(ticket.publishes), record.offset):
                ticket.add(None, None, None)  # compaction has taken it
            publish: Publish | None = None
            destination = self.destinations.of_record(partition.log_topic, record)
            if destination is None:
                self.undeliverable += 1
            elif record.offset >= partition.start_offset:
                qos = 0 if is_ours else 2
                publish = publish_of(record, destination.topic_name, now_ms, qos)
            publisher = relay.publisher_of(record.offset) if is_ours else None
            ticket.add(publish, destination, publisher)
            if publish is None or is_ours:
                continue
            if self.is_sparkplug_aware and is_birth(publish.topic):
                self._certify(publish)
            if not publish.retain:
                continue
            if relay.is_newest(publish.topic, durable_with) and self.retained.put(publish):
                self.schedule()  # this turn is being written just now
        self._deliver(ticket, False)
        return ticket

    def count_backlog(self, size: int) -> None:
        """So many bytes more, or less, wait for the log or for their delivery."""
        self.backlog_bytes += size
        if self._relief and self.backlog_bytes < BACKLOG_BYTES_MAX // 2:
            relief, self._relief = self._relief, []
            for resume in relief:
                resume()

    def congested(self, resume: Callable[[], None]) -> bool:
        """Say whether publishers should wait; `resume` is called once when they may go on."""
        if self.backlog_bytes < BACKLOG_BYTES_MAX:
            return False
        self._relief.append(resume)
        return True

    # --- beside messages ----------------------------------------------------------------------

    def close(self) -> None:
        """Write down all that a start has to know; nothing is delivered from here on."""
        self.turn()
        self.session_log.checkpoint()
        self.relays.close()

    def forget_log_topic(self) -> None:
        """A log topic was deleted or changed."""
        self.destinations.forget()
        self.catching_up.forget()
        self.relays.forget(self.log)
