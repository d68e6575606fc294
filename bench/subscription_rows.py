"""The rows of very many subscriptions: what one costs, and what a message costs among them.

A hundred clients have ten thousand topic filters each, every one with a wildcard in the middle
and one at the end. Messages are published under names that nobody has used before, so each is
matched; a subscriber to one of them all shows that they have come. Then the same names again,
first in peace and then while another client subscribes and unsubscribes without a pause.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from bench import packets
from bench.mqtt_client import open_client, read_exactly
from bench.process import BenchError, running
from bench.rows import Measurement, Row
from bench.systems import Isthmus, Mosquitto

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from bench.process import Address, Server, System

SECONDS_WHOLE = 1.0  # a shorter measurement is made with the smaller number
CLIENTS, CLIENTS_QUICK = 100, 4
FILTERS = 10_000  # of one client
AT_A_TIME = 100  # filters of a SUBSCRIBE
SITES = 1_000
NAMES = 20_000
ROUNDS = 5  # of messages under names that are known
BLOCK = 500  # messages on their way
SETTLE_SECONDS = 1.0


def names_of(number: int) -> tuple[str, str]:
    """Return a topic filter, and a topic name that it matches and no other does."""
    site, line = number % SITES, number // SITES
    return f"site/{site:04d}/+/{line:04d}/#", f"site/{site:04d}/press/{line:04d}/temperature"


def subscribe_all(client: socket.socket, first: int) -> None:
    """Subscribe to `FILTERS` filters, `AT_A_TIME` in each packet, at QoS 0."""
    for begin in range(first, first + FILTERS, AT_A_TIME):
        filters = [names_of(number)[0] for number in range(begin, begin + AT_A_TIME)]
        body = b"\x00\x01" + b"".join(packets.text(each) + b"\0" for each in filters)
        client.sendall(packets.framed(0x82, body))
    answers = FILTERS // AT_A_TIME
    read_exactly(client, answers * (2 + 2 + AT_A_TIME))


def publish_names(server: Server, publisher: socket.socket, names: list[str]) -> float:
    """Publish once under each name at QoS 1; return the CPU microseconds of a message.

    The subscribers get them, too, and do not read: what they get fits into their sockets.
    """
    cpu_s = server.cpu_s()
    for first in range(0, len(names), BLOCK):
        block = names[first : first + BLOCK]
        publisher.sendall(
            b"".join(
                packets.publish(name, b"21.5", 1, 1 + place) for place, name in enumerate(block)
            )
        )
        read_exactly(publisher, len(block) * packets.PUBACK_SIZE)
    return (server.cpu_s() - cpu_s) / len(names) * 1e6


class Churn(threading.Thread):
    """A client that subscribes and unsubscribes, over and over."""

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._client = open_client(address, "bench-churn")
        self.count = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        """Do so until it is over."""
        filters = [f"elsewhere/{number}/+" for number in range(AT_A_TIME)]
        while not self.is_over.is_set():
            for topic_filter in filters:
                unsubscribe = packets.framed(0xA2, b"\x00\x01" + packets.text(topic_filter))
                self._client.sendall(packets.subscribe(topic_filter, 0) + unsubscribe)
                read_exactly(self._client, 5 + 4)
                self.count += 1
        self._client.close()


def measure_subscriptions(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the CPU microseconds of a message under a new name among all subscriptions.

    In the details: bytes and microseconds of a subscription, and the CPU of messages under
    names that are known, in peace and in the churn.
    """
    count = (CLIENTS if seconds >= SECONDS_WHOLE else CLIENTS_QUICK) * FILTERS
    with running(system, directory) as server:
        address = server.mqtt_address()
        before, cpu_s = server.rss_bytes(), server.cpu_s()
        clients = []
        for first in range(0, count, FILTERS):
            client = open_client(address, f"bench-filters-{first}")
            subscribe_all(client, first)
            clients.append(client)
        time.sleep(SETTLE_SECONDS)
        bytes_each = (server.rss_bytes() - before) / count
        subscribe_us = (server.cpu_s() - cpu_s) / count * 1e6
        publisher = open_client(address, "bench-publisher")
        step = count // NAMES
        names = [names_of(number)[1] for number in range(0, step * NAMES, step)]
        new_us = publish_names(server, publisher, names)
        known_us = publish_names(server, publisher, names * ROUNDS)
        churn = Churn(address)
        churn.start()
        churn_us = publish_names(server, publisher, names * ROUNDS)
        churn.is_over.set()
        churn.join()
        for client in clients:
            client.close()
    if churn.count == 0:
        raise BenchError("nobody has subscribed meanwhile")
    details = {
        "bytes_each": bytes_each,
        "subscribe_us": subscribe_us,
        "known_us": known_us,
        "churn_us": churn_us,
        "churned": float(churn.count),
    }
    return Measurement(new_us, details=details)


def subscription_rows() -> list[Row]:
    """Return the rows in the order of the budget."""
    return [
        Row(
            "subscriptions",
            f"CPU of a message under a new name, {CLIENTS * FILTERS:,} subscriptions",
            "us",
            [Isthmus("written"), Mosquitto()],
            measure_subscriptions,
            Mosquitto.name,
            more_is_better=False,
        )
    ]
