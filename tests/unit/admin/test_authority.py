"""Who may use the REST API where users log in: administrators, and nobody else."""

from __future__ import annotations

import base64
import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.admin.asgi import ask, security_of
from tests.unit.broker.shore import Shore

from isthmus.admin.http import Asked, application
from isthmus.broker.authentication import CertificateWay, Chain, Found
from isthmus.broker.guard import Streaks
from isthmus.broker.inspection import Inspection
from isthmus.broker.users import parse_user
from isthmus.config_sources import Sources
from isthmus.errors import BadCredentials, ConfigError, IsthmusError, ServerBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.broker.authentication import Request, Verdict

GROUP = "operators"
SECRET = (
    "$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
WHO: dict[bytes, Found | IsthmusError] = {
    b"ann's": Found("ann", frozenset((GROUP,))),
    b"bob's": Found("bob", frozenset(("others",))),
    "grün:x".encode(): Found("grün", frozenset((GROUP,))),
    b"busy": ServerBusy("too many at once"),
    b"token": Found("robot", frozenset((GROUP,))),
}


class Way:
    """Knows who somebody is by the password, and by nothing else."""

    name = "test"
    methods: Mapping[str, Any] = MappingProxyType({})

    def judge(self, request: Request, answer: Callable[[Verdict], object]) -> None:
        found = WHO.get(request.password or b"")
        if isinstance(found, Found) and request.user_name not in (None, found.user):
            found = BadCredentials("another user's password")
        answer(found)


class Room:
    """The REST API of a server whose operators log in; two failures are too many."""

    def __init__(self) -> None:
        self.shore = Shore()
        clients = self.shore.clients
        clients.guard.failures.limits = Streaks(most=2, window_s=60, blocked_s=60)
        chain = Chain([CertificateWay(), Way()], allow_anonymous=False)
        security = security_of(self.shore)
        self.users = security.users
        self.application = application(
            lambda: None,
            Inspection(self.shore.broker, clients),
            clients.traces,
            security=security,
            allow_anonymous=True,
            asked=Asked(chain, GROUP, "observers", clients.guard),
        )

    def get(self, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
        peer = ("10.0.0.9", 5000)
        status, content, given = ask(
            self.application, "GET", path, headers.items(), client=peer
        )
        return status, json.loads(content), given

    def status(self, **headers: str) -> int:
        return self.get("/api/v1/clients", host="isthmus.example", **headers)[0]


@pytest.fixture
def room() -> Room:
    return Room()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_who_shows_nothing_is_asked(room: Room) -> None:
    status, said, headers = room.get("/api/v1/clients", host="isthmus.example")
    assert (status, said["where"]) == (401, "header Authorization")
    assert headers["www-authenticate"] == 'Basic realm="isthmus", charset="UTF-8"'
    assert room.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (basic("ann", "ann's"), 200),
        (basic("ann", "ann's").replace("Basic", "bAsIc"), 200),
        (basic("grün", "grün:x"), 200),
        ("Bearer token", 200),
        (basic("bob", "bob's"), 403),
        (basic("ann", "bob's"), 401),
        (basic("ann", "wrong"), 401),
        (basic("x", "busy"), 503),
        ("Bearer ", 401),
        ("Digest x", 401),
        ("Basic !!!", 400),
        ("Basic " + base64.b64encode(b"ann").decode(), 400),
        ("Basic " + base64.b64encode(b"\xff:x").decode(), 400),
    ],
)
def test_only_administrators_are_let_in(room: Room, authorization: str, status: int) -> None:
    assert room.status(authorization=authorization) == status


def test_pages_of_other_sites_may_not_even_with_a_password(room: Room) -> None:
    authorization = basic("ann", "ann's")
    assert room.status(authorization=authorization, origin="https://evil.example") == 403
    assert room.status(authorization=authorization, origin="https://isthmus.example") == 200


def test_who_fails_too_often_is_not_listened_to(room: Room) -> None:
    for _ in range(3):
        assert room.status(authorization=basic("ann", "wrong")) == 401
    assert room.status(authorization=basic("ann", "ann's")) == 403
    room.shore.runtime.advance(61_000)
    assert room.status(authorization=basic("ann", "ann's")) == 200


def test_a_certificate_says_who_it_is_and_the_server_in_which_groups(room: Room) -> None:
    """No password is asked for then, nor looked at: the first way that can tell decides."""

    def status(user: str, path: str = "/api/v1/clients", **headers: str) -> int:
        return ask(room.application, "GET", path, headers.items(), user=user)[0]

    for text in (f"{SECRET}:{GROUP}", f"{SECRET}:others", f"!{SECRET}:{GROUP}"):
        name = f"press-{len([*room.users])}"
        room.users.put(parse_user(name, text), lambda _: None)
        room.shore.runtime.settle()
    assert [status(f"press-{number}") for number in range(4)] == [200, 403, 403, 403]
    assert status("") == 401
    assert status("press-0", origin="https://evil.example") == 403
    assert status("press-1", authorization=basic("ann", "ann's")) == 403
    assert status("press-0", authorization=basic("ann", "wrong")) == 200


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("http.listeners=tcp://0.0.0.0:1", "ask with http.authentication"),
        ("http.authentication=['magic']", "http.authentication has each of certificate, users"),
        (
            "http.listeners=[{address='tcp://127.0.0.1:1', proxy_protocol=true}]",
            "has a proxy before it, for other machines",
        ),
        ("http.authentication=['jwt','jwt']", "http once at most, and not jwt"),
        ("http.administrators=", "http.administrators"),
    ],
)
def test_settings_that_would_let_others_in_or_nobody(assignment: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Sources(assignments=[assignment]).read()


def test_who_asks_may_be_open_to_others() -> None:
    open_to_others = ["http.listeners=tcp://0.0.0.0:1", "http.authentication=['users']"]
    assert Sources(assignments=open_to_others).read().settings.http.authentication == ("users",)
