"""A program that says who somebody is: what it is asked, what its answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.sim import SimCrew, SimRuntime

from isthmus.broker.authentication import Chain, Request
from isthmus.broker.identity import Identity
from isthmus.errors import BadCredentials, NotAuthorized, ServerBusy
from isthmus.server.authentication_hook import HookWay
from isthmus.server.http_client import NoAnswer

HERE = Identity("10.0.0.1", 5000, "door", "press-7")


class Program:
    """What the hook asks, instead of a server."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.says: Any = {"result": "allow"}

    def ask(self, method: str, body: bytes, headers: dict[str, str]) -> bytes:
        assert method == "POST"
        self.asked.append(json.loads(body))
        self.headers.append(headers)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says if isinstance(self.says, bytes) else json.dumps(self.says).encode()


class Desk:
    """One listener with the way "http" only."""

    def __init__(self, *, remember_s: int = 60, waiting_max: int = 100) -> None:
        self.program = Program()
        self.crew = SimCrew(waiting_max)
        self.runtime = SimRuntime()
        way = HookWay(
            self.program,  # type: ignore[arg-type]
            self.crew,
            self.runtime,
            remember_s=remember_s,
        )
        way.show("Bearer geheim")
        self.way = way
        self.chain = Chain([way], allow_anonymous=False)

    def judge(self, name: str | None = "ann", password: bytes | None = b"pw") -> Any:
        answers: list[Any] = []
        self.chain.judge(Request(HERE, "c", name, password), answers.append)
        self.crew.finish()
        (answer,) = answers
        return answer


def test_what_a_program_is_asked() -> None:
    desk = Desk()
    desk.judge()
    desk.judge(None, b"\xff")
    same = {"client_id": "c", "address": "10.0.0.1", "listener": "door"}
    same["certificate"] = "press-7"
    assert desk.program.asked == [
        same | {"user_name": "ann", "password": "pw"},
        same | {"user_name": None, "password_base64": "/w=="},
    ]
    assert desk.program.headers[0] == {
        "Content-Type": "application/json",
        "Authorization": "Bearer geheim",
    }


def test_what_its_answers_mean() -> None:
    desk = Desk(remember_s=0)
    principal = desk.judge()
    assert (principal.user, principal.way, principal.until_ms) == ("ann", "http", 0)
    desk.program.says = {"result": "allow", "user": "eve", "groups": ["a"], "expires_s": 5}
    principal = desk.judge()
    assert (principal.user, principal.groups) == ("eve", {"a"})
    assert principal.until_ms == desk.runtime.now_ms() + 5000
    desk.program.says = {"result": "allow"}
    assert desk.judge(None, None).is_anonymous
    desk.program.says = {"result": "deny"}
    assert type(desk.judge()) is NotAuthorized
    desk.program.says = {"result": "ignore"}
    assert type(desk.judge()) is BadCredentials


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"allow",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        {"result": True},
        {"result": "Allow"},
        ["allow"],
        "allow",
        {"result": "allow", "user": 7},
        {"result": "allow", "user": "a:b"},
        {"result": "allow", "groups": "a"},
        {"result": "allow", "groups": [1]},
        {"result": "allow", "groups": ["a b"]},
        {"result": "allow", "expires_s": -1},
        {"result": "allow", "expires_s": True},
        {"result": "allow", "expires_s": 1.5},
    ],
)
def test_an_answer_that_is_none_lets_nobody_in(
    says: Any, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    desk.program.says = says
    assert type(desk.judge()) is NotAuthorized
    assert "authentication hook not understood" in caplog.text


@pytest.mark.parametrize("error", [NoAnswer("no answer within 1 s"), RuntimeError("pw")])
def test_no_answer_lets_nobody_in(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.program.says = error
    assert type(desk.judge()) is ServerBusy
    assert "authentication hook without answer" in caplog.text
    assert "pw" not in caplog.text


def test_more_than_can_wait_are_not_asked_about() -> None:
    desk = Desk(waiting_max=0)
    assert type(desk.judge()) is ServerBusy
    assert desk.program.asked == []


def test_who_was_let_in_is_remembered_for_a_while() -> None:
    desk = Desk(remember_s=60)
    desk.judge()
    desk.judge()
    assert len(desk.program.asked) == 1
    desk.judge("ann", b"px")
    desk.judge("eve", b"pw")
    assert len(desk.program.asked) == 3
    desk.runtime.advance(60_000)
    desk.judge()
    assert len(desk.program.asked) == 4


def test_nobody_is_remembered_for_longer_than_it_holds() -> None:
    desk = Desk(remember_s=60)
    desk.program.says = {"result": "allow", "expires_s": 5}
    first = desk.judge()
    desk.runtime.advance(4_000)
    assert desk.judge().until_ms == first.until_ms
    desk.runtime.advance(1_000)
    desk.judge()
    assert len(desk.program.asked) == 2


def test_another_program_is_asked_about_everybody() -> None:
    desk = Desk(remember_s=60)
    desk.judge()
    asked: list[Any] = []
    desk.chain.judge(Request(HERE, "c", "eve", b"pw"), asked.append)  # the first is on its way
    other = Program()
    desk.way.change(other, remember_s=60)  # type: ignore[arg-type]
    desk.crew.finish()
    assert asked[0].user == "eve"
    for name in ("ann", "eve", "ann"):
        desk.judge(name)
    assert [question["user_name"] for question in other.asked] == ["ann", "eve"]
    assert "Authorization" not in other.headers[0]


def test_who_was_refused_is_asked_about_again() -> None:
    desk = Desk(remember_s=60)
    desk.program.says = {"result": "deny"}
    desk.judge()
    desk.program.says = {"result": "allow"}
    assert desk.judge().user == "ann"
