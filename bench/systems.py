"""How each system is started, and with what settings. Why they are fair stands in README.md."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

from bench.process import BenchError, spawn, wait_until

if TYPE_CHECKING:
    from bench.process import Address, Server

START_SECONDS_MAX = 20.0

MOSQUITTO_SETTINGS = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay {nodelay}
sys_interval 0
log_dest stderr
log_type error
log_type warning
"""


def free_port() -> int:
    """Return a loopback port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(server: Server, address: Address, seconds: float = START_SECONDS_MAX) -> None:
    """Return once something accepts connections at `address`."""
    for _ in wait_until(seconds, f"a listener on {address[1]}", server):
        try:
            socket.create_connection(address, 1).close()
        except OSError:
            continue
        return


def ready_line(server: Server) -> str:
    """Return the first line that the server prints."""
    assert server.process.stdout is not None
    descriptor = server.process.stdout.fileno()
    line, deadline = b"", time.perf_counter() + START_SECONDS_MAX
    while b"\n" not in line:
        wait = deadline - time.perf_counter()
        if wait <= 0 or not select.select([descriptor], [], [], wait)[0]:
            raise BenchError(f"no ready line: {server.last_words()}")
        part = os.read(descriptor, 4096)
        if not part:
            server.process.wait()
            server.check()
        line += part
    return line.decode()


class Identity:
    """A certificate (ECDSA, P-256) for 127.0.0.1 and the CA that made it, in files."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        made = authority.issue_cert("127.0.0.1")
        self.ca, self.certificate, self.key = (
            directory / name for name in ("ca.pem", "certificate.pem", "key.pem")
        )
        authority.cert_pem.write_to_path(self.ca)
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        made.private_key_pem.write_to_path(self.key)
        self.key.chmod(0o644)  # Mosquitto becomes another user before it reads it


class Isthmus:
    """This project, from the environment that runs the benchmark, with one durability.

    `scheme` is what MQTT is served inside of: tcp, tls or ws.
    """

    warm_share = 0.15

    def __init__(self, durability: str, scheme: str = "tcp") -> None:
        self.name = f"isthmus {durability}"
        self._durability = durability
        self._scheme = scheme

    def version(self) -> str:
        """Return the version and how much of the message path is compiled."""
        package = importlib.util.find_spec("isthmus")
        if package is None or importlib.util.find_spec("isthmus.__main__") is None:
            raise BenchError("isthmus is not in this environment")
        assert package.origin is not None
        root = Path(package.origin).parent
        wanted = list(root.rglob("*.pxd"))
        built = [path for path in wanted if list(path.parent.glob(f"{path.stem}.*.so"))]
        try:
            number = importlib.metadata.version("isthmus")
        except importlib.metadata.PackageNotFoundError:
            number = "from the source tree"
        return f"{number}, {len(built)} of {len(wanted)} modules compiled"

    def start(self, directory: Path) -> Server:
        """Start `isthmus serve` on free ports and wait for its ready line."""
        command = [sys.executable, "-m", "isthmus", "serve", "--data", str(directory / "data")]
        for option in ("--kafka", "--http"):
            command += [option, "127.0.0.1:0"]
        listener = f"{self._scheme}://127.0.0.1:0" + ("/mqtt" if self._scheme == "ws" else "")
        command += ["--set", f'mqtt.listeners=["{listener}"]']
        command += ["--set", f"storage.local.durability={self._durability}"]
        identity = Identity(directory) if self._scheme == "tls" else None
        if identity is not None:
            command += ["--set", f"tls.certificate={identity.certificate}"]
            command += ["--set", f"tls.key={identity.key}"]
        server = spawn(command, directory)
        try:
            line = ready_line(server)
            found = re.match(r"ready mqtt=([\d.]+):(\d+) kafka=([\d.]+):(\d+)", line)
            if found is None:
                raise BenchError(f"no ready line but: {line.strip()}")
        except BaseException:
            server.stop()
            raise
        server.mqtt = (found[1], int(found[2]))
        server.kafka = (found[3], int(found[4]))
        server.scheme = self._scheme
        server.ca = identity and identity.ca
        return server


class Mosquitto:
    """Debian's Mosquitto, nothing stored, nothing dropped.

    `no_delay` turns off Nagle's algorithm: better for its latency, worse for its throughput.
    """

    name = "mosquitto"
    warm_share = 0.15

    def __init__(self, *, no_delay: bool = False, scheme: str = "tcp") -> None:
        self._no_delay = no_delay
        self._scheme = scheme

    def version(self) -> str:
        """Return Mosquitto's own version."""
        words = subprocess.run(
            [self._program(), "-h"], capture_output=True, text=True, check=False
        )
        found = re.search(r"mosquitto version (\S+)", words.stdout)
        return found[1] if found else "unknown"

    def start(self, directory: Path) -> Server:
        """Start on a free port with MOSQUITTO_SETTINGS."""
        address = ("127.0.0.1", free_port())
        settings = directory / "mosquitto.conf"
        text = MOSQUITTO_SETTINGS.format(port=address[1], nodelay=str(self._no_delay).lower())
        identity = Identity(directory) if self._scheme == "tls" else None
        if identity is not None:
            text += f"certfile {identity.certificate}\nkeyfile {identity.key}\n"
        elif self._scheme == "ws":
            # With listeners for WebSocket alone Mosquitto 2.0 finds that it has none, and ends.
            text += f"protocol websockets\nlistener {free_port()} 127.0.0.1\n"
        settings.write_text(text)
        server = spawn([self._program(), "-c", str(settings)], directory)
        try:
            wait_for_port(server, address)
        except BaseException:
            server.stop()
            raise
        server.mqtt = address
        server.scheme = self._scheme
        server.ca = identity and identity.ca
        return server

    @staticmethod
    def _program() -> str:
        search = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
        program = shutil.which("mosquitto", path=search)
        if program is None:
            raise BenchError("mosquitto is not installed")
        return program


class NullBroker:
    """The ceiling of the load generator for one kind of packet; see null_broker.py."""

    name = "ceiling"
    warm_share = 0.15

    def __init__(self, size: int, qos: int, ring: int) -> None:
        self._arguments = [str(size), str(qos), str(ring)]

    def version(self) -> str:
        """Return what it is."""
        return "null broker: passes bytes on unread"

    def start(self, directory: Path) -> Server:
        """Start on a free port."""
        address = ("127.0.0.1", free_port())
        command = [sys.executable, "-m", "bench.null_broker", str(address[1]), *self._arguments]
        root = str(Path(__file__).parents[1])
        server = spawn(command, directory, {"PYTHONPATH": root})
        try:
            ready_line(server)
        except BaseException:
            server.stop()
            raise
        server.mqtt = address
        return server
