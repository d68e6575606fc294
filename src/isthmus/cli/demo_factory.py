"""The small factory of `isthmus demo`: production lines over MQTT, an office over Kafka.

A `Line` is a device: it measures (temperature at QoS 1, vibration at QoS 0), has its state
retained with a will behind it, and answers commands on the topic that they name, as MQTT 5
devices do. The `Office` is a back end that knows nothing of MQTT: it consumes what the lines
say and produces commands whose key is a topic name. Both count, so that what one side sent can
be held against what the other one got. Threads: paho's one for each line, one for the office.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import click
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    from isthmus.config_listeners import Address

ROUTE_LOG_TOPIC: Final = "temperatures"  # where the route of the demo's own server leads
DEFAULT_LOG_TOPIC: Final = "mqtt"  # where everything else is; its key is the topic name
ANSWER_S_MAX: Final = 10.0
LATENCIES_KEPT: Final = 2000


class Figures:
    """What one line sent and what came out at the other end."""

    def __init__(self) -> None:
        self.published = 0
        self.consumed = 0
        self.commanded = 0
        self.received = 0
        self.answered = 0
        self.celsius = 0.0
        self.vibration = 0.0
        self.state = "?"

    def has_arrived(self) -> bool:
        """Whether nothing is on its way: all is consumed, and every command answered."""
        return self.consumed >= self.published and self.answered >= self.commanded


class Line:
    """One production line: an MQTT 5 client, two sensors, and a drive that takes commands."""

    def __init__(self, name: str, number: int, run: str, figures: Figures) -> None:
        self.name = name
        self._number = number
        self._figures = figures
        self._ready = threading.Event()
        self._lost = ""
        self._client = Client(
            CallbackAPIVersion.VERSION2, f"demo-{run}-{name}", protocol=MQTTv5
        )
        self._client.will_set(self._topic_name("state"), b"lost", qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_command

    def start(self, address: Address) -> None:
        """Connect and subscribe to the line's commands."""
        try:
            self._client.connect(address.host, address.port)
        except OSError as error:
            raise click.ClickException(
                f"no MQTT server answers at {address.authority}: {error.strerror or error}"
            ) from None
        self._client.loop_start()
        if not self._ready.wait(ANSWER_S_MAX):
            raise click.ClickException(f"no MQTT server answers at {address.authority}")

    def measure(self, seconds: float) -> None:
        """Publish what the sensors show `seconds` after the start."""
        if self._lost:
            raise click.ClickException(f"{self.name} lost its connection: {self._lost}")
        celsius = 60 + 4 * math.sin(seconds / 7 + self._number)
        vibration = 1.2 + 0.3 * math.sin(seconds * 3 + self._number)
        self._publish("temperature", 1, {"celsius": round(celsius, 2)})
        self._publish("vibration", 0, {"mm_per_s": round(vibration, 3)})

    def stop(self) -> None:
        """Say that the line is off, and disconnect in good order, so the will stays unsaid."""
        if self._client.is_connected():  # else the server has ended first, as after Ctrl-C
            last = self._client.publish(self._topic_name("state"), b"off", 1, True)
            with contextlib.suppress(RuntimeError, ValueError):
                last.wait_for_publish(0.5)
        self._client.disconnect()
        self._client.loop_stop()

    def _topic_name(self, what: str) -> str:
        return f"factory/{self.name}/{what}"

    def _publish(self, sensor: str, qos: int, values: dict[str, float]) -> None:
        payload = json.dumps(values | {"at_ms": time.time() * 1000})
        self._client.publish(self._topic_name(sensor), payload, qos)
        self._figures.published += 1

    def _on_connect(self, _c: Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        if not reason.is_failure:
            self._client.subscribe(self._topic_name("command"), qos=1)
            self._client.publish(self._topic_name("state"), b"running", 1, True)

    def _on_subscribe(self, _c: Client, _u: Any, _m: int, _reasons: Any, _p: Any) -> None:
        self._ready.set()  # from here on no command is missed

    def _on_disconnect(self, _c: Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._lost = str(reason)

    def _on_command(self, _c: Client, _u: Any, command: MQTTMessage) -> None:
        """Answer where the command says, with its correlation data [MQTT-4.10]."""
        self._figures.received += 1
        asked: Any = command.properties
        told: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        told.CorrelationData = asked.CorrelationData
        self._client.publish(asked.ResponseTopic, b"done", 1, properties=told)


class Office:
    """The back end: a stock Kafka consumer and a stock Kafka producer."""

    def __init__(self, address: Address, figures: dict[str, Figures]) -> None:
        self._figures = figures
        self._commands: dict[bytes, float] = {}  # correlation data -> when it was sent, ms
        self._sent = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="office", daemon=True)
        self.up_ms: deque[float] = deque(
            maxlen=LATENCIES_KEPT
        )  # MQTT publish -> Kafka consumer
        self.round_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)  # command -> answer
        shared = {"bootstrap.servers": address.authority, "log_level": 0}
        self._producer = Producer(shared | {"linger.ms": 0, "acks": "all"})
        self._consumer = Consumer(
            shared
            | {
                "group.id": "isthmus-demo",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 100,
            }
        )

    def start(self) -> None:
        """Begin to read at the present end of the log, so that every later record counts."""
        try:
            topics = self._consumer.list_topics(timeout=ANSWER_S_MAX).topics
            places = [
                TopicPartition(name, partition)
                for name in (DEFAULT_LOG_TOPIC, ROUTE_LOG_TOPIC)
                if name in topics
                for partition in topics[name].partitions
            ]
            for place in places:
                place.offset = self._consumer.get_watermark_offsets(place, ANSWER_S_MAX)[1]
        except KafkaException as error:
            raise click.ClickException(f"the Kafka server: {error.args[0].str()}") from None
        self._consumer.assign(places)
        self._thread.start()

    def command(self, line: str) -> None:
        """Produce a command; that it reaches a device is a matter of its key alone."""
        self._sent += 1
        correlation = b"%d" % self._sent
        self._commands[correlation] = time.time() * 1000
        self._producer.produce(
            DEFAULT_LOG_TOPIC,
            b'{"speed": 80}',
            f"factory/{line}/command".encode(),
            headers=[
                ("mqtt.response-topic", f"factory/{line}/answer".encode()),
                ("mqtt.correlation-data", correlation),
            ],
        )
        self._producer.poll(0)
        self._figures[line].commanded += 1

    def stop(self) -> None:
        """Let go of the log."""
        self._producer.flush(1.0)
        self._stopping.set()
        self._thread.join()
        self._consumer.close()

    def _work(self) -> None:
        while not self._stopping.is_set():
            record = self._consumer.poll(0.1)
            if record is not None and record.error() is None:
                self._look_at(record)

    def _look_at(self, record: Any) -> None:
        key = (record.key() or b"").decode()
        if record.topic() == ROUTE_LOG_TOPIC:
            key = f"factory/{key}/temperature"  # the route, read backwards
        _, _, rest = key.partition("factory/")
        line, _, what = rest.partition("/")
        figures = self._figures.get(line)
        if figures is None:
            return
        now_ms = time.time() * 1000
        if what in {"temperature", "vibration"}:
            values = json.loads(record.value())
            figures.consumed += 1
            figures.celsius = values.get("celsius", figures.celsius)
            figures.vibration = values.get("mm_per_s", figures.vibration)
            self.up_ms.append(now_ms - values["at_ms"])
        elif what == "state":
            figures.state = record.value().decode()
        elif what == "answer":
            sent_ms = self._commands.pop(dict(record.headers())["mqtt.correlation-data"], None)
            if sent_ms is not None:
                figures.answered += 1
                self.round_ms.append(now_ms - sent_ms)
