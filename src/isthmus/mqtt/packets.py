"""The control packets of MQTT 3.1, 3.1.1 and 5.0 as plain objects; one class per packet.

They hold what the wire holds and judge nothing: `codec.py` checks what it decodes, `session.py`
says what a packet means. Topic names of PUBLISH and will are bytes, as the wire has them and as
the hot path compares them; everything that is looked at as text is `str`. Properties are None
where there are none, else a dictionary as `properties.py` describes it. Fields that a version
does not have (reasons and properties before 5.0) keep their defaults when decoded and are left
out when encoded.

Compiled with the types in `packets.pxd`; PUBLISH and the acknowledgements, made once per
message, come from a free list.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15

NAMES: Final = (
    "reserved",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
)

VERSION_3_1: Final = 3  # the protocol level in CONNECT
VERSION_3_1_1: Final = 4
VERSION_5: Final = 5

Properties: TypeAlias = dict[int, Any]


class Packet:
    """What all packets have: a type, equality by content, and a text for logs and tests."""

    __slots__ = ("type",)

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return shown(self)


class Publish:  # not a Packet: a free list is only for classes without a base
    """PUBLISH [MQTT 5.0, 3.3]; QoS 0 has `packet_id` 0, an alias may stand for the topic."""

    __slots__ = ("dup", "packet_id", "payload", "properties", "qos", "retain", "topic", "type")

    def __init__(
        self,
        topic: bytes,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        packet_id: int = 0,
        properties: Properties | None = None,
    ) -> None:
        self.type = PUBLISH
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.packet_id = packet_id
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return shown(self)


class Ack:  # not a Packet, as Publish
    """PUBACK, PUBREC, PUBREL or PUBCOMP [MQTT 5.0, 3.4 to 3.7]; `type` says which."""

    __slots__ = ("packet_id", "properties", "reason", "type")

    def __init__(
        self, type: int, packet_id: int, reason: int = 0, properties: Properties | None = None
    ) -> None:
        self.type = type
        self.packet_id = packet_id
        self.reason = reason
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return shown(self)


class Will(Packet):
    """The message that a lost connection leaves behind, part of CONNECT [MQTT 5.0, 3.1.3.2]."""

    __slots__ = ("payload", "properties", "qos", "retain", "topic")

    def __init__(
        self,
        topic: bytes,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties


class Connect(Packet):
    """CONNECT [MQTT 5.0, 3.1]; `clean_start` is the Clean Session of 3.1.1.

    `is_bridge`: the highest bit of the protocol level is set, by which Mosquitto's bridges tell
    a broker of 3.1 or 3.1.1 what they are.
    """

    __slots__ = (
        "clean_start",
        "client_id",
        "is_bridge",
        "keep_alive_s",
        "password",
        "properties",
        "protocol_version",
        "username",
        "will",
    )

    def __init__(
        self,
        protocol_version: int,
        client_id: str,
        clean_start: bool = True,
        keep_alive_s: int = 0,
        username: str | None = None,
        password: bytes | None = None,
        will: Will | None = None,
        properties: Properties | None = None,
        is_bridge: bool = False,
    ) -> None:
        self.type = CONNECT
        self.is_bridge = is_bridge
        self.protocol_version = protocol_version
        self.client_id = client_id
        self.clean_start = clean_start
        self.keep_alive_s = keep_alive_s
        self.username = username
        self.password = password
        self.will = will
        self.properties = properties


class Connack(Packet):
    """CONNACK [MQTT 5.0, 3.2]; before 5.0 `reason` is the return code 0 to 5."""

    __slots__ = ("properties", "reason", "session_present")

    def __init__(
        self,
        session_present: bool = False,
        reason: int = 0,
        properties: Properties | None = None,
    ) -> None:
        self.type = CONNACK
        self.session_present = session_present
        self.reason = reason
        self.properties = properties


class Subscribe(Packet):
    """SUBSCRIBE [MQTT 5.0, 3.8]; an entry is the filter and its option byte as on the wire."""

    __slots__ = ("entries", "packet_id", "properties")

    def __init__(
        self,
        packet_id: int,
        entries: list[tuple[str, int]],
        properties: Properties | None = None,
    ) -> None:
        self.type = SUBSCRIBE
        self.packet_id = packet_id
        self.entries = entries
        self.properties = properties


class Suback(Packet):
    """SUBACK [MQTT 5.0, 3.9]: one reason per entry of the SUBSCRIBE, in its order."""

    __slots__ = ("packet_id", "properties", "reasons")

    def __init__(
        self, packet_id: int, reasons: list[int], properties: Properties | None = None
    ) -> None:
        self.type = SUBACK
        self.packet_id = packet_id
        self.reasons = reasons
        self.properties = properties


class Unsubscribe(Packet):
    """UNSUBSCRIBE [MQTT 5.0, 3.10]."""

    __slots__ = ("filters", "packet_id", "properties")

    def __init__(
        self, packet_id: int, filters: list[str], properties: Properties | None = None
    ) -> None:
        self.type = UNSUBSCRIBE
        self.packet_id = packet_id
        self.filters = filters
        self.properties = properties


class Unsuback(Packet):
    """UNSUBACK [MQTT 5.0, 3.11]; before 5.0 it has no reasons."""

    __slots__ = ("packet_id", "properties", "reasons")

    def __init__(
        self, packet_id: int, reasons: list[int], properties: Properties | None = None
    ) -> None:
        self.type = UNSUBACK
        self.packet_id = packet_id
        self.reasons = reasons
        self.properties = properties


class Pingreq(Packet):
    """PINGREQ [MQTT 5.0, 3.12]."""

    __slots__ = ()

    def __init__(self) -> None:
        self.type = PINGREQ


class Pingresp(Packet):
    """PINGRESP [MQTT 5.0, 3.13]."""

    __slots__ = ()

    def __init__(self) -> None:
        self.type = PINGRESP


class Disconnect(Packet):
    """DISCONNECT [MQTT 5.0, 3.14]; only 5.0 has a reason, and lets the server send it."""

    __slots__ = ("properties", "reason")

    def __init__(self, reason: int = 0, properties: Properties | None = None) -> None:
        self.type = DISCONNECT
        self.reason = reason
        self.properties = properties


class Auth(Packet):
    """AUTH [MQTT 5.0, 3.15]: one step of an enhanced authentication."""

    __slots__ = ("properties", "reason")

    def __init__(self, reason: int = 0, properties: Properties | None = None) -> None:
        self.type = AUTH
        self.reason = reason
        self.properties = properties


AnyPacket: TypeAlias = (
    Publish
    | Ack
    | Connect
    | Connack
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)


def same(one: object, other: object) -> bool:
    """Tell whether two packets are of one class and hold the same."""
    if type(one) is not type(other):
        return False
    return all(getattr(one, name) == getattr(other, name) for name in fields(one))


def shown(packet: object) -> str:
    """Return a packet as text; a password is never part of it."""
    texts = [
        f"{name}={getattr(packet, name)!r}" for name in fields(packet) if name != "password"
    ]
    return f"{type(packet).__name__}({', '.join(texts)})"


def fields(packet: object) -> tuple[str, ...]:
    """Return the names of what a packet holds, in alphabetic order."""
    names: tuple[str, ...] = type(packet).__slots__  # type: ignore[attr-defined]
    return names
