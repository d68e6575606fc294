"""MQTT over TLS: with paho and Mosquitto's programs, and certificates that change meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311
from tests.certificates import Authority
from tests.e2e.mqtt_programs import (
    Message,
    MosquittoPrograms,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.raw_mqtt import CONNACK, connect
from tests.e2e.server_process import run_isthmus, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from paho.mqtt.client import Client
    from tests.e2e.server_process import Address, ServerProcess

    Start = Callable[..., ServerProcess]


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def tls(ca: Authority, **settings: str) -> dict[str, str]:
    """Return the settings of a server that speaks MQTT over TLS only."""
    certificate = ca.issue("server", "localhost", "127.0.0.1")
    given = {"certificate": certificate, **settings}
    return {
        "mqtt.listeners": "tls://127.0.0.1:0",
        **{f"tls.{key}": str(value) for key, value in given.items()},
    }


@contextlib.contextmanager
def tls_client(
    server: Address, ca: Authority, certificate: Path | None = None, **more: Any
) -> Iterator[Client]:
    def prepare(client: Client) -> None:
        client.tls_set(str(ca.certificate), str(certificate) if certificate else None)

    with paho_client(server, prepare=prepare, **more) as client:
        yield client


def is_accepted(server: Address, ca: Authority, certificate: Path | None = None) -> bool:
    """Whether a client with this certificate gets a CONNACK."""
    context = ssl.create_default_context(cafile=ca.certificate)
    if certificate is not None:
        context.load_cert_chain(certificate)
    try:
        with (
            socket.create_connection(server, TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as encrypted,
        ):
            encrypted.sendall(connect("probe"))
            return encrypted.recv(1)[:1] == bytes([CONNACK << 4])
    except (ssl.SSLError, ConnectionError):
        return False


@pytest.mark.parametrize("version", [MQTTv311, MQTTv5])
def test_payloads_larger_than_a_tls_record(
    version: int, start_server: Start, ca: Authority, unique: str
) -> None:
    server = start_server(settings=tls(ca))
    payloads = [b"", bytes(range(256)) * 4000, b"x"]
    with (
        tls_client(server.mqtt, ca, version=version) as subscriber,
        tls_client(server.mqtt, ca, version=version) as publisher,
    ):
        inbox = paho_subscribe(subscriber, unique)
        paho_publish(publisher, [Message(unique, payload) for payload in payloads])
        assert [message.payload for message in inbox.wait(3)] == payloads


def test_what_is_no_tls_is_closed(start_server: Start, ca: Authority) -> None:
    server = start_server(settings=tls(ca))
    with socket.create_connection(server.mqtt, TIMEOUT_S) as plain:
        plain.sendall(connect("plain"))
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := plain.recv(1 << 16):
                answer += data
    assert answer[:1] in (b"", b"\x15")  # nothing but an alert
    assert is_accepted(server.mqtt, ca)


def test_mosquitto_with_a_certificate_of_its_own(
    start_server: Start, ca: Authority, unique: str
) -> None:
    if missing := MosquittoPrograms().missing():
        pytest.skip(missing)
    server = start_server(
        settings=tls(
            ca, client_ca=str(ca.certificate), client_certificates="required", user_from="cn"
        )
    )
    device = ca.issue("device", "device@plant.example", common_name="press-7")
    with tls_client(server.mqtt, ca, device) as subscriber:
        inbox = paho_subscribe(subscriber, unique)
        command = ["mosquitto_pub", "-h", "localhost", "-p", str(server.mqtt[1])]
        command += ["--cafile", str(ca.certificate), "-t", unique, "-q", "2", "-m", "x"]
        command += ["--cert", str(device), "--key", str(device)]
        subprocess.run(command, check=True, timeout=TIMEOUT_S, capture_output=True)
        assert [message.payload for message in inbox.wait(1)] == [b"x"]
    assert any("user=press-7" in line for line in server.log_lines())


def test_only_who_has_a_good_certificate_comes_in(start_server: Start, ca: Authority) -> None:
    good, revoked = (ca.issue(name, "x@y.example", common_name=name) for name in "gr")
    nameless = ca.issue("nameless", "x@y.example")
    settings = tls(
        ca,
        client_ca=str(ca.certificate),
        client_certificates="required",
        crl=str(ca.revoke(revoked)),
        user_from="cn",
    )
    server = start_server(settings=settings)
    assert is_accepted(server.mqtt, ca, good)
    for refused in (None, revoked, nameless):
        assert not is_accepted(server.mqtt, ca, refused)
    assert any("its certificate names no user" in line for line in server.log_lines())
    ca.revoke(good)
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: not is_accepted(server.mqtt, ca, good), "a refusal")


def test_who_shows_a_certificate_needs_no_password(start_server: Start, ca: Authority) -> None:
    """The ways of a listener are asked in their order; a name is then the session's."""
    settings = tls(
        ca, client_ca=str(ca.certificate), client_certificates="optional", user_from="cn"
    )
    ways = {"mqtt.authentication": '["certificate", "users"]'}
    server = start_server(settings={**settings, **ways})
    here = ("--http", text_of(server.http))
    assert run_isthmus("users", "add", "ann", *here, stdin=b"pw\n").returncode == 0
    device = ca.issue("device", "x@y.example", common_name="press-7")

    def comes_in(certificate: Path | None, name: str | None = None, password: str = "") -> bool:
        def prepare(client: Client) -> None:
            client.tls_set(str(ca.certificate), str(certificate) if certificate else None)
            if name is not None:
                client.username_pw_set(name, password)

        try:
            with paho_client(("localhost", server.mqtt[1]), "c", prepare=prepare):
                return True
        except AssertionError:
            return False

    assert comes_in(device)
    assert comes_in(device, "ann", "wrong")  # it is press-7 all the same
    assert comes_in(None, "ann", "pw")
    assert not comes_in(None, "ann", "wrong")
    assert not comes_in(None)
    connected = [line for line in server.log_lines() if " connected " in line]
    assert ["user=press-7" in line for line in connected] == [True, True, False]
    assert "user=ann" in connected[2]


class Steady:
    """A client that publishes all the while, and counts."""

    def __init__(self, client: Client, topic_name: str) -> None:
        self.acknowledged = 0
        self.disconnected = threading.Event()
        self._ended = threading.Event()
        client.on_disconnect = lambda *_: self.disconnected.set()
        self._thread = threading.Thread(target=self._run, args=(client, topic_name))
        self._thread.start()

    def _run(self, client: Client, topic_name: str) -> None:
        while not self._ended.is_set():
            info = client.publish(topic_name, str(self.acknowledged), 1)
            info.wait_for_publish(TIMEOUT_S)
            self.acknowledged += 1

    def end(self) -> None:
        self._ended.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


def test_certificates_change_under_clients_that_publish_all_the_while(
    start_server: Start, ca: Authority, tmp_path: Path, unique: str
) -> None:
    """All files are those of another CA, twice; nobody who is connected notices."""
    server = start_server(settings=tls(ca, reload_check_s="1"))
    with contextlib.ExitStack() as stack:
        inbox = paho_subscribe(stack.enter_context(tls_client(server.mqtt, ca)), f"{unique}/#")
        steady = [
            Steady(stack.enter_context(tls_client(server.mqtt, ca)), f"{unique}/{number}")
            for number in range(8)
        ]
        old = ca
        for number in range(2):
            new = Authority(tmp_path / f"ca{number}")
            assert is_accepted(server.mqtt, old) and not is_accepted(server.mqtt, new)
            made = new.issue("server", "localhost", "127.0.0.1")
            made.replace(ca.directory / "server.pem")  # the second time found by itself
            if number == 0:
                os.kill(server.pid, signal.SIGHUP)
            wait_until(lambda new=new: is_accepted(server.mqtt, new), "the new certificate")
            assert not is_accepted(server.mqtt, old)
            seen = [each.acknowledged for each in steady]
            wait_until(
                lambda seen=seen: all(
                    each.acknowledged > before + 5
                    for each, before in zip(steady, seen, strict=True)
                ),
                "publishing that goes on",
            )
            old = new
        for each in steady:
            each.end()
        assert not any(each.disconnected.is_set() for each in steady)
        inbox.wait(sum(each.acknowledged for each in steady))
    reloads = [line for line in server.log_lines() if "certificates reloaded" in line]
    assert len(reloads) == 2, reloads


def test_a_certificate_that_goes_bad_is_kept_as_it_was(
    start_server: Start, ca: Authority
) -> None:
    server = start_server(settings=tls(ca))
    file = ca.directory / "server.pem"
    file.write_text("nothing of the kind")
    os.kill(server.pid, signal.SIGHUP)
    wait_until(
        lambda: any("certificates kept" in line for line in server.log_lines()), "a log line"
    )
    (line,) = (line for line in server.log_lines() if "certificates kept" in line)
    assert str(file) in line and "holds no certificate" in line
    assert is_accepted(server.mqtt, ca)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["mqtt.listeners=tls://127.0.0.1:0"], "needs tls.certificate"),
        (
            ["mqtt.listeners=tls://127.0.0.1:0", "tls.certificate=absent.pem"],
            "certificate = 'absent.pem' cannot be read: No such file or directory",
        ),
    ],
)
def test_a_start_without_its_certificate_is_refused(
    settings: list[str], says: str, tmp_path: Path
) -> None:
    more = ["kafka.listeners=", "http.listeners=", *settings]
    words = [word for each in more for word in ("--set", each)]
    ended = run_isthmus("serve", "--data", str(tmp_path / "data"), *words, directory=tmp_path)
    assert ended.returncode == 2
    assert says in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
