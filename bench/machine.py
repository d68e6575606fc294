"""What this machine is, and which of its cores are whose.

The load generator and the server never share a core when there are two: the lower half of the
cores drives, the upper half serves. A child inherits the affinity of the thread that starts it.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import statistics
import subprocess
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

CORES = sorted(os.sched_getaffinity(0))
SHARED_CORE = len(CORES) < 2
DRIVER_CORES = frozenset(CORES[: max(1, len(CORES) // 2)])
SERVER_CORES = frozenset(CORES) if SHARED_CORE else frozenset(CORES) - DRIVER_CORES

SYNC_SAMPLES = 200
SYNC_BYTES = 4096
BUSY_LOOK_SECONDS = 1.0


def become_driver() -> None:
    """Pin this process to the driver's cores and allow it as many sockets as it may have."""
    os.sched_setaffinity(0, DRIVER_CORES)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def on_server_cores() -> Iterator[None]:
    """Start children on the server's cores inside this block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, SERVER_CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def breathe() -> None:
    """Give the core away when the server needs it too; with two cores, return at once."""
    if SHARED_CORE:
        os.sched_yield()


def cpu_name() -> str:
    """Return the model of the processor as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def short_name() -> str:
    """Return a word for the machine that may stand in a file name: `amd-epyc-2`."""
    words = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")
    return f"{words}-{len(CORES)}"


def memory_bytes() -> int:
    """Return the size of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def filesystem_of(directory: Path) -> str:
    """Return the type of the file system that holds `directory` (`ext4`, `tmpfs`, …)."""
    resolved, best, kind = directory.resolve(), Path("/"), "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        point = Path(mount)
        if resolved.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, found
    return kind


def sync_ms(directory: Path) -> float:
    """Return the median milliseconds of one 4 KiB append and fdatasync in `directory`."""
    path, samples = directory / "sync-probe", []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        block = bytes(SYNC_BYTES)
        for _ in range(SYNC_SAMPLES):
            begin = time.perf_counter()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            samples.append(time.perf_counter() - begin)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(samples) * 1000


def busy_percent() -> float:
    """Return how busy other programs keep the machine, looked at while this one waits."""

    def ticks() -> tuple[int, int]:
        fields = [
            int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        ]
        return sum(fields), fields[3] + fields[4]

    total_before, idle_before = ticks()
    time.sleep(BUSY_LOOK_SECONDS)
    total, idle = ticks()
    passed = total - total_before
    return 100 * (passed - (idle - idle_before)) / passed if passed else 0.0


def commit_of_tree() -> str:
    """Return the commit that is measured, with `+` when the tree differs from it."""
    try:
        words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        root = Path(__file__).parent
        return subprocess.run(
            words, cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe(directory: Path) -> dict[str, Any]:
    """Return what one must know to judge the numbers; `directory` is for the servers' data."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": len(CORES),
        "driver_cores": sorted(DRIVER_CORES),
        "server_cores": sorted(SERVER_CORES),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": filesystem_of(directory),
        "fdatasync_ms": round(sync_ms(directory), 3),
        "busy_percent_before": round(busy_percent(), 1),
        "commit": commit_of_tree(),
    }
