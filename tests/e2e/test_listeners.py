"""Several listeners, each with a name and limits of its own; IPv6, files, proxies."""

from __future__ import annotations

import socket
import stat
import subprocess
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from tests.e2e.mqtt_programs import (
    Message,
    MosquittoPrograms,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.raw_mqtt import CONNACK, connect, raw_connection
from tests.e2e.server_process import address_of, run_isthmus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.server_process import ServerProcess


def listeners(*tables: str) -> dict[str, str]:
    """Return the settings of a server with these MQTT listeners."""
    return {"mqtt.listeners": f"[{', '.join(f'{{{table}}}' for table in tables)}]"}


def test_a_full_listener_leaves_the_others_open(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    server = start_server(
        settings=listeners(
            'address = "tcp://127.0.0.1:0", name = "narrow", connections_max = 1',
            'address = "tcp://127.0.0.1:0", name = "wide"',
        )
    )
    narrow, wide = map(address_of, server.mqtt_listeners)
    with paho_client(narrow) as first, paho_client(wide) as second:
        with raw_connection(narrow) as refused:
            refused.send(connect("refused"))
            assert refused.expect(CONNACK).body[1] == 0x89
            assert refused.receive() is None
        inbox = paho_subscribe(second, unique)
        paho_publish(first, [Message(unique, b"through another door")])
        assert [message.payload for message in inbox.wait(1)] == [b"through another door"]
    log = "\n".join(server.log_lines())
    assert "connection refused" in log and "listener=narrow" in log and "listener=wide" in log


def is_used(port: int) -> bool:
    """Whether somebody has this port by IPv4: whoever binds all addresses finds out."""
    with socket.socket(socket.AF_INET) as probe:
        try:
            probe.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return False
        return True


def test_ipv6_and_ipv4_have_the_same_port(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    any_address = {"mqtt.allow_anonymous": "true"}
    first = start_server(settings={**listeners('address = "tcp://[::]:0"'), **any_address})
    host, port = first.mqtt
    while is_used(port):  # by IPv4, and not by us
        first = start_server(settings={**listeners('address = "tcp://[::]:0"'), **any_address})
        host, port = first.mqtt
    assert host == "::"
    second = start_server(
        settings={**listeners(f'address = "tcp://0.0.0.0:{port}"'), **any_address}
    )
    for server, host in ((first, "::1"), (second, "127.0.0.1")):
        with paho_client((host, port)) as client:
            inbox = paho_subscribe(client, unique)
            paho_publish(client, [Message(unique, b"x")])
            assert len(inbox.wait(1)) == 1
        written = f"[{host}]" if ":" in host else host
        assert any(f"peer={written}:" in line for line in server.log_lines())


def test_a_socket_that_is_a_file(
    start_server: Callable[..., ServerProcess], tmp_path: Path, unique: str
) -> None:
    file = tmp_path / "mqtt.sock"
    server = start_server(
        settings=listeners(
            'address = "tcp://127.0.0.1:0"', f'address = "unix://{file}", mode = "0600"'
        )
    )
    assert server.mqtt_listeners[1] == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with paho_client((str(file), 1), transport="unix") as client:
        inbox = paho_subscribe(client, unique)
        if not MosquittoPrograms().missing():
            command = ["mosquitto_pub", "--unix", str(file), "-t", unique, "-m", "x", "-q", "1"]
            subprocess.run(command, check=True, timeout=TIMEOUT_S, capture_output=True)
        else:
            paho_publish(client, [Message(unique, b"x")])
        assert [message.payload for message in inbox.wait(1)] == [b"x"]
    server.kill()  # leaves the file behind, which the next start takes for what it is
    assert file.is_socket()
    server.start()
    with paho_client((str(file), 1), transport="unix"):
        pass
    assert server.terminate() == 0
    assert not file.exists()


def test_a_file_that_is_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "mqtt.sock"
    words = ["--set", f"mqtt.listeners=unix://{file}", "--set", "kafka.listeners="]
    words += ["--set", "http.listeners=", "--data", str(tmp_path / "data")]
    file.write_text("mine")
    ended = run_isthmus("serve", *words, directory=tmp_path)
    assert ended.returncode == 2 and f"cannot listen on unix://{file}" in ended.stderr
    assert file.read_text() == "mine"
    file.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(file))
        other.listen()
        ended = run_isthmus("serve", *words, directory=tmp_path)
        assert ended.returncode == 2 and "in use by another program" in ended.stderr
        assert file.is_socket()


def test_a_proxy_says_for_whom_it_connects(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    proxied = 'address = "tcp://127.0.0.1:0", proxy_protocol = true'
    doors = listeners(
        f'{proxied}, proxy_from = ["127.0.0.0/8"]', f'{proxied}, proxy_from = ["192.0.2.1"]'
    )
    server = start_server(settings={**doors, "log.repeats_s": "0"})
    line = b"PROXY TCP4 203.0.113.9 10.0.0.1 51000 1883\r\n"
    fields = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"
    fields += IPv6Address("2001:db8::9").packed + bytes(16) + b"\xc7\x38\0\0"
    for header, peer in ((line, "203.0.113.9:51000"), (fields, "[2001:db8::9]:51000")):
        for size in (1, len(header) + 5, 1000):
            with raw_connection(server.mqtt) as client:
                data = header + connect(f"{unique}-{size}")
                for start in range(0, len(data), size):
                    client.send(data[start : start + size])
                assert client.expect(CONNACK).body[1] == 0
        assert sum(f"peer={peer}" in line for line in server.log_lines()) >= 3
    for address, data in (
        (server.mqtt, connect(unique)),
        (server.mqtt, b"PROXY TCP4 x y 1 2\r\n" + connect(unique)),
        (address_of(server.mqtt_listeners[1]), line + connect(unique)),
    ):
        with raw_connection(address) as client:
            client.send(data)
            assert client.receive() is None
    log = "\n".join(server.log_lines())
    for reason in ("does not begin with", "not as it should be", "not one of the proxies"):
        assert reason in log
