"""100,000 messages in order per key, by every client, over both shores."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from tests.e2e import raw_mqtt
from tests.e2e.kafka_libraries import ConfluentKafka, confluent_producer
from tests.e2e.kafka_programs import KAFKA_PROGRAMS
from tests.e2e.kafka_record import KafkaProgram, Record
from tests.e2e.mqtt_programs import Message, MqttProgram
from tests.e2e.mqtt_scripted import MQTT_PROGRAMS
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

pytestmark = pytest.mark.slow

COUNT = 100_000
CHUNK = 20_000  # what is on its way at one time: less than any queue holds
ROUTE = """
[[routes]]
mqtt = "load/{key}"
log = "load"
key = "{key}"
partitions = 4
"""


def check_order(numbered: Iterable[tuple[bytes | str, bytes | None]], keys: int) -> None:
    """Check that number n came under key n % keys, each key's numbers in order and all."""
    by_key: defaultdict[bytes | str, list[int]] = defaultdict(list)
    for key, number in numbered:
        by_key[key].append(int(number or b"-1"))
    assert len(by_key) == keys
    for numbers in by_key.values():
        assert numbers == list(range(numbers[0], COUNT, keys)), "a gap, or out of order"


def key_of(number: int, keys: int) -> str:
    return f"key-{number % keys}"


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    return start_server(config=ROUTE)


@pytest.fixture(scope="module")
def loaded_server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Return a server whose log holds 100,000 messages of ten keys from MQTT."""
    server = ServerProcess(tmp_path_factory.mktemp("loaded"), config=ROUTE)
    server.start()
    with raw_mqtt.raw_session(server.mqtt, "loader") as session:
        for start in range(0, COUNT, CHUNK):
            numbers = range(start, start + CHUNK)
            session.send(
                *(
                    raw_mqtt.publish(f"load/{key_of(number, 10)}", b"%d" % number)
                    for number in numbers
                )
            )
        session.send(raw_mqtt.publish("end", b"", qos=1, packet_id=1))
        session.expect(raw_mqtt.PUBACK)
    yield server
    server.stop()


@pytest.mark.parametrize("program", MQTT_PROGRAMS, ids=lambda program: program.name)
def test_published_by(program: MqttProgram, server: ServerProcess) -> None:
    if program.missing():
        pytest.skip(program.missing())
    keys = 10 if program.many_topic_names else 1
    program.publish(
        server.mqtt,
        [Message(f"load/{key_of(number, keys)}", b"%d" % number, 1) for number in range(COUNT)],
    )
    records = ConfluentKafka().consume(server.kafka, "load", COUNT)
    check_order(((record.key or b"", record.value) for record in records), keys)


@pytest.mark.parametrize("program", KAFKA_PROGRAMS, ids=lambda program: program.name)
def test_read_by(program: KafkaProgram, loaded_server: ServerProcess) -> None:
    if program.missing():
        pytest.skip(program.missing())
    records = program.consume(loaded_server.kafka, "load", COUNT)
    check_order(((record.key or b"", record.value) for record in records), 10)


@pytest.mark.parametrize("program", KAFKA_PROGRAMS, ids=lambda program: program.name)
def test_produced_by(program: KafkaProgram, server: ServerProcess) -> None:
    if program.missing():
        pytest.skip(program.missing())
    with raw_mqtt.raw_session(server.mqtt, "reader") as session:
        session.send(raw_mqtt.subscribe(1, "load/+", 1))
        session.expect(raw_mqtt.SUBACK)
        program.produce(
            server.kafka,
            "load",
            [Record(key_of(number, 10).encode(), b"%d" % number) for number in range(COUNT)],
        )
        arrived = []
        while len(arrived) < COUNT:
            delivery = session.expect(raw_mqtt.PUBLISH)
            arrived.append((delivery.topic_name, delivery.payload()))
            session.send(raw_mqtt.ack(raw_mqtt.PUBACK, delivery.packet_id))
    check_order(arrived, 10)


@pytest.mark.parametrize("program", MQTT_PROGRAMS, ids=lambda program: program.name)
def test_delivered_to(program: MqttProgram, server: ServerProcess) -> None:
    if program.missing():
        pytest.skip(program.missing())
    with program.subscribe(server.mqtt, "load/+", 1) as inbox:
        producer = confluent_producer(server.kafka)
        for number in range(COUNT):
            producer.produce("load", b"%d" % number, key_of(number, 10))
            if (number + 1) % CHUNK == 0:
                assert producer.flush(TIMEOUT_S) == 0
                inbox.wait(number + 1)
        arrived = inbox.stays_at(COUNT, 0.1)
    check_order(((message.topic_name, message.payload) for message in arrived), 10)
