"""What is answered about records: written, read, looked up by time, deleted, told epochs of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.kafka.api import ApiKey
from isthmus.record.batch import BatchBuilder
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from tests.e2e.answers.conversation import Conversation

LONG_AGO_MS: Final = 1_700_000_000_000
ALL: Final = -1
NO_WAIT: Final = {"max_wait_ms": 0, "min_bytes": 0, "max_bytes": 1 << 20}
BY_ID: Final = 13  # Produce and Fetch
ZSTD: Final = 4


def batch(
    *values: bytes | None, key: bytes | None = b"k", at_ms: int = LONG_AGO_MS, **how: Any
) -> bytearray:
    """Return a batch of these values, one millisecond after the other."""
    builder = BatchBuilder()
    for number, value in enumerate(values or (b"one", b"two", b"three")):
        builder.append(at_ms + number, key, value)
    return bytearray(builder.seal(**how).data)


def with_bytes(
    data: bytearray, position: int, new: bytes, *, checked: bool = True
) -> bytearray:
    """Return a batch of which some bytes are others, its checksum right or left as it was."""
    data = bytearray(data)
    data[position : position + len(new)] = new
    if checked:
        data[17:21] = crc32c(data, 0, 21).to_bytes(4, "big")
    return data


class Records:
    """The log topics that are asked about, and the ways to ask."""

    def __init__(self, conversation: Conversation) -> None:
        self.c = conversation
        kept = {"retention_ms": "-1"}
        self.names = {
            "plain": conversation.create("plain", 2, **kept),
            "compacted": conversation.create("compacted", **kept, cleanup_policy="compact"),
            "stamped": conversation.create("stamped", message_timestamp_type="LogAppendTime"),
            "small": conversation.create("small", **kept, max_message_bytes="200"),
            "late": conversation.create("late", **kept),
            "timed": conversation.create(
                "timed", **kept, message_timestamp_before_max_ms="3600000"
            ),
        }

        conversation.wait_for_group(conversation.name("g"))  # they are kept in a log topic

    def topic(self, short: str, version: int, by_id: int) -> dict[str, Any]:
        """Return how a log topic is named in a request."""
        if version >= by_id:
            return {"topic_id": self.c.ids.get(short, b"?" * 16)}
        return {"name": self.names.get(short, short)}

    def produce(
        self, what: str, data: Any, short: str = "plain", version: int = 9, **of: Any
    ) -> None:
        row = {"index": of.pop("index", 0), "records": data}
        topic = {**self.topic(short, version, BY_ID), "partition_data": [row]}
        body = {"acks": ALL, "timeout_ms": 30_000, "topic_data": [topic], **of}
        self.c.ask(f"produce v{version}: {what}", ApiKey.PRODUCE, version, body)

    def fetch(
        self,
        what: str,
        offset: int = 0,
        short: str = "plain",
        version: int = 12,
        row: dict[str, Any] | None = None,
        **of: Any,
    ) -> dict[str, Any]:
        wanted = {"partition": 0, "fetch_offset": offset, "partition_max_bytes": 1 << 20}
        named = self.topic(short, version, BY_ID)
        if "name" in named:
            named = {"topic": named["name"]}
        topic = {**named, "partitions": [{**wanted, **(row or {})}]}
        body = {**NO_WAIT, "topics": [topic], **of}
        return self.c.ask(f"fetch v{version}: {what}", ApiKey.FETCH, version, body)

    def offsets(
        self, what: str, timestamp: int, version: int = 9, short: str = "plain", **row: Any
    ) -> None:
        isolation = row.pop("isolation_level", 0)
        wanted = {"partition_index": 0, "timestamp": timestamp, **row}
        topics = [{"name": self.names.get(short, short), "partitions": [wanted]}]
        body = {"replica_id": -1, "isolation_level": isolation, "topics": topics}
        self.c.ask(f"offsets v{version}: {what}", ApiKey.LIST_OFFSETS, version, body)

    def delete(self, what: str, offset: int, short: str = "plain", index: int = 0) -> None:
        row = {"partition_index": index, "offset": offset}
        topics = [{"name": self.names.get(short, short), "partitions": [row]}]
        body = {"topics": topics, "timeout_ms": 30_000}
        self.c.ask(f"delete records: {what}", ApiKey.DELETE_RECORDS, 2, body)

    def epoch_end(self, what: str, epoch: int, version: int = 4, **of: Any) -> None:
        row = {"partition": of.pop("partition", 0), "leader_epoch": epoch, **of}
        topics = [{"topic": self.names["plain"], "partitions": [row]}]
        body = {"replica_id": -1, "topics": topics}
        self.c.ask(
            f"epoch end v{version}: {what}", ApiKey.OFFSET_FOR_LEADER_EPOCH, version, body
        )


def play(c: Conversation) -> None:
    """Have the conversation."""
    records = Records(c)
    write(records)
    write_what_may_not_be(records)
    write_in_sequence(records)
    read(records)
    read_in_a_session(records)
    look_up(records)
    delete(records)


def write(r: Records) -> None:
    for version in range(3, 14):
        r.produce("three records", batch(), version=version)
    r.produce("acks 1", batch(), acks=1)  # durable, and so decided, with what comes next
    for codec in range(5):
        r.produce(f"codec {codec}", batch(compression=codec))
    r.produce("a time of arrival", batch(), "stamped")
    r.produce("a tombstone", batch(None), "compacted")
    r.produce("an empty value", batch(b""), "plain", index=1)


def write_what_may_not_be(r: Records) -> None:
    good = batch()
    r.produce("no such log topic", good, "absent")
    r.produce("no such id", good, "absent", version=13)
    r.produce("a name that none can have", good, "a b")
    r.produce("no such partition", good, index=7)
    r.produce("a partition below zero", good, index=-1)
    r.produce("acks 2", good, acks=2)
    r.produce("of the server's own", good, "__consumer_offsets")
    for version in (3, 9):
        r.produce("no batch", b"", version=version)
        r.produce("half a batch", good[:40], version=version)
        r.produce("two batches", good + good, version=version)
        r.produce(
            "a wrong checksum", with_bytes(good, 63, b"?", checked=False), version=version
        )
    r.produce("zstd, too early", batch(compression=ZSTD), version=6)
    r.produce("magic 1", with_bytes(good, 16, b"\1"))
    r.produce("magic 3", with_bytes(good, 16, b"\3"))
    r.produce("a codec that is none", with_bytes(good, 22, b"\5"))
    r.produce("a codec, and no such data", with_bytes(good, 22, b"\1"))
    r.produce("a time of arrival that the client sets", with_bytes(good, 22, b"\x08"), "late")
    r.produce("a control batch", batch(control=True))
    r.produce("a transaction without producer", batch(transactional=True))
    r.produce("fewer records than offsets", with_bytes(good, 23, b"\0\0\0\5"))
    r.produce("more records than offsets", with_bytes(good, 57, b"\0\0\0\5"))
    r.produce("no records", with_bytes(good[:61], 57, b"\0\0\0\0"))
    r.produce("a record cut short", with_bytes(good, 61, b"\x7e"))
    r.produce("too large", batch(bytes(300)), "small")
    r.produce("no key", batch(key=None), "compacted")
    r.produce("no key in one of them", batch(b"x", key=None), "compacted", version=7)
    r.produce("too old", batch(), "timed")
    r.produce("too new", batch(at_ms=LONG_AGO_MS * 10), "plain")
    r.produce("no time", batch(at_ms=-1), "plain", index=1)


def write_in_sequence(r: Records) -> None:
    c = r.c
    anybody = {"transactional_id": None, "transaction_timeout_ms": 1000}
    mine = c.ask_aside(ApiKey.INIT_PRODUCER_ID, 4, anybody)["producer_id"]
    if not mine:  # which looks like nothing
        mine = c.ask_aside(ApiKey.INIT_PRODUCER_ID, 4, anybody)["producer_id"]

    def produce(what: str, sequence: int, epoch: int = 0, **more: Any) -> None:
        how = {"producer_id": mine, "producer_epoch": epoch, "base_sequence": sequence}
        r.produce(f"sequence, {what}", batch(**how), index=1, **more)

    produce("first", 0)
    produce("first again", 0)
    produce("a gap", 9)
    produce("second", 3)
    produce("first once more", 0)
    produce("half of it before", 2)
    produce("below zero", -1)
    produce("next epoch", 0, epoch=1)
    produce("epoch before", 6)
    produce("next epoch, not from zero", 5, epoch=2)
    produce("no epoch", 0, epoch=-1)
    body = {"topics": [{"name": r.names["plain"], "partition_indexes": [0, 1, 7]}]}
    body["topics"].append({"name": "absent", "partition_indexes": [0]})
    c.ask("producers", ApiKey.DESCRIBE_PRODUCERS, 0, body)
    how = {"producer_id": mine + 500_000, "producer_epoch": 0, "base_sequence": 7}
    r.produce("sequence, of somebody unknown", batch(**how), "small")


def read(r: Records) -> None:
    for version in range(4, 19):
        r.fetch("from the start", version=version, max_bytes=1)
        r.fetch("within a batch", 4, version=version, max_bytes=1)
        r.fetch("no such log topic", short="absent", version=version)
    r.fetch("no such partition", row={"partition": 7})
    r.fetch("at the end", 51)
    r.fetch("behind the end", 1_000)
    r.fetch("below zero", -1)
    r.fetch("no room at all", row={"partition_max_bytes": 0}, max_bytes=0)
    r.fetch("two batches", row={"partition_max_bytes": 180})
    r.fetch("what is decided", isolation_level=1, row={"partition_max_bytes": 1})
    r.fetch("old epoch", row={"current_leader_epoch": -2, "partition_max_bytes": 1})
    r.fetch("this epoch", row={"current_leader_epoch": 0, "partition_max_bytes": 1})
    r.fetch("new epoch", row={"current_leader_epoch": 9})
    r.fetch("last epoch", row={"last_fetched_epoch": 0, "partition_max_bytes": 1})
    r.fetch("diverging", 9, row={"last_fetched_epoch": 9})
    r.fetch("nothing", topics=[])


def read_in_a_session(r: Records) -> None:
    first = {"session_id": 0, "session_epoch": 0}
    last = r.fetch("session, begun", 48, **first)
    session = {"session_id": last["session_id"]}
    r.fetch("session, gone on", 48, **session, session_epoch=1, topics=[])
    r.fetch("session, moved", 51, **session, session_epoch=2)
    r.fetch("session, nothing new", **session, session_epoch=3, topics=[])
    r.fetch("session, an epoch left out", **session, session_epoch=9, topics=[])
    r.fetch("session, by id", **session, session_epoch=4, version=13)
    forgotten = [{"topic": r.names["plain"], "partitions": [0]}]
    wanted = {"topics": [], "forgotten_topics_data": forgotten}
    r.fetch("session, forgotten", **session, session_epoch=4, **wanted)
    r.fetch("session, over", **session, session_epoch=-1, topics=[])
    r.fetch("session, after it", **session, session_epoch=5, topics=[])
    r.fetch("session, of nobody", session_id=77, session_epoch=1, topics=[])


def look_up(r: Records) -> None:
    times = {"latest": -1, "earliest": -2}
    for version in range(1, 12):
        for what, timestamp in times.items():
            r.offsets(what, timestamp, version)
        r.offsets("by time", LONG_AGO_MS + 1, version)
    for version in (6, 7, 8, 9, 10, 11):
        for timestamp in (-3, -4, -5, -6, -7):
            r.offsets(f"time {timestamp}", timestamp, version)
    r.offsets("later than all", LONG_AGO_MS * 2)
    r.offsets("time 0", 0)
    r.offsets("what is decided", -1, isolation_level=1)
    r.offsets("no such log topic", -1, short="absent")
    r.offsets("no such partition", -1, partition_index=7)
    r.offsets("this epoch", -1, current_leader_epoch=0)
    r.offsets("new epoch", -1, current_leader_epoch=9)
    for version in (2, 3, 4):
        for what, epoch in {"this": 0, "before all": -1, "later": 9}.items():
            r.epoch_end(what, epoch, version)
    r.epoch_end("as the leader of now", 0, current_leader_epoch=0)
    r.epoch_end("as a leader to come", 0, current_leader_epoch=9)
    r.epoch_end("no such partition", 0, partition=7)


def delete(r: Records) -> None:
    r.delete("some", 4)
    r.delete("fewer", 2)
    r.delete("behind the end", 1_000)
    r.delete("below -1", -2)
    r.delete("of a compacted one", 1, "compacted")
    r.delete("no such log topic", 1, "absent")
    r.delete("no such partition", 1, index=7)
    r.fetch("deleted", 0)
    r.fetch("where it starts now", 4, row={"partition_max_bytes": 1})
    r.offsets("earliest, then", -2)
    r.delete("all", -1)
    r.offsets("earliest, in the end", -2)
