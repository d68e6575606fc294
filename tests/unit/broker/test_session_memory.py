"""What a session at rest costs, far above what it does, so that nobody doubles it unseen."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.mqtt import session
from isthmus.mqtt.packets import PUBACK, Ack, Connect, Publish, Subscribe
from isthmus.mqtt.properties import SESSION_EXPIRY

SESSIONS = 100
BYTES_MAX = 2_500  # with three subscriptions, and all that finds it again
OUR_FILES = ("*/isthmus/mqtt/*", "*/isthmus/broker/*", "*/isthmus/topics/*")

compiled = pytest.mark.skipif(
    not session.__file__.endswith(".so"), reason="the compiled objects are measured"
)


def leave(shore: Shore, number: int, messages: int) -> None:
    """Have a client come, subscribe, get some messages at QoS 1, acknowledge them and go."""
    client = Client(shore, f"device-{number:05d}", 5)
    properties = {SESSION_EXPIRY: 1000}
    connect = Connect(5, client.client_id, False, 60, None, None, None, properties)
    shore.clients.open(connect, client)
    filters = [f"device/{number:05d}/set/#", f"device/{number:05d}/get", "all"]
    client.send(Subscribe(9, [(topic_filter, 1) for topic_filter in filters], None))
    for packet_id in range(1, 1 + messages):
        client.publish(f"device/{number:05d}/get", bytes(1000), 1, packet_id=packet_id)
    client.send(*[Ack(PUBACK, packet_id) for packet_id in range(1, 1 + messages)])
    assert len([one for one in client.packets() if isinstance(one, Publish)]) == messages
    client.lose()


def memory_of(shore: Shore) -> int:
    """Return the bytes that sessions and subscriptions hold; not those of the log in memory."""
    gc.collect()
    filters = [tracemalloc.Filter(inclusive=True, filename_pattern=one) for one in OUR_FILES]
    not_the_log = [
        tracemalloc.Filter(inclusive=False, filename_pattern=one)
        for one in ("*/session_log.py", "*/events.py", "*/volatile.py", "*/publishing.py")
    ]
    snapshot = tracemalloc.take_snapshot().filter_traces([*filters, *not_the_log])
    assert len(shore.clients.sessions.entries) >= SESSIONS
    return sum(one.size for one in snapshot.statistics("filename"))


@compiled
@pytest.mark.parametrize("messages", [0, 20])
def test_an_offline_session_is_small_whatever_it_has_been_through(messages: int) -> None:
    shore = Shore(sessions_max=10_000)
    for number in range(SESSIONS):
        leave(shore, number, messages)
    tracemalloc.start()
    try:
        before = memory_of(shore)
        for number in range(SESSIONS, 2 * SESSIONS):
            leave(shore, number, messages)
        each = (memory_of(shore) - before) / SESSIONS
    finally:
        tracemalloc.stop()
    assert 0 < each < BYTES_MAX
