"""Shared subscriptions with clients that know nothing of each other, and what ends them."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.e2e.kafka_libraries import ConfluentKafka
from tests.e2e.kafka_record import Record
from tests.e2e.mqtt_programs import (
    Inbox,
    Message,
    line_process,
    lines_to,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.mqtt_scripted import MQTT_PROGRAMS
from tests.e2e.patience import wait_until
from tests.e2e.test_restart import END, restart
from tests.e2e.test_restart_sessions import lasting_client

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores
    from tests.e2e.server_process import ServerProcess


def payloads(*inboxes: Inbox) -> Counter[bytes]:
    """Return how often each message has come so far."""
    return Counter(one.payload for inbox in inboxes for one in inbox.wait(0))


def all_come(inboxes: list[Inbox], expected: set[bytes]) -> None:
    wait_until(
        lambda: expected <= payloads(*inboxes).keys(),
        lambda: f"{sorted(expected - payloads(*inboxes).keys())}",
    )


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_programs_share_what_comes(qos: int, shores: Shores, unique: str) -> None:
    """Each message reaches one of them, and none of them gets nothing."""
    missing = [program.missing() for program in MQTT_PROGRAMS if program.missing()]
    if missing:
        pytest.skip("; ".join(missing))
    with contextlib.ExitStack() as stack:
        inboxes = [
            stack.enter_context(
                program.subscribe(shores.mqtt, f"$share/{unique}/{unique}/#", qos)
            )
            for program in MQTT_PROGRAMS
        ]
        sent = [Message(f"{unique}/t", b"%03d" % number, qos) for number in range(100)]
        with paho_client(shores.mqtt) as publisher:
            paho_publish(publisher, sent)
        all_come(inboxes, {one.payload for one in sent})
        assert payloads(*inboxes).total() == len(sent)
        assert all(payloads(inbox) for inbox in inboxes)


@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="mosquitto_sub not installed")
def test_what_a_killed_program_had_goes_to_the_others(shores: Shores, unique: str) -> None:
    """It is stopped, so that it acknowledges nothing, and then killed."""
    name = f"$share/g/{unique}/#"
    host, port = shores.mqtt
    command = ["mosquitto_sub", "-h", host, "-p", str(port), "-d", "-q", "1", "-t", name]
    inbox = Inbox()
    with (
        paho_client(shores.mqtt) as member,
        paho_client(shores.mqtt) as publisher,
        line_process(["stdbuf", "-oL", *command]) as program,
    ):
        subscribed: list[str] = []
        with lines_to(program, subscribed.append):
            wait_until(
                lambda: any(line.startswith("Subscribed") for line in subscribed),
                lambda: f"a subscription: {subscribed}",
            )
            inbox = paho_subscribe(member, name)
            program.send_signal(signal.SIGSTOP)
            sent = [Message(f"{unique}/t", b"%03d" % number) for number in range(40)]
            paho_publish(publisher, sent)
            inbox.stays_at(20)
            program.kill()
            all_come([inbox], {one.payload for one in sent})
            assert payloads(inbox).total() == len(sent)


@END
def test_a_group_outlives_the_server(end: str, fresh_server: ServerProcess) -> None:
    """What came while its members were away, from both shores, comes to one of them, once."""
    name = "$share/g/plant/#"
    inboxes = {member: Inbox() for member in ("one", "two")}
    for member, inbox in inboxes.items():
        with lasting_client(fresh_server.mqtt, 5, inbox, member) as (client, _):
            paho_subscribe(client, name, 2)
    sent = [Message("plant/a", b"%d" % number, number % 2 + 1) for number in range(200)]
    with paho_client(fresh_server.mqtt) as publisher:
        paho_publish(publisher, sent)
    ConfluentKafka().produce(fresh_server.kafka, "mqtt", [Record(b"plant/a", b"record")])
    restart(fresh_server, end)
    expected = {one.payload for one in sent} | {b"record"}
    with contextlib.ExitStack() as stack:
        for member, inbox in inboxes.items():
            _, present = stack.enter_context(
                lasting_client(fresh_server.mqtt, 5, inbox, member)
            )
            assert present
        all_come(list(inboxes.values()), expected)
        assert payloads(*inboxes.values()).total() == len(expected)
        with paho_client(fresh_server.mqtt) as publisher:
            paho_publish(publisher, [Message("plant/b", b"after", 2)])
        all_come(list(inboxes.values()), {b"after"})
