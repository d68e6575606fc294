"""Every MQTT client publishes to and reads from every other over the MQTT shore.

The many that are told what to do meet paho instead of all the others.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Final

import pytest
from tests.e2e.mqtt_programs import Message, MqttProgram
from tests.e2e.mqtt_scripted import MQTT_PROGRAMS, OLD_PROGRAMS, SCRIPTED

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores

PAYLOADS = (b"", b"\x00", random.Random(1).randbytes(1 << 20), bytes(range(256)))
USER_PROPERTIES = (("unit", "C"), ("unit", "K"), ("line", "3"))
FIRST: Final = [program.name for program in MQTT_PROGRAMS]
MORE: Final = [*OLD_PROGRAMS, *(one for one in SCRIPTED if one.name not in FIRST)]
NAMED: Final = {program.name: program for program in (*MQTT_PROGRAMS, *MORE)}
PAIRS: Final = [
    *itertools.product(FIRST, repeat=2),
    *((program.name, "paho-5") for program in MORE),
    *(("paho-5", program.name) for program in MORE),
]


def require(*programs: MqttProgram) -> None:
    """Skip the test where one of the programs is missing."""
    for program in programs:
        if program.missing():
            pytest.skip(program.missing())


@pytest.mark.parametrize(("publishing", "subscribing"), PAIRS)
def test_payloads_arrive_as_published(
    publishing: str, subscribing: str, shores: Shores, unique: str
) -> None:
    """[MQTT 3.1.1: MQTT-7.0.0-2]: by clients that know nothing of this server."""
    publisher, subscriber = NAMED[publishing], NAMED[subscribing]
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
