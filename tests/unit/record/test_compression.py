"""The codecs: there and back, what other writers do, and what hostile writers do."""

from __future__ import annotations

import cramjam
import pytest

from isthmus.errors import CorruptBatch
from isthmus.record.compression import (
    GZIP,
    LZ4,
    NAMES,
    NONE,
    SNAPPY,
    ZSTD,
    compress,
    decompress,
)

REAL_CODECS = [GZIP, SNAPPY, LZ4, ZSTD]
TEXT = b"temperature of line 7 is 21.5; " * 3_000  # more than two of xerial's blocks

named = pytest.mark.parametrize("codec", REAL_CODECS, ids=NAMES.__getitem__)


@named
@pytest.mark.parametrize("data", [b"", b"x", TEXT])
def test_there_and_back(codec: int, data: bytes) -> None:
    assert decompress(codec, compress(codec, memoryview(data)), len(data)) == data


def test_uncompressed_data_is_not_copied() -> None:
    data = bytearray(b"abc")
    assert decompress(NONE, data, 0).obj is data
    assert compress(NONE, data) == b"abc"


@named
def test_nothing_grows_beyond_the_limit(codec: int) -> None:
    bomb = compress(codec, bytes(5_000_000))
    assert len(bomb) < 300_000
    assert len(decompress(codec, bomb, 5_000_000)) == 5_000_000
    for size_max in (0, 100, 4_999_999):
        with pytest.raises(CorruptBatch, match=f"larger than {size_max} bytes"):
            decompress(codec, bomb, size_max)


@named
def test_damage_is_an_error(codec: int) -> None:
    packed = compress(codec, TEXT)
    for damaged in (packed[:-9], b"", b"\x00" * 40, packed + b"\x01\x02\x03"):
        with pytest.raises(CorruptBatch):
            decompress(codec, damaged, 1 << 20)


def test_a_codec_that_does_not_exist() -> None:
    for codec in (5, 7):
        with pytest.raises(CorruptBatch, match="does not exist"):
            decompress(codec, b"", 100)


def test_snappy_is_written_in_xerials_frame_and_read_in_both() -> None:
    framed = compress(SNAPPY, TEXT)
    assert framed[:16] == b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
    first = int.from_bytes(framed[16:20], "big")
    assert bytes(cramjam.snappy.decompress_raw(framed[20 : 20 + first])) == TEXT[: 32 * 1024]
    raw = bytes(cramjam.snappy.compress_raw(TEXT))
    assert decompress(SNAPPY, raw, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\x00\x00",
        b"\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00",  # a size cut short
        b"\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff",
        b"\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x05\x01a",
        b"\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x05\xff\xff\xff\xff\x0f",  # claims 4 GiB
    ],
)
def test_a_broken_xerial_frame(rest: bytes) -> None:
    with pytest.raises(CorruptBatch):
        decompress(SNAPPY, b"\x82SNAPPY\x00" + rest, 1 << 20)


def test_lz4_frames_have_independent_blocks() -> None:
    """The Java client refuses frames whose blocks need one another."""
    independent_blocks = 0x20
    assert compress(LZ4, TEXT)[4] & independent_blocks


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD], ids=NAMES.__getitem__)
def test_frames_one_after_the_other_are_one_text(codec: int) -> None:
    assert (
        decompress(codec, compress(codec, b"one ") + compress(codec, b"two"), 100) == b"one two"
    )
