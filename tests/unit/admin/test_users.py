"""Users over REST: listed, changed, removed, and never what is kept of a password."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from tests.unit.admin.asgi import ask, security_of
from tests.unit.broker.shore import Shore
from tests.unit.broker.test_users import PBKDF2, SCRAM, SHA512

from isthmus.admin.http import application
from isthmus.broker.inspection import Inspection
from isthmus.broker.users import USERS_LOG_TOPIC, parse_users
from isthmus.errors import NoSpace

HERE = (("host", "127.0.0.1:8080"),)


class Room:
    """The REST API over the users and the rules of a server in memory."""

    room = "users"

    def __init__(self) -> None:
        self.shore = Shore()
        self.security = security_of(self.shore)
        self.users = self.security.users
        self.application = application(
            lambda: None,
            Inspection(self.shore.broker, self.shore.clients),
            self.shore.clients.traces,
            security=self.security,
            allow_anonymous=False,
        )

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        target = f"/api/v1/{self.room}{target}"
        settle = self.shore.runtime.settle
        status, answer, _ = ask(self.application, method, target, HERE, content, settle=settle)
        return status, json.loads(answer) if answer else None


def view(name: str, *groups: str, enabled: bool = True, from_file: bool = False) -> Any:
    return {"name": name, "groups": [*groups], "enabled": enabled, "from_file": from_file}


def test_a_user_is_added_changed_and_removed() -> None:
    room = Room()
    assert room.ask("PUT", "/ann", {"password": "one", "groups": ["b", "a"]}) == (
        200,
        view("ann", "a", "b"),
    )
    ann = room.users.find("ann")
    assert ann is not None and ann.credentials[0].matches(b"one")
    assert room.ask("PUT", "/ann", {"enabled": False}) == (
        200,
        view("ann", "a", "b", enabled=False),
    )
    changed = room.users.find("ann")
    assert changed is not None and changed.credentials == ann.credentials
    assert room.ask("PUT", "/ann", {"credentials": [SCRAM], "groups": []})[0] == 200
    assert room.ask("GET", "/ann") == (200, view("ann", enabled=False))
    changed = room.users.find("ann")
    assert changed is not None and changed.text == f"!{SCRAM}"
    assert room.ask("DELETE", "/ann") == (204, None)
    assert room.users.find("ann") is None
    assert room.ask("DELETE", "/ann")[0] == 404


def test_users_are_listed_in_pages() -> None:
    room = Room()
    for name in ("a", "c", "b b/ü"):
        room.ask("PUT", f"/{name}", {"credentials": [SHA512]})
    room.users.use_file(parse_users(f"c:{PBKDF2}:g\nd:!{PBKDF2}\n", "f"))
    everything = [
        view("a"),
        view("b b/ü"),
        view("c", "g", from_file=True),
        view("d", enabled=False, from_file=True),
    ]
    assert room.ask("GET", "") == (200, {"items": everything, "next": None})
    listed: list[Any] = []
    cursor = ""
    while cursor is not None:
        status, page = room.ask("GET", f"?limit=2&cursor={quote(cursor)}")
        assert status == 200 and len(page["items"]) == 2
        listed += page["items"]
        cursor = page["next"]
    assert listed == everything


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "where"),
    [
        ("PUT", "/ann", {}, 400, "body"),
        ("PUT", "/ann", {"groups": []}, 400, "body"),
        ("PUT", "/ann", {"password": ""}, 400, "body password"),
        ("PUT", "/ann", {"password": "Geheim", "credentials": [SCRAM]}, 400, "body password"),
        ("PUT", "/ann", {"password": 7}, 400, "body"),
        ("PUT", "/ann", {"passwort": "Geheim"}, 400, "body"),
        ("PUT", "/ann", b'{"password": "Geheim', 400, "body"),
        ("PUT", "/ann", b"\xff", 400, "body"),
        ("PUT", "/ann", [], 400, "body"),
        ("PUT", "/ann", {"password": "x" * (1 << 18)}, 413, "body"),
        ("PUT", "/ann", {"credentials": []}, 400, "body credentials"),
        ("PUT", "/ann", {"credentials": ["Geheim"]}, 400, "body credentials"),
        ("PUT", "/ann", {"credentials": [SCRAM], "groups": ["a b"]}, 400, "body groups"),
        ("PUT", "/a:b", {"password": "Geheim"}, 400, "path"),
        ("PUT", "/eve", {"password": "Geheim"}, 409, "path"),
        ("DELETE", "/eve", None, 409, "path"),
        ("GET", "/nobody", None, 404, "path"),
        ("GET", "/eve?x=1", None, 400, "query x"),
        ("POST", "/ann", {"password": "Geheim"}, 405, "method"),
    ],
)
def test_what_is_refused(method: str, path: str, body: Any, status: int, where: str) -> None:
    room = Room()
    room.users.use_file(parse_users(f"eve:{PBKDF2}\n", "f"))
    found, said = room.ask(method, path, body)
    assert (found, said["where"]) == (status, where)
    assert "Geheim" not in said["what"]
    assert [user.name for user in room.users] == ["eve"]


def test_a_change_that_the_disk_does_not_take() -> None:
    room = Room()
    partition: Any = room.shore.log.topics[USERS_LOG_TOPIC].partitions[0]
    partition.append = lambda batch, ticket, **_: ticket.failed(NoSpace("full"))
    assert room.ask("PUT", "/ann", {"credentials": [SCRAM]})[0] == 503
    assert room.users.find("ann") is None


def test_there_are_not_more_users_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.broker.users.USERS_MAX", 1)
    room = Room()
    found = [room.ask("PUT", f"/{name}", {"credentials": [SCRAM]})[0] for name in "aba"]
    assert found == [200, 409, 200]
