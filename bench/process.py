"""One server process under measurement: its addresses, its CPU, its memory, its end.

CPU and memory are those of the process and all its children, as the kernel counts them. Only
processes started here are ever ended, by their own number.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench import machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Address = tuple[str, int]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STOP_SECONDS_MAX = 20.0
STDERR_TAIL_BYTES = 2000


class BenchError(Exception):
    """Something stands in the way of a measurement; the text is shown in the table."""


@dataclass(slots=True)
class Server:
    """A running system. `mqtt` and `kafka` are None where it does not speak the protocol."""

    process: subprocess.Popen[bytes]
    errors: Path
    mqtt: Address | None = None
    kafka: Address | None = None
    scheme: str = "tcp"  # what MQTT is spoken inside of
    ca: Path | None = None  # who vouches for it, with TLS
    others: list[Server] = field(default_factory=list)  # that belong to the same system

    def cpu_s(self) -> float:
        """Return the seconds of CPU, user and system, that the server has used so far."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_S

    def rss_bytes(self) -> int:
        """Return the resident memory of the server."""
        pages = sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids()
        )
        return pages * os.sysconf("SC_PAGE_SIZE")

    def mqtt_address(self) -> Address:
        """Return where MQTT is spoken."""
        if self.mqtt is None:
            raise BenchError("this system does not speak MQTT")
        return self.mqtt

    def kafka_address(self) -> Address:
        """Return where the Kafka protocol is spoken."""
        if self.kafka is None:
            raise BenchError("this system does not speak the Kafka protocol")
        return self.kafka

    def check(self) -> None:
        """Raise BenchError with the server's last words when it has ended."""
        for other in self.others:
            other.check()
        status = self.process.poll()
        if status is not None:
            raise BenchError(f"the server ended with status {status}: {self.last_words()}")

    def last_words(self) -> str:
        """Return the end of what the server wrote to stderr, on one line."""
        text = self.errors.read_bytes()[-STDERR_TAIL_BYTES:].decode(errors="replace")
        return " | ".join(line for line in text.splitlines()[-3:] if line.strip())

    def stop(self) -> None:
        """End the server with SIGTERM, with SIGKILL if it does not listen; the last first."""
        for other in reversed(self.others):
            other.stop()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _pids(self) -> list[int]:
        """Return the system's processes and their descendants."""
        found = [each.process.pid for each in (self, *self.others)]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found.extend(int(child) for child in children.read_text().split())
        return found


class System(Protocol):
    """Something that can be measured: a broker with one configuration."""

    name: str
    warm_share: float  # of the measured seconds, spent before them at the same load

    def version(self) -> str:
        """Return what exactly is measured; raise BenchError where it cannot run here."""

    def start(self, directory: Path) -> Server:
        """Start on free loopback ports with data in `directory`, return once it answers."""


def spawn(
    command: list[str], directory: Path, environment: Mapping[str, str] | None = None
) -> Server:
    """Start `command` on the server's cores; its stderr goes to a file in `directory`."""
    errors = directory / "stderr.txt"
    try:
        with machine.on_server_cores(), errors.open("ab") as sink:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**os.environ, **(environment or {})},
            )
    except OSError as error:
        raise BenchError(f"{command[0]} did not start: {error}") from error
    return Server(process, errors)


@contextmanager
def running(system: System, directory: Path) -> Iterator[Server]:
    """Run `system` for the length of the block; what it kept in `directory` stays."""
    server = system.start(directory)
    try:
        yield server
        server.check()
    except (BenchError, OSError) as error:
        said = server.last_words()
        if not said or said in str(error):
            raise
        raise BenchError(f"{error}; the server's last words: {said}") from error
    finally:
        server.stop()


@contextmanager
def fresh_directory(parent: Path) -> Iterator[Path]:
    """Give an empty directory for one measurement, and take it away with its dirty pages."""
    directory = Path(tempfile.mkdtemp(prefix="isthmus-bench-", dir=parent))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def wait_until(seconds: float, what: str, server: Server) -> Iterator[None]:
    """Loop every millisecond until the caller breaks out; raise BenchError after `seconds`."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        server.check()
        yield
        time.sleep(0.001)
    raise BenchError(f"{what} did not come within {seconds:g} s: {server.last_words()}")
