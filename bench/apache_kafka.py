"""Apache Kafka as a peer: a single KRaft node from the artifacts of Maven Central.

The jars are fetched once with `mvn` into `~/.cache/isthmus-bench`, outside the tree. The node
runs as shipped, with what one node needs (one replica) and a fixed heap. It does not fsync
before it acknowledges: that is its default, and why the budget compares Isthmus *with* fsync.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.process import BenchError, spawn
from bench.systems import free_port, wait_for_port

if TYPE_CHECKING:
    from bench.process import Server

VERSION = "4.3.1"
HEAP = "1G"
START_SECONDS_MAX = 60.0
FETCH_JARS_SECONDS_MAX = 900

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>bench</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""

CLUSTER_ID = "aXN0aG11cy1iZW5jaC0xMA"


def jar_directory() -> Path:
    """Return where the jars are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "isthmus-bench" / f"kafka-{VERSION}"


def fetch_jars() -> Path:
    """Return the directory with the jars, fetched when they are not there yet."""
    directory = jar_directory()
    jars = directory / "lib"
    if (directory / "complete").exists():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise BenchError("mvn is not installed, and the jars are not in the cache")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pom.xml").write_text(POM)
    words = [maven, "-q", "-B", "-f", str(directory / "pom.xml")]
    words += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
    words += [f"-DoutputDirectory={jars}"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=FETCH_JARS_SECONDS_MAX
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError("mvn did not end in time") from error
    if done.returncode:
        raise BenchError(f"mvn failed: {done.stdout[-300:]}")
    (directory / "complete").touch()
    return jars


class ApacheKafka:
    """One node, both roles."""

    name = "apache kafka"
    warm_share = 2.0  # a JVM compiles while it runs

    def version(self) -> str:
        """Return Kafka's version; raise BenchError without Java or the jars."""
        if shutil.which("java") is None:
            raise BenchError("java is not installed")
        fetch_jars()
        return f"{VERSION}, heap {HEAP}, no fsync before acknowledging (its default)"

    def start(self, directory: Path) -> Server:
        """Format `directory` when it is new, start the node, wait for its listener."""
        jars = fetch_jars()
        address, controller = ("127.0.0.1", free_port()), free_port()
        settings = directory / "server.properties"
        settings.write_text(
            SETTINGS.format(port=address[1], controller=controller, data=directory / "data")
        )
        java = ["java", "-cp", f"{jars}/*"]
        words = [*java, "kafka.tools.StorageTool", "format", "--standalone"]
        words += ["--ignore-formatted", "-t", CLUSTER_ID, "-c", str(settings)]
        formatted = subprocess.run(words, capture_output=True, text=True, check=False)
        if formatted.returncode:
            raise BenchError(f"the storage was not formatted: {formatted.stderr[-300:]}")
        server = spawn(
            ["java", f"-Xms{HEAP}", f"-Xmx{HEAP}", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
             *java[1:], "kafka.Kafka", str(settings)],
            directory,
        )  # fmt: skip
        try:
            wait_for_port(server, address, START_SECONDS_MAX)
        except BaseException:
            server.stop()
            raise
        server.kafka = address
        return server
