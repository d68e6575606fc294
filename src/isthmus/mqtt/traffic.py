"""What goes over all MQTT connections of the server, counted from its start on.

One `Traffic` belongs to one server; sessions, the broker and the connections add to it, and
nobody takes away. Compiled, because some of it is counted for each message; bytes are counted
for each read and each write.
"""

from __future__ import annotations

from isthmus.mqtt.delivery import Dropped


class Traffic:
    """Totals, both ways. Packets are of all types, PUBLISH among them."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "connects",
        "drops",
        "packets_received",
        "packets_sent",
        "publish_bytes_received",
        "publish_bytes_sent",
        "publishes_received",
        "publishes_received_1",
        "publishes_received_2",
        "publishes_sent",
        "publishes_sent_1",
        "publishes_sent_2",
    )

    def __init__(self) -> None:
        self.bytes_received = 0
        self.bytes_sent = 0
        self.connects = 0  # CONNECT packets
        self.packets_received = 0
        self.packets_sent = 0
        self.publishes_received = 0
        self.publishes_received_1 = 0  # of these at QoS 1
        self.publishes_received_2 = 0
        self.publishes_sent = 0
        self.publishes_sent_1 = 0
        self.publishes_sent_2 = 0
        self.publish_bytes_received = 0  # payloads
        self.publish_bytes_sent = 0
        self.drops = Dropped()  # deliveries that were given up

    def publish_received(self, qos: int, size: int) -> None:
        """Count a PUBLISH of a client, with `size` bytes of payload."""
        self.publishes_received += 1
        self.publish_bytes_received += size
        if qos == 1:
            self.publishes_received_1 += 1
        elif qos == 2:
            self.publishes_received_2 += 1

    def publish_sent(self, qos: int, size: int) -> None:
        """Count a PUBLISH to a client, with `size` bytes of payload."""
        self.publishes_sent += 1
        self.publish_bytes_sent += size
        if qos == 1:
            self.publishes_sent_1 += 1
        elif qos == 2:
            self.publishes_sent_2 += 1

    def received_by_qos(self) -> tuple[int, int, int]:
        """Return the PUBLISH packets of clients by their QoS."""
        above = self.publishes_received_1, self.publishes_received_2
        return self.publishes_received - sum(above), *above

    def sent_by_qos(self) -> tuple[int, int, int]:
        """Return the PUBLISH packets to clients by their QoS."""
        above = self.publishes_sent_1, self.publishes_sent_2
        return self.publishes_sent - sum(above), *above
