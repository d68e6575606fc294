"""The metrics: their names by Prometheus' conventions, what they say, who may read them."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse
from tests.unit.admin.asgi import ask, security_of
from tests.unit.broker.kafka_room import security_apart
from tests.unit.broker.shore import Shore
from tests.unit.server.mqtt_wire import Wire

from isthmus.admin.http import Asked, application
from isthmus.app_metrics import METRICS, NAMED_MAX, look
from isthmus.app_status import Overview
from isthmus.broker.authentication import Chain, Found
from isthmus.broker.inspection import Inspection
from isthmus.broker.survey import LOOKED_AT_PER_TURN, Waiting, survey
from isthmus.config import KafkaSettings
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.metrics import Histogram
from isthmus.mqtt.packets import Publish, Subscribe
from isthmus.server.kafka_shore import KafkaShore
from isthmus.server.mqtt_listener import MqttShore

if TYPE_CHECKING:
    from collections.abc import Iterable

BASE_UNITS = ("seconds", "bytes", "info", "records")
OTHER_UNITS = re.compile(r"_(ms|millis|milliseconds|us|minutes|hours|kb|mb|kib|percent)(_|$)")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_called_as_prometheus_calls_them(metric: Any) -> None:
    """What `promtool check metrics` looks at."""
    assert re.fullmatch(r"isthmus_[a-z][a-z_]*[a-z]", metric.name)
    assert not OTHER_UNITS.search(metric.name)
    assert not re.search(metric.kind, metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.kind != "histogram" or metric.name.endswith(BASE_UNITS)
    assert (metric.help.endswith(".") and metric.help[0].isupper()) or metric.help[0].isdigit()
    for label in metric.labels:
        assert re.fullmatch("[a-z_]+", label) and label not in ("le", "quantile", "client_id")


def test_no_metric_is_there_twice() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)


class Room:
    """Both shores over one log in memory, and the page that shows what they have counted."""

    def __init__(self, **asked: Any) -> None:
        self.shore = Shore()
        clients = self.shore.clients
        self.mqtt = MqttShore(clients, connections_max=1000)
        world = (self.shore.runtime, self.shore.log, self.shore.broker)
        self.kafka = KafkaShore(*world, KafkaSettings(), security_apart(self.shore.runtime))
        self.shore.runtime.settle()
        self.application = application(
            lambda: None,
            Inspection(self.shore.broker, clients),
            clients.traces,
            security=security_of(self.shore),
            allow_anonymous=False,
            metrics=(METRICS, partial(look, self.shore.broker, self.mqtt, self.kafka, [])),
            **asked,
        )

    def page(self, **headers: str) -> tuple[int, str, str]:
        given = {"host": "localhost", **headers}
        settle = self.shore.runtime.settle
        status, content, answered = ask(
            self.application, "GET", "/metrics", given.items(), settle=settle
        )
        return status, content.decode(), answered.get("content-type", "")

    def values(self) -> dict[str, float]:
        """Return all samples, as `name{label="value"}`."""
        return {
            named(sample): sample.value
            for family in parse(self.page()[1])
            for sample in family.samples
        }


def named(sample: Any) -> str:
    """Return the name of a sample, with each of its labels behind it."""
    labels = [f'{{{name}="{value}"}}' for name, value in sorted(sample.labels.items())]
    return "".join([sample.name, *labels])


def names_in(families: Iterable[Any]) -> set[str]:
    return {family.name for family in families}


def test_both_forms_can_be_read_and_say_all() -> None:
    room = Room()
    wanted = {metric.name.removesuffix("_total") for metric in METRICS}
    status, text, kind = room.page()
    assert status == 200 and kind.startswith("text/plain; version=")
    found = {family.name: family for family in parse(text)}
    assert {name.removesuffix("_total") for name in found} >= wanted
    for metric in METRICS:
        family = found[metric.name.removesuffix("_total")]
        assert (family.documentation, family.type) == (metric.help, metric.kind)
    _, text, kind = room.page(accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    families = names_in(parse_openmetrics(text))
    assert families >= wanted
    assert "process_cpu_seconds" in families


def test_messages_are_counted_by_their_qos_and_drops_by_their_reason() -> None:
    room = Room()
    publisher, subscriber = Wire(room.mqtt), Wire(room.mqtt)
    publisher.connect("p")
    subscriber.connect("s")
    subscriber.send(Subscribe(1, [("a", 1)]))
    for qos, count in ((0, 1), (1, 2), (2, 3)):
        for number in range(count):
            publisher.send(Publish(b"a", b"12345", qos, packet_id=10 * qos + number))
    room.shore.runtime.settle()
    values = room.values()
    received = [values[f'isthmus_mqtt_messages_received_total{{qos="{q}"}}'] for q in range(3)]
    sent = [values[f'isthmus_mqtt_messages_sent_total{{qos="{q}"}}'] for q in range(3)]
    assert (received, sent) == ([1, 2, 3], [1, 5, 0])
    assert values["isthmus_mqtt_payload_received_bytes_total"] == 30
    assert values["isthmus_mqtt_deliveries_in_flight"] == 5
    assert values['isthmus_mqtt_sessions{state="connected"}'] == 2
    assert values['isthmus_mqtt_deliveries_dropped_total{reason="queue"}'] == 0


def test_errors_and_times_of_requests_are_counted() -> None:
    room = Room()
    counts = room.kafka.counts
    counts.note(ApiKey.METADATA, 0.002)
    counts.note(ApiKey.METADATA, 3600.0)
    unknown = {"error_code": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}
    partition = {"error_code": ErrorCode.NONE, "partitions": [unknown, unknown]}
    counts.note_errors(ApiKey.METADATA, {"topics": [partition, unknown], "brokers": []})
    values = room.values()
    name = "isthmus_kafka_request_seconds"
    assert values[name + '_bucket{le="0.0025"}{request="metadata"}'] == 1
    assert values[name + '_bucket{le="10.0"}{request="metadata"}'] == 1
    assert values[name + '_bucket{le="+Inf"}{request="metadata"}'] == 2
    assert values[name + '_sum{request="metadata"}'] == 3600.002
    error = '{error="unknown_topic_or_partition"}{request="metadata"}'
    assert values[f"isthmus_kafka_request_errors_total{error}"] == 3


def test_log_topics_have_values_of_their_own_but_not_too_many() -> None:
    room = Room()
    for number in range(NAMED_MAX + 10):
        room.shore.log.create(f"t{number:04}", 1, {})
    values = room.values()
    named = [name for name in values if name.startswith("isthmus_log_topic_size_bytes")]
    assert len(named) == NAMED_MAX
    assert values["isthmus_log_topics"] > NAMED_MAX


def test_a_value_on_a_bound_is_in_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.5, 9.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.count, histogram.total) == ([2, 1, 2], 5, 14.5)


def test_sessions_are_looked_at_some_at_a_time() -> None:
    class Queue:
        length = 2

    class Session:
        queue = Queue()
        inflight = (1, 2, 3)

    class Entry:
        session = Session()

    shore = Shore()
    count = 2 * LOOKED_AT_PER_TURN + 1
    shore.clients.sessions.entries = dict.fromkeys(map(str, range(count)), Entry())  # type: ignore[arg-type]
    found: list[Waiting] = []
    survey(shore.runtime, shore.clients.sessions, found.append)
    assert found == []
    shore.runtime.turn()
    shore.runtime.turn()
    assert found == [Waiting(2 * count, 3 * count)]


class Way:
    """Knows two users."""

    name = "test"
    methods: Any = {}  # noqa: RUF012  # never changed

    def judge(self, request: Any, answer: Any) -> None:
        answer(Found(request.user_name, frozenset((request.password.decode(),))))


@pytest.mark.parametrize(
    ("group", "page", "api"), [("observers", 200, 403), ("admins", 200, 200), ("x", 403, 403)]
)
def test_observers_may_read_the_metrics_and_nothing_else(
    group: str, page: int, api: int
) -> None:
    import base64

    chain = Chain([Way()], allow_anonymous=False)
    room = Room()
    asked = Asked(chain, "admins", "observers", room.shore.clients.guard)
    room = Room(asked=asked)
    shown = "Basic " + base64.b64encode(f"ann:{group}".encode()).decode()
    assert room.page(authorization=shown)[0] == page
    headers = {"host": "localhost", "authorization": shown}
    assert ask(room.application, "GET", "/api/v1/clients", headers.items())[0] == api


def test_the_status_says_what_is_there_and_what_went_wrong() -> None:
    room = Room()
    Wire(room.mqtt).connect("a")
    reasons: list[str] = []
    overview = Overview(
        room.shore.broker, room.mqtt, room.kafka, lambda: next(iter(reasons), None)
    )
    room.shore.runtime.advance(3000)
    found = overview.look()
    assert (found["uptime_s"], found["ready"], found["mqtt_connections"]) == (3, True, 1)
    assert (found["sessions"], found["log_free_bytes"], found["bans"]) == (1, -1, 0)
    reasons.append("the disk is full")
    found = overview.look()
    assert (found["ready"], found["not_ready_because"]) == (False, "the disk is full")


def test_programs_elsewhere_may_not_read_them() -> None:
    assert Room().page(host="isthmus.example")[0] == 403
