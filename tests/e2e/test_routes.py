"""Routes from a configuration file, both ways, as users write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.e2e.kafka_libraries import ConfluentKafka
from tests.e2e.kafka_record import Record
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.server_process import run_isthmus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.server_process import ServerProcess

FACTORY = """
[[routes]]
mqtt = "factory/{line}/temperature"
log = "temperatures"
key = "{line}"

[[routes]]
mqtt = "factory/line-0/{rest...}"
log = "first-line"
key = "{rest}"

[[routes]]
mqtt = "audit/+/#"
log = "audit"
direction = "to-log"
"""


@pytest.fixture
def factory(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    return start_server(config=FACTORY)


def test_a_route_decides_log_topic_and_key(factory: ServerProcess) -> None:
    with paho_client(factory.mqtt) as client:
        inbox = paho_subscribe(client, "factory/#")
        paho_publish(
            client,
            [Message("factory/line-3/temperature", b"21"), Message("factory/line-3/x", b"y")],
        )
        # Subscribers get it under its own topic name, whatever the route.
        assert [message.topic_name for message in inbox.wait(2)] == [
            "factory/line-3/temperature",
            "factory/line-3/x",
        ]
    [routed] = ConfluentKafka().consume(factory.kafka, "temperatures", 1)
    assert (routed.key, routed.value) == (b"line-3", b"21")
    assert dict(routed.headers)["mqtt.topic"] == b"factory/line-3/temperature"
    [other] = ConfluentKafka().consume(factory.kafka, "mqtt", 1)
    assert (other.key, other.value) == (b"factory/line-3/x", b"y")
    assert "mqtt.topic" not in dict(other.headers)  # the key holds it


def test_a_route_is_inverted_for_a_plain_kafka_producer(factory: ServerProcess) -> None:
    with paho_client(factory.mqtt) as client:
        inbox = paho_subscribe(client, "factory/+/temperature")
        records = [Record(b"line-%d" % number, b"%d" % number) for number in (3, 4)]
        ConfluentKafka().produce(factory.kafka, "temperatures", records)
        assert [(one.topic_name, one.payload) for one in inbox.wait(2)] == [
            ("factory/line-3/temperature", b"3"),
            ("factory/line-4/temperature", b"4"),
        ]


def test_the_most_specific_route_wins(factory: ServerProcess) -> None:
    with paho_client(factory.mqtt) as client:
        paho_publish(client, [Message("factory/line-0/temperature", b"x")])
        paho_publish(client, [Message("factory/line-0/a/b", b"y")])
    [first, second] = ConfluentKafka().consume(factory.kafka, "first-line", 2)
    assert (first.key, second.key) == (b"temperature", b"a/b")


def test_a_route_to_the_log_only_does_not_come_back(factory: ServerProcess) -> None:
    with paho_client(factory.mqtt) as client:
        inbox = paho_subscribe(client, "audit/#")
        paho_publish(client, [Message("audit/door/open", b"in")])
        assert [message.payload for message in inbox.wait(1)] == [b"in"]
        ConfluentKafka().produce(
            factory.kafka, "audit", [Record(b"audit/door/open", b"forged")]
        )
        inbox.stays_at(1)


def test_a_route_that_cannot_be_inverted_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "isthmus.toml"
    config.write_text(
        '[[routes]]\nmqtt = "factory/{line}/{sensor}"\nlog = "values"\nkey = "{line}"\n'
    )
    ended = run_isthmus("serve", "--config", str(config), "--data", str(tmp_path / "data"))
    assert ended.returncode == 2
    assert "to-log" in ended.stderr
    assert not (tmp_path / "data").exists()
