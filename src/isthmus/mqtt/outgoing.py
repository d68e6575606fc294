"""What goes out on one connection, in the form that its client has asked for.

Each connection of a session has one: the bytes that wait for the end of the turn, the client's
Maximum Packet Size, its topic aliases. It goes with the connection, so that a session without
one is small; what the session is owed stays with the session. Compiled, as part of the path of
every message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.errors import TooLarge
from isthmus.mqtt.aliases import OutgoingAliases
from isthmus.mqtt.codec import encode, encode_ack, encode_properties, encode_publish
from isthmus.mqtt.properties import REASON_STRING, TOPIC_ALIAS
from isthmus.wire.buffer import WriteBuffer, uvarint_size

if TYPE_CHECKING:
    from isthmus.mqtt.handshake import Terms
    from isthmus.mqtt.packets import Publish
    from isthmus.mqtt.traffic import Traffic

OVERHEAD_MAX = 13  # fixed header of 5, lengths of topic and properties 2 and 4, packet id 2
ALIAS_BYTES = 3  # of a topic alias, as a property


class Outgoing:
    """Writes packets for one client."""

    __slots__ = (
        "_aliases",
        "_packet_size_max",
        "_problem_info",
        "_traffic",
        "_version",
        "output",
    )

    def __init__(self, terms: Terms, traffic: Traffic) -> None:
        """Begin with nothing written; `traffic` counts for all of the server."""
        self.output = WriteBuffer()
        self._version = terms.version
        self._packet_size_max = terms.packet_size_max
        self._problem_info = terms.problem_info
        maximum = terms.topic_alias_out_max
        # None: this client takes none
        self._aliases = OutgoingAliases(maximum) if maximum else None
        self._traffic = traffic

    def ack(self, kind: int, packet_id: int, reason: int) -> None:
        """Write a PUBACK, PUBREC, PUBREL or PUBCOMP."""
        encode_ack(self.output, self._version, kind, packet_id, reason)
        self._traffic.packets_sent += 1

    def answer(self, packet: Any, text: str) -> None:
        """Write what is no PUBLISH. Raises TooLarge where the client does not take it.

        A client would wait for ever for an answer that is left out, so its connection ends
        instead [MQTT-3.1.2-24]. `text` becomes the Reason String, unless the client wants none
        [MQTT-3.1.2-29] or takes no packet so large [MQTT-3.9.2-1].
        """
        before = self.output.size
        self._traffic.packets_sent += 1
        if text and self._problem_info and self._version == 5:
            packet.properties = {REASON_STRING: text}
            encode(packet, 5, self.output)
            if self._takes(self.output.size - before):
                return
            self.output.truncate(before)
            packet.properties = None
        encode(packet, self._version, self.output)
        if not self._takes(self.output.size - before):
            self.output.truncate(before)
            raise TooLarge("the answer is larger than the client's maximum")

    def _takes(self, size: int) -> bool:
        return size <= self._packet_size_max or self._packet_size_max == 0

    def publish(
        self,
        publish: Publish,
        qos: int,
        retain: bool,
        dup: bool,
        packet_id: int,
        identifiers: bytes,
    ) -> bool:
        """Write one PUBLISH; False if the client does not take one so large [MQTT-3.1.2-24]."""
        properties = b""
        if self._version == 5:
            if publish.properties:
                properties = identifiers + encode_properties(publish.properties)
            else:
                properties = identifiers
        topic = publish.topic
        if self._aliases is not None and len(topic) > ALIAS_BYTES:
            alias = self._aliases.find(topic)
            named = topic if alias == 0 else b""
            alias = alias or self._aliases.spare()
            with_alias = properties + encode_properties({TOPIC_ALIAS: alias})
            if self._fits(named, publish.payload, qos, with_alias):
                self._aliases.used(topic, alias)
                topic, properties = named, with_alias
        if self._packet_size_max and not self._fits(topic, publish.payload, qos, properties):
            return False
        encode_publish(
            self.output,
            self._version,
            topic,
            publish.payload,
            qos,
            retain,
            dup,
            packet_id,
            properties,
        )
        traffic = self._traffic
        traffic.packets_sent += 1
        traffic.publish_sent(qos, len(publish.payload))
        return True

    def _fits(self, topic: bytes, payload: bytes, qos: int, properties: bytes) -> bool:
        """Say whether a PUBLISH is within the client's limit."""
        size = len(topic) + len(payload) + len(properties) + OVERHEAD_MAX
        if self._takes(size):
            return True
        body = 2 + len(topic) + len(payload) + (2 if qos else 0)
        if self._version == 5:
            body += uvarint_size(len(properties)) + len(properties)
        return 1 + uvarint_size(body) + body <= self._packet_size_max
