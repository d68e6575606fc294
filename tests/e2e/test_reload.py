"""SIGHUP with other settings of who comes in, and how: who may stay, stays."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.certificates import Authority
from tests.e2e.mqtt_programs import paho_client
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.raw_mqtt import (
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    RawMqtt,
    packet,
    raw_connection,
)
from tests.e2e.raw_mqtt import connect as mqtt_connect
from tests.e2e.server_process import ServerProcess, address_of, run_isthmus, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.server_process import Address

SIGNER = ec.generate_private_key(ec.SECP256R1())
SECTIONS = """
[mqtt]
authentication = {mqtt}
[kafka]
authentication = {kafka}
[authentication]
users_file = "{users}"
[authentication.jwt]
keys = {keys}
[tls]
certificate = "{certificate}"
client_ca = "{ca}"
client_certificates = "optional"
user_from = "cn"
user_mapping = {mapping}
"""


class Reloading:
    """A server with a plain listener and one with TLS, and what its settings may name."""

    def __init__(self, directory: Path) -> None:
        self.ca = Authority(directory / "ca")
        self.directory = directory
        self.key = directory / "signer.pem"
        form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.key.write_bytes(SIGNER.public_key().public_bytes(*form))
        for file, names in (("one", ("ann", "bob")), ("two", ("bob",))):
            for name in names:
                arguments = ("users", "add", name, "--file", str(directory / file))
                assert run_isthmus(*arguments, stdin=b"pw\n").returncode == 0
        # the same line in both: bob is the same user
        lines = (directory / "one").read_text().splitlines(keepends=True)
        (directory / "two").write_text("".join(each for each in lines if "bob:" in each))
        self.process = ServerProcess(
            directory / "server",
            settings={"mqtt.listeners": '["tcp://127.0.0.1:0", "tls://127.0.0.1:0"]'},
            config=self.text(),
        )
        self.process.start()
        self.plain, self.tls = map(address_of, self.process.mqtt_listeners)

    def text(self, **changes: str) -> str:
        one = self.ca.issue("first", "localhost")
        before = {
            "mqtt": '["users"]',
            "kafka": "[]",
            "users": str(self.directory / "one"),
            "keys": "[]",
            "certificate": str(one),
            "ca": str(self.ca.certificate),
            "mapping": "[]",
        }
        return SECTIONS.format(**(before | changes))

    def reload(self, **changes: str) -> list[str]:
        """Have other settings taken; return what the log says of that."""
        lines = len(self.process.log_lines())
        (self.process.directory / "isthmus.toml").write_text(self.text(**changes))
        os.kill(self.process.pid, signal.SIGHUP)

        def said() -> list[str]:
            return self.process.log_lines()[lines:]

        wait_until(lambda: any(" reloaded logger=" in line for line in said()), "the end of it")
        return said()


@pytest.fixture(scope="module")
def server(own_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    found = Reloading(tmp_path_factory.mktemp("reload"))
    yield found
    found.process.stop()


def is_let_in(address: Address, name: str, password: str) -> bool:
    with raw_connection(address) as connection:
        connection.send(mqtt_connect("c", user=(name, password.encode())))
        return connection.expect(CONNACK).body[1] == 0


def is_there(connection: RawMqtt) -> bool:
    connection.send(packet(PINGREQ))
    return connection.expect(PINGRESP) is not None


def serial_shown(server: Reloading) -> str:
    context = ssl.create_default_context(cafile=server.ca.certificate)
    with (
        socket.create_connection(server.tls, TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        certificate = encrypted.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def test_other_users_keys_ways_and_certificates_count_at_once(
    server: Reloading, unique: str
) -> None:
    token = jwt.encode({"sub": "zoe", "exp": time.time() + 600}, SIGNER, "ES256")
    assert not is_let_in(server.plain, "zoe", token)
    before = serial_shown(server)
    open_kafka = AdminClient({"bootstrap.servers": text_of(server.process.kafka)})
    open_kafka.list_topics(timeout=TIMEOUT_S)
    stays, goes = RawMqtt(server.plain), RawMqtt(server.plain)
    stays.open(f"{unique}-bob", user=("bob", b"pw"))
    goes.open(f"{unique}-ann", user=("ann", b"pw"))
    second = server.ca.issue("second", "localhost")
    said = server.reload(
        mqtt='["certificate", "users", "jwt"]',
        kafka='["users"]',
        users=str(server.directory / "two"),
        keys=f'["{server.key}"]',
        certificate=str(second),
        mapping='["RULE:press-(.*)/machine-$1/"]',
    )
    assert not [line for line in said if "restart" in line or "not reloaded" in line]
    assert goes.expect(DISCONNECT).body[0] == 0x87
    assert is_there(stays)
    wait_until(lambda: is_let_in(server.plain, "zoe", token), "that tokens are believed")
    assert not is_let_in(server.plain, "ann", "pw")
    assert serial_shown(server) != before
    device = server.ca.issue("device", common_name="press-7")

    def prepare(client: Any) -> None:
        client.tls_set(str(server.ca.certificate), str(device))

    with paho_client(("localhost", server.tls[1]), unique, prepare=prepare):
        pass
    assert any("user=machine-7" in line for line in server.process.log_lines())
    known = AdminClient(
        {
            "bootstrap.servers": text_of(server.process.kafka),
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "bob",
            "sasl.password": "pw",
        }
    )
    known.list_topics(timeout=TIMEOUT_S)

    said = server.reload(mqtt='["jwt"]', keys='["/nowhere"]')
    assert any("not reloaded part=authentication" in line for line in said)
    assert any("'/nowhere' cannot be read" in line for line in said)
    assert is_there(stays)
    assert is_let_in(server.plain, "zoe", token)
    for connection in (stays, goes):
        connection.cut()
