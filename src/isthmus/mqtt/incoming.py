"""What a client has under way to the server: its topic aliases, packet ids and quota.

One `Incoming` belongs to one session, which asks it about every PUBLISH at QoS 1 and 2, about
every PUBREL, and about every answer that it is about to send. It outlives connections: a QoS 2
packet id stays taken until the client releases it [MQTT-4.3.3-9]; aliases and the quota begin
anew with each connection. Compiled, as part of the path of every message; it writes nothing,
what to send is the session's to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import ReceiveMaximumExceeded, TopicAliasInvalid, UnexpectedPacket
from isthmus.mqtt.properties import TOPIC_ALIAS

if TYPE_CHECKING:
    from isthmus.mqtt.packets import Publish

REPEATED = 1  # a repetition whose answer is to come
ANSWERED = 2  # a repetition of what is safe: answer it again


class Incoming:
    """The state that a client's own publishes have in its session."""

    __slots__ = (
        "_aliases",
        "_aliases_max",
        "_ids",
        "_quota",
        "_unacknowledged",
        "places",
        "released",
    )

    def __init__(self) -> None:
        """Begin with nothing; what holds nothing is None, for most sessions are at rest."""
        # QoS 2 packet ids that the client has not released, and the number of the connection
        # whose PUBREC is to come; 0 once the message is safe
        self._ids: dict[int, int] | None = None
        self._unacknowledged = 0
        self._quota = 0
        self._aliases: dict[int, bytes] | None = None
        self._aliases_max = 0
        # of a persistent session: where the messages of the ids are in the log
        self.places: dict[int, tuple[object, int]] | None = None
        # ids whose PUBCOMP is due once that is durable
        self.released: list[int] | None = None

    def begin(self, quota: int, aliases_max: int) -> None:
        """Meet a new connection.

        `quota` is the Receive Maximum that the server announced, 0 before 5.0: none;
        `aliases_max` its Topic Alias Maximum.
        """
        self._quota = quota
        self._aliases_max = aliases_max
        self._unacknowledged = 0  # QoS 2 ids survive a connection, its quota does not

    def end(self) -> None:
        """Forget what was the connection's."""
        self._aliases = None
        self.released = None
        self._ids = self._ids or None
        self.places = self.places or None

    def is_empty(self) -> bool:
        """Say whether nothing stays for the next connection."""
        return self._ids is None and self.places is None

    def restore(self, places: dict[int, tuple[object, int]]) -> None:
        """Have these ids taken: their messages are in the log."""
        self.places = places
        self._ids = dict.fromkeys(places, 0)

    def resolve_alias(self, publish: Publish) -> None:
        """Give a PUBLISH the topic name that its alias stands for [MQTT-3.3.2-8]."""
        assert publish.properties is not None
        alias: int = publish.properties.pop(TOPIC_ALIAS)
        if alias > self._aliases_max:
            raise TopicAliasInvalid(f"topic alias {alias} is above {self._aliases_max}")
        if self._aliases is None:
            self._aliases = {}
        if publish.topic:
            self._aliases[alias] = publish.topic
        elif alias in self._aliases:
            publish.topic = self._aliases[alias]
        else:
            raise UnexpectedPacket(f"topic alias {alias} was never assigned")

    def take(self, packet_id: int, qos: int, attachment: int) -> int:
        """Take a PUBLISH of QoS 1 or 2: 0 if it is new, else REPEATED or ANSWERED.

        A QoS 2 packet whose id is not yet released is a repetition [MQTT-4.3.3-10]. Raises
        ReceiveMaximumExceeded [MQTT-3.3.4-7].
        """
        if qos == 2 and self._ids is not None and packet_id in self._ids:
            if self._ids[packet_id]:
                self._ids[packet_id] = attachment
                return REPEATED
            return ANSWERED
        if self._quota and self._unacknowledged >= self._quota:
            raise ReceiveMaximumExceeded(
                f"more than {self._quota} publishes without acknowledgement"
            )
        self._unacknowledged += 1
        if qos == 2:
            if self._ids is None:
                self._ids = {}
            self._ids[packet_id] = attachment
        return 0

    def count_down(self) -> None:
        """Count one publish less; those of earlier connections never counted on this one."""
        if self._unacknowledged:
            self._unacknowledged -= 1

    def asked_by(self, packet_id: int) -> int:
        """Return the number of the connection that waits for the PUBREC; 0: none does."""
        return 0 if self._ids is None else self._ids.get(packet_id, 0)

    def is_taken(self, packet_id: int) -> bool:
        """Say whether a QoS 2 packet id is not yet released."""
        return self._ids is not None and packet_id in self._ids

    def answered(self, packet_id: int) -> None:
        """The message of a QoS 2 packet id is safe."""
        assert self._ids is not None
        self._ids[packet_id] = 0

    def place(self, packet_id: int, partition: object, offset: int) -> None:
        """Remember where the message of a QoS 2 packet id is going to be in the log."""
        if self.places is None:
            self.places = {}
        self.places[packet_id] = (partition, offset)

    def forget(self, packet_id: int) -> bool:
        """Take the next publish with this id as new; True if the id had a place in the log."""
        if self._ids is None or self._ids.pop(packet_id, None) is None:
            return False
        self.count_down()
        return self.places is not None and self.places.pop(packet_id, None) is not None

    def release(self, packet_id: int) -> None:
        """The client has released an id, which must become durable before it is told."""
        if self.released is None:
            self.released = []
        self.released.append(packet_id)
