"""`isthmus bench kafka` and `isthmus bench bridge` on a real server: nothing may be missing."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, Final

import pytest
from confluent_kafka.admin import AdminClient
from tests.e2e.server_process import run_isthmus, text_of

from isthmus.config_listeners import parse_address
from isthmus.load.errors import LoadError
from isthmus.load.kafka import KafkaLoad, KafkaPlan
from isthmus.load.kafka_reader import KafkaReader
from isthmus.load.mqtt import MqttLoad
from isthmus.load.plan import MqttPlan

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores

COUNT: Final = 300


def kafka_plan(shores: Shores, **more: Any) -> KafkaPlan:
    address = parse_address(f"tcp://{text_of(shores.kafka)}")
    return KafkaPlan(address=address, **{"count": COUNT, "quiet_s": 60.0, **more})


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"producers": 3, "consumers": 2, "partitions": 3, "codec": "zstd", "warm_up_s": 0.1},
        {"acks": "1", "batch_bytes": 200, "linger_ms": 0.0, "payload_bytes": 16, "window": 7},
        {"consumers": 0, "rate": 2_000.0, "partitions": 1},
    ],
)
def test_every_record_is_accounted_for(shores: Shores, shape: dict[str, Any]) -> None:
    plan = kafka_plan(shores, **shape)
    report = KafkaLoad(plan).run()
    said = report.as_dict()
    assert report.is_good, said
    assert report.measured.published == report.measured.acknowledged == COUNT
    assert report.acknowledged.count == COUNT
    assert report.measured.delivered == (COUNT if plan.consumers else 0)


def test_its_log_topic_is_gone_afterwards_and_another_ones_stays(
    shores: Shores, unique: str
) -> None:
    kafka = ("--kafka", text_of(shores.kafka))
    assert run_isthmus("topics", "create", *kafka, "-p", "2", unique).returncode == 0
    command = ("bench", "kafka", *kafka, "-n", "50", "-w", "0", "--json")
    for arguments in ((), ("--log-topic", unique)):
        done = run_isthmus(*command, *arguments)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["consumed"]["messages"] == 50
    left = AdminClient({"bootstrap.servers": text_of(shores.kafka)}).list_topics(timeout=60)
    assert unique in left.topics
    assert not [name for name in left.topics if name.startswith("isthmus-bench")]


@pytest.mark.parametrize("shape", [{"qos": 1, "publishers": 3}, {"rate": 1_000.0}, {"qos": 2}])
def test_everything_gets_across(shores: Shores, shape: dict[str, Any]) -> None:
    plan = MqttPlan(
        address=parse_address(f"tcp://{text_of(shores.mqtt)}"),
        subscribers=1,
        count=COUNT,
        quiet_s=60.0,
        **shape,
    )
    reader = KafkaReader(parse_address(f"tcp://{text_of(shores.kafka)}"), "mqtt")
    try:
        report = MqttLoad(plan, reader=reader).run()
    finally:
        reader.close()
    assert report.is_good, report.as_dict()
    assert report.measured.delivered == 2 * COUNT  # to the subscriber, and across


def test_the_bridge_on_the_command_line(shores: Shores) -> None:
    shore = ("--mqtt", text_of(shores.mqtt), "--kafka", text_of(shores.kafka))
    done = run_isthmus("bench", "bridge", *shore, "-n", "50", "-w", "0", "-q", "1", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["delivered"]["messages"] == said["acknowledged"]["messages"] == 50
    assert said["latency_ms"]["delivery"]["p99"] > 0


def test_what_cannot_be_is_one_sentence(shores: Shores) -> None:
    with pytest.raises(LoadError, match="too few for every consumer"):
        kafka_plan(shores, partitions=2, consumers=3)
    with pytest.raises(LoadError, match="needs 16 bytes"):
        kafka_plan(shores, payload_bytes=15)
    with pytest.raises(LoadError, match="nowhere"):
        KafkaLoad(kafka_plan(shores, log_topic="nowhere")).run()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = run_isthmus("bench", "bridge", "--kafka", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and f"127.0.0.1:{port}" in done.stderr
