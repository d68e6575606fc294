"""Users and their passwords: made by the command, used by real clients, never seen in a log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt.client import MQTTv5, MQTTv31, MQTTv311
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.raw_mqtt import (
    AUTH,
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    SUBACK,
    RawMqtt,
    auth,
    authentication_data,
    connect,
    packet,
    publish,
    raw_connection,
    subscribe,
)
from tests.e2e.server_process import ServerProcess, run_isthmus, text_of
from tests.scram_client import HASHES, ScramClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.server_process import Address

PASSWORDS = {
    "ann": "Geheim-1",
    "bob": "Geheim-2 mit Leerzeichen",
    "eve": "Geheim-3",
    "zoe": "Geheim-4",
    "kim": "Geheim-6",
}
WRONG = "Falsch-5"


def users(*arguments: str, password: str = "") -> str:
    """Run `isthmus users`, with a password where it asks for one."""
    ended = run_isthmus("users", *arguments, stdin=f"{password}\n".encode())
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Return a server with two users of its own and two of a file."""
    directory = tmp_path_factory.mktemp("users")
    file = directory / "users.txt"
    server = ServerProcess(
        directory,
        settings={
            "mqtt.authentication": '["users"]',
            "authentication.users_file": str(file),
            "log.level": "debug",
        },
    )
    for name in ("ann", "bob"):
        users("add", name, "--data", str(server.data), password=PASSWORDS[name])
    for name in ("eve", "zoe"):
        users("add", name, "--file", str(file), password=PASSWORDS[name])
    server.start()
    yield server
    server.stop()


def refused(server: Address, version: int, name: str | None, password: str | None) -> str:
    """Return what paho says to the refusal of a client."""

    def prepare(client: Any) -> None:
        if name is not None:
            client.username_pw_set(name, password)

    with (
        pytest.raises(AssertionError) as error,
        paho_client(server, "refused", version=version, prepare=prepare),
    ):
        pass
    return str(error.value)


@pytest.mark.parametrize("version", [MQTTv31, MQTTv311, MQTTv5])
def test_paho_logs_in(server: ServerProcess, version: int, unique: str) -> None:
    for name in ("ann", "eve"):
        with paho_client(
            server.mqtt,
            f"{unique}-{name}"[:23],
            version=version,
            prepare=lambda client, name=name: client.username_pw_set(name, PASSWORDS[name]),
        ) as client:
            inbox = paho_subscribe(client, f"{unique}/#")
            paho_publish(client, [Message(f"{unique}/{name}", b"hello")])
            inbox.wait(1)
    wrong = "Bad user name or password"
    assert wrong in refused(server.mqtt, version, "ann", WRONG)
    assert wrong in refused(server.mqtt, version, "nobody", PASSWORDS["ann"])
    assert "Not authorized" in refused(server.mqtt, version, None, None)


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="needs mosquitto_pub")
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
def test_mosquitto_pub_logs_in(server: ServerProcess, version: str) -> None:
    def publishes(name: str, password: str) -> bool:
        host, port = server.mqtt
        command = ["mosquitto_pub", "-V", version, "-h", host, "-p", str(port)]
        command += ["-u", name, "-P", password, "-t", "t", "-m", "x", "-q", "1"]
        ended = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
        return ended.returncode == 0

    assert publishes("bob", PASSWORDS["bob"])
    assert publishes("zoe", PASSWORDS["zoe"])
    assert not publishes("zoe", WRONG)
    assert not publishes("", "")


def test_our_own_commands_log_in(server: ServerProcess, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(PASSWORDS["bob"] + "\n")
    wrong.write_text(WRONG)
    command = ("pub", "--mqtt", text_of(server.mqtt), "-t", "t", "-m", "x", "-q", "1")
    assert run_isthmus(*command, "-u", "bob", "--password-file", str(right)).returncode == 0
    refusal = run_isthmus(*command, "-u", "bob", "--password-file", str(wrong))
    assert (refusal.returncode, "Bad user name" in refusal.stderr) == (1, True)
    asked = run_isthmus(*command, "-u", "bob")
    assert (asked.returncode, "--password-file" in asked.stderr) == (2, True)


def by_scram(connection: RawMqtt, mechanism: str, client: ScramClient, client_id: str) -> bytes:
    """Come in by SCRAM over a connection; the body of the CONNACK."""
    connection.send(connect(client_id, method=(mechanism, client.first())))
    challenge = connection.expect(AUTH)
    assert challenge.body[0] == 0x18
    final = client.final(authentication_data(challenge.body[1:]))
    connection.send(auth(0x18, mechanism, final))
    return connection.expect(CONNACK).body


@pytest.mark.parametrize("mechanism", HASHES)
def test_a_client_of_mqtt_5_logs_in_without_sending_its_password(
    server: ServerProcess, mechanism: str, unique: str
) -> None:
    """[MQTT-4.12.0-2, MQTT-4.12.0-5, MQTT-4.12.1-1]: and shows who it is a second time."""
    with raw_connection(server.mqtt) as connection:
        client = ScramClient(mechanism, "eve", PASSWORDS["eve"])
        connack = by_scram(connection, mechanism, client, unique)
        assert connack[1] == 0
        assert client.is_server(authentication_data(connack[2:]))
        client = ScramClient(mechanism, "eve", PASSWORDS["eve"], "another")
        connection.send(auth(0x19, mechanism, client.first()))
        challenge = connection.expect(AUTH)
        connection.send(packet(PINGREQ))
        connection.expect(PINGRESP)
        final = client.final(authentication_data(challenge.body[1:]))
        connection.send(auth(0x18, mechanism, final))
        said = connection.expect(AUTH)
        assert said.body[0] == 0
        assert client.is_server(authentication_data(said.body[1:]))
    for name, password in (("eve", WRONG), ("nobody", PASSWORDS["eve"])):
        with raw_connection(server.mqtt) as connection:
            client = ScramClient(mechanism, name, password)
            assert by_scram(connection, mechanism, client, unique)[1] == 0x87
            assert connection.receive() is None


def test_a_change_of_the_file_counts_at_once(server: ServerProcess, tmp_path: Path) -> None:
    """Who is removed is sent away, the others stay; a file that is wrong changes nothing."""
    file = server.directory / "users.txt"
    before = file.read_text()
    connections = {}
    for name in ("eve", "zoe", "ann"):
        connections[name] = RawMqtt(server.mqtt)
        connections[name].open(name, user=(name, PASSWORDS[name].encode()))
    try:
        file.write_text(before + "nonsense\n")
        os.kill(server.pid, signal.SIGHUP)
        line = before.count("\n") + 1
        wait_until(lambda: f"{file}:{line}: a line is" in server.log_path.read_text(), "a line")
        file.write_text(before)
        users("remove", "zoe", "--file", str(file))
        os.kill(server.pid, signal.SIGHUP)
        assert connections["zoe"].expect(DISCONNECT).body[0] == 0x87
        assert connections["zoe"].receive() is None
        for name in ("eve", "ann"):
            connections[name].send(packet(PINGREQ))
            connections[name].expect(PINGRESP)
        assert "Bad user name" in refused(server.mqtt, MQTTv5, "zoe", PASSWORDS["zoe"])
    finally:
        for connection in connections.values():
            connection.cut()
        file.write_text(before)
        os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: logs_in(server.mqtt, "zoe", PASSWORDS["zoe"]), "zoe's return")


def logs_in(server: Address, name: str, password: str) -> bool:
    with raw_connection(server) as connection:
        connection.send(connect(name, user=(name, password.encode())))
        return connection.expect(CONNACK).body[1] == 0


def test_users_of_a_stopped_server(own_process: None, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, settings={"mqtt.authentication": '["users"]'})
    data = ("--data", str(server.data))
    users("add", "ann", "--group", "fitters", *data, password="one")
    users("add", "bob", *data, password="one")
    users("passwd", "ann", *data, password="two")
    users("disable", "bob", *data)
    assert users("list", *data).split()[3:] == ["ann", "fitters", "yes", "bob", "-", "no"]
    server.start()
    try:
        logins = (("ann", "two"), ("ann", "one"), ("bob", "one"))
        assert [logs_in(server.mqtt, *login) for login in logins] == [True, False, False]
        busy = run_isthmus("users", "list", *data)
        assert (busy.returncode, "with --http" in busy.stderr) == (2, True)
    finally:
        server.stop()


def test_nothing_waits_for_a_user_that_was_removed(own_process: None, tmp_path: Path) -> None:
    """Nor after a restart, until there is such a user again."""
    server = ServerProcess(tmp_path, settings={"mqtt.authentication": '["users"]'})
    data = ("--data", str(server.data))
    users("add", "ann", *data, password="one")
    users("add", "bob", *data, password="two")
    server.start()
    here = ("--http", text_of(server.http))

    def queued_of_ann() -> int:
        shown = run_isthmus(
            "sessions", "show", "ann-7", "--json", "--http", text_of(server.http)
        )
        return int(json.loads(shown.stdout)["queued"])

    def bob_publishes() -> None:
        with raw_connection(server.mqtt) as bob:
            bob.open("bob", user=("bob", b"two"))
            bob.send(publish("news", b"x", qos=1, packet_id=1))
            bob.expect(PUBACK)

    try:
        ann = RawMqtt(server.mqtt)
        ann.open("ann-7", user=("ann", b"one"), clean=False, session_expiry_s=1000)
        ann.send(subscribe(1, "news", 1))
        ann.expect(SUBACK)
        ann.cut()
        bob_publishes()
        users("remove", "ann", *here)
        bob_publishes()
        assert queued_of_ann() == 1
        server.stop()
        server.start()
        bob_publishes()
        assert queued_of_ann() == 1
        users("add", "ann", *here, password="three")
        bob_publishes()
        assert queued_of_ann() == 2
    finally:
        server.stop()


def test_users_of_a_running_server(server: ServerProcess) -> None:
    """Who is changed is sent away, and comes back as what it is then."""
    here = ("--http", text_of(server.http))
    users("add", "kim", "--group", "fitters", *here, password=PASSWORDS["kim"])
    assert json.loads(users("list", "--json", *here).splitlines()[-2]) == {
        "name": "kim",
        "groups": ["fitters"],
        "enabled": True,
    }
    connection = RawMqtt(server.mqtt)
    connection.open("kim", user=("kim", PASSWORDS["kim"].encode()))
    users("passwd", "kim", *here, password=PASSWORDS["ann"])
    assert connection.expect(DISCONNECT).body[0] == 0x87
    assert connection.receive() is None
    connection.cut()
    assert not logs_in(server.mqtt, "kim", PASSWORDS["kim"])
    assert logs_in(server.mqtt, "kim", PASSWORDS["ann"])
    users("groups", "kim", *here)
    users("disable", "kim", *here)
    assert not logs_in(server.mqtt, "kim", PASSWORDS["ann"])
    users("remove", "kim", *here)
    twice = run_isthmus("users", "remove", "kim", *here)
    assert (twice.returncode, "there is no user" in twice.stderr) == (1, True)
    listed = run_isthmus("users", "disable", "eve", *here)
    assert (listed.returncode, "users_file" in listed.stderr) == (1, True)


def test_no_secret_is_in_the_log(server: ServerProcess) -> None:
    """After all the tests above: no password, nothing kept of one, nothing that shows one."""
    with raw_connection(server.mqtt) as connection:
        connection.send(connect("cut", user=("ann", PASSWORDS["ann"].encode())))
    log = server.log_path.read_text()
    assert "connected " in log
    kept = (server.directory / "users.txt").read_text()
    secrets = [*PASSWORDS.values(), WRONG]
    secrets += [
        part for line in kept.splitlines() for part in line.split("$") if len(part) > 20
    ]
    assert len(secrets) > 10
    assert [secret for secret in secrets if secret in log] == []
    assert "$scram" not in log
