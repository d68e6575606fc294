"""The REST API, called as a server would call it: what it answers, what it refuses, and why."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest
from tests.unit.admin.asgi import ask, security_of
from tests.unit.broker.shore import Shore

from isthmus.admin.http import application
from isthmus.admin.trace import Feed
from isthmus.broker.inspection import Inspection
from isthmus.broker.traces import TRACES_MAX, Trace, Traces
from isthmus.errors import NoSpace, StorageError

HERE = {"host": "127.0.0.1:8080"}


class Room:
    """An application over a broker in memory."""

    def __init__(self, *, allow_anonymous: bool = False) -> None:
        self.shore = Shore()
        inspection = Inspection(self.shore.broker, self.shore.clients)
        self.application = application(
            lambda: None,
            inspection,
            self.shore.clients.traces,
            security=security_of(self.shore),
            allow_anonymous=allow_anonymous,
        )

    def ask(
        self, method: str, target: str, headers: dict[str, str] = HERE
    ) -> tuple[int, Any, dict[str, str]]:
        """Return the status, the answer and its headers."""
        settle = self.shore.runtime.settle
        status, content, given = ask(
            self.application, method, target, headers.items(), settle=settle
        )
        return status, json.loads(content) if content else None, given

    def get(self, target: str) -> Any:
        status, answer, _ = self.ask("GET", f"/api/v1/{target}")
        assert status == 200, answer
        return answer

    def refused(self, method: str, target: str, **headers: str) -> tuple[int, str, str]:
        status, answer, _ = self.ask(method, f"/api/v1/{target}", HERE | headers)
        return status, answer["what"], answer["where"]


@pytest.fixture
def room() -> Room:
    return Room()


def test_clients_and_sessions(room: Room) -> None:
    room.shore.client("away", expiry_s=100).lose()
    room.shore.client("a/b c%", expiry_s=100).subscribe("x/#")
    page = room.get("clients?limit=1")
    assert [item["client_id"] for item in page["items"]] == ["a/b c%"]
    assert page["next"] is None
    page = room.get("sessions?limit=1")
    assert [item["client_id"] for item in page["items"]] == ["away"]
    page = room.get(f"sessions?limit=1&cursor={page['next']}")
    assert [item["client_id"] for item in page["items"]] == ["a/b c%"]
    assert [item["client_id"] for item in room.get("sessions?connected=false")["items"]] == [
        "away"
    ]
    one = room.get(f"clients/{quote('a/b c%', safe='')}")
    assert (one["protocol"], one["subscriptions"]) == ("5.0", 1)
    assert "address" not in room.get("sessions/away")
    found = room.get(f"subscriptions?client_id={quote('a/b c%')}")
    assert [item["topic_filter"] for item in found["items"]] == ["x/#"]


def test_kick_and_end(room: Room) -> None:
    device = room.shore.client("a/b", expiry_s=100)
    assert room.ask("DELETE", "/api/v1/clients/a%2Fb")[:2] == (204, None)
    assert device.closed is not None
    device.lose()
    assert room.refused("DELETE", "clients/a%2Fb")[0] == 404
    assert room.ask("DELETE", "/api/v1/sessions/a/b")[:2] == (204, None)
    assert room.refused("GET", "sessions/a/b")[0] == 404


def test_retained(room: Room) -> None:
    device = room.shore.client("device")
    device.publish("/a//b", "grün".encode(), retain=True)
    device.publish("c", b"\xff", retain=True)
    page = room.get("retained?limit=1")
    both = page["items"] + room.get(f"retained?cursor={page['next']}")["items"]
    assert {item["topic_name"]: item["payload_bytes"] for item in both} == {"/a//b": 5, "c": 1}
    assert room.get("retained?filter=c/%23")["items"][0]["topic_name"] == "c"
    assert room.get("retained/" + quote("/a//b", safe=""))["payload"] == "grün"
    assert room.get("retained/c")["payload_base64"] == "/w=="
    assert room.ask("DELETE", "/api/v1/retained/c")[0] == 204
    assert room.refused("GET", "retained/c")[0] == 404


def test_a_log_that_takes_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.shore.client("device").publish("c", b"x", retain=True)
    partition = room.shore.broker.retained.partition

    def full(batch: object, ticket: Any, *, trusted: bool = False) -> None:
        ticket.failed(NoSpace("the disk is full"))

    def broken(*_arguments: Any, **_keywords: Any) -> Any:
        raise StorageError("no such disk")

    monkeypatch.setattr(partition, "append", full, raising=False)
    status, what, where = room.refused("DELETE", "retained/c")
    assert (status, where) == (503, "server") and "the disk is full" in what
    monkeypatch.setattr(type(partition), "read", broken)
    assert room.refused("GET", "retained/c") == (
        503,
        "the log cannot be read: no such disk",
        "server",
    )


@pytest.mark.parametrize(
    ("method", "target", "status", "where", "said"),
    [
        ("GET", "clients?limt=3", 400, "query limt", "known here: search"),
        ("GET", "sessions?topic_name=a/%23", 400, "query topic_name", "a wildcard"),
        ("GET", "clients?limit=0", 400, "query limit", "1 to 1000"),
        ("GET", "clients?limit=1001", 400, "query limit", "1 to 1000"),
        ("GET", "clients?limit=ten", 400, "query limit", "1 to 1000"),
        ("GET", "clients?limit=1&limit=2", 400, "query limit", "twice"),
        ("GET", "clients?cursor=-2", 410, "query cursor", "begin it anew"),
        ("GET", "clients?cursor=" + "9" * 19, 410, "query cursor", "begin it anew"),
        ("GET", "sessions?connected=yes", 400, "query connected", "true or false"),
        ("GET", "clients/nobody", 404, "path", "no client 'nobody'"),
        ("GET", "clients/", 404, "path", "no client ''"),
        ("GET", "sessions/nobody?x=1", 400, "query x", "known here: none"),
        ("DELETE", "sessions/nobody", 404, "path", "no session"),
        ("DELETE", "clients", 405, "method", "Method Not Allowed"),
        ("GET", "subscriptions", 400, "query client_id", "missing"),
        ("GET", "subscriptions?client_id=nobody", 404, "query client_id", "no session"),
        ("GET", "retained?filter=a/%23/b", 400, "query filter", "misplaced wildcard"),
        ("GET", "retained?cursor=x", 410, "query cursor", "begin it anew"),
        ("GET", "retained/nothing", 404, "path", "nothing is retained"),
        ("DELETE", "retained/nothing", 404, "path", "nothing is retained"),
        ("PUT", "bans/host/x", 404, "path", "client, user, address"),
        ("PUT", "bans/client/", 400, "path", "needs to say which"),
        ("PUT", "bans/address/x", 400, "path", "does not appear to be"),
        ("DELETE", "bans/address/x", 400, "path", "does not appear to be"),
        ("DELETE", "bans/user/ann", 404, "path", "is not banned"),
        ("PUT", "bans/user/ann?for_s=0", 400, "query for_s", "from 1 to"),
        ("GET", "trace", 400, "query", "one of client_id, address, filter"),
        ("GET", "trace?client_id=a&address=b", 400, "query", "one of client_id"),
        ("GET", "trace?client_id=", 400, "query client_id", "empty"),
        ("GET", "trace?filter=%23/a", 400, "query filter", "misplaced wildcard"),
        ("GET", "trace?filter=$share/g/a", 400, "query filter", "shared filter"),
        ("GET", "trace?client_id=a&for_s=0", 400, "query for_s", "1 to 86400"),
        ("GET", "trace?client_id=a&payload=1", 400, "query payload", "true or false"),
        ("GET", "nothing", 404, "path", "Not Found"),
    ],
)
def test_what_is_wrong_and_where(
    room: Room, method: str, target: str, status: int, where: str, said: str
) -> None:
    answer = room.refused(method, target)
    assert answer[::2] == (status, where) and said in answer[1]


def test_a_method_that_is_not_there_tells_of_those_that_are(room: Room) -> None:
    status, _, headers = room.ask("POST", "/api/v1/clients/x")
    assert status == 405
    assert set(headers["allow"].split(", ")) == {"DELETE", "GET", "HEAD"}


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:80", "127.9.9.9"])
def test_this_machine_may_ask(room: Room, host: str) -> None:
    assert room.ask("GET", "/api/v1/clients", {"host": host})[0] == 200


@pytest.mark.parametrize(
    ("headers", "where"),
    [
        ({"host": "evil.example:8080"}, "header Host"),
        ({"host": "127.0.0.1.evil.example"}, "header Host"),
        ({"host": ""}, "header Host"),
        ({"host": "[::1"}, "header Host"),
        ({"host": "127.0.0.1:8080", "origin": "https://evil.example"}, "header Origin"),
        ({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:3000"}, "header Origin"),
        ({"host": "127.0.0.1:8080", "origin": "null"}, "header Origin"),
    ],
)
def test_pages_of_the_web_may_not(room: Room, headers: dict[str, str], where: str) -> None:
    status, answer, _ = room.ask("GET", "/api/v1/clients", headers)
    assert (status, answer["where"]) == (403, where)
    assert room.ask("GET", "/healthz", headers)[0] == 200


def test_a_page_of_our_own_may_ask(room: Room) -> None:
    headers = HERE | {"origin": "http://127.0.0.1:8080"}
    assert room.ask("GET", "/api/v1/clients", headers)[0] == 200


def test_where_everybody_is_let_in_the_name_does_not_matter() -> None:
    room = Room(allow_anonymous=True)
    headers = {"host": "isthmus.example"}
    assert room.ask("GET", "/api/v1/clients", headers)[0] == 200
    assert (
        room.ask("GET", "/api/v1/clients", headers | {"origin": "http://x.example"})[0] == 403
    )


def test_bans(room: Room) -> None:
    device = room.shore.client("a/b")
    now_ms = room.shore.runtime.now_ms()
    status, ban, _ = room.ask("PUT", "/api/v1/bans/client/a%2Fb?for_s=60&reason=why%20not")
    assert (status, ban) == (
        200,
        {
            "kind": "client",
            "who": "a/b",
            "banned_at_ms": now_ms,
            "expires_at_ms": now_ms + 60_000,
            "reason": "why not",
        },
    )
    assert device.closed is not None
    for number in range(3):
        assert room.ask("PUT", f"/api/v1/bans/address/10.0.{number}.9%2F24")[0] == 200
    page = room.get("bans?limit=3")
    assert [item["who"] for item in page["items"]] == [f"10.0.{n}.0/24" for n in range(3)]
    assert [item["expires_at_ms"] for item in page["items"]] == [None] * 3
    page = room.get(f"bans?limit=3&cursor={quote(page['next'])}")
    assert ([item["who"] for item in page["items"]], page["next"]) == (["a/b"], None)
    assert room.ask("DELETE", "/api/v1/bans/client/a%2Fb")[:2] == (204, None)
    assert room.refused("DELETE", "bans/client/a%2Fb")[0] == 404


# --- traces -----------------------------------------------------------------------------------


def feeding(seconds: float, *steps: Any) -> tuple[list[bytes], Traces]:
    """Read a feed to its end; `steps` are called one after the other between what is read."""
    shore = Shore()
    traces = shore.clients.traces
    feed = Feed()
    trace = Trace(feed.put, client_id="c")
    read: list[bytes] = []

    async def scene() -> None:
        async def reading() -> None:
            read.extend([chunk async for chunk in feed.read(traces, trace, seconds)])

        task = asyncio.ensure_future(reading())
        for step in steps:
            await asyncio.sleep(0)
            step(traces, feed, task)
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    return read, traces


def test_lines_come_as_they_are_put_and_the_server_ends_them() -> None:
    read, traces = feeding(
        1000,
        lambda traces, feed, _: feed.put({"a": 1}) or feed.put({"b": 2}),
        lambda traces, *_: None,
        lambda traces, *_: traces.close(),
    )
    assert b"".join(read) == b'{"a":1}\n{"b":2}\n'
    assert not traces.is_on


def test_a_reader_that_is_too_slow_is_told_what_it_lost() -> None:
    large = {"x": "y" * 3_000_000}
    read, _ = feeding(
        1000,
        lambda _, feed, __: [feed.put(large) for _ in range(3)],
        lambda traces, *_: None,
        lambda traces, *_: traces.close(),
    )
    assert b"".join(read).endswith(b'{"lost":2}\n')


def test_a_trace_ends_with_its_time_and_with_its_reader() -> None:
    read, traces = feeding(0.0)
    assert (read, traces.is_on) == ([], False)
    _, traces = feeding(1000, lambda *_: None, lambda _, __, task: task.cancel())
    assert not traces.is_on


def test_a_reader_that_stalls_keeps_no_trace_on() -> None:
    traces = Shore().clients.traces
    feed = Feed()

    async def scene() -> None:
        lines = feed.read(traces, Trace(feed.put, client_id="c"), 0.01)
        feed.put({"a": 1})
        assert await anext(lines) == b'{"a":1}\n'
        assert traces.is_on
        while traces.is_on:  # noqa: ASYNC110  # by its own clock
            await asyncio.sleep(0.001)
        feed.put({"b": 2})
        assert [chunk async for chunk in lines] == [b'{"b":2}\n']

    asyncio.run(scene())


def test_only_so_many_traces_at_a_time(room: Room) -> None:
    traces = room.shore.clients.traces
    for number in range(TRACES_MAX):
        traces.begin(Trace(print, client_id=f"c{number}"))
    assert room.refused("GET", "trace?client_id=x")[0] == 503
    assert room.get("traces")["items"][1] == {"client_id": "c1", "payload": False}
