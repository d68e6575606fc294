"""A Sparkplug Aware MQTT Server, statement by statement [Sparkplug 3.0, Conformance].

The docstrings name the statements as the specification's test kit does. What they ask of any
server (`conformance-mqtt-qos0` to `-retained`, and with them `-aware-basic`) is shown by the
other files here. The payloads are written by hand.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import Will
from tests.e2e.raw_mqtt import varint

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [4, 5])
CERTIFICATES = "$sparkplug/certificates"
AS_PUBLISHED = 0x08  # subscription option of MQTT 5: leave the RETAIN flag


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"mqtt.sparkplug": "true"}


def payload(timestamp_ms: int, number: int = 0) -> bytes:
    """Return a payload with a timestamp and the metric bdSeq (INT64)."""
    metric = b"\x0a\x05bdSeq\x20\x04\x58" + varint(number)
    return b"\x08" + varint(timestamp_ms) + b"\x12" + varint(len(metric)) + metric


def timestamp_ms_of(data: bytes) -> int:
    """Return the timestamp with which a payload begins."""
    assert data[0] == 0x08
    end = next(place for place in range(1, 12) if data[place] < 0x80)
    return sum((data[place] & 0x7F) << 7 * (place - 1) for place in range(1, end + 1))


@VERSIONS
@pytest.mark.parametrize("kind", ["NBIRTH", "DBIRTH"])
def test_a_birth_is_stored_and_available_as_a_retained_message(
    kind: str, version: int, join: Join, unique: str
) -> None:
    """[conformance-mqtt-aware-store, conformance-mqtt-aware-nbirth-mqtt-topic,
    conformance-mqtt-aware-nbirth-mqtt-retain, conformance-mqtt-aware-dbirth-mqtt-topic,
    conformance-mqtt-aware-dbirth-mqtt-retain]
    """
    name = f"spBv1.0/{unique}/{kind}/node" + ("/device" if kind == "DBIRTH" else "")
    born = payload(1_700_000_000_000) + b"\x18\x00" + b"\xff not protobuf at all"
    join(version=version).publish(name, born, 0)
    host = join(version=version)
    host.subscribe(f"{CERTIFICATES}/#", 1)
    mine = [one for one in host.messages() if unique in one.topic_name]
    assert [(one.topic_name, one.payload, one.qos, one.retain) for one in mine] == [
        (f"{CERTIFICATES}/{name}", born, 0, True)
    ]


def test_a_host_that_is_there_gets_birth_and_certificate(join: Join, unique: str) -> None:
    """[conformance-mqtt-aware-store]"""
    host = join()
    host.subscribe(f"{CERTIFICATES}/spBv1.0/{unique}/#", AS_PUBLISHED | 1)
    host.subscribe(f"spBv1.0/{unique}/#", 1)
    join().publish(f"spBv1.0/{unique}/NBIRTH/node", b"born", 1)
    came = {one.topic_name: (one.payload, one.qos, one.retain) for one in host.messages()}
    assert came == {
        f"spBv1.0/{unique}/NBIRTH/node": (b"born", 1, False),
        f"{CERTIFICATES}/spBv1.0/{unique}/NBIRTH/node": (b"born", 1, True),
    }


def test_the_newest_birth_is_the_certificate_and_an_empty_one_ends_it(
    join: Join, unique: str
) -> None:
    """[conformance-mqtt-aware-store]"""
    node, name = join(), f"spBv1.0/{unique}/NBIRTH/node"

    def certificates() -> list[bytes]:
        host = join()
        host.subscribe(f"{CERTIFICATES}/spBv1.0/{unique}/#")
        return host.payloads()

    node.publish(name, b"first")
    node.publish(name, b"second")
    assert certificates() == [b"second"]
    node.publish(name, b"")
    assert certificates() == []


def test_no_other_message_is_a_certificate(join: Join, unique: str) -> None:
    """[conformance-mqtt-aware-store]"""
    node, host = join(), join()
    for kind in ("NDATA", "NDEATH", "NCMD"):
        node.publish(f"spBv1.0/{unique}/{kind}/node", b"x")
    node.publish(f"spBv1.0/{unique}/DBIRTH/node", b"x")
    node.publish(f"{unique}/g/NBIRTH/node", b"x")
    host.subscribe(f"{CERTIFICATES}/#")
    assert [one for one in host.messages() if unique in one.topic_name] == []


def test_a_certificate_cannot_be_forged(join: Join, unique: str) -> None:
    name = f"{CERTIFICATES}/spBv1.0/{unique}/NBIRTH/node"
    forger, host = join(), join()
    assert forger.publish(name, b"forged", retain=True).reason == 0x87
    forger.publish(f"spBv1.0/{unique}/NBIRTH/node", b"born")
    assert forger.publish(name, b"forged", retain=True).reason == 0x87
    host.subscribe(name)
    assert host.payloads() == [b"born"]


@VERSIONS
def test_the_will_of_a_node_has_the_time_at_which_it_is_sent(
    version: int, join: Join, unique: str
) -> None:
    """[conformance-mqtt-aware-ndeath-timestamp]"""
    host, name = join(version=version), f"spBv1.0/{unique}/NDEATH/node"
    host.subscribe(name, 1)
    written = payload(1_700_000_000_000, 7)
    node = join(version=version, will=Will(name, written, 1))
    before_ms = time.time_ns() // 1_000_000
    node.cut()
    death = host.message()
    after_ms = time.time_ns() // 1_000_000
    assert before_ms <= timestamp_ms_of(death.payload) <= after_ms
    assert death.payload == payload(timestamp_ms_of(death.payload), 7)
    assert death.qos == 1


def test_other_wills_and_other_payloads_stay_as_they_are(join: Join, unique: str) -> None:
    """[conformance-mqtt-aware-ndeath-timestamp]"""
    host = join()
    host.subscribe(f"spBv1.0/{unique}/#", 1)
    wills = {
        f"spBv1.0/{unique}/NDEATH/a": b"",
        f"spBv1.0/{unique}/NDEATH/b": b"no protobuf",
        f"spBv1.0/{unique}/DDEATH/node/device": payload(5),
    }
    for name, content in wills.items():
        join(will=Will(name, content, 1)).cut()
        message = host.message()
        assert (message.topic_name, message.payload) == (name, content)
    own = payload(1_700_000_000_000)
    join().publish(f"spBv1.0/{unique}/NDEATH/a", own)
    assert host.message().payload == own
