"""Wills that outlive the server: sent when it is there again, unless their clients are back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.broker.session_records import WillTerms, encode, will_key
from isthmus.errors import NoSpace
from isthmus.mqtt.packets import Disconnect, Will
from isthmus.mqtt.properties import CONTENT_TYPE, SESSION_EXPIRY, USER_PROPERTY, WILL_DELAY

if TYPE_CHECKING:
    from collections.abc import Callable

    End = Callable[[Shore], Shore]

ENDS = pytest.mark.parametrize("end", [Shore.crash, Shore.end])


def will(delay_s: int = 0, payload: bytes = b"gone") -> Will:
    return Will(b"w", payload, 1, False, {WILL_DELAY: delay_s} if delay_s else None)


def watched(shore: Shore) -> Client:
    """Return somebody who sees wills, whatever comes of the server."""
    client = Client(shore, "watcher", 5)
    client.connect(clean_start=False, expiry_s=1000)
    client.subscribe("w", 1)
    client.packets()
    return client


def wills_of(shore: Shore) -> list[bytes]:
    return [record.value for record in shore.records("mqtt")]


def after_restart(shore: Shore, *, at_s: int) -> list[bytes]:
    """Return the wills that are sent before this moment of the next run, and check the rest."""
    shore.runtime.advance(at_s * 1000 - 1)
    before = wills_of(shore)
    shore.runtime.advance(1)
    assert wills_of(shore) == [*before, b"gone"]
    shore.runtime.advance(900_000)
    assert wills_of(shore) == [*before, b"gone"]
    return before


# --- wills ------------------------------------------------------------------------------------


@ENDS
@pytest.mark.parametrize(("delay_s", "at_s"), [(0, 30), (10, 30), (50, 50), (200, 100)])
def test_a_will_is_sent_when_its_client_does_not_come_back(
    end: End, delay_s: int, at_s: int
) -> None:
    shore = Shore()
    shore.client(expiry_s=100, will=will(delay_s))
    assert after_restart(end(shore), at_s=at_s) == []


@ENDS
def test_a_will_comes_to_sessions_as_any_message(end: End) -> None:
    shore = Shore()
    watched(shore)
    properties = {USER_PROPERTY: [("a", "1"), ("a", "2")], CONTENT_TYPE: "text/plain"}
    shore.client(expiry_s=100, will=Will(b"w", b"gone", 1, True, dict(properties)))
    shore = end(shore)
    shore.runtime.advance(30_000)
    client = Client(shore, "watcher", 5)
    client.connect(clean_start=False)
    (publish,) = client.after_connack
    assert (publish.topic, publish.payload, publish.qos) == (b"w", b"gone", 1)
    assert publish.properties == properties
    assert shore.broker.retained.get(b"w") is not None


@ENDS
def test_who_comes_back_in_time_leaves_no_will(end: End) -> None:
    shore = Shore()
    client = shore.client(expiry_s=100, will=will(50))
    shore = end(shore)
    shore.runtime.advance(29_000)
    client = Client(shore, "c", 5)
    assert client.connect(clean_start=False, expiry_s=100).session_present
    shore.runtime.advance(400_000)
    assert wills_of(shore) == []
    client.lose()
    shore = end(shore)
    shore.runtime.advance(90_000)
    assert wills_of(shore) == []


@ENDS
def test_the_delay_counts_from_the_loss_of_the_connection(end: End) -> None:
    shore = Shore()
    shore.client(expiry_s=1000, will=will(300)).lose()
    shore.runtime.advance(100_000)
    assert after_restart(end(shore), at_s=200) == []


@ENDS
def test_the_will_of_a_session_that_is_over_is_sent_at_the_start(end: End) -> None:
    shore = Shore()
    watched(shore)
    shore.client(expiry_s=100, will=will(300)).lose()
    shore = end(shore)
    shore = Shore(log=shore.log, now_ms=shore.runtime.now_ms() + 200_000)
    shore.runtime.settle()
    assert wills_of(shore) == [b"gone"]
    client = Client(shore, "watcher", 5)
    client.connect(clean_start=False)
    assert [packet.payload for packet in client.after_connack] == [b"gone"]
    assert wills_of(end(shore)) == [b"gone"]


@ENDS
def test_without_grace_a_will_is_sent_at_the_start(end: End) -> None:
    shore = Shore(will_grace_s=0)
    watched(shore)
    shore.client(expiry_s=100, will=will())
    shore = end(shore)
    shore.runtime.settle()
    assert wills_of(shore) == [b"gone"]
    shore = end(shore)
    shore.runtime.advance(100_000)
    assert wills_of(shore) == [b"gone"]


@ENDS
@pytest.mark.parametrize("how", ["goodbye", "sent", "replaced", "ended", "lasts no more"])
def test_a_will_that_is_no_more_is_not_sent(end: End, how: str) -> None:
    shore = Shore()
    client = shore.client(expiry_s=100, will=will(payload=b"not this"))
    if how == "goodbye":
        client.send(Disconnect(0, None))
    elif how == "sent":
        client.lose()
    elif how == "replaced":
        client.connect(clean_start=False, expiry_s=100, will=will(20))
    elif how == "ended":
        client.send(Disconnect(0, {SESSION_EXPIRY: 0}))
    else:
        client.connect(clean_start=False)
    sent = wills_of(shore)
    shore = end(shore)
    shore.runtime.advance(200_000)
    assert wills_of(shore) == sent + [b"gone"] * (how == "replaced")
    assert sent.count(b"not this") == (how in ("sent", "replaced", "lasts no more"))


@ENDS
def test_sessions_that_end_with_their_connection_have_no_will_left(end: End) -> None:
    shore = Shore()
    shore.client(will=will())
    shore = end(shore)
    shore.runtime.advance(200_000)
    assert wills_of(shore) == []
    assert [record.key for record in shore.records("__mqtt_sessions")].count(b"c") == 0


def test_what_is_left_of_a_session_is_nothing() -> None:
    shore = Shore()
    shore.client(expiry_s=100, will=will(20)).lose()
    shore.runtime.advance(200_000)
    newest = {record.key: record.value for record in shore.records("__mqtt_sessions")}
    assert newest[b"c"] is None
    assert newest[will_key(b"c")] is None


def test_a_will_is_written_once_whatever_the_session_does() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100, will=will())
    client.subscribe("t", 2)
    for number in range(3):
        client.publish("t", b"x", 2, packet_id=1 + number)
    shore.runtime.advance(60_000)
    keys = [record.key for record in shore.records("__mqtt_sessions")]
    assert keys.count(will_key(b"c")) == 1
    assert keys.count(b"c") > 3


def test_a_will_that_could_not_be_written_is_written_later() -> None:
    shore = Shore()
    partition = shore.log.topics["__mqtt_sessions"].partitions[0]

    def full(batch: object, ticket: object, *, trusted: bool = False) -> None:
        ticket.failed(NoSpace("the disk is full"))

    partition.append = full
    shore.client(expiry_s=1000, will=will())
    del partition.append
    shore.runtime.advance(60_000)
    assert after_restart(shore.crash(), at_s=30) == []


def test_wills_that_cannot_be_read_are_left_out() -> None:
    shore = Shore()
    shore.client(expiry_s=100, will=will())
    for client_id, value in (
        ("malformed", b"\xc1"),
        ("another form", encode(WillTerms(9, b"w", b"", 0, False, b"\0"))),
        ("bad properties", encode(WillTerms(1, b"w", b"", 0, False, b"\x02\x01\x07"))),
    ):
        shore.client(client_id, expiry_s=100, will=will())
        shore.produce("__mqtt_sessions", will_key(client_id.encode()), value)
    shore.produce("__mqtt_sessions", will_key(b"nobody"), b"?")
    assert after_restart(shore.crash(), at_s=30) == []
