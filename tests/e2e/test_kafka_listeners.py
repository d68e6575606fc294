"""Several ways into the Kafka shore: addresses of their own, TLS, certificates, a proxy."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from tests.certificates import Authority
from tests.e2e.kafka_commands import JavaConsole, Kcat, java_command, run_to_end
from tests.e2e.kafka_libraries import (
    confluent_consumer,
    confluent_producer,
    create_topic,
    poll_records,
)
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.raw_kafka import API_VERSIONS, connect, is_answering, receive, request
from tests.e2e.server_process import Address, ServerProcess, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def listeners(ca: Authority) -> list[dict[str, object]]:
    """Return the ways in: plain; TLS, told by a name; certificates, told elsewhere; a proxy."""
    asking = {
        "client_certificates": "required",
        "client_ca": str(ca.certificate),
        "user_from": "subject",
        "user_mapping": ["RULE:.*CN=([^,]+).*/$1/L"],
    }
    machines = {"name": "machines", "advertised": "tls://127.0.0.3:0", "tls": asking}
    return [
        {"address": "tcp://127.0.0.1:0", "name": "inside"},
        {"address": "tls://127.0.0.1:0", "name": "outside", "advertised": "tls://localhost:0"},
        {"address": "tls://0.0.0.0:0", **machines},
        {"address": "tcp://127.0.0.1:0", "name": "proxied", "proxy_protocol": True},
    ]


class Ways:
    """A server with several Kafka listeners, and what its clients need to be let in."""

    def __init__(self, server: ServerProcess, ca: Authority, device: Path) -> None:
        self.server, self.ca, self.device = server, ca, device
        self.inside, self.outside, (_, port), self.proxied = server.kafka_listeners
        self.machines = "127.0.0.1", port

    def settings(self, *, certificate: bool = False) -> dict[str, str]:
        """Return what librdkafka needs for TLS."""
        own = {"ssl.certificate.location": self.device, "ssl.key.location": self.device}
        trust = {"security.protocol": "SSL", "ssl.ca.location": self.ca.certificate}
        return {key: str(at) for key, at in (trust | (own if certificate else {})).items()}


@pytest.fixture(scope="module")
def ways(own_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    directory = tmp_path_factory.mktemp("ways")
    ca = Authority(directory / "ca")
    names = ("localhost", "127.0.0.3", "127.0.0.1")
    certificate = ca.issue("server", *names)
    device = ca.issue("device", "x@y.example", common_name="Press-7")
    settings = {
        "log.level": "debug",
        "tls.certificate": str(certificate),
        "kafka.listeners": json.dumps(listeners(ca)),
    }
    server = ServerProcess(directory, settings)
    server.start()
    yield Ways(server, ca, device)
    server.stop()
    print(*server.log_lines()[-40:], sep="\n")


def told(address: Address, settings: dict[str, str]) -> Address:
    """Return where a client that bootstraps there is told to go."""
    admin = AdminClient({"bootstrap.servers": text_of(address), **settings})
    [broker] = admin.list_topics(timeout=TIMEOUT_S).brokers.values()
    return broker.host, broker.port


def test_each_listener_tells_an_address_of_its_own(ways: Ways) -> None:
    assert told(ways.inside, {}) == ways.inside
    assert told(ways.outside, ways.settings()) == ("localhost", ways.outside[1])
    assert told(ways.machines, ways.settings(certificate=True)) == (
        "127.0.0.3",
        ways.machines[1],
    )


def test_confluent_kcat_and_java_meet_over_tls(ways: Ways, unique: str) -> None:
    """What one wrote through its listener the others read through theirs, in groups, too."""
    if missing := Kcat().missing() or JavaConsole().missing():
        pytest.skip(missing)
    create_topic(ways.inside, unique)
    large = os.urandom(250_000).hex().encode()  # many records of TLS
    producer = confluent_producer(ways.outside, **ways.settings())
    for value in (b"from confluent", large):
        producer.produce(unique, value)
    assert producer.flush(TIMEOUT_S) == 0

    options = [f"{key}={value}" for key, value in ways.settings(certificate=True).items()]
    kcat = ["kcat", "-q", "-b", text_of(ways.machines), "-t", unique]
    kcat += [word for option in options for word in ("-X", option)]
    run_to_end([*kcat, "-P"], b"from kcat\n")
    wanted = [b"from confluent", large, b"from kcat"]
    assert run_to_end([*kcat, "-C", "-e", "-o", "beginning"]).splitlines() == wanted

    consumer = confluent_consumer(ways.machines, **ways.settings(certificate=True))
    consumer.subscribe([unique])
    assert [message.value() for message in poll_records(consumer, 3)] == wanted
    consumer.close()

    java = ways.server.directory / "java.properties"
    java.write_text(
        "security.protocol=SSL\nssl.truststore.type=PEM\nssl.keystore.type=PEM\n"
        f"ssl.truststore.location={ways.ca.certificate}\nssl.keystore.location={ways.device}\n"
    )
    command = java_command("org.apache.kafka.tools.consumer.ConsoleConsumer")
    command += ["--bootstrap-server", text_of(("localhost", ways.machines[1]))]
    command += ["--topic", unique, "--from-beginning", "--max-messages", "3"]
    command += ["--command-config", str(java)]
    assert run_to_end(command).splitlines() == wanted


def test_a_certificate_says_who_it_is_and_without_one_nobody_comes_in(ways: Ways) -> None:
    told(ways.machines, ways.settings(certificate=True))
    named = [line for line in ways.server.log_lines() if "listener=machines user=" in line]
    assert named and all("user=press-7" in line for line in named)
    admin = AdminClient({"bootstrap.servers": text_of(ways.machines), **ways.settings()})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=3)


def test_a_proxy_says_for_whom_it_connects(ways: Ways) -> None:
    with connect(ways.proxied) as connection:
        connection.sendall(b"PROXY TCP4 10.1.2.3 10.0.0.1 4711 9092\r\n")
        assert is_answering(connection)
    assert any(
        "peer=10.1.2.3:4711 listener=proxied" in line for line in ways.server.log_lines()
    )
    with connect(ways.proxied) as connection, contextlib.suppress(ConnectionResetError):
        connection.sendall(request(API_VERSIONS, 0))
        assert receive(connection) == b""


def shown(address: Address, ca: Authority) -> int:
    """Return the serial number of the certificate that a listener shows."""
    context = ssl.create_default_context(cafile=ca.certificate)
    with (
        socket.create_connection(address, TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        certificate = encrypted.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


def test_a_new_certificate_costs_nobody_a_connection(ways: Ways, unique: str) -> None:
    create_topic(ways.inside, unique)
    producer = confluent_producer(ways.outside, **ways.settings())
    errors: list[object] = []
    producer.produce(unique, b"before", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(TIMEOUT_S) == 0
    before = shown(ways.outside, ways.ca)
    opened = connections(ways)
    fresh = ways.ca.issue("fresh", "localhost", "127.0.0.3", "127.0.0.1")
    shutil.move(fresh, ways.ca.directory / "server.pem")
    os.kill(ways.server.pid, signal.SIGHUP)
    wait_until(lambda: shown(ways.outside, ways.ca) != before, "that the new one is shown")
    producer.produce(unique, b"after", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(TIMEOUT_S) == 0
    assert errors == [None, None]
    ended = [line for line in ways.server.log_lines() if "disconnected connection=" in line]
    assert not [line for line in ended if numbered(line) in opened]


def connections(ways: Ways) -> set[str]:
    """Return the numbers of the connections that are open."""
    lines = ways.server.log_lines()
    opened = {numbered(line) for line in lines if " connected connection=" in line}
    return opened - {numbered(line) for line in lines if "disconnected connection=" in line}


def numbered(line: str) -> str:
    """Return the number of the connection that a line is about."""
    return line.partition("connection=")[2].split()[0]
