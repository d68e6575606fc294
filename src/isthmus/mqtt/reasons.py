"""What an error is called on the wire: reason codes of MQTT 5.0, return codes of 3.1 and 3.1.1.

`reason_of` turns an error into the reason code of its nearest class in one table; `reason_in`
fits it into what a given packet may carry, because each packet allows only some codes [MQTT
5.0, 2.4]. Before 5.0 only CONNACK and SUBACK say anything; `connack_code` gives the return code
that stands for a reason [MQTT 3.1.1, 3.2.2.3], None where the connection is closed without an
answer.
"""

from __future__ import annotations

from typing import Final

from isthmus import errors
from isthmus.mqtt import packets


class ReasonCode:
    """The reason codes of MQTT 5.0 [section 2.4], as plain integers."""

    SUCCESS: Final = 0x00
    NORMAL_DISCONNECTION: Final = 0x00
    GRANTED_QOS_0: Final = 0x00
    GRANTED_QOS_1: Final = 0x01
    GRANTED_QOS_2: Final = 0x02
    DISCONNECT_WITH_WILL: Final = 0x04
    NO_MATCHING_SUBSCRIBERS: Final = 0x10
    NO_SUBSCRIPTION_EXISTED: Final = 0x11
    CONTINUE_AUTHENTICATION: Final = 0x18
    RE_AUTHENTICATE: Final = 0x19
    UNSPECIFIED_ERROR: Final = 0x80
    MALFORMED_PACKET: Final = 0x81
    PROTOCOL_ERROR: Final = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR: Final = 0x83
    UNSUPPORTED_PROTOCOL_VERSION: Final = 0x84
    CLIENT_IDENTIFIER_NOT_VALID: Final = 0x85
    BAD_USER_NAME_OR_PASSWORD: Final = 0x86
    NOT_AUTHORIZED: Final = 0x87
    SERVER_UNAVAILABLE: Final = 0x88
    SERVER_BUSY: Final = 0x89
    BANNED: Final = 0x8A
    SERVER_SHUTTING_DOWN: Final = 0x8B
    BAD_AUTHENTICATION_METHOD: Final = 0x8C
    KEEP_ALIVE_TIMEOUT: Final = 0x8D
    SESSION_TAKEN_OVER: Final = 0x8E
    TOPIC_FILTER_INVALID: Final = 0x8F
    TOPIC_NAME_INVALID: Final = 0x90
    PACKET_IDENTIFIER_IN_USE: Final = 0x91
    PACKET_IDENTIFIER_NOT_FOUND: Final = 0x92
    RECEIVE_MAXIMUM_EXCEEDED: Final = 0x93
    TOPIC_ALIAS_INVALID: Final = 0x94
    PACKET_TOO_LARGE: Final = 0x95
    MESSAGE_RATE_TOO_HIGH: Final = 0x96
    QUOTA_EXCEEDED: Final = 0x97
    ADMINISTRATIVE_ACTION: Final = 0x98
    PAYLOAD_FORMAT_INVALID: Final = 0x99
    RETAIN_NOT_SUPPORTED: Final = 0x9A
    QOS_NOT_SUPPORTED: Final = 0x9B
    USE_ANOTHER_SERVER: Final = 0x9C
    SERVER_MOVED: Final = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: Final = 0x9E
    CONNECTION_RATE_EXCEEDED: Final = 0x9F
    MAXIMUM_CONNECT_TIME: Final = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: Final = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: Final = 0xA2


class ConnackCode:
    """The CONNACK return codes of MQTT 3.1 and 3.1.1 [3.1.1, table 3.1]."""

    ACCEPTED: Final = 0
    UNACCEPTABLE_PROTOCOL_VERSION: Final = 1
    IDENTIFIER_REJECTED: Final = 2
    SERVER_UNAVAILABLE: Final = 3
    BAD_USER_NAME_OR_PASSWORD: Final = 4
    NOT_AUTHORIZED: Final = 5


REASON_STRING_MAX: Final = 300  # characters; ours
SUBACK_FAILURE: Final = 0x80  # the only refusal that a SUBACK of 3.1.1 knows [MQTT-3.9.3-2]

MQTT_REASON: Final[dict[type[errors.IsthmusError], int]] = {
    errors.IsthmusError: ReasonCode.UNSPECIFIED_ERROR,
    errors.ConfigError: ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
    # the peer broke the rules
    errors.ProtocolError: ReasonCode.PROTOCOL_ERROR,
    errors.Malformed: ReasonCode.MALFORMED_PACKET,
    errors.TooLarge: ReasonCode.PACKET_TOO_LARGE,
    errors.UnsupportedVersion: ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    errors.UnexpectedPacket: ReasonCode.PROTOCOL_ERROR,
    errors.TopicAliasInvalid: ReasonCode.TOPIC_ALIAS_INVALID,
    errors.TopicNameInvalid: ReasonCode.TOPIC_NAME_INVALID,
    errors.ClientIdInvalid: ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
    errors.QosNotSupported: ReasonCode.QOS_NOT_SUPPORTED,
    errors.RetainNotSupported: ReasonCode.RETAIN_NOT_SUPPORTED,
    errors.WildcardsNotSupported: ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
    errors.IdentifiersNotSupported: ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
    errors.SharedNotSupported: ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    errors.ReceiveMaximumExceeded: ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,
    errors.MessageRateExceeded: ReasonCode.MESSAGE_RATE_TOO_HIGH,
    errors.KeepAliveTimeout: ReasonCode.KEEP_ALIVE_TIMEOUT,
    errors.SessionTakenOver: ReasonCode.SESSION_TAKEN_OVER,
    errors.AdministrativeAction: ReasonCode.ADMINISTRATIVE_ACTION,
    errors.ServerShuttingDown: ReasonCode.SERVER_SHUTTING_DOWN,
    # understood and refused
    errors.Refused: ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
    errors.NotAuthorized: ReasonCode.NOT_AUTHORIZED,
    errors.BadCredentials: ReasonCode.BAD_USER_NAME_OR_PASSWORD,
    errors.AuthenticationMethodUnknown: ReasonCode.BAD_AUTHENTICATION_METHOD,
    errors.Banned: ReasonCode.BANNED,
    errors.ServerBusy: ReasonCode.SERVER_BUSY,
    errors.ConnectionRateExceeded: ReasonCode.CONNECTION_RATE_EXCEEDED,
    errors.UseAnotherServer: ReasonCode.USE_ANOTHER_SERVER,
    errors.ServerMoved: ReasonCode.SERVER_MOVED,
    errors.TopicUnknown: ReasonCode.TOPIC_NAME_INVALID,
    errors.TopicInvalid: ReasonCode.TOPIC_NAME_INVALID,
    errors.BatchTooLarge: ReasonCode.PACKET_TOO_LARGE,
    errors.QuotaExceeded: ReasonCode.QUOTA_EXCEEDED,
    errors.RetainedFull: ReasonCode.QUOTA_EXCEEDED,
    # the disk or the cluster
    errors.StorageError: ReasonCode.UNSPECIFIED_ERROR,
    errors.NoSpace: ReasonCode.QUOTA_EXCEEDED,
    errors.LogClosed: ReasonCode.SERVER_SHUTTING_DOWN,
}

_ACCEPTED_OR_NOT: Final = frozenset((0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99))
_KNOWN_OR_NOT: Final = frozenset((0x00, 0x92))

REASONS: Final[dict[int, frozenset[int]]] = {
    packets.CONNACK: frozenset(
        (0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F)
    ),
    packets.PUBACK: _ACCEPTED_OR_NOT,
    packets.PUBREC: _ACCEPTED_OR_NOT,
    packets.PUBREL: _KNOWN_OR_NOT,
    packets.PUBCOMP: _KNOWN_OR_NOT,
    packets.SUBACK: frozenset(
        (0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2)
    ),
    packets.UNSUBACK: frozenset((0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91)),
    packets.DISCONNECT: frozenset(
        (
            *(0x00, 0x04, *range(0x80, 0x84), 0x87, 0x89, 0x8B),
            *(*range(0x8D, 0x91), *range(0x93, 0xA3)),
        )
    ),
    packets.AUTH: frozenset((0x00, 0x18, 0x19)),
}
"""The reason codes that each packet may carry [MQTT 5.0, 3.2.2.2 to 3.15.2.1]."""

DISCONNECT_BY_CLIENT: Final = frozenset(
    (0x00, 0x04, *range(0x80, 0x84), 0x90, *range(0x93, 0x9A))
)
DISCONNECT_BY_SERVER: Final = REASONS[packets.DISCONNECT] - {0x04}
"""Who may send which code in DISCONNECT [MQTT 5.0, table 3-10]."""

_INSTEAD: Final = {
    (packets.SUBACK, ReasonCode.TOPIC_NAME_INVALID): ReasonCode.TOPIC_FILTER_INVALID,
    (packets.UNSUBACK, ReasonCode.TOPIC_NAME_INVALID): ReasonCode.TOPIC_FILTER_INVALID,
    (packets.CONNACK, ReasonCode.SERVER_SHUTTING_DOWN): ReasonCode.SERVER_UNAVAILABLE,
    (packets.DISCONNECT, ReasonCode.BAD_USER_NAME_OR_PASSWORD): ReasonCode.NOT_AUTHORIZED,
    (packets.DISCONNECT, ReasonCode.BAD_AUTHENTICATION_METHOD): ReasonCode.NOT_AUTHORIZED,
}
"""What says nearly the same in a packet that does not know the code."""

_CONNACK_CODES: Final[dict[int, int]] = {
    ReasonCode.SUCCESS: ConnackCode.ACCEPTED,
    ReasonCode.UNSPECIFIED_ERROR: ConnackCode.SERVER_UNAVAILABLE,
    ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR: ConnackCode.SERVER_UNAVAILABLE,
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: ConnackCode.UNACCEPTABLE_PROTOCOL_VERSION,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: ConnackCode.IDENTIFIER_REJECTED,
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: ConnackCode.BAD_USER_NAME_OR_PASSWORD,
    ReasonCode.NOT_AUTHORIZED: ConnackCode.NOT_AUTHORIZED,
    ReasonCode.SERVER_UNAVAILABLE: ConnackCode.SERVER_UNAVAILABLE,
    ReasonCode.SERVER_BUSY: ConnackCode.SERVER_UNAVAILABLE,
    ReasonCode.BANNED: ConnackCode.NOT_AUTHORIZED,
    ReasonCode.SERVER_SHUTTING_DOWN: ConnackCode.SERVER_UNAVAILABLE,
    ReasonCode.BAD_AUTHENTICATION_METHOD: ConnackCode.NOT_AUTHORIZED,
    ReasonCode.QUOTA_EXCEEDED: ConnackCode.SERVER_UNAVAILABLE,
    ReasonCode.USE_ANOTHER_SERVER: ConnackCode.SERVER_UNAVAILABLE,
    ReasonCode.SERVER_MOVED: ConnackCode.SERVER_UNAVAILABLE,
    ReasonCode.CONNECTION_RATE_EXCEEDED: ConnackCode.SERVER_UNAVAILABLE,
}

_NAMES: Final[dict[int, str]] = {
    code: name.lower().replace("_", " ")
    for name, code in reversed(list(vars(ReasonCode).items()))  # the first name of a code stays
    if name.isupper()
}


def reason_of(error: errors.IsthmusError) -> int:
    """Return the reason code of an error: that of the nearest class which has one."""
    return next(MQTT_REASON[kind] for kind in type(error).__mro__ if kind in MQTT_REASON)


def reason_in(packet_type: int, error: errors.IsthmusError) -> int:
    """Return the reason code of an error as a packet of this type may carry it.

    What a SUBACK or UNSUBACK refuses is a topic filter, not a topic name; a code that the
    packet does not know becomes 0x80, unspecified error.
    """
    code = reason_of(error)
    code = _INSTEAD.get((packet_type, code), code)
    return code if code in REASONS[packet_type] else ReasonCode.UNSPECIFIED_ERROR


def text_of(error: errors.IsthmusError) -> str:
    """Return an error as a Reason String, which no packet can be too long for."""
    return str(error)[:REASON_STRING_MAX].replace("\0", "\N{REPLACEMENT CHARACTER}")


def connack_code(reason: int) -> int | None:
    """Return the CONNACK return code before 5.0 for a reason; None: close without an answer."""
    return _CONNACK_CODES.get(reason)


def connack_code_of(error: errors.IsthmusError) -> int | None:
    """Return the CONNACK return code before 5.0 for an error; None: close without an answer."""
    return connack_code(reason_of(error))


def name_of(reason: int) -> str:
    """Return a reason code in words, for logs: `not authorized (0x87)`."""
    return f"{_NAMES.get(reason, 'unknown reason')} ({reason:#04x})"
