"""MQTT over WebSocket and secure WebSocket, with paho, mqtt.js, and a page in a browser."""

from __future__ import annotations

import hashlib
import socket
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.certificates import Authority
from tests.e2e.mqtt_page import Page
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.mqtt_scripted import MqttJs
from tests.e2e.patience import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paho.mqtt.client import Client
    from tests.e2e.server_process import ServerProcess

    Start = Callable[..., ServerProcess]

PAYLOADS = (b"", bytes(range(256)) * 2000, b"x")


@pytest.fixture(params=["ws", "wss"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def server(start_server: Start, scheme: str, ca: Authority) -> ServerProcess:
    settings = {"mqtt.listeners": f"{scheme}://127.0.0.1:0/mqtt"}
    if scheme == "wss":
        settings["tls.certificate"] = str(ca.issue("server", "localhost", "127.0.0.1"))
    return start_server(settings=settings)


def test_paho_publishes_and_reads(
    server: ServerProcess, scheme: str, ca: Authority, unique: str
) -> None:
    """[MQTT 3.1.1: MQTT-7.1.2-1]"""

    def prepare(client: Client) -> None:
        if scheme == "wss":
            client.tls_set(str(ca.certificate))

    with paho_client(server.mqtt, transport="websockets", prepare=prepare) as client:
        inbox = paho_subscribe(client, unique, qos=2)
        messages = [Message(unique, payload, 2) for payload in PAYLOADS]
        paho_publish(client, messages)
        assert inbox.wait(len(messages)) == messages


def test_mqtt_js_publishes_and_reads(
    server: ServerProcess,
    scheme: str,
    ca: Authority,
    unique: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = MqttJs(url=scheme + "://{}/mqtt")
    if program.missing():
        pytest.skip(program.missing())
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(ca.certificate))
    messages = [Message(unique, payload, 1) for payload in PAYLOADS]
    with program.subscribe(server.mqtt, unique) as inbox:
        program.publish(server.mqtt, messages)
        assert inbox.wait(len(messages)) == messages


def test_a_page_publishes_and_reads_over_tls(
    start_server: Start, ca: Authority, unique: str
) -> None:
    """Chromium is told to believe this one key, as where a person has accepted it."""
    file = ca.issue("page", "127.0.0.1")
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    known = b64encode(hashlib.sha256(key).digest()).decode()
    page = Page("wss", f"--ignore-certificate-errors-spki-list={known}")
    if page.missing():
        pytest.skip(page.missing())
    server = start_server(
        settings={"mqtt.listeners": "wss://127.0.0.1:0/mqtt", "tls.certificate": str(file)}
    )
    messages = [Message(unique, payload, 1) for payload in PAYLOADS]
    with page.subscribe(server.mqtt, unique) as inbox:
        page.publish(server.mqtt, messages)
        assert inbox.wait(len(messages)) == messages


def test_a_browser_on_the_wrong_page_is_told_so(start_server: Start) -> None:
    listener = '{address = "ws://127.0.0.1:0/mqtt", proxy_protocol = true}'
    server = start_server(settings={"mqtt.listeners": f"[{listener}]"})
    with socket.create_connection(server.mqtt, TIMEOUT_S) as plain:
        plain.sendall(
            b"PROXY TCP4 203.0.113.9 10.0.0.1 51000 80\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        answer = b""
        while data := plain.recv(1 << 16):
            answer += data
    assert answer.startswith(b"HTTP/1.1 404 ")
    (line,) = (line for line in server.log_lines() if "WebSocket" in line)
    assert "peer=203.0.113.9:51000" in line
