"""The compression codecs of a record batch, by the number in its attributes (KIP-98, KIP-110).

The server stores what producers compressed as it is, unless a log topic names a codec of its
own; else it only looks inside for deliveries over MQTT, for compaction and for lookups by time.
Whatever comes in here may be hostile: nothing is ever inflated beyond the `size_max` that the
caller grants, and what all comes to is counted (`INFLATED`), for who lets much in at a time.

Two framings are Kafka's own business. Snappy travels in the blocks of xerial's snappy-java,
though some clients send it raw, so both are read. LZ4 travels as frames of *independent*
blocks; the Java client reads no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import cramjam

from isthmus.errors import CorruptBatch

if TYPE_CHECKING:
    from collections.abc import Callable

Data: TypeAlias = "bytes | bytearray | memoryview"

NONE: Final = 0
GZIP: Final = 1
SNAPPY: Final = 2
LZ4: Final = 3
ZSTD: Final = 4

NAMES: Final = ("none", "gzip", "snappy", "lz4", "zstd")

LEVELS: Final = {GZIP: -1, LZ4: 9, ZSTD: 3}  # Kafka's defaults [KIP-390]
_GZIP_LEVEL: Final = 6  # what zlib means by -1
_LZ4_FAST_LEVEL: Final = 0  # Kafka's 9 is the fast compressor, not the ninth of the thorough

_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_VERSIONS: Final = b"\x00\x00\x00\x01\x00\x00\x00\x01"  # this one, oldest compatible
_XERIAL_HEADER: Final = _XERIAL_MAGIC + _XERIAL_VERSIONS
_XERIAL_BLOCK_BYTES: Final = 32 * 1024  # uncompressed; what snappy-java writes

_FIRST_GUESS_RATIO: Final = 8
_FIRST_GUESS_BYTES_MIN: Final = 4096
_NO_ROOM: Final = "failed to write whole buffer"  # Rust's words, the same for every codec


class Inflated:
    """How many bytes came of decompressing since the process began."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


INFLATED: Final = Inflated()


def compress(codec: int, data: Data, level: int | None = None) -> bytes:
    """Return `data` compressed as Kafka clients expect it.

    `level` is as Kafka counts it (KIP-390); none: its default.
    """
    if codec == NONE:
        return bytes(data)
    if codec == SNAPPY:
        return _compress_xerial(memoryview(data))
    assert codec in LEVELS, f"compression codec {codec} does not exist"
    if level is None:
        level = LEVELS[codec]
    if codec == GZIP:
        return bytes(cramjam.gzip.compress(data, _GZIP_LEVEL if level < 0 else level))
    if codec == LZ4:
        return _compress_lz4(data, _LZ4_FAST_LEVEL if level == LEVELS[LZ4] else level)
    return bytes(cramjam.zstd.compress(data, level))


def decompress(codec: int, data: Data, size_max: int) -> memoryview:
    """Return the bytes that `data` stands for, at most `size_max` of them.

    Raises CorruptBatch when the codec is unknown, when the data is damaged and when it would
    become larger than `size_max`. Uncompressed data (codec 0) is returned as it is.
    """
    if codec == NONE:
        return memoryview(data)
    try:
        if codec == GZIP:
            return _inflate(cramjam.gzip.decompress_into, data, size_max)
        if codec == SNAPPY:
            return _decompress_snappy(memoryview(data), size_max)
        if codec == LZ4:
            return _inflate(cramjam.lz4.decompress_into, data, size_max)
        if codec == ZSTD:
            return _inflate(cramjam.zstd.decompress_into, data, size_max)
    except cramjam.DecompressionError as error:
        raise CorruptBatch(f"{NAMES[codec]} data is damaged: {error}") from None
    raise CorruptBatch(f"compression codec {codec} does not exist")


def _inflate(
    decompress_into: Callable[[Data, bytearray], int], data: Data, size_max: int
) -> memoryview:
    """Decompress into a guess, and into a larger one as long as there is not enough room.

    Damaged data fails at once, so that it cannot be used to have a lot of memory cleared.
    """
    size = min(max(len(data) * _FIRST_GUESS_RATIO, _FIRST_GUESS_BYTES_MIN), size_max)
    while True:
        inflated = bytearray(size)
        try:
            length = decompress_into(data, inflated)
        except cramjam.DecompressionError as error:
            if _NO_ROOM not in str(error):
                raise
            if size >= size_max:
                INFLATED.bytes += size
                raise CorruptBatch(f"data becomes larger than {size_max} bytes") from None
        else:
            INFLATED.bytes += length
            return memoryview(inflated)[:length]
        size = min(size * _FIRST_GUESS_RATIO, size_max)


def _compress_lz4(data: Data, level: int) -> bytes:
    compressor = cramjam.lz4.Compressor(level, block_linked=False)
    compressor.compress(bytes(data))
    return bytes(compressor.finish())


def _compress_xerial(data: memoryview) -> bytes:
    framed = bytearray(_XERIAL_HEADER)
    for start in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = cramjam.snappy.compress_raw(data[start : start + _XERIAL_BLOCK_BYTES])
        framed += len(block).to_bytes(4, "big")
        framed += memoryview(block)
    return bytes(framed)


def _decompress_snappy(data: memoryview, size_max: int) -> memoryview:
    inflated = bytearray()
    if bytes(data[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        _append_snappy_block(data, inflated, size_max)
        return memoryview(inflated)
    position = len(_XERIAL_HEADER)
    if len(data) < position:
        raise CorruptBatch("snappy data ends within its header")
    while position < len(data):
        start = position + 4
        position = start + int.from_bytes(data[position:start], "big")
        if position > len(data):
            raise CorruptBatch(f"snappy block ends at {position} of {len(data)} bytes")
        _append_snappy_block(data[start:position], inflated, size_max)
    return memoryview(inflated)


def _append_snappy_block(block: memoryview, inflated: bytearray, size_max: int) -> None:
    size = cramjam.snappy.decompress_raw_len(block)
    if len(inflated) + size > size_max:
        raise CorruptBatch(f"data becomes larger than {size_max} bytes")
    INFLATED.bytes += size
    inflated += memoryview(cramjam.snappy.decompress_raw(block))
