"""Coming from Mosquitto: its own files, imported, let the same people do the same as there.

Each configuration in `mosquitto/` is served by a real Mosquitto and, as `isthmus config import`
makes it, by Isthmus. Both are asked the same questions: who comes in with which password, and
for each user, client id and topic name whether a message is taken and whether one comes.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tomllib
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt.client import MQTTv311
from tests.certificates import Authority
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import run_isthmus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.mqtt_programs import Inbox
    from tests.e2e.server_process import Address, ServerProcess

PROGRAMS = ("mosquitto", "mosquitto_passwd", "mosquitto_pub")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]

pytestmark = [
    pytest.mark.usefixtures("own_process"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

CONFIGURATIONS = Path(__file__).parent / "mosquitto"
PASSWORDS = {"admin": "a", "line-1": "one", "gateway": "g", "anna": "n"}
KINDS = {
    "admin": "sha512-pbkdf2",
    "line-1": "sha512",
    "gateway": "sha512",
    "anna": "sha512-pbkdf2",
}
PEOPLE = [("line-1", "c1"), ("gateway", "gate"), ("anna", "c1"), ("anna", "line-1"), ("", "c2")]
TOPIC_NAMES = [
    *("hall/a", "hall/private", "hall", "notice", "state/line-1", "elsewhere", "common"),
    *("orders/line-1/a", "orders/line-1/secret", "orders/line-1/a/b", "orders/x"),
    *("own/line-1/a", "own/anna/a", "own/anna/locked", "own/anna", "own/%u/x"),
    *("shared space/%u/x", "shared space/line-1/x", "byid/c1/up", "byid/gate/up", "byid/c2/up"),
    *(
        "common/a",
        "common/a/hidden",
        "anna/x/c1",
        "anna/x/line-1",
        "line-1/x/c1",
        "line-1/y/c2",
    ),
]
END = "end"  # everybody receives it
Table = dict[str, Any]


@contextmanager
def mosquitto(name: str, directory: Path) -> Iterator[tuple[Path, Address, Address]]:
    """Run Mosquitto with a configuration and its files, all in `directory`.

    Returns the configuration, and where it listens without TLS and with it, if it does.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as plain,
        socket.create_server(("127.0.0.1", 0)) as encrypted,
    ):
        port, tls = plain.getsockname()[1], encrypted.getsockname()[1]
    values = {"HERE": directory, "PORT": port, "TLS": tls, "USER": getuser()}
    for file in CONFIGURATIONS.iterdir():
        text = file.read_text("utf-8")
        for word, value in values.items():
            text = text.replace(f"@{word}@", str(value))
        (directory / file.name).write_text(text, "utf-8")
    (directory / "passwords").touch(0o600)
    for user, password in PASSWORDS.items():
        command = ["mosquitto_passwd", "-H", KINDS[user], "-b", str(directory / "passwords")]
        subprocess.run([*command, user, password], check=True, capture_output=True)
    conf = directory / f"{name}.conf"
    process = subprocess.Popen(["mosquitto", "-c", str(conf)])
    try:
        wait_until(lambda: process.poll() is not None or answers(port), "a listening Mosquitto")
        assert process.poll() is None, "Mosquitto ended by itself"
        yield conf, ("127.0.0.1", port), ("127.0.0.1", tls)
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S).close()
    except ConnectionRefusedError:
        return False
    return True


def as_somebody(user: str, password: str | None = None) -> dict[str, Any]:
    """Return how paho comes in as a user; nobody's name is empty."""
    said = PASSWORDS.get(user) if password is None else password
    prepare = (lambda client: client.username_pw_set(user, said)) if user else (lambda _: None)
    return {"prepare": prepare, "version": MQTTv311}


def comes_in(server: Address, user: str, password: str | None = None) -> bool:
    try:
        with paho_client(server, **as_somebody(user, password)):
            return True
    except AssertionError as error:
        assert "no CONNACK" not in str(error)
        return False


def what_everybody_may_do(server: Address) -> Table:
    """Ask a server who comes in, whose messages it takes, and to whom which come."""
    table: Table = {f"{user} comes in": comes_in(server, user) for user in [*PASSWORDS, ""]}
    table["a wrong password"] = comes_in(server, "anna", "x")
    table["a user that is none"] = comes_in(server, "nobody", "x")
    with paho_client(server, "watch", **as_somebody("admin")) as admin:
        paho_publish(admin, [Message(name, b"kept", retain=True) for name in TOPIC_NAMES])
        taken = paho_subscribe(admin, "#")
        for user, client_id in PEOPLE:
            if not table[f"{user} comes in"]:
                continue
            who = f"{user}/{client_id}"
            with paho_client(server, client_id, **as_somebody(user)) as client:
                paho_publish(client, [Message(name, who.encode()) for name in TOPIC_NAMES])
                paho_publish(admin, [Message(END, who.encode())])
                table[f"{who} publishes"] = names_of(until(taken, who.encode()), who.encode())
            for wanted in ("#", [(name, 1) for name in [*TOPIC_NAMES, "own/+/#", END]]):
                with paho_client(server, client_id, **as_somebody(user)) as client:
                    inbox = paho_subscribe(client, wanted)
                    paho_publish(admin, [Message(name, b"new") for name in [*TOPIC_NAMES, END]])
                    arrived = until(inbox, b"new")
                    table[f"{who} receives, of {wanted}"] = names_of(arrived, b"new")
                    table[f"{who} finds, of {wanted}"] = names_of(arrived, b"kept")
    return table


def until(inbox: Inbox, payload: bytes) -> list[Message]:
    """Return what has come once the end has, with this payload."""

    def has_ended() -> bool:
        return any((one.topic_name, one.payload) == (END, payload) for one in inbox.wait(0))

    wait_until(has_ended, "the last message")
    return inbox.wait(0)


def names_of(messages: list[Message], payload: bytes) -> list[str]:
    """Return the topic names of the messages with this payload, but for the end."""
    return sorted({one.topic_name for one in messages if one.payload == payload} - {END})


def isthmus_from(conf: Path, start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """Return a server with what comes of a configuration, on the same ports."""
    out = conf.parent / "ours"
    imported = run_isthmus("config", "import", str(conf), "--out", str(out))
    assert imported.returncode == 0, imported.stdout + imported.stderr
    text = (out / "isthmus.toml").read_text("utf-8")
    listeners = tomllib.loads(text)["mqtt"]["listeners"]
    return start_server(config=text, settings={"mqtt.listeners": json.dumps(listeners)})


@pytest.mark.parametrize("name", ["factory", "open", "patterns"])
def test_the_same_people_may_do_the_same(
    name: str, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    with mosquitto(name, tmp_path) as (conf, address, _):
        expected = what_everybody_may_do(address)
    server = isthmus_from(conf, start_server)
    assert what_everybody_may_do(server.mqtt) == expected
    assert any(expected[f"{user} comes in"] for user in PASSWORDS)


def test_who_has_a_certificate_may_do_the_same(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    ca = Authority(tmp_path)
    ca.issue("server", "127.0.0.1")
    line, revoked = (
        ca.issue(f"of-{name}", "x@y.example", common_name=name) for name in ("line-1", "anna")
    )
    ca.revoke(revoked)
    with mosquitto("certificates", tmp_path) as (conf, plain, encrypted):
        expected = what_certificates_do(plain, encrypted, ca, line, revoked)
    isthmus_from(conf, start_server)
    assert what_certificates_do(plain, encrypted, ca, line, revoked) == expected
    assert expected == {"line-1": ["line-1/x/c1"], "anna": "refused", "nobody": "refused"}


def what_certificates_do(
    plain: Address, encrypted: Address, ca: Authority, line: Path, revoked: Path
) -> Table:
    """Ask a server whom it lets in by which certificate, and what it takes of them."""
    table: Table = {}
    with paho_client(plain, "watch", **as_somebody("admin")) as admin:
        taken = paho_subscribe(admin, "#")
        for who, certificate in (("line-1", line), ("anna", revoked), ("nobody", None)):
            command = ["mosquitto_pub", "-h", encrypted[0], "-p", str(encrypted[1]), "-i", "c1"]
            command += ["--cafile", str(ca.certificate), "-q", "1", "-m", who, "-V", "mqttv311"]
            if certificate is not None:
                command += ["--cert", str(certificate), "--key", str(certificate)]
            ended = [
                subprocess.run(
                    [*command, "-t", name], capture_output=True, timeout=TIMEOUT_S, check=False
                ).returncode
                for name in ("line-1/x/c1", "anna/x/c1", "common/a")
            ]
            paho_publish(admin, [Message(END, who.encode())])
            names = names_of(until(taken, who.encode()), who.encode())
            table[who] = names if not any(ended) else "refused"
    return table
