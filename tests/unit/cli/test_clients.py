"""`isthmus clients`, `sessions`, `retained`, `bans`: pages, words for people, refusals."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from isthmus.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator

ITEM = {
    "client_id": "c",
    "user": "",
    "connected": True,
    "expiry_s": None,
    "disconnected_at_ms": None,
    "expires_at_ms": None,
    "subscriptions": 1,
    "queued": 0,
    "in_flight": 2,
    "dropped": 3,
}
CLIENT = ITEM | {
    "address": "::1",
    "port": 5000,
    "listener": "tcp",
    "protocol": "5.0",
    "is_bridge": False,
    "keep_alive_s": 60,
    "connected_at_ms": 1_700_000_000_000,
}


class Server:
    """Answers what it was told to, in order, and writes down what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[str] = []
        said = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said.asked.append(f"{self.command} {self.path}")
                status, content = said.answers.pop(0)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_DELETE(self) -> None:
                self.do_GET()

            def do_PUT(self) -> None:
                self.do_GET()

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def will_say(self, content: object, status: int = 200) -> None:
        self.answers.append((status, json.dumps(content).encode()))

    def run(self, *arguments: str) -> tuple[int, list[str], str]:
        result = CliRunner().invoke(main, [*arguments, "--http", self.address])
        return result.exit_code, result.stdout.splitlines(), result.stderr


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_a_list_in_pages_for_people(server: Server) -> None:
    server.will_say({"items": [CLIENT], "next": "5"})
    server.will_say({"items": [CLIENT | {"client_id": "long name", "user": "u"}], "next": None})
    status, lines, _ = server.run("clients", "list", "--search", "a b", "--limit", "3")
    assert status == 0
    assert [line.split("  ")[0].rstrip() for line in lines] == ["client_id", "c", "long name"]
    assert "::1 5000" in lines[1] and "2023-11-14T22:13:20.000Z" in lines[1]
    assert server.asked == [
        "GET /api/v1/clients?limit=3&search=a+b",
        "GET /api/v1/clients?limit=2&search=a+b&cursor=5",
    ]


def test_a_list_for_programs_ends_at_its_limit(server: Server) -> None:
    server.will_say({"items": [ITEM], "next": "5"})
    chosen = ("--away", "--topic", "a/b", "--limit", "1")
    status, lines, _ = server.run("sessions", "list", *chosen, "--json")
    assert (status, [json.loads(line) for line in lines]) == (0, [ITEM])
    assert server.asked == ["GET /api/v1/sessions?limit=1&topic_name=a%2Fb&connected=false"]


def test_one_client_with_its_subscriptions(server: Server) -> None:
    filters = {"topic_filter": "a/#", "qos": 1, "no_local": False, "identifier": None}
    for _ in range(2):
        server.will_say(CLIENT)
        server.will_say({"items": [filters], "next": None})
    status, lines, _ = server.run("clients", "show", "a/b")
    assert status == 0 and "connected_at=2023-11-14T22:13:20.000Z" in lines
    assert "disconnected_at=-" in lines and "expiry_s=-" in lines and "is_bridge=no" in lines
    assert lines[-1].split() == ["a/#", "1", "no", "-"]
    assert server.asked[0] == "GET /api/v1/clients/a%2Fb"
    status, (line,), _ = server.run("clients", "show", "a/b", "--json")
    assert json.loads(line) == CLIENT | {"subscriptions": [filters]}


def test_what_is_to_go(server: Server) -> None:
    server.answers = [(204, b"")] * 3
    assert server.run("clients", "kick", "a", "%/") == (0, [], "")
    assert server.run("sessions", "end", "b")[0] == 0
    assert server.asked == [
        "DELETE /api/v1/clients/a",
        "DELETE /api/v1/clients/%25%2F",
        "DELETE /api/v1/sessions/b",
    ]


def test_retained_messages(server: Server) -> None:
    item = {
        "topic_name": "t",
        "qos": 1,
        "payload_bytes": 2,
        "retained_at_ms": 0,
        "expires_at_ms": None,
    }
    server.will_say({"items": [item], "next": None})
    status, lines, _ = server.run("retained", "list", "t/#")
    assert status == 0
    assert lines[1].split() == ["t", "1", "2", "1970-01-01T00:00:00.000Z", "-"]
    server.will_say(item | {"payload": "hello"})
    assert server.run("retained", "show", "t") == (0, ["hello"], "")
    server.will_say(item | {"payload_base64": "aGk="})
    assert server.run("retained", "show", "t")[1] == ["hi"]
    server.answers = [(204, b"")]
    assert server.run("retained", "delete", "/t")[0] == 0
    assert server.asked[-1] == "DELETE /api/v1/retained/%2Ft"


def test_bans(server: Server) -> None:
    ban = {
        "kind": "address",
        "who": "10.0.0.0/8",
        "banned_at_ms": 0,
        "expires_at_ms": None,
        "reason": "",
    }
    server.will_say(ban)
    server.will_say(ban)
    given = ("--for", "2h", "--reason", "too much")
    assert server.run("bans", "add", "address", "10.0.0.0/8", "::1", *given) == (0, [], "")
    server.will_say({"items": [ban], "next": None})
    status, lines, _ = server.run("bans", "list")
    assert status == 0
    assert lines[1].split() == ["address", "10.0.0.0/8", "1970-01-01T00:00:00.000Z", "-", "-"]
    server.answers = [(204, b"")]
    assert server.run("bans", "remove", "client", "a/b")[0] == 0
    assert server.asked == [
        "PUT /api/v1/bans/address/10.0.0.0%2F8?for_s=7200&reason=too+much",
        "PUT /api/v1/bans/address/%3A%3A1?for_s=7200&reason=too+much",
        "GET /api/v1/bans?limit=1000",
        "DELETE /api/v1/bans/client/a%2Fb",
    ]
    assert server.run("bans", "add", "host", "x")[0] == 2


def test_a_refusal_is_one_sentence(server: Server) -> None:
    server.will_say({"what": "no client 'x' is connected", "where": "path"}, 404)
    status, _, said = server.run("clients", "show", "x")
    assert status == 1
    assert said == f"Error: {server.address} refuses: no client 'x' is connected (path)\n"
    server.answers = [(502, b"Bad Gateway")]
    assert server.run("clients", "kick", "x")[2].endswith("refuses: Bad Gateway\n")
