"""What stands around a message: the size and header of a request or response, and the prefix of
the parts that Kafka stores or hands through.

    request    size i32 | api key i16 | version i16 | correlation id i32 | client id | body
    response   size i32 | correlation id i32 | body
    prefixed   version or type i16 | body

Flexible requests and responses have tagged fields behind the header. For one thread: responses
are made in one shared buffer. Not here: gathering a frame from a socket, limits on its size.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import Malformed
from isthmus.kafka import api, codec, schema
from isthmus.kafka.errors import RequestUnsupported
from isthmus.kafka.fetch import FetchRequest, put_fetch_response
from isthmus.kafka.produce import ProduceRequest, put_produce_response
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.kafka.codec import Body, Data
    from isthmus.kafka.fetch import FetchedPartition
    from isthmus.kafka.produce import ProducedPartition

_HEADER: Final = struct.Struct(">hhi")
_PRODUCE: Final = int(api.ApiKey.PRODUCE)
_FETCH: Final = int(api.ApiKey.FETCH)
# By hand, not made into a dict.
_WALKED: Final[dict[int, type[ProduceRequest | FetchRequest]]] = {
    _PRODUCE: ProduceRequest,
    _FETCH: FetchRequest,
}
_response: Final = WriteBuffer()


def parse_request_header(frame: Data) -> tuple[int, int, int, str | None, int]:
    """Return API key, version, correlation id, client id and the position of the body.

    `frame` is a whole request without its size. The client id is never compact, so that any
    server can read the header of any ApiVersions request (KIP-482).

    Raises:
        Malformed: This is no request header.
        RequestUnsupported: The API or this version of it is unknown.
    """
    if len(frame) < _HEADER.size:
        raise Malformed(f"a request of {len(frame)} bytes")
    api_key, version, correlation_id = _HEADER.unpack_from(frame)
    header_version = api.request_header_version(api_key, version)
    if header_version is None:
        raise RequestUnsupported(api_key, version, correlation_id)
    header, position = codec.decode_head("RequestHeader", header_version, frame)
    return api_key, version, correlation_id, header["client_id"], position


def decode_request(api_key: int, version: int, frame: Data, position: int) -> Any:
    """Decode the body of a request from where `parse_request_header` says it starts.

    What follows it is ignored, as Kafka does: librdkafka's Metadata v13 for all log topics has
    three bytes too many.

    Raises:
        Malformed: The bytes are not that request.
    """
    walked = _WALKED.get(api_key)
    if walked is not None:
        return walked(version, frame, position)
    return codec.decode_head(api.request_name(api_key), version, frame, position)[0]


def encode_request(
    api_key: int, version: int, correlation_id: int, client_id: str, body: Body
) -> bytes:
    """Return a whole request, as clients send it: size, header, body."""
    out = WriteBuffer()
    out.put_u32(0)
    header = {
        "request_api_key": api_key,
        "request_api_version": version,
        "correlation_id": correlation_id,
        "client_id": client_id,
    }
    codec.encode(
        "RequestHeader", api.request_header_version(api_key, version) or 1, header, out
    )
    codec.encode(api.request_name(api_key), version, body, out)
    out.patch_u32(0, len(out) - 4)
    return out.take()


def decode_response(api_key: int, version: int, frame: Data) -> dict[str, Any]:
    """Decode the body of a response without its size. Raises Malformed."""
    start = 4 + (api.response_header_version(api_key, version) == 1)  # no tagged fields
    return codec.decode(api.response_name(api_key), version, frame, start)


def encode_response(api_key: int, version: int, correlation_id: int, body: Body) -> bytes:
    """Return a whole response: size, header, body."""
    _start(api_key, version, correlation_id)
    codec.encode(api.response_name(api_key), version, body, _response)
    _response.patch_u32(0, len(_response) - 4)
    return _response.take()


def encode_produce_response(
    version: int,
    correlation_id: int,
    topics: Sequence[tuple[str | bytes, Sequence[ProducedPartition]]],
    throttle_ms: int = 0,
) -> bytes:
    """Return a whole response to Produce, see `kafka.produce.put_produce_response`."""
    _start(_PRODUCE, version, correlation_id)
    put_produce_response(_response, version, topics, throttle_ms)
    _response.patch_u32(0, len(_response) - 4)
    return _response.take()


def encode_response_buffers(
    api_key: int, version: int, correlation_id: int, body: Body
) -> list[Data]:
    """Return a whole response as buffers to be sent in order; records are not copied.

    Short records are (`codec.SPLICE_BYTES_MIN`), because each buffer has its own price.
    """
    splices: list[tuple[int, Data]] = []
    _start(api_key, version, correlation_id)
    codec.encode(api.response_name(api_key), version, body, _response, splices)
    return _take_with(splices)


def encode_fetch_response(
    version: int,
    correlation_id: int,
    session_id: int,
    topics: Sequence[tuple[str | bytes, Sequence[FetchedPartition]]],
    endpoints: Sequence[tuple[int, str, int]],
    throttle_ms: int = 0,
) -> list[Any]:
    """Do the same for a response to Fetch, see `kafka.fetch.put_fetch_response`."""
    splices: list[tuple[int, Any]] = []
    _start(_FETCH, version, correlation_id)
    put_fetch_response(_response, version, session_id, topics, endpoints, splices, throttle_ms)
    return _take_with(splices)


def _take_with(splices: list[tuple[int, Any]]) -> list[Any]:
    """Take the response out of the shared buffer, and put in between what was left out."""
    beside = sum([len(part) for _, part in splices])
    _response.patch_u32(0, len(_response) - 4 + beside)
    frame = memoryview(_response.take())
    buffers: list[Any] = []
    start = 0
    for position, part in splices:
        if position > start:
            buffers.append(frame[start:position])
        buffers.append(part)
        start = position
    if start < len(frame):
        buffers.append(frame[start:])
    return buffers


def _start(api_key: int, version: int, correlation_id: int) -> None:
    """Begin a response in the shared buffer, its size still 0."""
    _response.clear()
    _response.put_u32(0)
    _response.put_i32(correlation_id)
    if api.response_header_version(api_key, version) == 1:
        _response.put_u8(0)  # no tagged fields


def encode_prefixed(message: str, version: int, body: Body) -> bytes:
    """Return `body` behind its version, or for a "...Key" behind the type of its record.

    So are the parts of the consumer protocol sent, and the records of internal topics stored.
    """
    out = WriteBuffer()
    key = schema.message(message).key
    out.put_i16(key if message.endswith("Key") and key is not None else version)
    codec.encode(message, version, body, out)
    return out.take()


def decode_prefixed(message: str, data: Data) -> Body:
    """Decode what `encode_prefixed` makes.

    A newer version than the table knows is read as the newest known, and what it added at the
    end is left alone: so the consumer protocol is meant to grow.

    Raises:
        Malformed: The bytes are not that message, or it is the key of another type of record.
    """
    if len(data) < 2:
        raise Malformed(f"{message}: {len(data)} bytes")
    prefix = int.from_bytes(data[:2], "big", signed=True)
    found = schema.message(message)
    if message.endswith("Key"):
        if prefix != found.key:
            raise Malformed(f"{message}: a record of type {prefix}")
        return codec.decode(message, found.versions.last, data, 2)
    if prefix < found.versions.first:
        raise Malformed(f"{message}: version {prefix}")
    if prefix > found.versions.last:
        return codec.decode_head(message, found.versions.last, data, 2)[0]
    return codec.decode(message, prefix, data, 2)
