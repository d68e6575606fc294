"""A real Isthmus process under test: started, watched, ended and killed from the outside.

What it knows of the server is what a user knows: the command line, the `ready` line on standard
output, the log on standard error, signals and exit statuses. Ports are picked by the server at
the first start and kept over restarts, as clients that reconnect expect. Not here: clients.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.e2e.patience import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Mapping

READY: Final = re.compile(r"^ready( (mqtt|kafka|http)=\S+)*$")
ANY_PORT: Final = "127.0.0.1:0"

Address = tuple[str, int]


def text_of(address: Address) -> str:
    """Return `host:port`."""
    return f"{address[0]}:{address[1]}"


def address_of(text: str) -> Address:
    """Return the host and port of `host:port`, of which IPv6 has its host in brackets."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def isthmus_command(*arguments: str) -> list[str]:
    """Return the command line that runs this checkout's `isthmus`."""
    return [sys.executable, "-m", "isthmus", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return our environment for a process that runs in another directory."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = os.pathsep.join(str(Path(path).absolute()) for path in paths if path)
    return {**os.environ, "PYTHONPATH": absolute, **more}


def run_isthmus(
    *arguments: str,
    directory: Path | None = None,
    stdin: bytes = b"",
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one `isthmus` command to its end, off any terminal, and return what it said."""
    ended = subprocess.run(
        isthmus_command(*arguments),
        cwd=directory,
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        env=environment(**(variables or {})),
        check=False,
    )
    return subprocess.CompletedProcess(
        ended.args,
        ended.returncode,
        ended.stdout.decode("utf-8", "replace"),
        ended.stderr.decode("utf-8", "replace"),
    )


@dataclass
class ServerProcess:
    """One data directory and the process that serves it, if one runs."""

    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    mqtt: Address = ("127.0.0.1", 0)
    kafka: Address = ("127.0.0.1", 0)
    http: Address = ("127.0.0.1", 0)
    mqtt_listeners: list[str] = field(default_factory=list)
    """Where MQTT is served, in the order of the settings, as the ready line says it."""
    kafka_listeners: list[Address] = field(default_factory=list)
    ready_after_s: float = 0.0
    _process: subprocess.Popen[str] | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log_path(self) -> Path:
        return self.directory / "server.log"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def command(self) -> list[str]:
        """Return the command line of the next start."""
        arguments = ["serve", "--data", str(self.data)]
        for shore, address in (("mqtt", self.mqtt), ("kafka", self.kafka), ("http", self.http)):
            if f"{shore}.listeners" not in self.settings:
                arguments += [f"--{shore}", text_of(address)]
        if self.config:
            path = self.directory / "isthmus.toml"
            path.write_text(self.config)
            arguments += ["--config", str(path)]
        for name, value in self.settings.items():
            arguments += ["--set", f"{name}={value}"]
        return isthmus_command(*arguments)

    def start(self) -> None:
        """Start the server and return once it says that it is ready."""
        assert self._process is None, "the server is already running"
        self.directory.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(**self.variables),
            )
        line = self._first_line()
        self.ready_after_s = time.monotonic() - began
        match = READY.match(line.strip())
        if match is None:
            self.kill()
            log_tail = "\n".join(self.log_lines()[-30:])
            raise AssertionError(f"no ready line but {line!r}; the log ends with:\n{log_tail}")
        said: dict[str, list[str]] = {"mqtt": [], "kafka": [], "http": []}
        for word in line.split()[1:]:
            shore, _, address = word.partition("=")
            said[shore].append(address)
        self.mqtt_listeners = said["mqtt"]
        self.kafka_listeners = [address_of(each) for each in said["kafka"]]
        self.mqtt, self.kafka, self.http = (address_of(each[0]) for each in said.values())

    def _first_line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        too_late = threading.Timer(TIMEOUT_S, self._process.kill)
        too_late.start()
        try:
            return self._process.stdout.readline()
        finally:
            too_late.cancel()
            too_late.join()

    def terminate(self) -> int:
        """Ask for an orderly end and return the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process with SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process if it runs, whatever the way; for the end of a test."""
        if self._process is not None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        assert process is not None, "the server is not running"
        process.send_signal(number)
        status = process.wait(TIMEOUT_S)
        assert process.stdout is not None
        process.stdout.close()
        self._process = None
        return status

    def is_running(self) -> bool:
        """Whether the process is there and has not ended by itself."""
        return self._process is not None and self._process.poll() is None

    def rss_bytes(self) -> int:
        """Return the resident memory of the process."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process reports no resident memory")

    def cpu_s(self) -> float:
        """Return how long the process has computed, whoever else was using the machine."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_lines(self) -> list[str]:
        """Return the lines logged so far, over all starts."""
        if not self.log_path.exists():
            return []
        return self.log_path.read_text(errors="replace").splitlines()


def tree_of(directory: Path) -> dict[str, tuple[int, int]]:
    """Return every file below a directory with its size and time of change."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
