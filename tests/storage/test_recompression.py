"""`compression.type` of a log topic: what is stored as it came, and what is compressed anew."""

from __future__ import annotations

from functools import partial

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import (
    NOW_MS,
    Answer,
    batch_of,
    contents,
    find_time,
    marker_of,
    read_batches,
)

from isthmus.errors import BatchRefused, BatchTooLarge, CorruptBatch, OutOfOrderSequence
from isthmus.record.batch import RECORDS_BYTES_MAX
from isthmus.record.compression import GZIP, LZ4, NAMES, NONE, SNAPPY, ZSTD
from isthmus.storage.local.log import LocalLog
from isthmus.storage.memory import MemoryLog

VALUES = [b"line 7 is at 21.5 degrees; " * 40, b"", b"\x00" * 500]
SETTINGS = {"uncompressed": NONE, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}


class Place:
    """A partition whose log topic has some settings, and what appends to it."""

    def __init__(self, log, runtime):
        self.log = log
        self.runtime = runtime

    def begin(self, **configs):
        self.log.create(
            "t", 1, {name.replace("_", "."): text for name, text in configs.items()}
        )
        self.partition = self.log.partition("t", 0)

    def put(self, batch, *, trusted=False):
        answer = Answer()
        self.partition.append(batch, answer, trusted=trusted)
        self.log.flush()
        self.runtime.settle()
        return answer

    @property
    def batches(self):
        return read_batches(self.partition, 0, 1 << 24)


@pytest.fixture(params=["memory", "local"])
def place(request, tmp_path):
    runtime = SimRuntime()
    make = MemoryLog if request.param == "memory" else partial(LocalLog, tmp_path / "data")
    log = make(runtime)
    yield Place(log, runtime)
    log.close()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("sent", range(5), ids=NAMES.__getitem__)
def test_batches_get_the_codec_of_their_log_topic(place, setting, sent):
    place.begin(compression_type=setting)
    producer = {"producer_id": 7, "epoch": 3, "sequence": 0, "transactional": True}
    batch = batch_of(*VALUES, compression=sent, timestamps=[NOW_MS, 5, NOW_MS + 9], **producer)
    before = bytes(batch.data)
    assert place.put(batch).error is None
    (stored,) = place.batches
    stored.verify()
    assert stored.compression == SETTINGS[setting]
    assert [record.value for record in stored.records()] == VALUES
    assert [record.timestamp for record in stored.records()] == [NOW_MS, 5, NOW_MS + 9]
    assert (stored.producer_id, stored.producer_epoch, stored.base_sequence) == (7, 3, 0)
    assert stored.is_transactional
    assert (stored.base_timestamp, stored.max_timestamp) == (NOW_MS, NOW_MS + 9)
    assert place.partition.size_bytes == stored.size == len(stored.data)
    if sent == SETTINGS[setting]:
        assert bytes(stored.data)[16:] == before[16:]


@pytest.mark.parametrize("sent", range(5), ids=NAMES.__getitem__)
def test_the_producers_codec_is_kept_byte_for_byte(place, sent):
    place.begin(compression_type="producer", compression_zstd_level="19")
    batch = batch_of(*VALUES, compression=sent)
    before = bytes(batch.data)
    place.put(batch)
    (stored,) = place.batches
    assert bytes(stored.data)[16:] == before[16:]


@pytest.mark.parametrize(
    ("setting", "low", "high"), [("gzip", "1", "9"), ("lz4", "1", "12"), ("zstd", "-50", "19")]
)
def test_levels_are_obeyed(place, setting, low, high):
    text = b" ".join(b"%d" % (number * number % 977) for number in range(4000))
    sizes = []
    place.begin(compression_type=setting)
    for level in (low, high):
        place.log.configure(
            "t", {"compression.type": setting, f"compression.{setting}.level": level}
        )
        place.put(batch_of(text))
        sizes.append(place.batches[-1].size)
    assert sizes[0] > sizes[1]
    assert contents(place.partition) == [text, text]


def test_time_of_arrival_and_codec_go_together(place):
    place.begin(compression_type="lz4", message_timestamp_type="LogAppendTime")
    place.put(batch_of(b"a", timestamp=5, compression=GZIP))
    (stored,) = place.batches
    stored.verify()
    assert stored.compression == LZ4
    assert find_time(place.partition, 0) == (0, place.runtime.now_ms())


def test_what_the_server_builds_is_compressed_but_for_control_batches(place):
    place.begin(compression_type="zstd")
    place.put(batch_of(*VALUES), trusted=True)
    marker = marker_of(7, commits=True)
    before = bytes(marker.data)
    place.put(marker, trusted=True)
    stored, control = place.batches
    assert stored.compression == ZSTD
    assert [record.value for record in stored.records()] == VALUES
    assert bytes(control.data)[16:] == before[16:]


def test_a_batch_sent_twice_is_known_again(place):
    place.begin(compression_type="gzip")
    numbered = {"producer_id": 7, "epoch": 0}
    for _ in range(2):
        assert place.put(batch_of(b"a", b"b", sequence=0, **numbered)).base_offset == 0
    assert isinstance(
        place.put(batch_of(b"c", sequence=9, **numbered)).error, OutOfOrderSequence
    )
    assert place.put(batch_of(b"c", sequence=2, **numbered)).base_offset == 2
    assert contents(place.partition) == [b"a", b"b", b"c"]


def test_what_becomes_too_large_is_refused(place):
    """Kafka looks at the size once more when it has compressed a batch anew."""
    place.begin(compression_type="uncompressed", max_message_bytes="1000")
    answer = place.put(batch_of(bytes(1000), compression=ZSTD))
    assert isinstance(answer.error, BatchTooLarge)
    assert place.put(batch_of(bytes(900), compression=ZSTD)).base_offset == 0
    assert [batch.compression for batch in place.batches] == [NONE]


def test_a_bomb_is_refused(place):
    place.begin(compression_type="gzip")
    answer = place.put(batch_of(bytes(RECORDS_BYTES_MAX), compression=ZSTD))
    assert isinstance(answer.error, BatchRefused)
    assert "larger than" in str(answer.error)


def test_damage_is_told_before_anything_is_made_of_it(place):
    place.begin(compression_type="gzip")
    answer = place.put(batch_of(b"a", compression=SNAPPY, magic_crc=False))
    assert isinstance(answer.error, CorruptBatch)
    assert place.partition.end_offset == 0
