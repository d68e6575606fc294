"""HTTP over TLS: health, metrics and commands, certificates that change, and of clients."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import urllib.request
from http.client import HTTPSConnection
from typing import TYPE_CHECKING

import pytest
from tests.certificates import Authority
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.raw_kafka import connect
from tests.e2e.server_process import run_isthmus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.server_process import Address, ServerProcess

    Start = Callable[..., ServerProcess]


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def started(start_server: Start, ca: Authority, **tls: str) -> ServerProcess:
    """Start a server with one listener of HTTP, with TLS, for three connections."""
    own = {"certificate": str(ca.issue("server", "localhost", "127.0.0.1")), **tls}
    listener = {"address": "tls://127.0.0.1:0", "connections_max": 3, "tls": own}
    return start_server(settings={"http.listeners": json.dumps([listener])})


def opened(server: ServerProcess, ca: Authority) -> HTTPSConnection:
    context = ssl.create_default_context(cafile=ca.certificate)
    _, port = server.http
    return HTTPSConnection("localhost", port, timeout=TIMEOUT_S, context=context)


def get(connection: HTTPSConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def shown(connection: HTTPSConnection) -> object:
    """Return what tells the server's certificate from others."""
    connection.connect()
    assert isinstance(connection.sock, ssl.SSLSocket)
    certificate = connection.sock.getpeercert()
    assert certificate is not None
    connection.close()
    return certificate["serialNumber"]


def test_a_connection_outlives_the_certificate_that_it_began_with(
    start_server: Start, ca: Authority
) -> None:
    server = started(start_server, ca)
    lasting = opened(server, ca)
    assert get(lasting, "/healthz") == (200, b'{"status":"alive"}')
    before = shown(opened(server, ca))
    fresh = ca.issue("fresh", "localhost", "127.0.0.1")
    shutil.move(fresh, ca.directory / "server.pem")
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: shown(opened(server, ca)) != before, "that the new one is shown")
    status, metrics = get(lasting, "/metrics")
    assert status == 200 and b"isthmus_mqtt_sessions" in metrics
    lasting.close()
    assert server.terminate() == 0


def test_commands_and_prometheus_ask_over_tls(start_server: Start, ca: Authority) -> None:
    device = ca.issue("admin", "admin@plant.example", common_name="admin")
    asks = {"client_certificates": "required", "client_ca": str(ca.certificate)}
    server = started(start_server, ca, **asks)
    url = f"https://localhost:{server.http[1]}"
    known = {"ISTHMUS_CA": str(ca.certificate)}
    refused = run_isthmus("clients", "list", "--http", url, variables=known)
    assert refused.returncode != 0
    known["ISTHMUS_CERTIFICATE"] = str(device)
    done = run_isthmus("clients", "list", "--http", url, variables=known)
    assert done.returncode == 0, done.stderr
    context = ssl.create_default_context(cafile=ca.certificate)
    context.load_cert_chain(device)
    with urllib.request.urlopen(f"{url}/metrics", timeout=TIMEOUT_S, context=context) as page:
        assert b"isthmus_build_info" in page.read()


def test_an_administrator_logs_in_by_certificate_and_a_proxy_says_from_where(
    start_server: Start, ca: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "users"
    arguments = ("users", "add", "press-7", "--group", "administrators", "--file", str(file))
    assert run_isthmus(*arguments, stdin=b"pw\n").returncode == 0
    tls = {
        "certificate": str(ca.issue("server", "localhost", "127.0.0.1")),
        "client_certificates": "optional",
        "client_ca": str(ca.certificate),
        "user_from": "cn",
    }
    listener = {"address": "tls://127.0.0.1:0", "proxy_protocol": True, "tls": tls}
    server = start_server(
        settings={
            "http.listeners": json.dumps([listener]),
            "http.authentication": '["certificate"]',
            "authentication.users_file": str(file),
        }
    )

    def status(certificate: Path | None) -> int:
        context = ssl.create_default_context(cafile=ca.certificate)
        if certificate is not None:
            context.load_cert_chain(certificate)
        with socket.create_connection(server.http, TIMEOUT_S) as plain:
            plain.sendall(b"PROXY TCP4 10.1.2.3 10.0.0.1 4711 443\r\n")
            with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
                rule = "allow%20all%20publish%20x"
                head = f"PUT /api/v1/access/rules/{rule} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                encrypted.sendall(head.encode())
                return int(encrypted.recv(1 << 16).split()[1])

    assert status(None) == 401
    assert status(ca.issue("stranger", common_name="press-8")) == 403
    assert status(ca.issue("device", common_name="press-7")) in (200, 201, 204)
    assert any("by=press-7@10.1.2.3" in line for line in server.log_lines())


def is_open(server: Address) -> bool:
    """Whether a connection is not closed before anything was said."""
    with connect(server) as plain:
        plain.settimeout(0.2)
        try:
            return plain.recv(1) != b""
        except TimeoutError:
            return True
        except ConnectionResetError:
            return False


def test_one_connection_too_many_is_closed(start_server: Start, ca: Authority) -> None:
    server = started(start_server, ca)
    held = [opened(server, ca) for _ in range(3)]
    for each in held:
        assert get(each, "/healthz")[0] == 200
    assert not is_open(server.http)
    held[0].close()
    wait_until(lambda: is_open(server.http), "that there is room again")
    for each in held:
        each.close()
