"""The log engine by itself: what a commit costs with many partitions, and what a restart does.

    python -m bench.engine commit                     # 1, 10, 100, 1,000 dirty partitions
    python -m bench.engine recovery                   # 100 MB to 10 GB, 1 to 1,000 partitions
    python -m bench.engine recovery --sizes 100,1000 --partitions 1,100 --cold

`commit` writes 4 KiB to each of so many partitions and waits until all are durable: with the
journal, then with one fdatasync per file, then as many bytes appended to one bare file with one
fdatasync; the three in turns, so that all see the same minute of the disk. `recovery` has a
child fill a log and be killed, then another one open it; --cold empties the page cache of the
files in between. Both are of the engine alone: no sockets, no protocol.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench import machine
from bench.kafka_rows import evict
from bench.process import fresh_directory
from isthmus.record.batch import BatchBuilder
from isthmus.server.runtime import LoopRuntime
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from isthmus.errors import IsthmusError
    from isthmus.record.batch import RecordBatch

CHUNK_BYTES = 4096
FILL_BYTES = 64 * 1024
SEGMENT_BYTES = 16 * 1024 * 1024
MB = 1_000_000
ROW = "{:>12} {:>12} {:>13} {:>9} {:>7}"


class Countdown:
    """The ticket of all appends of one commit."""

    wants_durable = True

    def __init__(self, count: int) -> None:
        self.left = count
        self.done = asyncio.get_running_loop().create_future()

    def written(self, base_offset: int) -> None:
        """One append is with the operating system."""

    def durable(self) -> None:
        """One append is on the disk."""
        self.left -= 1
        if self.left == 0:
            self.done.set_result(None)

    def failed(self, error: IsthmusError) -> None:
        """The disk does not take it: there is nothing to measure."""
        if not self.done.done():
            self.done.set_exception(error)


def batch_of(size: int) -> RecordBatch:
    """Return one batch with one record of about `size` bytes."""
    builder = BatchBuilder()
    builder.append(int(time.time() * 1000), None, bytes(size - 80))
    return builder.seal()


async def commit_ms(log: LocalLog, count: int) -> float:
    """Return how long one commit to `count` partitions takes."""
    partitions = log.topics["t"].partitions[:count]
    batches = [batch_of(CHUNK_BYTES) for _ in partitions]
    ticket = Countdown(count)
    begin = time.perf_counter()
    for partition, batch in zip(partitions, batches, strict=True):
        partition.append(batch, ticket)
    log.flush()
    await ticket.done
    return (time.perf_counter() - begin) * 1000


def bare_ms(descriptor: int, data: bytes) -> float:
    """Return how long it takes to append as much to one file and sync it once."""
    begin = time.perf_counter()
    os.write(descriptor, data)
    os.fdatasync(descriptor)
    return (time.perf_counter() - begin) * 1000


async def measure_commit(directory: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each commit, by the way in which it was done."""
    runtime = LoopRuntime(asyncio.get_running_loop())
    ways = {"journal": LocalSettings(), "per file": LocalSettings(journal_files_max=0)}
    logs = {
        name: LocalLog(directory / name.replace(" ", "-"), runtime, settings=settings)
        for name, settings in ways.items()
    }
    for log in logs.values():
        log.create("t", count, {})
        await commit_ms(log, count)  # makes the segments, and the journal
    descriptor = os.open(directory / "bare", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    data = bytes(CHUNK_BYTES * count)
    times: dict[str, list[float]] = {"journal": [], "per file": [], "bare": []}
    for _ in range(rounds):
        for name, log in logs.items():
            times[name].append(await commit_ms(log, count))
        times["bare"].append(bare_ms(descriptor, data))
    os.close(descriptor)
    for log in logs.values():
        log.close()
    runtime.close()
    return times


async def _fill(directory: Path, size: int, partitions: int) -> None:
    runtime = LoopRuntime(asyncio.get_running_loop())
    log = LocalLog(directory, runtime)
    log.create("t", partitions, {"segment.bytes": str(SEGMENT_BYTES)})
    written = 0
    while written < size:
        for partition in log.topics["t"].partitions:
            partition.append(batch_of(FILL_BYTES), None)
            written += FILL_BYTES
            if written % (4 * 1024 * 1024) == 0:
                log.flush()
                await asyncio.sleep(0)
        log.flush()
        await commit_ms(log, partitions)
    os.kill(os.getpid(), signal.SIGKILL)


def fill_and_die(directory: Path, size: int, partitions: int) -> None:
    """Write a log of `size` bytes and be killed."""
    asyncio.run(_fill(directory, size, partitions))


async def _open(directory: Path) -> float:
    runtime = LoopRuntime(asyncio.get_running_loop())
    begin = time.perf_counter()
    log = LocalLog(directory, runtime)
    elapsed = time.perf_counter() - begin
    log.close()
    runtime.close()
    return elapsed


def open_and_tell(directory: Path, answer: Connection) -> None:
    """Tell how many seconds it took to open what was left."""
    answer.send(asyncio.run(_open(directory)))


def run_child(work: Callable[..., None], *arguments: object) -> None:
    """Run it in a process of its own, to its end."""
    child = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    child.start()
    child.join()


def measure_recovery(directory: Path, size: int, partitions: int, *, cold: bool) -> float:
    """Return the seconds from opening a log that was killed to the first append it takes."""
    data = directory / "data"
    run_child(fill_and_die, data, size, partitions)
    if cold:
        evict(data)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    run_child(open_and_tell, data, sender)
    return float(receiver.recv())


def numbers(text: str) -> list[int]:
    """Split a list of numbers given as one option."""
    return [int(part) for part in text.split(",")]


@click.group()
@click.option(
    "--data",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=tempfile.gettempdir(),
    help="Where the logs are made; decides what fdatasync costs.",
)
@click.pass_context
def main(context: click.Context, data: Path) -> None:
    """Measure the log engine by itself."""
    context.obj = data
    machine.become_driver()
    os.sched_setaffinity(0, machine.CORES)


@main.command()
@click.option("--partitions", default="1,10,100,1000", help="Dirty partitions, with commas.")
@click.option("--rounds", default=50, type=click.IntRange(min=1))
@click.pass_obj
def commit(data: Path, partitions: str, rounds: int) -> None:
    """How long until a write to so many partitions is durable, in ms."""
    click.echo(ROW.format("partitions", "journal p50", "per file p50", "bare p50", "x bare"))
    for count in numbers(partitions):
        with fresh_directory(data) as directory:
            times = asyncio.run(measure_commit(directory, count, rounds))
        p50 = {name: statistics.median(values) for name, values in times.items()}
        click.echo(
            ROW.format(
                f"{count:,}",
                f"{p50['journal']:.2f}",
                f"{p50['per file']:.2f}",
                f"{p50['bare']:.2f}",
                f"{p50['journal'] / p50['bare']:.1f}",
            )
        )


@main.command()
@click.option("--sizes", default="100,1000,10000", help="Sizes of the log in MB, with commas.")
@click.option("--partitions", default="1,100,1000", help="Numbers of partitions, with commas.")
@click.option("--cold", is_flag=True, help="Empty the page cache of the log in between.")
@click.pass_obj
def recovery(data: Path, sizes: str, partitions: str, *, cold: bool) -> None:
    """How long a log takes to open after SIGKILL, in seconds."""
    click.echo(f"{'MB':>8} {'partitions':>12} {'seconds':>10}")
    for size in numbers(sizes):
        for count in numbers(partitions):
            with fresh_directory(data) as directory:
                seconds = measure_recovery(directory, size * MB, count, cold=cold)
            click.echo(f"{size:>8,} {count:>12,} {seconds:>10.2f}")


if __name__ == "__main__":
    main()
