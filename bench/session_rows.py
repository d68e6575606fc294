"""The rows of sessions at rest: what one costs, the start with many, all of them back at once.

Every session lasts (3.1.1 without Clean Session) and has been left by its client, with three
subscriptions: one of its own with a wildcard, one of its own without, one that all have.

In the storm all clients come back at once, and a hundred messages wait for each of them.
Somebody else meanwhile sends a message to itself twenty times a second, from a process of its
own, so that it is the server that is measured and not the load.
"""

from __future__ import annotations

import multiprocessing
import resource
import selectors
import socket
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench import packets
from bench.mqtt_client import discard, open_client, open_subscriber, read_exactly
from bench.process import BenchError, running
from bench.rows import Measurement, Row
from bench.systems import Isthmus, Mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Event
    from pathlib import Path

    from bench.process import Address, System

SECONDS_WHOLE = 1.0  # a shorter measurement is made with the smaller numbers
FIRST = 200  # sessions that pay for what a server sets up once
FEW, MANY, MANY_QUICK = 1_000, 100_000, 3_000
STORM, STORM_QUICK = 10_000, 300
MESSAGES = 100
PAYLOAD_BYTES = 64
AT_A_TIME = 200  # clients that come before the answers to the first are read
PUBLISHES_AT_A_TIME = 1_000
ANSWERS = 4 + 3 * 5  # bytes of CONNACK and three SUBACKs
INTERVAL_S = 0.05  # of the bystander
SETTLE_SECONDS = 1.0
STORM_SECONDS_MAX = 300.0


def name_of(number: int) -> str:
    """Return a client id, and the topic name that this client alone gets."""
    return f"device/{number:06d}"


def leave_sessions(address: Address, first: int, count: int) -> None:
    """Have so many clients come, subscribe, and go."""
    for begin in range(first, first + count, AT_A_TIME):
        with ExitStack() as stack:
            clients = []
            for number in range(begin, min(begin + AT_A_TIME, first + count)):
                client = stack.enter_context(socket.create_connection(address, 30))
                name = name_of(number)
                client.sendall(
                    packets.connect(name, clean=False)
                    + packets.subscribe(name, 1)
                    + packets.subscribe(f"commands/{name}/#", 1)
                    + packets.subscribe("commands/all", 1)
                )
                clients.append(client)
            for client in clients:
                read_exactly(client, ANSWERS)
                client.sendall(packets.DISCONNECT)


def measure_memory(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the resident KiB of one session among many; `few`: among a hundredth of them."""
    count = MANY if seconds >= SECONDS_WHOLE else MANY_QUICK
    with running(system, directory) as server:
        address = server.mqtt_address()
        leave_sessions(address, 0, FIRST)
        time.sleep(SETTLE_SECONDS)
        before = server.rss_bytes()
        leave_sessions(address, FIRST, FEW)
        time.sleep(SETTLE_SECONDS)
        few = (server.rss_bytes() - before) / 1024 / FEW
        leave_sessions(address, FIRST + FEW, count - FEW)
        time.sleep(SETTLE_SECONDS)
        many = (server.rss_bytes() - before) / 1024 / count
    return Measurement(many, details={"few": few})


def measure_start(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the seconds from starting the process to the first CONNACK, all sessions there."""
    count = MANY if seconds >= SECONDS_WHOLE else MANY_QUICK
    with running(system, directory) as server:
        leave_sessions(server.mqtt_address(), 0, count)
    begin = time.perf_counter()
    with running(system, directory) as server:
        client = socket.create_connection(server.mqtt_address(), 30)
        client.sendall(packets.connect(name_of(count - 1), clean=False))
        if read_exactly(client, 4) != b"\x20\x02\x01\x00":
            raise BenchError("a session is not there again")
        elapsed_s = time.perf_counter() - begin
        client.close()
        rss = server.rss_bytes()
    return Measurement(elapsed_s, details={"MiB": rss / 2**20})


def publish_to_all(address: Address, count: int) -> int:
    """Publish the messages that wait for each client in turn; return the size of a packet."""
    publisher = open_client(address, "bench-publisher")
    size = 0
    for number in range(MESSAGES):
        payload = f"{number:08d}".encode().ljust(PAYLOAD_BYTES, b".")
        for first in range(0, count, PUBLISHES_AT_A_TIME):
            block = [
                packets.publish(name_of(client), payload, 1, 1 + client - first)
                for client in range(first, min(first + PUBLISHES_AT_A_TIME, count))
            ]
            size = len(block[0])
            publisher.sendall(b"".join(block))
            read_exactly(publisher, packets.PUBACK_SIZE * len(block))
    publisher.close()
    return size


def stand_by(address: Address, stop: Event, answer: Connection) -> None:
    """Send a message to oneself at fixed moments, until told to stop; answer with the times.

    Each time counts from when the message was due, in milliseconds.
    """
    client = open_subscriber(address, "bench-bystander", "bystander", 0)
    times: list[float] = []
    packet = packets.publish("bystander", bytes(8), 0)
    due_s = time.perf_counter()
    while not stop.is_set():
        due_s += INTERVAL_S
        time.sleep(max(0.0, due_s - time.perf_counter()))
        client.sendall(packet)
        read_exactly(client, len(packet))
        times.append((time.perf_counter() - due_s) * 1000)
    client.close()
    answer.send(times)


@contextmanager
def bystander(address: Address) -> Iterator[list[float]]:
    """Have somebody stand by during the block; the times are there after it."""
    spawned = multiprocessing.get_context("fork")
    stop = spawned.Event()
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=stand_by, args=(address, stop, theirs))
    process.start()
    times: list[float] = []
    try:
        yield times
    finally:
        stop.set()
        if ours.poll(30):
            times += sorted(ours.recv())
        process.join()


def come_back(address: Address, count: int, size: int) -> tuple[float, float]:
    """Have all clients connect at once; return the seconds to the last CONNACK and message."""
    left: dict[int, int] = {}
    unanswered = count
    connacks_s = 0.0
    with selectors.EpollSelector() as selector, ExitStack() as stack:
        begin = time.perf_counter()
        for number in range(count):
            client = stack.enter_context(socket.create_connection(address, 60))
            client.sendall(packets.connect(name_of(number), clean=False))
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
            left[client.fileno()] = len(packets.CONNACK_ACCEPTED) + MESSAGES * size
        while left:
            ready = selector.select(10)
            if not ready or time.perf_counter() - begin > STORM_SECONDS_MAX:
                raise BenchError(f"{len(left)} clients wait for their messages")
            for key, _ in ready:
                before = left[key.fd]
                left[key.fd] = before - discard(key.fileobj)  # type: ignore[arg-type]
                if before == len(packets.CONNACK_ACCEPTED) + MESSAGES * size:
                    unanswered -= 1
                    if unanswered == 0:
                        connacks_s = time.perf_counter() - begin
                if left[key.fd] == 0:
                    selector.unregister(key.fileobj)
                    del left[key.fd]
        return connacks_s, time.perf_counter() - begin


def measure_storm(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the seconds until the last client that has come back has its last message.

    In the details: the last CONNACK, and how long the bystander waited at most 99 times of 100.
    """
    count = STORM if seconds >= SECONDS_WHOLE else STORM_QUICK
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with running(system, directory) as server:
        address = server.mqtt_address()
        leave_sessions(address, 0, count)
        size = publish_to_all(address, count)
        time.sleep(SETTLE_SECONDS)
        cpu_s, rss = server.cpu_s(), server.rss_bytes()
        with bystander(address) as times:
            time.sleep(SETTLE_SECONDS)
            connacks_s, last_s = come_back(address, count, size)
        cpu_s, grown = server.cpu_s() - cpu_s, server.rss_bytes() - rss
    if not times:
        raise BenchError("the bystander has said nothing")
    details = {
        "connack_s": connacks_s,
        "bystander_p99_ms": times[len(times) * 99 // 100],
        "grown_MiB": grown / 2**20,
    }
    return Measurement(last_s, count * MESSAGES, cpu_s, details=details)


def session_rows() -> list[Row]:
    """Return the rows in the order of the budget; durability matters to none of them."""
    ours = Isthmus("written")
    return [
        Row(
            "session",
            f"memory per offline session with 3 subscriptions, {MANY:,} sessions",
            "KiB",
            [ours, Mosquitto()],
            measure_memory,
            Mosquitto.name,
            more_is_better=False,
        ),
        Row(
            "sessions_start",
            f"start with {MANY:,} sessions to the first CONNACK",
            "s",
            [ours],
            measure_start,
            bar="< 2 s",
            more_is_better=False,
        ),
        Row(
            "storm",
            f"{STORM:,} clients back at once, {MESSAGES} messages for each, until the last",
            "s",
            [ours, Mosquitto()],
            measure_storm,
            Mosquitto.name,
            more_is_better=False,
        ),
    ]
