"""One message, both ways: MQTT's PUBLISH to the parts of a record, and a record to a PUBLISH.

The table of DESIGN 2, read left to right by `headers_of` and right to left by `publish_of`.
What MQTT has and a record has no field for goes into headers with the prefix `mqtt.`; user
properties are headers of their own names, in their order, duplicates kept. Only where such a
name is that of a header of ours is it written behind `mqtt.user.`, so that no client can say
with a user property what is not its to say, and none is lost on the way [MQTT-3.3.2-17].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.mqtt.packets import Publish
from isthmus.mqtt.properties import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    USER_PROPERTY,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.record.batch import Record

QOS_HEADER = "mqtt.qos"
RETAIN_HEADER = "mqtt.retain"
EXPIRY_HEADER = "mqtt.expiry"
TOPIC_HEADER = "mqtt.topic"
CONTENT_TYPE_HEADER = "content-type"
RESPONSE_TOPIC_HEADER = "mqtt.response-topic"
CORRELATION_DATA_HEADER = "mqtt.correlation-data"
PAYLOAD_FORMAT_HEADER = "mqtt.payload-format"
USER_PREFIX = "mqtt.user."

Headers = list[tuple[str, bytes | None]]

_TEXT_BYTES_MAX = 65535  # of any MQTT string or binary field [MQTT-1.5.4]


def headers_of(publish: Publish, topic_name: bytes | None, now_ms: int) -> Headers:
    """Return the record's headers for a PUBLISH; `topic_name` where the key does not hold it.

    The expiry is stored as a moment (ms since the epoch), because a record is read at any time.
    """
    headers: Headers = []
    if topic_name is not None:
        headers.append((TOPIC_HEADER, topic_name))
    if publish.qos:
        headers.append((QOS_HEADER, b"2" if publish.qos == 2 else b"1"))
    if publish.retain:
        headers.append((RETAIN_HEADER, b"1"))
    properties = publish.properties
    if properties:
        _add_properties(headers, properties, now_ms)
    return headers


def _add_properties(headers: Headers, properties: dict[int, Any], now_ms: int) -> None:
    for identifier, value in properties.items():
        if identifier == USER_PROPERTY:
            headers.extend((_header_name(name), text.encode()) for name, text in value)
        elif identifier == MESSAGE_EXPIRY:
            headers.append((EXPIRY_HEADER, b"%d" % (now_ms + value * 1000)))
        elif identifier == PAYLOAD_FORMAT:
            headers.append((PAYLOAD_FORMAT_HEADER, b"%d" % value))
        elif identifier == CONTENT_TYPE:
            headers.append((CONTENT_TYPE_HEADER, value.encode()))
        elif identifier == RESPONSE_TOPIC:
            headers.append((RESPONSE_TOPIC_HEADER, value.encode()))
        elif identifier == CORRELATION_DATA:
            headers.append((CORRELATION_DATA_HEADER, value))


def _header_name(name: str) -> str:
    """Return the header of a user property."""
    ours = name.startswith("mqtt.") or name == CONTENT_TYPE_HEADER
    return USER_PREFIX + name if ours else name


def topic_name_in(record: Record) -> bytes | None:
    """Return the topic name that the record's headers hold, or None."""
    for name, value in record.headers:
        if name == TOPIC_HEADER:
            return value
    return None


def publish_of(
    record: Record, topic_name: bytes, now_ms: int, qos: int, *, begun: bool = False
) -> Publish | None:
    """Return the PUBLISH that a record stands for; None if it has expired.

    What was sent before (`begun`) does not expire, its time left just ends at 0.

    `qos` is what a record without a QoS header counts as: 0 for what an MQTT client published,
    2 for what came over the Kafka protocol, whose subscribers get what they were granted. A
    header that MQTT cannot carry (no UTF-8, too long, a number that is none) is left out.
    """
    publish = Publish(topic_name, record.value or b"", qos)
    if not record.headers:
        return publish
    properties: dict[int, Any] = {}
    for name, value in record.headers:
        if name == QOS_HEADER:
            publish.qos = 2 if value == b"2" else 1
        elif name == RETAIN_HEADER:
            publish.retain = value == b"1"
        elif name == EXPIRY_HEADER:
            left_ms = _number(value) - now_ms
            if left_ms <= 0 and not begun:
                return None
            properties[MESSAGE_EXPIRY] = min(max(left_ms + 999, 0) // 1000, 0xFFFF_FFFF)
        elif name != TOPIC_HEADER:
            _add_header(properties, name, value or b"")
    if properties:
        publish.properties = properties
    return publish


def retained_terms(headers: Sequence[tuple[str, bytes | None]]) -> tuple[int, int]:
    """Return the QoS that headers tell, and the moment in ms of the expiry; 0: never."""
    qos = expires_ms = 0
    for name, value in headers:
        if name == QOS_HEADER:
            qos = 2 if value == b"2" else 1
        elif name == EXPIRY_HEADER:
            expires_ms = _number(value)
    return qos, expires_ms


def _add_header(properties: dict[int, Any], name: str, value: bytes) -> None:
    if len(value) > _TEXT_BYTES_MAX:
        return
    if name == CORRELATION_DATA_HEADER:
        properties[CORRELATION_DATA] = value
        return
    if name == PAYLOAD_FORMAT_HEADER:
        if value in (b"0", b"1"):
            properties[PAYLOAD_FORMAT] = int(value)
        return
    text = _text(value)
    if text is None:
        return
    if name == CONTENT_TYPE_HEADER:
        properties[CONTENT_TYPE] = text
    elif name == RESPONSE_TOPIC_HEADER:
        if text and "+" not in text and "#" not in text:  # [MQTT-3.3.2-14]
            properties[RESPONSE_TOPIC] = text
    else:
        name = name.removeprefix(USER_PREFIX)
        if "\0" not in name and len(name.encode()) <= _TEXT_BYTES_MAX:
            properties.setdefault(USER_PROPERTY, []).append((name, text))


def _text(value: bytes) -> str | None:
    """Return an MQTT string, or None where the bytes are none [MQTT-1.5.4-1, MQTT-1.5.4-2]."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _number(value: bytes | None) -> int:
    """Return a moment in ms; the end of time where the header holds no number."""
    if value is not None and value.isdigit() and len(value) < 19:
        return int(value)
    return 1 << 62
