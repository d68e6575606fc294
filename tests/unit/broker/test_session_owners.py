"""A session belongs to its user, in this run of the server and in the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.errors import NotAuthorized
from isthmus.mqtt.packets import Connect
from isthmus.mqtt.properties import SESSION_EXPIRY

if TYPE_CHECKING:
    from collections.abc import Callable

    End = Callable[[Shore], Shore]


def refused(shore: Shore, client_id: str, user: str, *, clean_start: bool = False) -> None:
    """Check that a CONNECT is refused with 0x87."""
    client = Client(shore, client_id, 5, user)
    connect = Connect(5, client_id, clean_start, 60, None, None, None, {SESSION_EXPIRY: 100})
    shore.clients.open(connect, client)
    shore.runtime.settle()
    assert isinstance(client.closed, NotAuthorized)
    assert client.entry is None
    assert client.packets() == []


def client_of(shore: Shore, client_id: str, user: str) -> Client:
    client = Client(shore, client_id, 5, user)
    client.connect(clean_start=False, expiry_s=100)
    return client


@pytest.mark.parametrize("restart", [None, Shore.crash, Shore.end])
@pytest.mark.parametrize("clean_start", [True, False])
@pytest.mark.parametrize("other", ["bob", ""])
def test_a_session_belongs_to_its_user(
    restart: End | None, other: str, *, clean_start: bool
) -> None:
    shore = Shore()
    client = client_of(shore, "c", "alice")
    client.subscribe("t", 1)
    if restart is not None:
        shore = restart(shore)
    refused(shore, "c", other, clean_start=clean_start)
    shore.client("p").publish("t", b"hers", 1, packet_id=1)
    if restart is None:
        assert client.closed is None
        assert [payload for _, payload, _ in client.messages()] == [b"hers"]
        client.lose()
        refused(shore, "c", other, clean_start=clean_start)
    again = client_of(shore, "c", "alice")
    assert [packet.payload for packet in again.after_connack][-1:] == [b"hers"]


@pytest.mark.parametrize("restart", [None, Shore.crash, Shore.end])
def test_what_nobody_left_goes_to_whoever_comes(restart: End | None) -> None:
    shore = Shore()
    client_of(shore, "c", "").subscribe("t", 1)
    shore = shore if restart is None else restart(shore)
    client_of(shore, "c", "alice").lose()
    shore = shore if restart is None else restart(shore)
    shore.client("p").publish("t", b"x", 1, packet_id=1)
    refused(shore, "c", "")
    (publish,) = client_of(shore, "c", "alice").after_connack
    assert publish.payload == b"x"


def test_a_client_id_is_free_again_when_its_session_is_over() -> None:
    shore = Shore()
    client_of(shore, "c", "alice").lose()
    shore.runtime.advance(100_000)
    assert not Client(shore, "c", 5, "bob").connect(clean_start=False).session_present
