"""What the clients print: bytes as they are, or one JSON object that loses nothing."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from isthmus.cli import kafka, mqtt, topics


def message(payload: bytes) -> MQTTMessage:
    made = MQTTMessage(mid=7, topic=b"a/b")
    made.payload, made.qos, made.retain = payload, 1, True
    return made


class FakeRecord:
    """A record as confluent-kafka hands it over; that class cannot be made from Python."""

    def __init__(self, key: bytes | None, value: bytes | None, headers: Any = None) -> None:
        self._key, self._value, self._headers = key, value, headers

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 5

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Any:
        return self._headers


def test_a_message_as_text() -> None:
    assert mqtt.in_text(message(b"\xff\n"), with_topic_name=False) == b"\xff\n"
    assert mqtt.in_text(message(b"x"), with_topic_name=True) == b"a/b x"


def test_a_message_as_json() -> None:
    assert json.loads(mqtt.in_json(message("ü\n".encode()))) == {
        "topic": "a/b",
        "payload": "ü\n",
        "qos": 1,
        "retain": True,
    }
    made = message(b"\xff")
    made.properties = Properties(PacketTypes.PUBLISH)
    made.properties.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
    line = json.loads(mqtt.in_json(made))
    assert line["payload_base64"] == "/w=="
    assert line["properties"]["UserProperty"] == [["b", "1"], ["a", "2"], ["b", "3"]]


def test_a_record_as_text() -> None:
    record: Any = FakeRecord(None, None)
    assert kafka.in_text(record, with_place=False) == b""
    record = FakeRecord(b"k", b"v\xff")
    assert kafka.in_text(record, with_place=True) == b"t-3@5 k v\xff"


def test_a_record_as_json() -> None:
    record: Any = FakeRecord(b"k", None, [("h", b"1"), ("h", None), ("g", b"\xff")])
    assert json.loads(kafka.in_json(record)) == {
        "log_topic": "t",
        "partition": 3,
        "offset": 5,
        "timestamp_ms": 1_700_000_000_000,
        "key": "k",
        "value": None,
        "headers": [
            {"name": "h", "value": "1"},
            {"name": "h", "value": None},
            {"name": "g", "value_base64": "/w=="},
        ],
    }


def test_a_line_with_its_key() -> None:
    assert kafka.split_key(b"k::v::w", "::") == (b"k", b"v::w")
    with pytest.raises(click.ClickException, match="there is no '::' in 'kv"):
        kafka.split_key(b"kv\xff", "::")


def test_columns_and_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a", "count": 10}, {"name": "longer", "count": 2}]
    topics.show(rows)
    assert capsys.readouterr().out == "name    count\na       10\nlonger  2\n"
    topics.show(rows, as_json=True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    topics.show([])
    assert not capsys.readouterr().out
