"""How a response of 1 MiB out of a file gets into a socket fastest: `python -m bench.sender`.

    pread      read into memory, walk the batches and verify them, write to the transport
    unverified the same without the walk
    mmap       write a slice of a mapping to the transport
    sendfile   os.sendfile on a copy of the transport's descriptor, beside the loop

A server process on uvloop answers each byte it gets with the next MiB of a file that is in the
page cache; the client, another process, discards what comes in the kernel. Rounds alternate.
The table shows medians, and ratios to `pread` of the same round. It is what ADR 15 rests on.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from bench.mqtt_client import RECEIVE_BYTES
from isthmus.record.batch import BatchBuilder
from isthmus.record.walk import walk_batches

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

MIB = 1 << 20
RESPONSES = 256  # the file's MiB, sent again and again
METHODS = ("pread", "unverified", "mmap", "sendfile")
FAR = 1 << 60
MSG_TRUNC = 0x20


def fill(path: Path) -> None:
    """Write batches of 150 records of 100 bytes, each MiB beginning with one."""
    builder = BatchBuilder()
    for _ in range(150):
        builder.append(0, None, bytes(100))
    batch = builder.seal()
    count = MIB // batch.size
    with path.open("wb") as file:
        for place in range(RESPONSES):
            for number in range(count):
                batch.stamp((place * count + number) * 150, 0)
                file.write(batch.data)
            file.write(bytes(MIB - count * batch.size))


class Sender(asyncio.Protocol):
    """Answers each byte with a MiB."""

    def __init__(self, method: str, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._map = memoryview(mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ))
        self._send = getattr(self, f"_{method}")
        self._place = 0
        self._transport: Any = None
        self._socket = -1
        self._left = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._socket = os.dup(transport.get_extra_info("socket").fileno())

    def data_received(self, data: bytes) -> None:
        for _ in data:
            self._send(self._place % RESPONSES * MIB)
            self._place += 1

    def _pread(self, position: int) -> None:
        data = bytearray(MIB)
        os.preadv(self._descriptor, [data], position, os.RWF_NOWAIT)
        walk_batches(data, -1, 0, FAR, MIB)
        self._transport.write(data)

    def _unverified(self, position: int) -> None:
        data = bytearray(MIB)
        os.preadv(self._descriptor, [data], position, os.RWF_NOWAIT)
        self._transport.write(data)

    def _mmap(self, position: int) -> None:
        self._transport.write(self._map[position : position + MIB])

    def _sendfile(self, position: int) -> None:
        end = position + MIB
        loop = asyncio.get_running_loop()

        def go_on() -> None:
            nonlocal position
            try:
                position += os.sendfile(
                    self._socket, self._descriptor, position, end - position
                )
            except BlockingIOError:
                return
            except ConnectionError:
                position = end  # the client has seen enough
            if position == end:
                loop.remove_writer(self._socket)

        loop.add_writer(self._socket, go_on)


def serve(method: str, path: Path, line: Connection) -> None:
    """Be the server process: say the port, then how much CPU time was taken."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Sender(method, path), "127.0.0.1", 0)
        line.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, line.recv)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    line.send(time.process_time())


def measure(method: str, path: Path, seconds: float) -> tuple[float, float]:
    """Return MiB per second and CPU seconds of the server per GiB."""
    line, other = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(method, path, other))
    process.start()
    with socket.create_connection(("127.0.0.1", line.recv())) as client:
        room = bytearray(RECEIVE_BYTES)
        client.sendall(b"xx")  # one response is on its way while the other is read
        done = left = 0
        begin = time.perf_counter()
        while time.perf_counter() < begin + seconds:
            left += client.recv_into(room, len(room), MSG_TRUNC)
            while left >= MIB:
                left -= MIB
                done += 1
                client.sendall(b"x")
        taken = time.perf_counter() - begin
    line.send(None)
    cpu_s = line.recv()
    process.join()
    return done / taken, cpu_s / done * 1024


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "segment")
        fill(path)
        for number in range(options.rounds):
            for method in METHODS[number % 4 :] + METHODS[: number % 4]:
                found[method].append(measure(method, path, options.seconds))
    print(f"{'':12}{'MiB/s':>8}{'x pread':>9}{'CPU s/GiB':>11}{'x pread':>9}")
    for method, rounds in found.items():
        speed, cpu = map(statistics.median, zip(*rounds, strict=True))
        pairs = list(zip(rounds, found["pread"], strict=True))
        faster = statistics.median(own[0] / other[0] for own, other in pairs)
        cheaper = statistics.median(own[1] / other[1] for own, other in pairs)
        print(f"{method:12}{speed:8.0f}{faster:9.2f}{cpu:11.3f}{cheaper:9.2f}")


if __name__ == "__main__":
    main()
