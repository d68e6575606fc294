"""A real Apache Kafka broker, as the reference that Kafka-only tests can be pointed at.

    python -m tests.e2e.apache_kafka DIRECTORY [PORT]

formats and starts one node (broker and controller in one process) in an empty directory,
prints `ready kafka=127.0.0.1:PORT` and runs until it is interrupted. A test that passes there
and fails on Isthmus has found a difference; see README.md beside this file.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.kafka_commands import java_command

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={directory}/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.assignment.interval.ms=0
group.share.assignment.interval.ms=0
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


def free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def start(directory: Path, port: int) -> subprocess.Popen[bytes]:
    """Format the directory, start the broker and return once it accepts connections."""
    directory.mkdir(parents=True, exist_ok=True)
    properties = directory / "server.properties"
    properties.write_text(
        PROPERTIES.format(port=port, controller=free_port(), directory=directory)
    )
    tool = java_command("kafka.tools.StorageTool")
    cluster = subprocess.run([*tool, "random-uuid"], check=True, capture_output=True, text=True)
    form = ["format", "--standalone", "-t", cluster.stdout.strip(), "-c", str(properties)]
    subprocess.run([*tool, *form], check=True, stdout=subprocess.DEVNULL)
    broker = subprocess.Popen(
        [*java_command("kafka.Kafka", "-Xmx512M"), str(properties)], stdout=subprocess.DEVNULL
    )
    while broker.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return broker
    raise SystemExit(f"Apache Kafka ended at once with status {broker.returncode}")


def main() -> None:
    """Run the broker until an interrupt."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m tests.e2e.apache_kafka DIRECTORY [PORT]")
    port = int(sys.argv[2]) if len(sys.argv) > 2 else free_port()
    broker = start(Path(sys.argv[1]).absolute(), port)
    signal.signal(signal.SIGTERM, lambda *_: broker.terminate())
    print(f"ready kafka=127.0.0.1:{port}", flush=True)
    try:
        broker.wait()
    except KeyboardInterrupt:
        broker.terminate()
        broker.wait()


if __name__ == "__main__":
    main()
