"""What an operator does with a server that runs: by its REST API and by commands."""

from __future__ import annotations

import json
import threading
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import run_isthmus, text_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paho.mqtt.client import Client
    from tests.e2e.server_process import ServerProcess


def isthmus(server: ServerProcess, *arguments: str) -> list[str]:
    """Run a command that talks HTTP to the server, and return its lines."""
    done = run_isthmus(*arguments, "--http", text_of(server.http))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def rows(server: ServerProcess, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in isthmus(server, *arguments, "--json")]


def ask(server: ServerProcess, method: str, path: str) -> tuple[int, Any]:
    connection = HTTPConnection(*server.http, timeout=TIMEOUT_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    return response.status, json.loads(content) if content else None


def lasting(expiry_s: int = 1000) -> dict[str, Any]:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = expiry_s
    return {"properties": properties, "clean_start": False}


def test_the_status_is_a_few_numbers(own_server: ServerProcess, unique: str) -> None:
    with paho_client(own_server.mqtt, unique):
        found = dict(line.split("=", 1) for line in isthmus(own_server, "status"))
        assert found["ready"] == "yes" and int(found["mqtt_connections"]) >= 1
        [row] = rows(own_server, "status")
        assert row["partitions"] >= row["log_topics"] > 0


def test_clients_are_listed_and_shown(own_server: ServerProcess, unique: str) -> None:
    with paho_client(own_server.mqtt, f"{unique}/1", **lasting()) as client:
        paho_subscribe(client, f"{unique}/#", 1)
        with paho_client(own_server.mqtt, f"{unique}/2", version=4, keepalive=77):
            found = rows(own_server, "clients", "list", "--search", unique)
            assert [row["client_id"] for row in found] == [f"{unique}/1", f"{unique}/2"]
            assert [row["protocol"] for row in found] == ["5.0", "3.1.1"]
            assert found[1]["keep_alive_s"] == 77 and found[1]["address"] == "127.0.0.1"
        (shown,) = rows(own_server, "clients", "show", f"{unique}/1")
        assert [one["topic_filter"] for one in shown["subscriptions"]] == [f"{unique}/#"]
        lines = isthmus(own_server, "clients", "show", f"{unique}/1")
        assert f"client_id={unique}/1" in lines and "protocol=5.0" in lines
    isthmus(own_server, "sessions", "end", f"{unique}/1")
    assert rows(own_server, "sessions", "list", "--search", unique) == []


def test_a_hundred_sessions_come_in_pages(own_server: ServerProcess, unique: str) -> None:
    for number in range(100):
        with paho_client(own_server.mqtt, f"{unique}-{number:03}", **lasting()):
            pass
    path = f"/api/v1/sessions?connected=false&search={unique}&limit=30"
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        status, page = ask(own_server, "GET", path + (f"&cursor={cursor}" if cursor else ""))
        assert status == 200
        found += [item["client_id"] for item in page["items"]]
        cursor = page["next"]
    assert found == [f"{unique}-{number:03}" for number in range(100)]
    for client_id in found:
        assert ask(own_server, "DELETE", f"/api/v1/sessions/{client_id}")[0] == 204


def test_a_kicked_client_is_told_so_and_may_come_back(
    own_server: ServerProcess, unique: str
) -> None:
    reasons: list[int] = []
    gone = threading.Event()

    def on_disconnect(_client: Client, _data: Any, _flags: Any, reason: Any, _p: Any) -> None:
        reasons.append(reason.value)
        gone.set()

    def prepare(client: Client) -> None:
        client.on_disconnect = on_disconnect

    with paho_client(own_server.mqtt, unique, prepare=prepare, **lasting()) as client:
        paho_subscribe(client, f"{unique}/t", 1)
        isthmus(own_server, "clients", "kick", unique)
        assert gone.wait(TIMEOUT_S)
        assert reasons[0] == 0x98
        # paho comes back by itself, to the session it had
        wait_until(
            lambda: ask(own_server, "GET", f"/api/v1/clients/{unique}")[0] == 200,
            "the client came back",
        )
        (shown,) = rows(own_server, "clients", "show", unique)
        assert [one["topic_filter"] for one in shown["subscriptions"]] == [f"{unique}/t"]
    done = run_isthmus("clients", "kick", "nobody", "--http", text_of(own_server.http))
    assert done.returncode == 1 and "no client 'nobody' is connected" in done.stderr


def test_a_banned_client_is_sent_away_and_kept_out(
    own_server: ServerProcess, unique: str
) -> None:
    reasons: list[str] = []

    def prepare(client: Client) -> None:
        client.on_disconnect = lambda *arguments: reasons.append(str(arguments[3]))

    with paho_client(own_server.mqtt, unique, prepare=prepare) as client:
        client.on_connect = lambda *arguments: reasons.append(str(arguments[3]))
        isthmus(own_server, "bans", "add", "client", unique, "--reason", "for a test")
        wait_until(lambda: "Banned" in reasons, lambda: f"0x8A after {reasons}")
        assert reasons[0] == "Administrative action"
        (ban,) = (row for row in rows(own_server, "bans", "list") if row["who"] == unique)
        assert ban["reason"] == "for a test" and ban["expires_at_ms"] is None
        isthmus(own_server, "bans", "remove", "client", unique)
        wait_until(lambda: "Success" in reasons, lambda: f"let in again after {reasons}")
    assert unique not in [row["who"] for row in rows(own_server, "bans", "list")]


def test_what_waits_for_a_session_is_counted_and_goes_with_it(
    own_server: ServerProcess, unique: str
) -> None:
    with paho_client(own_server.mqtt, unique, **lasting()) as client:
        paho_subscribe(client, f"{unique}/t", 1)
    with paho_client(own_server.mqtt) as publisher:
        paho_publish(publisher, [Message(f"{unique}/t", b"x") for _ in range(5)])
    (shown,) = rows(own_server, "sessions", "show", unique)
    assert (shown["queued"], shown["connected"]) == (5, False)
    isthmus(own_server, "sessions", "end", unique)
    with paho_client(own_server.mqtt, unique, **lasting()) as client:
        # with what waited its subscription has gone
        assert rows(own_server, "clients", "show", unique)[0]["subscriptions"] == []
    isthmus(own_server, "sessions", "end", unique)


def test_retained_messages_are_listed_shown_and_deleted(
    own_server: ServerProcess, unique: str
) -> None:
    names = [f"{unique}/{number}" for number in range(3)] + [f"{unique}/ü//x"]
    with paho_client(own_server.mqtt) as client:
        paho_publish(
            client, [Message(name, b"v-" + name.encode(), retain=True) for name in names]
        )
    found = rows(own_server, "retained", "list", f"{unique}/#")
    assert sorted(row["topic_name"] for row in found) == sorted(names)
    assert isthmus(own_server, "retained", "show", names[3]) == [f"v-{names[3]}"]
    isthmus(own_server, "retained", "delete", names[0], names[3])
    with paho_client(own_server.mqtt) as client:
        inbox = paho_subscribe(client, f"{unique}/#")
        arrived = inbox.wait(2)
    assert {message.topic_name for message in arrived} == set(names[1:3])


def test_deleted_and_ended_means_after_a_crash_too(
    fresh_server: ServerProcess, unique: str
) -> None:
    with paho_client(fresh_server.mqtt, unique, **lasting()) as client:
        paho_publish(client, [Message("a", b"1", retain=True), Message("b", b"2", retain=True)])
    isthmus(fresh_server, "retained", "delete", "a")
    isthmus(fresh_server, "sessions", "end", unique)
    # An end is written in its turn of the loop, and a publish after it waits for the disk.
    with paho_client(fresh_server.mqtt) as client:
        paho_publish(client, [Message("c", b"3")])
    fresh_server.kill()
    fresh_server.start()
    assert [row["topic_name"] for row in rows(fresh_server, "retained", "list")] == ["b"]
    assert rows(fresh_server, "sessions", "list") == []


def test_the_longest_names_fit(own_server: ServerProcess) -> None:
    name = "ü" * 32_000
    with paho_client(own_server.mqtt) as client:
        paho_publish(client, [Message(name, b"x", retain=True)])
    status, answer = ask(own_server, "GET", "/api/v1/retained/" + "%C3%BC" * 32_000)
    assert (status, answer["payload"]) == (200, "x")
    assert ask(own_server, "DELETE", "/api/v1/retained/" + "%C3%BC" * 32_000)[0] == 204


@pytest.mark.parametrize(
    ("path", "status", "where"),
    [
        ("/api/v1/clients?limit=100000", 400, "query limit"),
        ("/api/v1/clients?cursor=x", 410, "query cursor"),
        ("/api/v1/clients/%FF%00", 404, "path"),
        ("/api/v1/retained?filter=%00", 400, "query filter"),
        ("/api/v2/clients", 404, "path"),
    ],
)
def test_what_is_refused_says_what_and_where(
    own_server: ServerProcess, path: str, status: int, where: str
) -> None:
    found, answer = ask(own_server, "GET", path)
    assert (found, answer["where"]) == (status, where) and answer["what"]


def test_where_users_log_in_only_administrators_may(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    file = tmp_path / "users"
    for name, group in (("ann", "administrators"), ("bob", "others")):
        arguments = ("users", "add", name, "--group", group, "--file", str(file))
        assert run_isthmus(*arguments, stdin=f"{name}'s\n".encode()).returncode == 0
    server = start_server(
        settings={"http.authentication": '["users"]', "authentication.users_file": str(file)}
    )

    def listed(**variables: str) -> tuple[int, str]:
        command = ("clients", "list", "--json", "--http", text_of(server.http))
        done = run_isthmus(*command, variables=variables)
        return done.returncode, done.stderr

    with paho_client(server.mqtt):  # MQTT is served as before
        assert listed(ISTHMUS_USER="ann", ISTHMUS_PASSWORD="ann's") == (0, "")
        for variables, said in (
            ({}, "a user name and a password are wanted"),
            ({"ISTHMUS_USER": "ann", "ISTHMUS_PASSWORD": "bob's"}, "password is wrong"),
            ({"ISTHMUS_USER": "bob", "ISTHMUS_PASSWORD": "bob's"}, "not in the group"),
        ):
            status, text = listed(**variables)
            assert status == 1 and said in text
    connection = HTTPConnection(*server.http, timeout=TIMEOUT_S)
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    connection.close()
    log = "\n".join(server.log_lines())
    assert "ann's" not in log and "bob's" not in log
