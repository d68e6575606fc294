"""A real server on a disk that is full, broken, or read-only for a while.

The disk is the machine's own with a thin layer before it (faulty_disk.c, loaded into the server
alone), which fails writes or syncs while the test says so. So this needs no rights and no
second disk, only the C compiler that Isthmus is built with.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from tests.e2e import raw_mqtt
from tests.e2e.kafka_libraries import (
    confluent_consumer,
    confluent_producer,
    create_topic,
    poll_records,
)
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.raw_mqtt import (
    DISCONNECT,
    PUBACK,
    PUBREC,
    SUBACK,
    RawMqtt,
    raw_connection,
    raw_session,
)
from tests.e2e.server_process import ANY_PORT, ServerProcess, run_isthmus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import Producer

SHIM = Path(__file__).with_name("faulty_disk.c")
NO_SUBSCRIBERS = 0x10  # a success, too
QUOTA_EXCEEDED = 0x97
TOLD = "reading goes on"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled layer."""
    compiler = os.environ.get("CC") or (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        compiler = "cc"
    library = tmp_path_factory.mktemp("shim") / "faulty_disk.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl"]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
    return library


class Disk:
    """The faulty disk of one server."""

    def __init__(self, directory: Path, shim: Path) -> None:
        self._orders = directory / "orders"
        self.variables = {
            "LD_PRELOAD": str(shim),
            "FAULTY_DISK_ROOT": str(directory / "server" / "data"),
            "FAULTY_DISK_ORDERS": str(self._orders),
        }

    def fail(self, call: str, code: int) -> None:
        part = self._orders.with_suffix(".part")
        part.write_text(f"{call} {code}\n")
        part.rename(self._orders)

    def mend(self) -> None:
        self._orders.unlink()


@pytest.fixture
def disk(tmp_path: Path, shim: Path) -> Disk:
    return Disk(tmp_path, shim)


@pytest.fixture
def server(tmp_path: Path, disk: Disk, own_process: None) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "server", variables=disk.variables)
    server.start()
    yield server
    server.stop()
    print(*server.log_lines()[-40:], sep="\n")


def readiness(server: ServerProcess) -> tuple[int, dict[str, str]]:
    """Return the status and the content of /readyz."""
    host, port = server.http
    try:
        with urllib.request.urlopen(
            f"http://{host}:{port}/readyz", timeout=TIMEOUT_S
        ) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def values_in(server: ServerProcess, log_topic: str, count: int) -> list[bytes]:
    """Read so many records from the first one on."""
    consumer = confluent_consumer(server.kafka)
    try:
        consumer.assign([TopicPartition(log_topic, 0, 0)])
        return [message.value() for message in poll_records(consumer, count)]
    finally:
        consumer.close()


def produce(producer: Producer, log_topic: str, value: bytes) -> KafkaError | None:
    """Produce one record; return None once it is acknowledged, or why it is not."""
    outcome: list[KafkaError | None] = []
    producer.produce(log_topic, value, on_delivery=lambda error, _: outcome.append(error))
    producer.flush(TIMEOUT_S)
    assert outcome
    return outcome[0]


def puback_reason(connection: RawMqtt, kind: int = PUBACK) -> int:
    """Return the reason code of the acknowledgement that comes next."""
    body = connection.expect(kind).body
    return body[2] if len(body) > 2 else 0


def check_refusals(
    server: ServerProcess, five: RawMqtt, three: RawMqtt, impatient: Producer
) -> None:
    """See that each protocol is told of a full disk in its own words."""
    for packet_id in range(2, 40):
        five.send(raw_mqtt.publish("a", b"refused", qos=1, packet_id=packet_id))
        assert puback_reason(five) == QUOTA_EXCEEDED
    five.send(raw_mqtt.publish("a", b"refused", qos=2, packet_id=50))
    assert puback_reason(five, PUBREC) == QUOTA_EXCEEDED
    five.send(*(raw_mqtt.publish("a", b"refused") for _ in range(20)))
    for name in range(20):
        five.send(raw_mqtt.publish(f"a/{name}", b"refused", qos=1, packet_id=60 + name))
        assert puback_reason(five) == QUOTA_EXCEEDED
    three.send(raw_mqtt.publish("a", b"refused", qos=1, packet_id=1, version=4))
    assert three.receive() is None, "no lie in 3.1.1: the connection ends"
    assert produce(impatient, "t", b"refused").code() == KafkaError.KAFKA_STORAGE_ERROR
    with pytest.raises(KafkaException):
        create_topic(server.kafka, "other")


def test_a_full_disk_refuses_and_goes_on_by_itself(server: ServerProcess, disk: Disk) -> None:
    """[MQTT 3.1.1: MQTT-4.8.0-2]"""
    create_topic(server.kafka, "t")
    impatient = confluent_producer(server.kafka, retries=0, **{"linger.ms": 0})
    assert produce(impatient, "t", b"before") is None
    with (
        raw_session(server.mqtt, "five") as five,
        raw_session(server.mqtt, "reader") as reader,
        raw_connection(server.mqtt) as three,
    ):
        reader.send(raw_mqtt.subscribe(1, "a", 1))
        reader.expect(SUBACK)
        three.open("three", version=4)
        five.send(raw_mqtt.publish("a", b"before", qos=1, packet_id=1))
        assert puback_reason(five) == 0
        assert reader.receive().payload() == b"before"

        disk.fail("write", errno.ENOSPC)
        check_refusals(server, five, three, impatient)
        assert values_in(server, "t", 1) == [b"before"]
        status, content = readiness(server)
        assert status == 503
        assert os.strerror(errno.ENOSPC) in content["reason"]

        patient = confluent_producer(server.kafka, **{"enable.idempotence": True})
        delivered: list[KafkaError | None] = []
        for number in range(100):
            value = b"patient-%d" % number
            patient.produce("t", value, on_delivery=lambda error, _: delivered.append(error))
            patient.poll(0.01)
        assert not delivered

        disk.mend()
        wait_until(lambda: readiness(server)[0] == 200, "that the server is ready again")
        patient.flush(TIMEOUT_S)
        assert delivered == [None] * 100
        assert produce(impatient, "t", b"after") is None
        five.send(raw_mqtt.publish("a", b"after", qos=1, packet_id=2))
        assert puback_reason(five) == 0
        assert reader.receive().payload() == b"after", "and nothing of what was refused"
    expected = [b"before", *(b"patient-%d" % number for number in range(100)), b"after"]
    assert values_in(server, "t", 102) == expected
    lines = server.log_lines()
    assert sum(TOLD in line for line in lines) == 1, "said once"
    assert sum("can be written again" in line for line in lines) == 1
    assert not [line for line in lines if "Traceback" in line]
    server.kill()
    server.start()
    assert values_in(server, "t", 102) == expected
    assert values_in(server, "mqtt", 2) == [b"before", b"after"]
    assert server.terminate() == 0


def test_offsets_and_sessions_wait_for_room(server: ServerProcess, disk: Disk) -> None:
    create_topic(server.kafka, "t")
    producer = confluent_producer(server.kafka)
    assert produce(producer, "t", b"one") is None
    consumer = confluent_consumer(server.kafka, **{"group.id": "g"})
    consumer.subscribe(["t"])
    [message] = poll_records(consumer, 1)
    with raw_session(server.mqtt, "kept", clean=False, session_expiry_s=1000) as kept:
        disk.fail("write", errno.ENOSPC)
        committed: list[KafkaError | None] = []
        kept.send(raw_mqtt.subscribe(1, "later/#", 1))  # is kept, but not on the disk yet
        kept.expect(SUBACK)
        assert readiness(server)[0] == 503
        consumer.commit(message, asynchronous=True)
        consumer.poll(0.5)
        disk.mend()
        wait_until(lambda: readiness(server)[0] == 200, "that the server is ready again")
        consumer.commit(message, asynchronous=False)
        committed = consumer.committed([TopicPartition("t", 0)], TIMEOUT_S)
        assert committed[0].offset == 1
        with raw_session(server.mqtt, "publisher") as publisher:
            publisher.send(raw_mqtt.publish("later/1", b"kept", qos=1, packet_id=1))
            assert puback_reason(publisher) == 0
            assert kept.receive().payload() == b"kept"
        kept.cut()
    consumer.close()
    server.kill()
    server.start()
    with raw_session(server.mqtt, "kept", clean=False, session_expiry_s=1000) as kept:
        assert kept.session_present
        assert kept.receive().payload() == b"kept", "it was not acknowledged"
    consumer = confluent_consumer(server.kafka, **{"group.id": "g"})
    assert consumer.committed([TopicPartition("t", 0)], TIMEOUT_S)[0].offset == 1
    consumer.close()


def test_a_sync_that_has_no_room_is_made_good(server: ServerProcess, disk: Disk) -> None:
    create_topic(server.kafka, "t")
    impatient = confluent_producer(server.kafka, retries=0, **{"linger.ms": 0})
    assert produce(impatient, "t", b"before") is None
    patient = confluent_producer(server.kafka, **{"linger.ms": 0})
    with raw_session(server.mqtt, "first") as first, raw_session(server.mqtt, "other") as other:
        first.send(raw_mqtt.publish("a", b"before", qos=1, packet_id=1))
        assert puback_reason(first) == NO_SUBSCRIBERS
        disk.fail("sync", errno.ENOSPC)
        first.send(raw_mqtt.publish("a", b"waiting", qos=1, packet_id=2))
        delivered: list[KafkaError | None] = []
        patient.produce("t", b"patient", on_delivery=lambda error, _: delivered.append(error))
        patient.poll(0)
        wait_until(lambda: readiness(server)[0] == 503, "that the server says so")
        other.send(raw_mqtt.publish("a", b"refused", qos=1, packet_id=1))
        assert puback_reason(other) == QUOTA_EXCEEDED
        assert produce(impatient, "t", b"refused").code() == KafkaError.KAFKA_STORAGE_ERROR
        assert values_in(server, "t", 1) == [b"before"]
        assert not delivered
        disk.mend()
        assert puback_reason(first) == NO_SUBSCRIBERS, "it has waited for its answer"
        patient.flush(TIMEOUT_S)
        assert delivered == [None]
        wait_until(lambda: readiness(server)[0] == 200, "that the server is ready again")
        other.send(raw_mqtt.publish("a", b"after", qos=1, packet_id=2))
        assert puback_reason(other) == NO_SUBSCRIBERS
    lines = server.log_lines()
    assert sum(TOLD in line for line in lines) == 1, "said once"
    assert not [line for line in lines if "Traceback" in line]
    server.kill()
    server.start()
    assert values_in(server, "mqtt", 3) == [b"before", b"waiting", b"after"]
    assert values_in(server, "t", 2) == [b"before", b"patient"]


def test_a_sync_that_fails_is_the_end_of_acknowledging(
    server: ServerProcess, disk: Disk
) -> None:
    create_topic(server.kafka, "t")
    producer = confluent_producer(server.kafka, retries=0, **{"linger.ms": 0})
    assert produce(producer, "t", b"kept") is None
    with (
        raw_session(server.mqtt, "first") as first,
        raw_session(server.mqtt, "second") as second,
    ):
        first.send(raw_mqtt.publish("a", b"kept", qos=1, packet_id=1))
        assert puback_reason(first) == NO_SUBSCRIBERS
        disk.fail("sync", errno.EIO)
        first.send(raw_mqtt.publish("a", b"never acknowledged", qos=1, packet_id=2))
        ended = first.receive()
        assert ended is None or ended.kind == DISCONNECT
        assert produce(producer, "t", b"no").code() == KafkaError.KAFKA_STORAGE_ERROR
        disk.mend()  # the next sync would succeed, and mean nothing
        second.send(raw_mqtt.publish("a", b"no", qos=1, packet_id=1))
        ended = second.receive()
        assert ended is None or ended.kind == DISCONNECT
    for _ in range(20):
        assert produce(producer, "t", b"no").code() == KafkaError.KAFKA_STORAGE_ERROR
    status, content = readiness(server)
    assert status == 503
    assert os.strerror(errno.EIO) in content["reason"]
    assert values_in(server, "t", 1) == [b"kept"]
    lines = server.log_lines()
    assert sum("takes no more records" in line for line in lines) == 1
    assert not [line for line in lines if "Traceback" in line]
    server.terminate()
    server.start()
    assert readiness(server)[0] == 200
    assert values_in(server, "t", 1) == [b"kept"]
    assert produce(producer, "t", b"again") is None
    assert values_in(server, "mqtt", 1) == [b"kept"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC], ids=["read-only", "full"])
@pytest.mark.parametrize("used_before", [False, True])
def test_a_start_on_it_is_refused_in_one_sentence(
    tmp_path: Path, disk: Disk, code: int, used_before: bool
) -> None:
    data = tmp_path / "server" / "data"
    if used_before:
        server = ServerProcess(tmp_path / "server")
        server.start()
        server.kill()
    else:
        data.parent.mkdir()
    disk.fail("write", code)
    ports = [part for shore in ("mqtt", "kafka", "http") for part in (f"--{shore}", ANY_PORT)]
    command = ("serve", *ports, "--data", str(data))
    ended = run_isthmus(*command, directory=tmp_path, variables=disk.variables)
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.strip().splitlines() if " warning " not in line]
    assert len(lines) == 1, ended.stderr
    assert str(data) in lines[0]
    assert os.strerror(code) in lines[0]
    assert code != errno.EROFS or "mount" in lines[0]
