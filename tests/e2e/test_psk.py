"""MQTT over TLS with keys that both sides know, where Python can (3.13 and newer)."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.e2e.mqtt_programs import (
    Message,
    MosquittoPrograms,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import run_isthmus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paho.mqtt.client import Client
    from tests.e2e.server_process import Address, ServerProcess

KEYS = "# of the devices\npress-7:0a0B0c0d\nline:3:ffee\n"


def mosquitto_comes_in(server: Address, identity: str, key: str, topic_name: str) -> bool:
    command = ["mosquitto_pub", "-h", server[0], "-p", str(server[1]), "-t", topic_name]
    command += ["--psk-identity", identity, "--psk", key, "-m", identity, "-q", "1"]
    ended = subprocess.run(command, timeout=TIMEOUT_S, capture_output=True, check=False)
    return ended.returncode == 0


def with_key(client: Client, identity: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("PSK")
    context.set_psk_client_callback(lambda _: (identity, bytes.fromhex(key)))
    client.tls_set_context(context)


def test_a_key_is_a_user(
    start_server: Callable[..., ServerProcess], tmp_path: Path, unique: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(KEYS)
    settings = {"mqtt.listeners": "tls://127.0.0.1:0", "tls.psk_file": str(file)}
    if sys.version_info < (3, 13):
        words = [word for each in settings.items() for word in ("--set", "=".join(each))]
        ended = run_isthmus("serve", "--data", str(tmp_path / "data"), *words)
        assert ended.returncode == 2
        assert f"psk_file = '{file}' needs Python 3.13 or newer" in ended.stderr
        return
    if missing := MosquittoPrograms().missing():
        pytest.skip(missing)
    server = start_server(settings=settings)
    with paho_client(
        server.mqtt, prepare=lambda client: with_key(client, "line:3", "ffee")
    ) as client:
        inbox = paho_subscribe(client, unique)
        paho_publish(client, [Message(unique, b"paho")])
        assert mosquitto_comes_in(server.mqtt, "press-7", "0a0b0c0d", unique)
        assert [message.payload for message in inbox.wait(2)] == [b"paho", b"press-7"]
        assert not mosquitto_comes_in(server.mqtt, "press-7", "0a0b0c0e", unique)
        assert not mosquitto_comes_in(server.mqtt, "press-8", "0a0b0c0d", unique)
        file.write_text("press-8:0a0b0c0d\n")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(
            lambda: mosquitto_comes_in(server.mqtt, "press-8", "0a0b0c0d", unique),
            "the new key",
        )
        assert not mosquitto_comes_in(server.mqtt, "press-7", "0a0b0c0d", unique)
        inbox.wait(3)
    users = "\n".join(server.log_lines())
    assert "user=line:3 " in users and "user=press-7 " in users


@pytest.mark.parametrize("line", ["press-7", "press-7:xyz", ":0a", "press-7:"])
def test_a_line_that_is_no_key_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEYS}{line}\n")
    words = ["--set", "mqtt.listeners=tls://127.0.0.1:0", "--set", f"tls.psk_file={file}"]
    ended = run_isthmus("serve", "--data", str(tmp_path / "data"), *words)
    assert ended.returncode == 2
    assert f"psk_file = '{file}' has no IDENTITY:HEXADECIMAL in line 4" in ended.stderr
