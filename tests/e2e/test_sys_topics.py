"""`$SYS/#` beside that of a Mosquitto which was used in the same way: names, forms, values."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest
from tests.e2e.mqtt_programs import (
    Message,
    MosquittoPrograms,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.patience import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.server_process import Address, ServerProcess

pytestmark = pytest.mark.usefixtures("own_process")

PREFIX: Final = "$SYS/broker/"
ONLY_THERE: Final[frozenset[str]] = frozenset()
"""What Mosquitto says and this server does not: nothing."""
SAID_LATER_THERE: Final = re.compile("load/.*")
"""Means that Mosquitto says only once they are not 0; this server says them from the start."""


@contextmanager
def mosquitto(directory: Path) -> Iterator[Address]:
    """Run a Mosquitto that looks at its counters each second."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = directory / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 1\n")
    process = subprocess.Popen(["mosquitto", "-c", str(file)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), "a listening Mosquitto")
        yield ("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S).close()
    except ConnectionRefusedError:
        return False
    return True


def used(server: Address) -> dict[str, str]:
    """Use a server a little; return what it says then, by what follows `$SYS/broker/`."""
    with paho_client(server, "s") as subscriber, paho_client(server, "p") as publisher:
        inbox = paho_subscribe(subscriber, "t/#", 2)
        messages = [Message(f"t/{qos}", b"12345", qos, retain=qos == 1) for qos in range(3)]
        paho_publish(publisher, messages)
        inbox.wait(3)
        with paho_client(server) as observer:
            said = paho_subscribe(observer, "$SYS/#", 1)
            values: dict[str, str] = {}

            def is_settled() -> bool:
                for message in said.wait(0):
                    name = message.topic_name.removeprefix(PREFIX)
                    values[name] = message.payload.decode()
                return (
                    values.get("publish/bytes/received") == "15"
                    and values.get("clients/connected") == "3"
                    and float(values.get("load/publish/sent/15min", 0)) > 0
                )

            wait_until(is_settled, lambda: f"the counters of what was done, not {values},")
    return values


def form(text: str) -> str:
    """Return what a value looks like: 9 for a number, a nine for each digit of a fraction."""
    whole, point, fraction = text.partition(".")
    return re.sub("[0-9]+", "9", whole) + point + "9" * len(fraction)


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto not installed")
def test_names_and_forms_are_those_of_mosquitto(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    ours = used(start_server(settings={"mqtt.sys_interval_s": "1"}).mqtt)
    with mosquitto(tmp_path) as address:
        theirs = used(address)
    assert theirs.keys() - ours.keys() == ONLY_THERE
    assert [
        name for name in ours.keys() - theirs.keys() if not SAID_LATER_THERE.fullmatch(name)
    ] == []
    assert theirs.pop("version").startswith("mosquitto version ")
    assert re.fullmatch(r"isthmus version [0-9.]+", ours.pop("version"))
    forms = {name: form(text) for name, text in theirs.items()}
    assert {name: form(ours[name]) for name in theirs} == forms
    same = ("clients/total", "clients/connected", "clients/active", "clients/inactive")
    same += ("clients/maximum", "publish/bytes/received", "publish/messages/dropped")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


def test_all_of_it_is_there_for_who_comes_later_and_then_what_changes(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    server = start_server(settings={"mqtt.sys_interval_s": "1"})
    programs = MosquittoPrograms()
    with paho_client(server.mqtt) as client:
        inbox = paho_subscribe(client, "$SYS/broker/+")
        at_once = {message.topic_name: message for message in inbox.wait(2)}
        assert at_once[f"{PREFIX}version"].retain and at_once[f"{PREFIX}uptime"].retain
        wait_until(
            lambda: sum(one.topic_name == f"{PREFIX}uptime" for one in inbox.wait(0)) >= 3,
            "three looks",
        )
        names = [message.topic_name for message in inbox.wait(0)]
        assert names.count(f"{PREFIX}version") == 1
    if not programs.missing():
        with programs.subscribe(server.mqtt, "$SYS/broker/clients/+") as seen:
            names = [message.topic_name for message in seen.wait(7)]
        assert f"{PREFIX}clients/disconnected" in names


def test_sys_is_silent_where_it_is_switched_off(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(settings={"mqtt.sys_interval_s": "0"})
    with paho_client(server.mqtt) as client:
        paho_subscribe(client, "$SYS/#").stays_at(0)


def test_clients_may_not_say_what_is_the_servers(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server()
    with paho_client(server.mqtt) as client:
        inbox = paho_subscribe(client, "$SYS/broker/version")
        (said,) = inbox.wait(1)
        paho_publish(client, [Message(f"{PREFIX}version", b"mine", 0, retain=True)])
        paho_publish(client, [Message("else", b"")])
        assert inbox.wait(1) == [said]
