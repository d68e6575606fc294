"""Every MQTT client publishes to and reads from every other over the MQTT shore."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest
from tests.e2e.mqtt_programs import MQTT_PROGRAMS, Message, MqttProgram

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores

PAYLOADS = (b"", b"\x00", random.Random(1).randbytes(1 << 20), bytes(range(256)))
USER_PROPERTIES = (("unit", "C"), ("unit", "K"), ("line", "3"))


def require(*programs: MqttProgram) -> None:
    """Skip the test where one of the programs is missing."""
    for program in programs:
        if program.missing():
            pytest.skip(program.missing())


@pytest.mark.parametrize(
    ("publisher", "subscriber"),
    [
        pytest.param(publisher, subscriber, id=f"{publisher.name}-to-{subscriber.name}")
        for publisher, subscriber in itertools.product(MQTT_PROGRAMS, MQTT_PROGRAMS)
    ],
)
def test_payloads_arrive_as_published(
    publisher: MqttProgram, subscriber: MqttProgram, shores: Shores, unique: str
) -> None:
    """[MQTT 3.1.1: MQTT-7.0.0-2]: by clients that know nothing of this server."""
    require(publisher, subscriber)
    pairs = USER_PROPERTIES if publisher.user_properties and subscriber.user_properties else ()
    messages = [
        Message(f"{unique}/{number}", payload, 1, user_properties=pairs)
        for number, payload in enumerate(PAYLOADS)
    ]
    with subscriber.subscribe(shores.mqtt, f"{unique}/+") as inbox:
        publisher.publish(shores.mqtt, messages)
        assert inbox.wait(len(messages)) == messages


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("program", MQTT_PROGRAMS, ids=lambda program: program.name)
def test_quality_of_service_is_the_lower_of_both(
    program: MqttProgram, qos: int, shores: Shores, unique: str
) -> None:
    require(program)
    with program.subscribe(shores.mqtt, f"{unique}/#", qos) as inbox:
        program.publish(
            shores.mqtt, [Message(f"{unique}/{level}", b"x", level) for level in (0, 1, 2)]
        )
        assert [message.qos for message in inbox.wait(3)] == [
            min(qos, one) for one in (0, 1, 2)
        ]
        inbox.stays_at(3, 0.1)
