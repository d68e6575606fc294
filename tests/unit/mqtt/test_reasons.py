"""Every error has its code, chosen on purpose, and every packet carries only codes it knows."""

from __future__ import annotations

import pytest

from isthmus import errors
from isthmus.mqtt import packets
from isthmus.mqtt.reasons import (
    DISCONNECT_BY_CLIENT,
    DISCONNECT_BY_SERVER,
    MQTT_REASON,
    REASONS,
    ReasonCode,
    connack_code,
    connack_code_of,
    name_of,
    reason_in,
    reason_of,
)

CODES = {value for name, value in vars(ReasonCode).items() if name.isupper()}

# Leaves that deliberately share the code of their kind; any other leaf has an entry of its own.
AS_THEIR_KIND = {
    errors.ConnectionThrottled,
    errors.TopicExists,
    errors.OffsetOutOfRange,
    errors.OutOfOrderSequence,
    errors.ProducerFenced,
    errors.TransactionStateInvalid,
    errors.CoordinatorFenced,
    errors.TimestampInvalid,
    errors.PolicyViolation,
    errors.ConfigInvalid,
    errors.CorruptBatch,
    errors.SyncFailed,
}


def leaves(kind: type[errors.IsthmusError]) -> list[type[errors.IsthmusError]]:
    below = kind.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [kind]


LEAVES = [leaf for leaf in leaves(errors.IsthmusError) if leaf.__module__ == "isthmus.errors"]


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_leaf_has_a_code(leaf: type[errors.IsthmusError]) -> None:
    assert reason_of(leaf("why")) in CODES - {0, 1, 2}
    assert (leaf in MQTT_REASON) != (leaf in AS_THEIR_KIND), "say what its code is, on purpose"


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_leaf_fits_into_every_packet_that_refuses(
    leaf: type[errors.IsthmusError],
) -> None:
    for packet_type in REASONS.keys() - {packets.PUBREL, packets.PUBCOMP, packets.AUTH}:
        assert reason_in(packet_type, leaf("why")) in REASONS[packet_type]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Malformed, 0x81),
        (errors.ProtocolError, 0x82),
        (errors.UnexpectedPacket, 0x82),
        (errors.UnsupportedVersion, 0x84),
        (errors.NotAuthorized, 0x87),
        (errors.ServerShuttingDown, 0x8B),
        (errors.KeepAliveTimeout, 0x8D),
        (errors.SessionTakenOver, 0x8E),
        (errors.TopicNameInvalid, 0x90),
        (errors.ReceiveMaximumExceeded, 0x93),
        (errors.TopicAliasInvalid, 0x94),
        (errors.TooLarge, 0x95),
        (errors.QuotaExceeded, 0x97),
        (errors.CorruptBatch, 0x80),
    ],
)
def test_the_codes_of_the_specification(error: type[errors.IsthmusError], code: int) -> None:
    """[MQTT 5.0, 4.13 and table 2-6]."""
    assert reason_of(error("why")) == code


def test_a_class_below_a_leaf_has_the_leafs_code() -> None:
    class OurOwnQuota(errors.QuotaExceeded):
        pass

    assert reason_of(OurOwnQuota("why")) == ReasonCode.QUOTA_EXCEEDED


def test_a_refused_filter_is_called_a_filter() -> None:
    error = errors.TopicInvalid("why")
    assert reason_in(packets.PUBACK, error) == ReasonCode.TOPIC_NAME_INVALID
    assert reason_in(packets.SUBACK, error) == ReasonCode.TOPIC_FILTER_INVALID


def test_the_codes_of_each_packet_are_codes() -> None:
    assert set(REASONS) == {2, 4, 5, 6, 7, 9, 11, 14, 15}
    assert all(codes <= CODES for codes in REASONS.values())
    assert REASONS[packets.DISCONNECT] == DISCONNECT_BY_CLIENT | DISCONNECT_BY_SERVER


@pytest.mark.parametrize(
    ("reason", "code"),
    [(0x00, 0), (0x84, 1), (0x85, 2), (0x88, 3), (0x89, 3), (0x86, 4), (0x87, 5), (0x81, None)],
)
def test_the_return_codes_before_version_5(reason: int, code: int | None) -> None:
    """[MQTT 3.1.1, table 3.1]."""
    assert connack_code(reason) == code


def test_a_client_of_an_unknown_version_learns_it() -> None:
    """[MQTT-3.1.2-2]."""
    assert connack_code_of(errors.UnsupportedVersion("level 2")) == 1
    assert connack_code_of(errors.Malformed("why")) is None


def test_a_code_in_words() -> None:
    assert name_of(0x00) == "success (0x00)"
    assert name_of(0x87) == "not authorized (0x87)"
    assert name_of(0x7F) == "unknown reason (0x7f)"
