"""The opening of a connection: a CONNECT in, the terms of the connection or an error out.

Covers 3.1, 3.1.1 and 5.0. Pure: what the server offers comes as `Offer`, chance as an argument.
Who may connect is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isthmus.errors import (
    ClientIdInvalid,
    QosNotSupported,
    RetainNotSupported,
    TooLarge,
)
from isthmus.mqtt.codec import encode
from isthmus.mqtt.packets import Connack
from isthmus.mqtt.properties import (
    ASSIGNED_CLIENT_ID,
    FIELD_BYTES_MAX,
    MAXIMUM_PACKET_SIZE,
    MAXIMUM_QOS,
    RECEIVE_MAXIMUM,
    REQUEST_PROBLEM_INFO,
    REQUEST_RESPONSE_INFO,
    RESPONSE_INFO,
    RETAIN_AVAILABLE,
    SERVER_KEEP_ALIVE,
    SESSION_EXPIRY,
    SHARED_AVAILABLE,
    SUBSCRIPTION_ID_AVAILABLE,
    TOPIC_ALIAS_MAXIMUM,
    VARINT_MAX,
    WILDCARD_AVAILABLE,
)
from isthmus.topics.templates import filled
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from isthmus.mqtt.packets import AnyPacket, Connect, Will

PACKET_SIZE_MAX = VARINT_MAX + 5  # with its fixed header [MQTT-1.5.5]
BRIDGE_WINDOW = 20  # Mosquitto's max_inflight_messages: at QoS 2 it loses what is more
KEEP_ALIVE_MAX_S = 65535  # no limit: the protocol has no larger one


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the server allows its clients; see the settings of the same names.

    Without arguments it is all that the protocol has.
    """

    session_expiry_max_s: int = 0xFFFF_FFFF
    receive_maximum: int = 65535
    inflight_max: int = 65535
    packet_size_max: int = PACKET_SIZE_MAX
    topic_alias_max: int = 65535
    topic_alias_out_max: int = 65535
    keep_alive_max_s: int = KEEP_ALIVE_MAX_S
    maximum_qos: int = 2
    retain_available: bool = True
    wildcard_available: bool = True
    identifiers_available: bool = True
    shared_available: bool = True
    response_information: str = ""


class Terms:
    """What client and server agreed on for one connection."""

    __slots__ = (
        "clean_start",
        "client_id",
        "is_bridge",
        "keep_alive_s",
        "maximum_qos",
        "packet_size_max",
        "problem_info",
        "properties",
        "receive_maximum",
        "response_information",
        "retain_available",
        "session_expiry_s",
        "topic_alias_max",
        "topic_alias_out_max",
        "version",
        "will",
        "window",
    )

    def __init__(self, connect: Connect, client_id: str) -> None:
        self.version: int = connect.protocol_version
        self.client_id = client_id
        self.clean_start: bool = connect.clean_start
        self.is_bridge: bool = connect.is_bridge
        self.will: Will | None = connect.will
        self.keep_alive_s: int = connect.keep_alive_s
        self.session_expiry_s = 0
        self.window = 65535
        self.packet_size_max = 0
        self.receive_maximum = 65535
        self.topic_alias_max = 0
        self.topic_alias_out_max = 0
        self.maximum_qos = 2
        self.retain_available = True
        self.problem_info = True
        self.response_information = ""  # a template, for a client that asks for it
        self.properties: dict[int, Any] = {}

    def connack(self, session_present: bool) -> Connack:
        """Return the answer that accepts the connection [MQTT-3.2.2-2]."""
        return Connack(session_present, 0, self.properties if self.version == 5 else None)


def agree(connect: Connect, offer: Offer, spare_client_id: str) -> Terms:
    """Return the terms for a CONNECT. Raises the IsthmusError that refuses it.

    `spare_client_id` is given to a client that comes without one [MQTT-3.1.3-6].
    """
    version: int = connect.protocol_version
    if not connect.client_id and version < 5 and (version == 3 or not connect.clean_start):
        # [MQTT-3.1.3-8 of 3.1.1]
        raise ClientIdInvalid("no client id, and a session that is to be found again by it")
    terms = Terms(connect, connect.client_id or spare_client_id)
    terms.maximum_qos = offer.maximum_qos
    terms.retain_available = offer.retain_available
    if terms.will is not None:
        check_offered(terms.will.qos, retain=terms.will.retain, terms=terms)
    if version == 5:
        asked: dict[int, Any] = connect.properties or {}
        _agree_v5(terms, asked, offer)
        if not connect.client_id:
            terms.properties[ASSIGNED_CLIENT_ID] = spare_client_id
        if asked.get(REQUEST_RESPONSE_INFO, 0):  # [MQTT-3.1.2-28]
            terms.response_information = offer.response_information
        if not fits(terms.connack(False), version, terms.packet_size_max):
            raise TooLarge("the client takes no CONNACK")  # [MQTT-3.1.2-24]
    else:
        terms.session_expiry_s = 0 if connect.clean_start else offer.session_expiry_max_s
        terms.window = offer.inflight_max
        if connect.is_bridge:
            terms.window = min(terms.window, BRIDGE_WINDOW)
    return terms


def check_offered(qos: int, *, retain: bool, terms: Terms) -> None:
    """Refuse a will that is more than the server offers [MQTT-3.2.2-12, MQTT-3.2.2-13]."""
    if qos > terms.maximum_qos:
        raise QosNotSupported(f"QoS {qos}, and this server offers {terms.maximum_qos} at most")
    if retain and not terms.retain_available:
        raise RetainNotSupported("this server retains no messages")


def fits(packet: AnyPacket, version: int, packet_size_max: int) -> bool:
    """Say whether a packet is within a client's Maximum Packet Size; 0: it has none."""
    out = WriteBuffer()
    encode(packet, version, out)
    return packet_size_max == 0 or len(out) <= packet_size_max


def _agree_v5(terms: Terms, asked: dict[int, Any], offer: Offer) -> None:
    expiry_s: int = asked.get(SESSION_EXPIRY, 0)
    terms.session_expiry_s = min(expiry_s, offer.session_expiry_max_s)
    if terms.session_expiry_s != expiry_s:
        terms.properties[SESSION_EXPIRY] = terms.session_expiry_s
    terms.window = min(asked.get(RECEIVE_MAXIMUM, 65535), offer.inflight_max)
    terms.packet_size_max = asked.get(MAXIMUM_PACKET_SIZE, 0)
    terms.problem_info = bool(asked.get(REQUEST_PROBLEM_INFO, 1))
    terms.receive_maximum = offer.receive_maximum
    terms.topic_alias_max = offer.topic_alias_max
    if offer.receive_maximum != 65535:
        terms.properties[RECEIVE_MAXIMUM] = offer.receive_maximum
    terms.properties[MAXIMUM_PACKET_SIZE] = offer.packet_size_max
    if offer.topic_alias_max:
        terms.properties[TOPIC_ALIAS_MAXIMUM] = offer.topic_alias_max
    terms.topic_alias_out_max = min(
        asked.get(TOPIC_ALIAS_MAXIMUM, 0), offer.topic_alias_out_max
    )
    if offer.maximum_qos < 2:
        terms.properties[MAXIMUM_QOS] = offer.maximum_qos  # [MQTT-3.2.2-9]
    for identifier, is_available in (
        (RETAIN_AVAILABLE, offer.retain_available),
        (WILDCARD_AVAILABLE, offer.wildcard_available),
        (SUBSCRIPTION_ID_AVAILABLE, offer.identifiers_available),
        (SHARED_AVAILABLE, offer.shared_available),
    ):
        if not is_available:
            terms.properties[identifier] = 0
    limit_s = offer.keep_alive_max_s
    if limit_s < KEEP_ALIVE_MAX_S and not 0 < terms.keep_alive_s <= limit_s:
        terms.keep_alive_s = limit_s
        terms.properties[SERVER_KEEP_ALIVE] = limit_s


def tell_response_information(terms: Terms, user: str) -> None:
    """Fill in the template, where what comes of it is good.

    Not where a name in it would be read as more than one topic level, or makes it too long.

    `user` is who the client turned out to be, which need not be what its CONNECT says.
    """
    template = terms.response_information
    information = filled(template, user=user, client_id=terms.client_id)
    if (
        information
        and information.isprintable()
        and len(information.encode()) <= FIELD_BYTES_MAX
    ):
        terms.properties[RESPONSE_INFO] = information
