"""`$delayed`: what is taken, when it comes, and what a crash at any moment leaves of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.broker.access import Access
from isthmus.broker.access_rules import parse_rule
from isthmus.broker.broker import BACKLOG_BYTES_MAX
from isthmus.broker.delayed import DELAYED_LOG_TOPIC, RETRY_MS, Cancelling, parse
from isthmus.broker.inspection import Inspection, Page
from isthmus.errors import NoSpace, TopicInvalid
from isthmus.mqtt.packets import PUBACK, PUBREC, PUBREL, Ack, Publish, Will
from isthmus.mqtt.properties import CONTENT_TYPE, MESSAGE_EXPIRY, USER_PROPERTY
from isthmus.storage.log import Records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isthmus.storage.memory import MemoryPartition


@pytest.fixture
def shore() -> Shore:
    return Shore()


def publish(client: Client, topic_name: str, qos: int = 1, **fields: object) -> int | None:
    """Publish and return the reason of PUBACK or PUBREC; None where there is no answer."""
    client.publish(topic_name, b"x", qos, packet_id=1 if qos else 0, **fields)
    (reason,) = [
        packet.reason for packet in client.packets() if packet.type in (PUBACK, PUBREC)
    ] or [None]
    return reason


def waiting(shore: Shore) -> int:
    """Return how many messages the log topic says are still to come."""
    newest = {record.key: record.value for record in shore.records(DELAYED_LOG_TOPIC)}
    return sum(value is not None for value in newest.values())


# --- the name ---------------------------------------------------------------------------------


def test_a_name_is_taken_apart() -> None:
    assert parse(b"$delayed/5/a/b") == (5, b"a/b")
    assert parse(b"$delayed/0/a") == (0, b"a")
    assert parse(b"$delayed/007//a") == (7, b"/a")


@pytest.mark.parametrize(
    "name",
    [
        "$delayed/5",
        "$delayed/5/",
        "$delayed//a",
        "$delayed/-1/a",
        "$delayed/1.5/a",
        "$delayed/x/a",
        "$delayed/٣/a",
        "$delayed/ 1/a",
        "$delayed/10000000000/a",
        "$delayed",
    ],
)
def test_a_name_that_says_no_moment_is_refused(name: str, shore: Shore) -> None:
    with pytest.raises(TopicInvalid):
        parse(name.encode())
    assert publish(shore.client(), name) == 0x90


@pytest.mark.parametrize("name", ["$delayed/5/$SYS/a", "$delayed/5/$delayed/5/a"])
def test_what_may_not_be_published_may_not_be_delayed(name: str, shore: Shore) -> None:
    assert publish(shore.client(), name) == 0x87
    assert publish(shore.client(version=4), name) == 0  # which has no word for it
    shore.runtime.advance(20_000)
    assert waiting(shore) == 0


def test_rights_are_those_of_the_name_that_it_gets() -> None:
    rules = [parse_rule("allow all publish a/#", "t"), parse_rule("deny all publish a/no", "t")]
    client = Shore(access=Access(rules, default=False)).client()
    assert publish(client, "$delayed/5/a/yes") == 0
    assert publish(client, "$delayed/5/a/no") == 0x87
    assert publish(client, "$delayed/5/b") == 0x87


# --- the moment -------------------------------------------------------------------------------


def test_it_comes_at_its_moment_and_not_before(shore: Shore) -> None:
    reader = shore.client("r")
    reader.subscribe("#", 2)
    reader.subscribe("$delayed/#", 2)
    reader.packets()
    assert publish(shore.client("p"), "$delayed/5/a", 2) == 0
    shore.runtime.advance(4_999)
    assert reader.messages() == []
    shore.runtime.advance(1)
    assert reader.messages() == [("a", b"x", 2)]
    assert waiting(shore) == len(shore.broker.delayed) == 0


def test_what_is_due_together_comes_in_its_order(shore: Shore) -> None:
    reader, publisher = shore.client("r"), shore.client("p")
    reader.subscribe("a/#", 0)
    reader.packets()
    for number in range(4):
        shore.runtime.advance(1)
        publisher.publish(f"$delayed/{2 - number % 2}/a/{number}", b"", 0)
    shore.runtime.advance(5_000)
    assert [name for name, *_ in reader.messages()] == ["a/1", "a/3", "a/0", "a/2"]


def test_a_will_can_be_delayed(shore: Shore) -> None:
    reader = shore.client("r")
    reader.subscribe("gone", 1)
    reader.packets()
    shore.client("p", will=Will(b"$delayed/3/gone", b"x", 1)).lose()
    shore.runtime.advance(2_999)
    assert reader.messages() == []
    shore.runtime.advance(1)
    assert reader.messages() == [("gone", b"x", 1)]


def test_all_that_a_message_has_is_kept(shore: Shore) -> None:
    reader = shore.client("r")
    reader.subscribe("a", 2 | 0x08)
    reader.packets()
    said = {CONTENT_TYPE: "text/plain", USER_PROPERTY: [("k", "1"), ("k", "2")]}
    publish(shore.client("p"), "$delayed/2/a", 2, retain=True, properties=dict(said))
    late = shore.client("late")
    late.subscribe("a")
    assert late.messages() == []  # it is not retained before it is published
    shore.runtime.advance(2_000)
    (message,) = [packet for packet in reader.packets() if isinstance(packet, Publish)]
    assert (message.qos, message.retain, message.properties) == (2, True, said)
    later = shore.client("later")
    later.subscribe("a")
    assert later.messages() == [("a", b"x", 1)]


def test_expiry_counts_from_the_publishers_packet(shore: Shore) -> None:
    reader, publisher = shore.client("r"), shore.client("p")
    reader.subscribe("#", 1)
    reader.packets()
    publish(publisher, "$delayed/10/a", properties={MESSAGE_EXPIRY: 60})
    publish(publisher, "$delayed/10/b", properties={MESSAGE_EXPIRY: 9})
    shore.runtime.advance(10_000)
    (message,) = [packet for packet in reader.packets() if isinstance(packet, Publish)]
    assert (message.topic, message.properties) == (b"a", {MESSAGE_EXPIRY: 50})
    assert waiting(shore) == 0


def test_an_empty_payload_is_a_message_too(shore: Shore) -> None:
    reader, publisher = shore.client("r"), shore.client("p")
    publish(publisher, "a", retain=True)
    publisher.publish("$delayed/1/a", b"", 1, packet_id=1, retain=True)
    shore = shore.crash()
    reader = shore.client("r")
    shore.runtime.advance(1_000)
    reader.subscribe("a")
    assert reader.messages() == []  # it has taken away what was retained


# --- limits -----------------------------------------------------------------------------------


def test_there_are_limits_on_number_and_time() -> None:
    shore = Shore(delayed_max=2, delayed_max_s=100)
    publisher = shore.client()
    assert publish(publisher, "$delayed/101/a") == 0x97
    assert publish(publisher, "$delayed/100/a") == 0
    assert publish(publisher, "$delayed/1/a") == 0
    assert publish(publisher, "$delayed/1/a") == 0x97
    lost = shore.broker.lost
    assert publish(publisher, "$delayed/1/a", 0) is None
    assert shore.broker.lost == lost + 1
    shore.runtime.advance(1_000)
    assert publish(publisher, "$delayed/1/a") == 0


# --- the disk ---------------------------------------------------------------------------------


@contextlib.contextmanager
def full(partitions: Sequence[MemoryPartition]) -> Iterator[None]:
    """Have a full disk below some partitions."""
    with pytest.MonkeyPatch.context() as patch:
        for partition in partitions:
            patch.setattr(
                partition, "append", lambda _, ticket, **__: ticket.failed(NoSpace("full"))
            )
        yield


def test_what_is_not_stored_is_not_acknowledged(shore: Shore) -> None:
    publisher = shore.client()
    with full([shore.broker.delayed.partition]):
        assert publish(publisher, "$delayed/1/a") == 0x97
        assert publish(publisher, "$delayed/1/a", 0) is None
        assert len(shore.broker.delayed) == 0
    assert publish(publisher, "$delayed/1/a") == 0
    assert len(shore.broker.delayed) == 1


def test_what_cannot_be_published_now_is_tried_again(shore: Shore) -> None:
    reader = shore.client("r")
    reader.subscribe("a", 1)
    reader.packets()
    publish(shore.client("p"), "$delayed/1/a")
    with full(shore.log.topics["mqtt"].partitions):
        shore.runtime.advance(1_000)
        assert reader.messages() == []
    shore.runtime.advance(RETRY_MS)
    assert reader.messages() == [("a", b"x", 1)]
    assert waiting(shore) == 0


def test_what_can_never_be_published_is_given_up(shore: Shore) -> None:
    publish(shore.client("p"), "$delayed/1/a")
    shore.log.configure("mqtt", {"max.message.bytes": "10"})
    shore.runtime.advance(1_000)
    assert waiting(shore) == len(shore.broker.delayed) == 0


def test_what_the_disk_cannot_read_now_is_read_later(
    shore: Shore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = shore.client("r")
    reader.subscribe("#", 1)
    reader.packets()
    for name in "ab":
        publish(shore.client("p"), f"$delayed/1/{name}")
    partition = shore.broker.delayed.partition
    read, answers = partition.read, [NoSpace("an error"), Records(is_loading=True)]

    def troubled(*arguments: int) -> Records:
        if not answers:
            return read(*arguments)
        answer = answers.pop(0)
        if isinstance(answer, NoSpace):
            raise answer
        return answer

    monkeypatch.setattr(partition, "read", troubled)
    shore.runtime.advance(1_000)
    assert [name for name, *_ in reader.messages()] == ["b"]
    shore.runtime.advance(RETRY_MS)
    assert [name for name, *_ in reader.messages()] == ["a"]


def test_publishers_go_before_what_is_due(shore: Shore) -> None:
    """Where the log has as much to do as it may, delayed messages wait."""
    reader = shore.client("r")
    reader.subscribe("a", 1)
    reader.packets()
    publish(shore.client("p"), "$delayed/1/a")
    shore.broker.count_backlog(BACKLOG_BYTES_MAX)
    shore.runtime.advance(1_000)
    assert reader.messages() == []
    shore.broker.count_backlog(-BACKLOG_BYTES_MAX)
    shore.runtime.settle()
    assert reader.messages() == [("a", b"x", 1)]


# --- crashes ----------------------------------------------------------------------------------


def test_it_survives_a_crash_and_comes_when_it_is_due(shore: Shore) -> None:
    publish(shore.client("p"), "$delayed/10/a")
    publish(shore.client("p"), "$delayed/3/b")
    shore.runtime.advance(4_000)  # b is published
    shore = shore.crash()
    reader = shore.client("r")
    reader.subscribe("#", 1)
    reader.packets()
    shore.runtime.advance(5_999)
    assert reader.messages() == []
    shore.runtime.advance(1)
    assert reader.messages() == [("a", b"x", 1)]
    assert waiting(shore) == 0


def test_what_fell_due_while_the_server_was_away_comes_after_the_start(shore: Shore) -> None:
    publisher = shore.client("p")
    publish(publisher, "$delayed/2/late")
    publish(publisher, "$delayed/1/early")
    reader = shore.client("r", expiry_s=1000)
    reader.subscribe("#", 1)
    shore.runtime.set_forward(60_000)
    shore = shore.crash()
    shore.runtime.advance(0)
    reader = Client(shore, "r", 5)
    reader.connect(clean_start=False, expiry_s=1000)
    came = [packet.topic for packet in reader.after_connack if isinstance(packet, Publish)]
    assert came == [b"early", b"late"]


@pytest.mark.parametrize("turns", range(3))
def test_a_crash_in_any_turn_loses_nothing(turns: int) -> None:
    """What was acknowledged comes at least once, what was not acknowledged at most once."""
    shore = Shore()
    reader = shore.client("r", expiry_s=1000)
    reader.subscribe("a", 1)
    publisher = shore.client("p")
    packet = Publish(b"$delayed/1/a", b"x", 1, packet_id=1)
    shore.clients.receive(publisher.entry, publisher, [packet])
    for _ in range(turns):
        shore.runtime.turn()
    acknowledged = any(packet.type == PUBACK for packet in publisher.packets())
    shore = shore.crash()
    reader = Client(shore, "r", 5)
    reader.connect(clean_start=False, expiry_s=1000)
    shore.runtime.advance(2_000)
    count = len([one for one in reader.after_connack if isinstance(one, Publish)])
    count += len(reader.messages())
    assert count == 1 or (count == 0 and not acknowledged)


@pytest.mark.parametrize("turns", range(5))
def test_a_crash_while_it_is_published_repeats_it_at_worst(turns: int) -> None:
    shore = Shore()
    publish(shore.client("p"), "$delayed/1/a")
    reader = shore.client("r", expiry_s=1000)
    reader.subscribe("a", 1)
    shore.runtime.after_timer = lambda: None  # the test turns
    shore.runtime.advance(1_000)
    for _ in range(turns):
        shore.runtime.turn()
    shore = shore.crash()
    shore.runtime.advance(1_000)
    reader = Client(shore, "r", 5)
    reader.connect(clean_start=False, expiry_s=1000)
    shore.runtime.advance(1_000)
    stored = [record.value for record in shore.records("mqtt")]
    assert 1 <= len(stored) <= 2
    assert waiting(shore) == 0


def test_the_publishers_qos_2_is_taken_once(shore: Shore) -> None:
    """A packet that comes again after a crash is the one that was taken before it."""
    publisher = shore.client("p", expiry_s=1000)
    packet = Publish(b"$delayed/5/a", b"x", 2, packet_id=7)
    publisher.send(packet)
    assert [one.type for one in publisher.packets()] == [PUBREC]
    shore = shore.crash()
    publisher = Client(shore, "p", 5)
    publisher.connect(clean_start=False, expiry_s=1000)
    publisher.send(Publish(b"$delayed/5/a", b"x", 2, dup=True, packet_id=7))
    publisher.send(Ack(PUBREL, 7))
    reader = shore.client("r")
    reader.subscribe("a", 2)
    reader.packets()
    shore.runtime.advance(60_000)
    assert reader.messages() == [("a", b"x", 2)]


# --- administrators ---------------------------------------------------------------------------


def listed(shore: Shore, after: int = 0, count_max: int = 10) -> Page:
    found: list[Page] = []
    inspection = Inspection(shore.broker, shore.clients)
    inspection.delayed(after, count_max, found.append)  # type: ignore[arg-type]
    shore.runtime.settle()
    return found[0]


def test_what_waits_is_listed_in_pages(shore: Shore) -> None:
    client = shore.client("c")
    for number in range(3):
        publish(client, f"$delayed/{10 - number}/a/{number}")
    first = listed(shore, count_max=2)
    assert [view.topic_name for view in first.items] == ["a/0", "a/1"]
    assert first.next is not None
    rest = listed(shore, int(first.next))
    (view,) = rest.items
    assert rest.next is None
    assert (view.payload_bytes, view.due_at_ms - view.delayed_at_ms) == (1, 8_000)


def test_what_is_cancelled_does_not_come_not_after_a_restart_either(shore: Shore) -> None:
    watcher = shore.client("w")
    watcher.subscribe("a")
    client = shore.client("c")
    for _ in range(2):
        publish(client, "$delayed/5/a")
    first, _ = listed(shore).items
    told: list[object] = []
    assert shore.broker.delayed.cancel(first.id, told.append)
    assert not shore.broker.delayed.cancel(first.id, told.append)
    assert told == []
    shore.runtime.settle()
    assert told == [None] and waiting(shore) == len(shore.broker.delayed) == 1
    again = shore.end()
    assert len(again.broker.delayed) == 1
    shore.runtime.advance(6_000)
    shore.runtime.settle()
    assert len(watcher.messages()) <= 1


@pytest.mark.parametrize("key", ["", "x", "1.1", "1", ".", "1.x", "²"])
def test_what_does_not_wait_is_not_cancelled(shore: Shore, key: str) -> None:
    publish(shore.client("c"), "$delayed/5/a")
    assert not shore.broker.delayed.cancel(key, lambda _: None)


def test_what_could_not_be_cancelled_comes(shore: Shore) -> None:
    watcher = shore.client("w")
    watcher.subscribe("a")
    publish(shore.client("c"), "$delayed/5/a")
    (view,) = listed(shore).items
    entry = next(shore.broker.delayed.after(0))
    told: list[object] = []
    cancelling = Cancelling(shore.broker.delayed, entry, told.append)
    shore.broker.delayed._forget(entry)
    error = NoSpace("full")
    cancelling.settle(error)
    assert told == [error] and view.id == entry.key.decode()
    shore.runtime.advance(5_000)
    shore.runtime.settle()
    assert len(watcher.messages()) == 1
    assert len(shore.broker.delayed) == 0 == shore.broker.delayed.size_bytes


def test_their_bytes_have_a_limit() -> None:
    shore = Shore(delayed_bytes_max=40)
    client = shore.client("c")
    assert publish(client, "$delayed/5/a") == 0
    size = shore.broker.delayed.size_bytes
    assert 0 < size < 40
    assert publish(client, "$delayed/5/" + "a" * 40) == 0x97
    assert shore.end().broker.delayed.size_bytes == size
    shore.runtime.advance(5_000)
    shore.runtime.settle()
    assert shore.broker.delayed.size_bytes == 0
