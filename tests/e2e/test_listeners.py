"""Several listeners of one server: each with a name and limits of its own, and IPv6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.raw_mqtt import raw_connection
from tests.e2e.server_process import address_of

if TYPE_CHECKING:
    from collections.abc import Callable

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
            assert refused.receive() is None
        inbox = paho_subscribe(second, unique)
        paho_publish(first, [Message(unique, b"through another door")])
        assert [message.payload for message in inbox.wait(1)] == [b"through another door"]
    log = "\n".join(server.log_lines())
    assert "connection refused" in log and "listener=narrow" in log and "listener=wide" in log


def test_ipv6_and_ipv4_have_the_same_port(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    any_address = {"mqtt.allow_anonymous": "true"}
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
