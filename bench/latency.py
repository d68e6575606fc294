"""The open loop: messages are due at fixed times, and each is measured from when it was due.

A closed loop hides a stall, because it stops asking while the server stalls. Here message `i`
is due at `start + i / rate` whatever happened to the ones before, and its latency counts from
there to the moment when its last byte was read. Nothing is computed per message while the clock
runs: reads are noted as (time, bytes so far), and what came when is worked out afterwards.
"""

from __future__ import annotations

import struct
import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import packets
from bench.machine import breathe
from bench.mqtt_load import QUIET_SECONDS_MAX
from bench.process import BenchError

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

SETTLE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds, sorted, and what never arrived."""

    values_ms: list[float]
    lost: int

    def percentile(self, percent: float) -> float:
        """Return the latency that `percent` of the messages did not exceed."""
        if not self.values_ms:
            raise BenchError("no message arrived")
        last = len(self.values_ms) - 1
        return self.values_ms[min(last, int(len(self.values_ms) * percent / 100))]


def numbered_packets(topic_names: Sequence[str], payload_size: int, count: int) -> list[bytes]:
    """Make `count` QoS 0 PUBLISH packets of one size; the payload begins with the number."""
    filler = bytes(payload_size - 8)
    return [
        packets.publish(
            topic_names[number % len(topic_names)], struct.pack(">Q", number) + filler, qos=0
        )
        for number in range(count)
    ]


def summarise(
    arrivals: dict[int, int], start_ns: int, interval_ns: float, count: int
) -> Latencies:
    """Turn arrival times by message number into latencies, without the first tenth."""
    first = int(count * SETTLE_SHARE)
    values = sorted(
        (arrived - start_ns - number * interval_ns) / 1e6
        for number, arrived in arrivals.items()
        if number >= first
    )
    return Latencies(values, count - len(arrivals))


def run_open_loop(
    publishers: Sequence[socket.socket],
    subscriber: socket.socket,
    outgoing: list[bytes],
    payload_size: int,
    rate: float,
) -> Latencies:
    """Send `outgoing` at `rate` per second, message `i` by publisher `i mod n`."""
    size = len(outgoing[0])
    received = bytearray(len(outgoing) * size)
    room = memoryview(received)
    filled = 0
    times: list[int] = []
    ends: list[int] = []
    count, publisher_count = len(outgoing), len(publishers)
    interval_ns = 1e9 / rate
    clock = time.perf_counter_ns
    subscriber.setblocking(False)
    number = 0
    start = clock() + 1_000_000
    deadline = start + int(count * interval_ns + QUIET_SECONDS_MAX * 1e9)
    while filled < len(received):
        now = clock()
        if number < count:
            if now >= start + number * interval_ns:
                publishers[number % publisher_count].sendall(outgoing[number])
                number += 1
        elif now > deadline:
            break
        try:
            taken = subscriber.recv_into(room[filled:])
        except BlockingIOError:
            breathe()
            continue
        if not taken:
            raise BenchError("the server closed the connection")
        filled += taken
        times.append(clock())
        ends.append(filled)
    arrivals: dict[int, int] = {}
    number_at = size - payload_size
    for end in range(size, filled + 1, size):
        (arrived,) = struct.unpack_from(">Q", received, end - size + number_at)
        arrivals[arrived] = times[bisect_left(ends, end)]
    return summarise(arrivals, start, interval_ns, count)
