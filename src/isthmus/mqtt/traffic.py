"""What goes over all MQTT connections of the server, counted from its start on.

One `Traffic` belongs to one server; sessions, the broker and the connections add to it, and
nobody takes away. Compiled, because some of it is counted for each message; bytes are counted
for each read and each write.
"""

from __future__ import annotations


class Traffic:
    """Totals, both ways. Packets are of all types, PUBLISH among them."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "connects",
        "dropped",
        "packets_received",
        "packets_sent",
        "publish_bytes_received",
        "publish_bytes_sent",
        "publishes_received",
        "publishes_sent",
    )

    def __init__(self) -> None:
        self.bytes_received = 0
        self.bytes_sent = 0
        self.connects = 0  # CONNECT packets
        self.packets_received = 0
        self.packets_sent = 0
        self.publishes_received = 0
        self.publishes_sent = 0
        self.publish_bytes_received = 0  # payloads
        self.publish_bytes_sent = 0
        self.dropped = 0  # deliveries that were given up
