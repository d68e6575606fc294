"""A Kafka shore that strangers talk to, and what has to hold of it whatever they said.

Somebody else was there before them and is still served. What is in the log can be read by
whoever comes: each batch says the truth of itself, each of its records can be decoded, a
control batch is a marker, and a server that starts over this log finds its groups and
transactions in it. That nothing raised is for the caller to see (`targets.NoBugs`).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from tests.property.test_kafka_codec import random_body
from tests.sim import SimRuntime
from tests.unit.broker.kafka_room import batch_of
from tests.unit.server.kafka_peer import Peer, ShoreRoom, versions
from tests.unit.server.test_kafka_sasl import Room

from isthmus.errors import Malformed
from isthmus.kafka import schema
from isthmus.kafka.api import ApiKey, request_name
from isthmus.kafka.errors import ErrorCode, RequestUnsupported
from isthmus.kafka.frames import parse_request_header
from isthmus.kafka.produce import IDS_FIRST_VERSION, ProduceRequest
from isthmus.record.batch import HEADER_BYTES, BatchBuilder
from isthmus.record.markers import read_marker
from isthmus.server.kafka_api.table import HANDLERS
from isthmus.server.kafka_shore import KafkaShore
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from isthmus.storage.log import Partition

OURS: Final = "ours"  # a log topic of the bystander's own
THEIRS: Final = "t"
SIZE_BYTES: Final = 4
FRAME_BYTES_MAX: Final = 1 << 14
LENGTH: Final = slice(8, 12)
LENGTH_FROM: Final = 12
CHECKSUM: Final = slice(17, 21)
CHECKED_FROM: Final = 21
KINDS: Final[tuple[dict[str, Any], ...]] = (
    *({"compression": codec} for codec in range(5)),
    {"producer_id": 1, "producer_epoch": 0, "base_sequence": 0},
    {"producer_id": 1, "producer_epoch": 0, "base_sequence": 0, "transactional": True},
    {"control": True},
)
NAMES: Final = (
    "t",
    "t",
    "g",
    "compacted",
    "__consumer_offsets",
    "",
    "cleanup.policy",
    "User:a",
)
WAYS_IN: Final = {
    "PLAIN": b"\0ann\0pw",
    "SCRAM-SHA-256": b"n,,n=ann,r=abc",
    "OAUTHBEARER": b"ann",
    "NONE": b"",
}


def _batch(kind: dict[str, Any]) -> bytes:
    builder = BatchBuilder()
    now_ms = SimRuntime().now_ms()
    builder.append(now_ms, b"k", b"v", (("name", b"value"),))
    builder.append(now_ms + 1, None, None)
    return bytes(builder.seal(**kind).data)


RECORDS: Final = tuple(_batch(kind) for kind in KINDS)  # not all may be sent by clients


class Strangers:
    """A shore, a client that was there before, and `peer`, of whom nothing is known."""

    def __init__(self, *, who_log_in: bool = False) -> None:
        self._room = Room(reauthenticate_s=0) if who_log_in else ShoreRoom()
        log = self._room.log
        log.create(OURS, 1, {})
        log.create(THEIRS, 2, {})
        log.create("compacted", 1, {"cleanup.policy": "compact"})
        log.create("stamped", 1, {"message.timestamp.type": "LogAppendTime"})
        self._bystander = self._client()
        self._produced = 0
        self._produce()
        self.peer = self._room.peer()

    @property
    def topic_ids(self) -> list[bytes]:
        """Return the ids of all log topics but the bystander's; the same each time."""
        return [one.topic_id for one in self._room.log.topics.values() if one.name != OURS]

    def say(self, data: bytes, *, chunk: int = 1 << 30) -> None:
        """Let the stranger say something, and time pass."""
        self.peer.feed(data, chunk=chunk)
        self._room.runtime.settle()

    def check(self) -> None:
        """Raise AssertionError where anything is not as it has to be."""
        self._room.runtime.advance(120_000)
        self._room.runtime.settle()
        self._produce()
        for log_topic in self._room.log.topics.values():
            for partition in log_topic.partitions:
                check_readable(partition)
        room = self._room
        again = KafkaShore(room.runtime, room.log, room.appends, room.settings, room.security)
        room.runtime.settle()
        assert again.groups.listed() is not ErrorCode.COORDINATOR_LOAD_IN_PROGRESS

    def _client(self) -> Peer:
        return self._room.plain() if isinstance(self._room, Room) else self._room.peer()

    def _produce(self) -> None:
        """Write as the bystander, who is answered with the next offset of its own log topic."""
        batch = batch_of(self._room.runtime.now_ms(), b"v")
        row = {"index": 0, "records": bytes(batch.data)}
        body = {
            "acks": -1,
            "timeout_ms": 1000,
            "topic_data": [{"name": OURS, "partition_data": [row]}],
        }
        (topic,) = self._bystander.ask(ApiKey.PRODUCE, 9, body)["responses"]
        (said,) = topic["partition_responses"]
        assert (said["error_code"], said["base_offset"]) == (0, self._produced)
        self._produced += 1


def check_readable(partition: Partition) -> None:
    """Check that a reader gets past all that a partition holds."""
    offset = partition.start_offset
    for batch in partition.batches(offset):
        assert batch.base_offset >= offset
        batch.verify()
        batch.verify_records()
        records = batch.records()
        assert len(records) == batch.count
        if batch.is_control:
            assert read_marker(batch) is not None
        offset = batch.last_offset + 1
    assert offset == partition.end_offset


def mended(data: bytes) -> bytes:
    """Return requests with the right sizes and checksums: what is tried is what is in them."""
    requests = bytearray()
    position = 0
    while len(data) - position > SIZE_BYTES:
        size = int.from_bytes(data[position : position + SIZE_BYTES], "big")
        position += SIZE_BYTES
        frame = bytearray(data[position : position + size % FRAME_BYTES_MAX])
        position += len(frame)
        _seal(frame)
        requests += len(frame).to_bytes(SIZE_BYTES, "big") + frame
    return bytes(requests)


def _seal(frame: bytearray) -> None:
    """Set length and checksum of the batches in a Produce request, if it is one."""
    try:
        api_key, version, _, _, start = parse_request_header(frame)
        if api_key != ApiKey.PRODUCE:
            return
        request = ProduceRequest(version, frame, start)
    except (Malformed, RequestUnsupported):
        return
    while request.next_topic():
        while request.next_partition():
            records = request.records()
            if records is not None and len(records) >= HEADER_BYTES:
                records[LENGTH] = (len(records) - LENGTH_FROM).to_bytes(4, "big")
                records[CHECKSUM] = crc32c(records[CHECKED_FROM:]).to_bytes(4, "big")


def valid_requests() -> list[bytes]:
    """Return every request that is served, in each version, as a client might send it."""
    strangers = Strangers()
    found = []
    for api_key in sorted(HANDLERS):
        fields = schema.message(request_name(api_key)).fields
        for version in versions(api_key):
            chance = random.Random(f"{api_key} {version}")
            body = _agreeing(random_body(chance, fields, version), chance, strangers.topic_ids)
            if api_key == ApiKey.PRODUCE:
                body |= {"transactional_id": None, "acks": -1}
                body["topic_data"] = [_produced(version, strangers.topic_ids[0])]
            found.append(strangers.peer.frame(api_key, version, body))
    return found


def _agreeing(value: Any, chance: random.Random, topic_ids: list[bytes]) -> Any:
    """Return a body whose names and ids are those of things that there are."""
    if isinstance(value, dict):
        return {name: _agreeing(one, chance, topic_ids) for name, one in value.items()}
    if isinstance(value, list):
        return [_agreeing(one, chance, topic_ids) for one in value]
    if isinstance(value, str):
        return chance.choice(NAMES)
    return chance.choice(topic_ids) if isinstance(value, bytes) and len(value) == 16 else value


def _produced(version: int, topic_id: bytes) -> dict[str, Any]:
    named = {"name": THEIRS} if version < IDS_FIRST_VERSION else {"topic_id": topic_id}
    rows = [{"index": 0, "records": RECORDS[version % len(RECORDS)]}]
    return {**named, "partition_data": rows}


def ways_in() -> list[bytes]:
    """Return how clients log in, and ask for something then."""
    peer = Room().peer()
    asked = peer.frame(ApiKey.METADATA, 9, {"topics": []})
    found = []
    for mechanism, data in WAYS_IN.items():
        told = {"mechanism": mechanism}
        talk = peer.frame(ApiKey.SASL_AUTHENTICATE, 2, {"auth_bytes": data})
        found.append(peer.frame(ApiKey.SASL_HANDSHAKE, 1, told) + talk + asked)
        bare = len(data).to_bytes(SIZE_BYTES, "big") + data
        found.append(peer.frame(ApiKey.SASL_HANDSHAKE, 0, told) + bare + asked)
    return found
