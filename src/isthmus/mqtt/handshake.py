"""The opening of a connection: a CONNECT in, the terms of the connection or a refusal out.

Covers 3.1, 3.1.1 and 5.0. Pure: what the server offers comes as `Offer`, chance as an argument.
Who may connect is decided elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.mqtt.codec import encode
from isthmus.mqtt.packets import Connack
from isthmus.mqtt.properties import (
    ASSIGNED_CLIENT_ID,
    AUTH_METHOD,
    MAXIMUM_PACKET_SIZE,
    RECEIVE_MAXIMUM,
    REQUEST_PROBLEM_INFO,
    SERVER_KEEP_ALIVE,
    SESSION_EXPIRY,
    SHARED_AVAILABLE,
    TOPIC_ALIAS_MAXIMUM,
)
from isthmus.mqtt.reasons import ReasonCode
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from isthmus.mqtt.packets import AnyPacket, Connect, Will

KEEP_ALIVE_MAX_S = 65535  # no limit: the protocol has no larger one


class Offer:
    """What the server allows its clients; see the settings of the same names."""

    __slots__ = (
        "inflight_max",
        "keep_alive_max_s",
        "packet_size_max",
        "receive_maximum",
        "session_expiry_max_s",
        "topic_alias_max",
    )

    def __init__(
        self,
        *,
        session_expiry_max_s: int,
        receive_maximum: int,
        inflight_max: int,
        packet_size_max: int,
        topic_alias_max: int,
        keep_alive_max_s: int,
    ) -> None:
        self.session_expiry_max_s = session_expiry_max_s
        self.receive_maximum = receive_maximum
        self.inflight_max = inflight_max
        self.packet_size_max = packet_size_max
        self.topic_alias_max = topic_alias_max
        self.keep_alive_max_s = keep_alive_max_s


class Terms:
    """What client and server agreed on for one connection."""

    __slots__ = (
        "clean_start",
        "client_id",
        "keep_alive_s",
        "packet_size_max",
        "problem_info",
        "properties",
        "receive_maximum",
        "session_expiry_s",
        "topic_alias_max",
        "version",
        "will",
        "window",
    )

    def __init__(self, connect: Connect, client_id: str) -> None:
        self.version: int = connect.protocol_version
        self.client_id = client_id
        self.clean_start: bool = connect.clean_start
        self.will: Will | None = connect.will
        self.keep_alive_s: int = connect.keep_alive_s
        self.session_expiry_s = 0
        self.window = 65535
        self.packet_size_max = 0
        self.receive_maximum = 65535
        self.topic_alias_max = 0
        self.problem_info = True
        self.properties: dict[int, Any] = {}

    def connack(self, session_present: bool) -> Connack:
        """Return the answer that accepts the connection [MQTT-3.2.2-2]."""
        return Connack(session_present, 0, self.properties if self.version == 5 else None)


def agree(connect: Connect, offer: Offer, spare_client_id: str) -> Terms | Connack:
    """Return the terms for a CONNECT, or the CONNACK that refuses it.

    `spare_client_id` is given to a client that comes without one [MQTT-3.1.3-6].
    """
    version: int = connect.protocol_version
    if not connect.client_id and version < 5 and (version == 3 or not connect.clean_start):
        # [MQTT-3.1.3-8 of 3.1.1]
        return Connack(False, ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, None)
    terms = Terms(connect, connect.client_id or spare_client_id)
    if version == 5:
        asked: dict[int, Any] = connect.properties or {}
        if AUTH_METHOD in asked:
            return Connack(
                False, ReasonCode.BAD_AUTHENTICATION_METHOD, None
            )  # none is supported [MQTT-4.12.0-1]
        _agree_v5(terms, asked, offer)
        if not connect.client_id:
            terms.properties[ASSIGNED_CLIENT_ID] = spare_client_id
        if not fits(terms.connack(False), version, terms.packet_size_max):
            return Connack(False, ReasonCode.PACKET_TOO_LARGE, None)  # [MQTT-3.1.2-24]
    else:
        terms.session_expiry_s = 0 if connect.clean_start else offer.session_expiry_max_s
        terms.window = offer.inflight_max
    return terms


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
    terms.properties[SHARED_AVAILABLE] = 0
    limit_s = offer.keep_alive_max_s
    if limit_s < KEEP_ALIVE_MAX_S and not 0 < terms.keep_alive_s <= limit_s:
        terms.keep_alive_s = limit_s
        terms.properties[SERVER_KEEP_ALIVE] = limit_s
