"""One client's MQTT session: what each packet does to it, and what goes out to it.

A machine without I/O. Packets come in through `receive_publish` and `receive_ack`; what the
client is to get gathers in `output`, which the owner takes once per turn of the loop. The
session outlives connections: `attach` gives it one, `detach` takes it away, and what was not
acknowledged is sent again at the next `attach` [MQTT-4.4.0-1].

The session owns the QoS 1 and 2 state of both directions (that of what comes in is next door,
`incoming.py`), the outgoing window and the queue of what waits. It does not know the broker,
the log or subscriptions: a message is recalled from wherever it is kept through the `recall`
function given at construction.

A session that is to outlive the server (`persistent`) tells the owner what to write down:
`step` says that a QoS 2 handshake went on, which must be written before `output` is sent,
`changed` that something else did.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from isthmus.errors import QosNotSupported, RetainNotSupported, UnexpectedPacket
from isthmus.mqtt.delivery import (
    AWAIT_PUBACK,
    AWAIT_PUBCOMP,
    DROP_DENIED,
    DROP_EXPIRED,
    DROP_GONE,
    DROP_OFFLINE,
    DROP_QUEUE,
    DROP_TOO_LARGE,
    DeliveryQueue,
    Dropped,
    new_delivery,
)
from isthmus.mqtt.incoming import ANSWERED, Incoming
from isthmus.mqtt.outgoing import Outgoing
from isthmus.mqtt.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish
from isthmus.mqtt.properties import TOPIC_ALIAS
from isthmus.mqtt.reasons import ReasonCode
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.mqtt.delivery import Delivery, SessionLimits
    from isthmus.mqtt.handshake import Terms
    from isthmus.mqtt.traffic import Traffic

REFUSED_FROM = 0x80  # reason codes from here on are failures [MQTT 5.0, 2.4]

NOT_YET = Publish(b"", b"")  # what `recall` returns for a message that takes time to get
EXPIRED = Publish(b"", b"")  # and for one that is there, and not to be sent any more
DENIED = Publish(b"", b"")  # and for one that this client may not receive

# What sessions have while they have no connection, and nothing under way. Nothing is put in.
NO_OUTPUT = WriteBuffer()
NO_INFLIGHT: dict[int, Delivery] = {}
NO_INCOMING = Incoming()

STEP_OUT = 1  # a delivery at QoS 2 went on, or many at QoS 1
STEP_IN = 2  # a packet id of the client was taken or released: must become durable
ACKNOWLEDGED_MAX = 1_000  # at QoS 1 before it is written down: what comes again after a crash
_ACKNOWLEDGED_MAX = ACKNOWLEDGED_MAX  # the same as a C integer


class Session:
    """The state that the client and the server share, as the server sees it."""

    __slots__ = (
        "_acknowledged",
        "_dropped",
        "_limits",
        "_maximum_qos",
        "_outgoing",
        "_owed",
        "_recall",
        "_retain_available",
        "_traffic",
        "_window",
        "attachment",
        "changed",
        "client_id",
        "connected",
        "incoming",
        "inflight",
        "next_packet_id",
        "output",
        "owner",
        "paused",
        "persistent",
        "queue",
        "recalling",
        "refills",
        "step",
        "subscriptions",
        "touched",
        "transmit",
        "version",
    )

    def __init__(
        self,
        client_id: str,
        recall: Callable[..., Publish | None],
        limits: SessionLimits,
        traffic: Traffic,
    ) -> None:
        """Make an empty session.

        `recall(session, partition, offset)` returns the message kept there, None where it is
        gone, EXPIRED where it has expired, DENIED where the client may not receive it; with
        `begun=True` it has been sent before, and does not expire any more. For one that takes
        time to get it returns NOT_YET, and sets `recalling` until it is there; then the owner
        calls `drain`. `traffic` counts for all sessions of the server.
        """
        self.client_id = client_id
        self.owner: object = None  # whatever the floor above keeps with the session
        self.subscriptions: Any = ()  # likewise
        self.version = 4
        self.connected = False
        self.paused = False  # the connection takes no more just now
        self.touched = False  # in the owner's list of sessions with output
        self.attachment = 0  # number of the connection, from 1
        self.transmit: Callable[[bytes], None] | None = None
        self._outgoing: Outgoing | None = None  # None: no connection
        self.output = NO_OUTPUT  # of that
        self.inflight = NO_INFLIGHT
        self.queue = DeliveryQueue()
        self._dropped: Dropped | None = None  # None: none
        # in flight, to be sent again; None: nothing is
        self._owed: OrderedDict[int, None] | None = None
        self._recall = recall
        self._limits = limits
        self._traffic = traffic
        self._window = 65535
        self._maximum_qos = 2
        self._retain_available = True
        self.next_packet_id = 1
        self.incoming = NO_INCOMING
        self.recalling = False  # what goes next is on its way from the disk
        self.refills: tuple[Callable[[Session], None], ...] = ()  # see `drain` and `detach`
        self.persistent = False
        self.changed = False
        self.step = 0
        self._acknowledged = 0  # at QoS 1, since a step was made of them

    # --- connections --------------------------------------------------------------------------

    def attach(self, terms: Terms, transmit: Callable[[bytes], None]) -> None:
        """Bind the session to a new connection; `resume` sends what is owed, after CONNACK."""
        self.version = terms.version
        self.transmit = transmit
        self.attachment += 1
        self.connected = True
        self.paused = False
        self._outgoing = Outgoing(terms, self._traffic)
        self.output = self._outgoing.output
        self._window = terms.window
        self._maximum_qos = terms.maximum_qos
        self._retain_available = terms.retain_available
        if self.inflight is NO_INFLIGHT:
            self.inflight = {}
        if self.incoming is NO_INCOMING:
            self.incoming = Incoming()
        self.incoming.begin(
            terms.receive_maximum if terms.version == 5 else 0, terms.topic_alias_max
        )

    def detach(self) -> None:
        """The connection is gone; what needs no connection stays, and takes little memory."""
        self.connected = False
        self.transmit = None
        self._outgoing = None
        self.output = NO_OUTPUT
        if not self.inflight:
            self.inflight = NO_INFLIGHT
        self._owed = None
        self.incoming.end()
        if self.incoming.is_empty():
            self.incoming = NO_INCOMING
        forgotten = self.queue.drop_qos_0()
        if forgotten:
            self.drop(DROP_OFFLINE, forgotten)
        for refill in self.refills:
            refill(self)

    def resume(self) -> None:
        """Be ready to send again what was in flight, in its order [MQTT-4.6.0-1]; see `drain`.

        The window of the new connection counts for the one as for the other, PUBREL needs none
        [MQTT-4.9.0-2, MQTT-4.9.0-3].
        """
        owed: OrderedDict[int, None] = OrderedDict()
        for packet_id, delivery in self.inflight.items():
            if delivery.state == AWAIT_PUBCOMP:
                self._write_ack(PUBREL, packet_id, 0)
            else:
                owed[packet_id] = None
        self._owed = owed or None

    def restore(
        self,
        next_packet_id: int,
        inflight: dict[int, Delivery],
        places: dict[int, tuple[object, int]],
    ) -> None:
        """Become what the session was when it was written down, except for the queue."""
        self.next_packet_id = next_packet_id
        if inflight:
            self.inflight = inflight
        if places:
            self.incoming = Incoming()
            self.incoming.restore(places)

    # --- the client publishes -----------------------------------------------------------------

    def receive_publish(self, publish: Publish) -> bool:
        """Take a PUBLISH; True if it is new and must be stored, False if it is a repetition.

        The DUP flag is never asked [MQTT-3.3.1-3]. Raises the ProtocolError of a PUBLISH that
        is more than the server offers [MQTT-3.2.2-11, MQTT-3.2.2-14].
        """
        self._traffic.publish_received(publish.qos, len(publish.payload))
        if publish.qos > self._maximum_qos:
            raise QosNotSupported(f"QoS {publish.qos}, and {self._maximum_qos} is offered")
        if publish.retain and not self._retain_available:
            raise RetainNotSupported("this server retains no messages")
        if publish.properties is not None and TOPIC_ALIAS in publish.properties:
            self.incoming.resolve_alias(publish)
        elif not publish.topic:
            raise UnexpectedPacket("a PUBLISH without topic name and without topic alias")
        if publish.qos == 0:
            return True
        repeated = self.incoming.take(publish.packet_id, publish.qos, self.attachment)
        if repeated == 0:
            return True
        if repeated == ANSWERED:
            self._write_ack(PUBREC, publish.packet_id, 0)
        return False

    def acknowledge(
        self, attachment: int, packet_id: int, qos: int, reason: int, text: str = ""
    ) -> None:
        """Answer a publish that came on connection number `attachment`: it is as safe as asked.

        Or it is refused, then `text` says why, to a client that wants to know.

        Answers for an earlier connection are not sent: there the client will repeat the packet,
        and a late PUBACK could be taken for a newer packet with the same id. A QoS 2 publish
        is answered on the connection on which it came last.
        """
        if qos == 1:
            if attachment == self.attachment and self.connected:
                self.incoming.count_down()
                self._answer_publish(PUBACK, packet_id, reason, text)
            return
        asked = self.incoming.asked_by(packet_id)
        if reason >= REFUSED_FROM:
            self.forget(packet_id)
        elif asked:
            self.incoming.answered(packet_id)
        if asked == self.attachment and self.connected:
            self._answer_publish(PUBREC, packet_id, reason, text)

    def _answer_publish(self, kind: int, packet_id: int, reason: int, text: str) -> None:
        if text and self.version == 5:
            self.answer(Ack(kind, packet_id, reason), text)
        else:
            self._write_ack(kind, packet_id, reason)

    def forget(self, packet_id: int) -> bool:
        """Take the next QoS 2 publish with this id as new [MQTT-4.3.3-9, MQTT-4.3.3-12].

        Either the client released the id, or the message could not be stored. True if that
        must become durable.
        """
        placed = self.incoming.forget(packet_id) and self.persistent
        if placed:
            self.step |= STEP_IN
        return placed

    def stored(self, packet_id: int, partition: object, offset: int) -> None:
        """Remember where the message of a QoS 2 publish is going to be in the log."""
        if self.persistent and self.incoming.is_taken(packet_id):
            self.incoming.place(packet_id, partition, offset)
            self.step |= STEP_IN

    def take_released(self) -> list[int]:
        """Return the ids that were released since the last time; see `complete`."""
        released, self.incoming.released = self.incoming.released, None
        return released or []

    def complete(self, attachment: int, packet_ids: list[int]) -> None:
        """Say PUBCOMP: the release of the ids is as safe as their messages."""
        if attachment == self.attachment and self.connected:
            for packet_id in packet_ids:
                self._write_ack(PUBCOMP, packet_id, 0)

    def _write_ack(self, kind: int, packet_id: int, reason: int) -> None:
        assert self._outgoing is not None, "there is a connection"
        self._outgoing.ack(kind, packet_id, reason)

    def answer(self, packet: Any, text: str = "") -> None:
        """Send what is no PUBLISH; see `Outgoing.answer`."""
        assert self._outgoing is not None, "there is a connection"
        self._outgoing.answer(packet, text)

    # --- acknowledgements of the client -------------------------------------------------------

    def receive_ack(self, ack: Ack) -> None:
        """Take PUBACK, PUBREC, PUBREL or PUBCOMP; an id that is not in flight is answered."""
        kind = ack.type
        if kind == PUBREL:
            known = self.incoming.is_taken(ack.packet_id)
            if self.forget(ack.packet_id):
                self.incoming.release(ack.packet_id)
                return
            reason = 0 if known else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
            self._write_ack(PUBCOMP, ack.packet_id, reason)
            return
        packet_id: Any = ack.packet_id  # an object: it is a key more than once
        delivery = self.inflight.get(packet_id)
        if self._owed:
            self._owed.pop(packet_id, None)  # it got the packet on an earlier connection
            self._owed = self._owed or None
        if kind == PUBREC:
            self._receive_pubrec(ack, delivery)
            return
        expected = AWAIT_PUBACK if kind == PUBACK else AWAIT_PUBCOMP
        if delivery is not None and delivery.state == expected:
            self.changed = True
            self._acknowledged += 1
            if self._acknowledged >= _ACKNOWLEDGED_MAX:
                self._acknowledged = 0
                self.step |= STEP_OUT
            del self.inflight[packet_id]
            if self.waiting() or self.refills:
                self.drain()

    def _receive_pubrec(self, ack: Ack, delivery: Delivery | None) -> None:
        if delivery is None:
            # An id of a session that the server no longer has [MQTT-3.6.2.1, 0x92].
            self._write_ack(PUBREL, ack.packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)
        elif delivery.state != AWAIT_PUBACK:
            self._stepped()
            if ack.reason >= REFUSED_FROM:
                del self.inflight[ack.packet_id]
                if self.waiting() or self.refills:
                    self.drain()
                return
            delivery.state = AWAIT_PUBCOMP
            self._write_ack(PUBREL, ack.packet_id, 0)

    def _stepped(self) -> None:
        self.changed = True
        if self.persistent:
            self.step |= STEP_OUT

    # --- deliveries ---------------------------------------------------------------------------

    def deliver(
        self,
        publish: Publish,
        qos: int,
        retain: bool,
        identifiers: bytes,
        partition: object,
        offset: int,
    ) -> None:
        """Send a message now, or let it wait as the place in the log where it stands.

        `qos` is already the lower one of publish and subscription. QoS 0 does not wait for an
        absent client [MQTT-3.1.2-5]; what exceeds the queue's limit is dropped and counted.
        """
        if self.has_room(qos):
            if not self.send(publish, qos, retain, identifiers, partition, offset, None):
                self.drop(DROP_TOO_LARGE, 1)
        elif self._may_wait(qos):
            self.changed = True
            self.queue.push(partition, offset, qos, retain, identifiers)

    def has_room(self, qos: int) -> bool:
        """Say whether a message can go out now, and nothing waits that comes before it."""
        return (
            self.connected
            and not self.paused
            and not self.recalling
            and not self.waiting()
            and self.output.size < self._limits.output_max
            and (qos == 0 or len(self.inflight) < self._window)
        )

    def _may_wait(self, qos: int) -> bool:
        """Say whether a delivery may join the queue; what is dropped is counted."""
        limits = self._limits
        queue = self.queue
        if qos == 0 and not self.connected:
            self.drop(DROP_OFFLINE, 1)
            return False
        if queue.length < limits.queue_max and (qos > 0 or limits.queue_qos_0):
            return True
        self.drop(DROP_QUEUE, 1)
        if qos == 0 and not limits.queue_qos_0:
            return False
        if limits.queue_policy == "oldest" and queue.length and not queue.head().retain:
            queue.pop()
            return True
        if limits.queue_policy == "disconnect" and self.connected:
            assert limits.overflowed is not None
            limits.overflowed(self)
        return False

    def drop(self, reason: int, count: int) -> None:
        """Deliveries are given up; see `Dropped` for the reasons."""
        if self._dropped is None:
            self._dropped = Dropped()
        self._dropped.add(reason, count)
        self._traffic.drops.add(reason, count)

    @property
    def dropped(self) -> Dropped:
        """What the session's client never got, since the server started."""
        return Dropped() if self._dropped is None else self._dropped

    def waiting(self) -> bool:
        """Say whether anything is to be sent as soon as there is room."""
        return self.queue.length > 0 or self._owed is not None

    def drain(self) -> None:
        """Send what waits, as far as the window and the connection take it."""
        if self.recalling or not self._send_owed():
            return
        queue = self.queue
        while queue.length and self.connected and not self.paused:
            run = queue.head()
            if self.output.size >= self._limits.drain_max:
                break
            if run.qos > 0 and len(self.inflight) >= self._window:
                break
            offset = run.first
            publish = self._recall(self, run.partition, offset)
            if publish is NOT_YET:
                break
            if publish is None:
                self.drop(DROP_GONE, 1)
                self.changed = True
            elif publish is EXPIRED:
                self.drop(DROP_EXPIRED, 1)
                self.changed = True
            elif publish is DENIED:
                self.drop(DROP_DENIED, 1)
                self.changed = True
            elif not self.send(
                publish, run.qos, run.retain, run.identifiers, run.partition, offset, None
            ):
                self.drop(DROP_TOO_LARGE, 1)
            queue.pop()
        refills = self.refills
        self.refills = refills[1:] + refills[:1]  # none is always the first
        for refill in refills:
            refill(self)

    def _send_owed(self) -> bool:
        """Repeat what was in flight; False where some of it is still to come."""
        owed = self._owed
        while owed and self.connected and not self.paused:
            if self.output.size >= self._limits.drain_max:
                return False
            if len(self.inflight) - len(owed) >= self._window:
                return False
            packet_id = next(iter(owed))
            if not self._send_again(packet_id):
                return False
            del owed[packet_id]
        if not owed:
            self._owed = None
        return True

    def _send_again(self, packet_id: int) -> bool:
        """Repeat a PUBLISH with its id [MQTT-4.4.0-1, MQTT-3.3.1-1]; False if it is to come.

        Where it cannot be (its record is gone, or the client may not receive it any more, or
        now takes no packet so large), a QoS 2 id is released first: the client may hold it, and
        would take another message with this id for a repetition.
        """
        outgoing = self._outgoing
        assert outgoing is not None, "there is a connection"
        delivery = self.inflight[packet_id]
        publish = self._recall(self, delivery.partition, delivery.offset, begun=True)
        if publish is NOT_YET:
            return False
        if publish is None:
            self.drop(DROP_GONE, 1)
        elif publish is DENIED:
            self.drop(DROP_DENIED, 1)
        elif outgoing.publish(
            publish, delivery.qos, delivery.retain, True, packet_id, delivery.identifiers
        ):
            return True
        else:
            self.drop(DROP_TOO_LARGE, 1)
        self._stepped()
        if delivery.qos == 2:
            delivery.state = AWAIT_PUBCOMP
            self._write_ack(PUBREL, packet_id, 0)
        else:
            del self.inflight[packet_id]
        return True

    def send(
        self,
        publish: Publish,
        qos: int,
        retain: bool,
        identifiers: bytes,
        partition: object,
        offset: int,
        share: object,
    ) -> bool:
        """Send a message now; False where the client takes none so large."""
        outgoing = self._outgoing
        assert outgoing is not None, "there is a connection"
        if qos == 0:
            return outgoing.publish(publish, 0, retain, False, 0, identifiers)
        packet_id = self._take_packet_id()
        if not outgoing.publish(publish, qos, retain, False, packet_id, identifiers):
            return False
        self.inflight[packet_id] = new_delivery(
            partition, offset, qos, retain, identifiers, share
        )
        self.changed = True
        if qos == 2:
            self._stepped()
        return True

    def _take_packet_id(self) -> int:
        """Return a packet id that is not in use [MQTT-2.2.1-3]."""
        packet_id = self.next_packet_id
        while packet_id in self.inflight:
            packet_id = packet_id + 1 if packet_id < 65535 else 1
        self.next_packet_id = packet_id + 1 if packet_id < 65535 else 1
        return packet_id
