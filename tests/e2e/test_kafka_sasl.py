"""Clients of Kafka that log in: one user, its password over both shores and over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import aiokafka
import jwt
import kafka
import pytest
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.e2e.kafka_commands import CLIENTS, Kcat, run_to_end
from tests.e2e.kafka_libraries import confluent_consumer, confluent_producer, poll_records
from tests.e2e.kafka_scripted import KafkaJs
from tests.e2e.mqtt_programs import Message as MqttMessage
from tests.e2e.mqtt_programs import paho_client, paho_publish
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.raw_mqtt import raw_connection
from tests.e2e.server_process import ServerProcess, run_isthmus, text_of
from tests.e2e.test_users import by_scram
from tests.scram_client import ScramClient

if TYPE_CHECKING:
    from collections.abc import Iterator

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
KEY = ec.generate_private_key(ec.SECP256R1())
TOPIC = "mqtt"  # where what MQTT clients publish is


@pytest.fixture(scope="module")
def server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("sasl")
    users, key = directory / "users", directory / "key.pem"
    for name, group in (("ann", "administrators"), ("bob", "others")):
        command = ("add", name, "--group", group, "--file", str(users))
        assert run_isthmus("users", *command, stdin=f"Geheim-{name}\n".encode()).returncode == 0
    key.write_bytes(
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    ways = json.dumps(["users", "jwt"])
    settings = {
        "mqtt.authentication": ways,
        "kafka.authentication": ways,
        "http.authentication": ways,
        "kafka.listeners": json.dumps(
            [
                "tcp://127.0.0.1:0",
                {"address": "tcp://127.0.0.1:0", "name": "short", "reauthenticate_s": 3},
            ]
        ),
        "kafka.authentication_failure_delay_ms": "10",
        "authentication.users_file": str(users),
        "authentication.jwt.keys": json.dumps([str(key)]),
        "log.level": "debug",
    }
    server = ServerProcess(directory, settings)
    server.start()
    yield server
    server.stop()
    print(*server.log_lines()[-60:], sep="\n")


def sasl(mechanism: str, user: str = "ann", password: str = "Geheim-ann") -> dict[str, str]:
    """Return what librdkafka needs to log in."""
    own = {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password}
    return {"security.protocol": "SASL_PLAINTEXT", **own}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_librdkafka_logs_in(server: ServerProcess, mechanism: str, unique: str) -> None:
    producer = confluent_producer(server.kafka, **sasl(mechanism))
    producer.produce(unique, b"v")
    assert producer.flush(TIMEOUT_S) == 0
    consumer = confluent_consumer(server.kafka, **sasl(mechanism))
    consumer.subscribe([unique])
    assert [one.value() for one in poll_records(consumer, 1)] == [b"v"]
    consumer.close()


@pytest.mark.parametrize(
    ("mechanism", "user"),
    [("PLAIN", "ann"), ("PLAIN", "eve"), ("SCRAM-SHA-256", "ann"), ("GSSAPI", "ann")],
)
def test_librdkafka_is_told_why_it_does_not_come_in(
    server: ServerProcess, mechanism: str, user: str
) -> None:
    told: list[KafkaError] = []
    about = sasl(mechanism, user, "wrong")
    if mechanism == "GSSAPI":
        about = {"security.protocol": "PLAINTEXT"}
    where = {"bootstrap.servers": text_of(server.kafka), "error_cb": told.append, **about}
    admin = AdminClient(where)
    if mechanism == "GSSAPI":  # it does not log in at all
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=1)
        return

    def failed() -> bool:
        admin.poll(0.1)
        return any(error.code() == KafkaError._AUTHENTICATION for error in told)

    wait_until(failed, "the news that it failed")


def test_kcat_logs_in(server: ServerProcess, unique: str) -> None:
    if missing := Kcat().missing():
        pytest.skip(missing)
    words = [f"-X{key}={value}" for key, value in sasl("SCRAM-SHA-256").items()]
    run_to_end(["kcat", "-P", "-b", text_of(server.kafka), "-t", unique, *words], b"one\n")
    read = ["-C", "-q", "-o", "beginning", "-c", "1"]
    words = [f"-X{key}={value}" for key, value in sasl("PLAIN").items()]
    found = run_to_end(["kcat", "-b", text_of(server.kafka), "-t", unique, *read, *words])
    assert found == b"one\n"


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_aiokafka_logs_in(server: ServerProcess, mechanism: str, unique: str) -> None:
    async def publish(password: str) -> int:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=text_of(server.kafka),
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism=mechanism,
            sasl_plain_username="ann",
            sasl_plain_password=password,
        )
        try:
            await producer.start()
            return (await producer.send_and_wait(unique, b"v")).offset
        finally:
            await producer.stop()

    assert asyncio.run(publish("Geheim-ann")) == 0
    with pytest.raises(KafkaConnectionError):
        asyncio.run(publish("wrong"))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kafka_python_logs_in(server: ServerProcess, mechanism: str, unique: str) -> None:
    producer = kafka.KafkaProducer(
        bootstrap_servers=text_of(server.kafka),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        sasl_plain_username="ann",
        sasl_plain_password="Geheim-ann",
    )
    assert producer.send(unique, b"v").get(TIMEOUT_S).offset == 0
    producer.close()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kafkajs_logs_in(server: ServerProcess, mechanism: str, unique: str) -> None:
    if missing := KafkaJs().missing():
        pytest.skip(missing)
    about = {"mechanism": mechanism.lower(), "username": "ann", "password": "Geheim-ann"}
    script = [str(CLIENTS / "kafka_client.js"), text_of(server.kafka), "produce", unique]
    record = json.dumps({"key": None, "value": "djE=", "headers": []})
    ended = subprocess.run(
        ["node", *script, "none"],
        input=record,
        env={**os.environ, "KAFKA_SASL": json.dumps(about)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    consumer = confluent_consumer(server.kafka, **sasl(mechanism))
    consumer.subscribe([unique])
    assert [one.value() for one in poll_records(consumer, 1)] == [b"v1"]
    consumer.close()


def test_a_token_lets_in_and_is_asked_for_anew(server: ServerProcess, unique: str) -> None:
    given: list[float] = []

    def token(_: str) -> tuple[str, float]:
        until = time.time() + 3600
        given.append(until)
        return jwt.encode({"sub": "carl", "exp": int(until)}, KEY, "ES256"), until

    about: dict[str, Any] = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "oauth_cb": token,
    }
    producer = confluent_producer(server.kafka, **about)
    producer.poll(0)
    producer.produce(unique, b"v")
    assert producer.flush(TIMEOUT_S) == 0
    assert given


def test_a_command_shows_a_token(server: ServerProcess, unique: str) -> None:
    token = jwt.encode({"sub": "carl", "exp": int(time.time()) + 3600}, KEY, "ES256")
    about = ("produce", "--kafka", text_of(server.kafka), "-t", unique, "-m", "v")
    done = run_isthmus(*about, variables={"ISTHMUS_TOKEN": token})
    assert done.returncode == 0, done.stderr


def test_who_stays_logs_in_again(server: ServerProcess, unique: str) -> None:
    """librdkafka does so by itself, some time before its session of three seconds is over."""
    about = sasl("SCRAM-SHA-512", "bob", "Geheim-bob")
    producer = confluent_producer(server.kafka_listeners[1], **about)

    def times() -> int:
        producer.produce(unique, b"v")
        assert producer.flush(TIMEOUT_S) == 0
        lines = [line for line in server.log_lines() if "logged in" in line]
        by_connection = [
            line.partition("connection=")[2].split()[0] for line in lines if "user=bob" in line
        ]
        return max(map(by_connection.count, by_connection), default=0)

    wait_until(lambda: times() >= 2, "one connection that has logged in twice")


def test_one_password_everywhere(server: ServerProcess, unique: str) -> None:
    def as_ann(client: Any) -> None:
        client.username_pw_set("ann", "Geheim-ann")

    with paho_client(server.mqtt, unique, prepare=as_ann) as client:
        paho_publish(client, [MqttMessage(f"t/{unique}", b"over MQTT")])
    with raw_connection(server.mqtt) as connection:
        by_scram(
            connection, "SCRAM-SHA-256", ScramClient("SCRAM-SHA-256", "ann", "Geheim-ann"), "r"
        )
    url = "http://{}:{}/api/v1/users/ann".format(*server.http)
    basic = f"Basic {b64encode(b'ann:Geheim-ann').decode()}"
    with urlopen(Request(url, headers={"Authorization": basic})) as answer:
        assert json.loads(answer.read())["name"] == "ann"
    consumer = confluent_consumer(server.kafka, **sasl("PLAIN"))
    consumer.subscribe([TOPIC])
    found = [one.key() for one in poll_records(consumer, 1)]
    assert found == [f"t/{unique}".encode()]
    consumer.close()


def test_no_password_is_in_the_log(server: ServerProcess) -> None:
    """The last test of this file: the lines of all others are there."""
    assert not [line for line in server.log_lines() if "Geheim" in line]
