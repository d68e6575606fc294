"""How many bytes partitions take on disk: DescribeLogDirs, which librdkafka does not offer.

Two requests over a socket of our own, in the server's codec: ApiVersions, to learn whether the
other side knows the request, then DescribeLogDirs. Works with Apache Kafka too; there each
broker is asked, and the largest replica of a partition counts.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import Malformed
from isthmus.kafka.api import (
    ApiKey,
    request_header_version,
    request_name,
    response_header_version,
    response_name,
)
from isthmus.kafka.codec import decode, encode
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Iterable

ANSWER_S_MAX: Final = 10.0
ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
VERSION_MAX: Final = 4  # what later versions add is of no interest here


def sizes_of(brokers: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Return the bytes of each partition, by log topic and index.

    Empty where a broker does not answer that: sizes are an extra to whoever asks for them.
    """
    found: dict[tuple[str, int], int] = {}
    try:
        for host, port in brokers:
            with socket.create_connection((host, port), ANSWER_S_MAX) as connection:
                for key, size in _ask_sizes(connection):
                    found[key] = max(size, found.get(key, 0))
    except (OSError, Malformed):
        return {}
    return found


def _ask_sizes(connection: socket.socket) -> list[tuple[tuple[str, int], int]]:
    offered = _ask(connection, ApiKey.API_VERSIONS, 0, {})["api_keys"]
    ranges = {row["api_key"]: (row["min_version"], row["max_version"]) for row in offered}
    low, high = ranges.get(ApiKey.DESCRIBE_LOG_DIRS, (VERSION_MAX + 1, 0))
    version = min(high, VERSION_MAX)
    if version < max(low, 1):
        return []
    answer = _ask(connection, ApiKey.DESCRIBE_LOG_DIRS, version, {"topics": None})
    return [
        ((topic["name"], row["partition_index"]), row["partition_size"])
        for result in answer["results"]
        for topic in result["topics"]
        for row in topic["partitions"]
        if not row["is_future_key"]
    ]


def _ask(
    connection: socket.socket, api_key: ApiKey, version: int, body: dict[str, Any]
) -> dict[str, Any]:
    """Send one request and return its answer. Raises OSError, Malformed."""
    out = WriteBuffer()
    out.put_u32(0)
    header = {
        "request_api_key": api_key,
        "request_api_version": version,
        "correlation_id": 1,
        "client_id": "isthmus",
    }
    encode("RequestHeader", request_header_version(api_key, version) or 1, header, out)
    encode(request_name(api_key), version, body, out)
    out.patch_u32(0, len(out) - 4)
    connection.sendall(out.take())
    size = int.from_bytes(_receive(connection, 4), "big")
    if size > ANSWER_BYTES_MAX:
        raise Malformed(f"an answer of {size} bytes")
    frame = _receive(connection, size)
    start = 4 + (response_header_version(api_key, version) == 1)  # no tagged fields expected
    return decode(response_name(api_key), version, frame, start)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the connection was closed")
        data += more
    return bytes(data)
