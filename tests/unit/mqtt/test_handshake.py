"""What client and server agree on when a connection opens."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.errors import QosNotSupported, RetainNotSupported
from isthmus.mqtt.handshake import Offer, Terms, agree, tell_response_information
from isthmus.mqtt.packets import Connect, Will
from isthmus.mqtt.properties import (
    MAXIMUM_PACKET_SIZE,
    MAXIMUM_QOS,
    REQUEST_RESPONSE_INFO,
    RESPONSE_INFO,
    RETAIN_AVAILABLE,
    SHARED_AVAILABLE,
    SUBSCRIPTION_ID_AVAILABLE,
    TOPIC_ALIAS_MAXIMUM,
    WILDCARD_AVAILABLE,
)


def terms_of(offer: Offer, client_id: str = "c", **connect: Any) -> Terms:
    return agree(Connect(5, client_id, **connect), offer, "spare")


def test_only_what_is_less_than_all_is_said() -> None:
    """[MQTT-3.2.2-9]"""
    told = terms_of(Offer()).properties
    assert told.keys() == {MAXIMUM_PACKET_SIZE, TOPIC_ALIAS_MAXIMUM}
    least = Offer(
        topic_alias_max=0,
        maximum_qos=0,
        retain_available=False,
        wildcard_available=False,
        identifiers_available=False,
        shared_available=False,
    )
    told = terms_of(least).properties
    del told[MAXIMUM_PACKET_SIZE]
    assert told == {
        MAXIMUM_QOS: 0,
        RETAIN_AVAILABLE: 0,
        WILDCARD_AVAILABLE: 0,
        SUBSCRIPTION_ID_AVAILABLE: 0,
        SHARED_AVAILABLE: 0,
    }


@pytest.mark.parametrize(("offered", "window"), [(1024, 20), (10, 10)])
def test_a_bridge_is_sent_what_it_can_hold(offered: int, window: int) -> None:
    offer = Offer(inflight_max=offered)
    assert agree(Connect(4, "c", is_bridge=True), offer, "spare").window == window
    assert agree(Connect(4, "c"), offer, "spare").window == offered


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_will_beyond_the_offer_refuses_the_connection(version: int) -> None:
    """[MQTT-3.2.2-12, MQTT-3.2.2-13]"""
    offer = Offer(maximum_qos=1, retain_available=False)
    for will, error in (
        (Will(b"w", b"", 2, False), QosNotSupported),
        (Will(b"w", b"", 0, True), RetainNotSupported),
    ):
        with pytest.raises(error):
            agree(Connect(version, "c", will=will), offer, "spare")
    assert agree(Connect(version, "c", will=Will(b"w", b"", 1, False)), offer, "spare").will


@pytest.mark.parametrize(
    ("template", "client_id", "user", "told"),
    [
        ("answers/%c/%u", "c1", "ada", "answers/c1/ada"),
        ("answers", "a/b", "", "answers"),
        ("%c", "%u", "ada", "%u"),  # what is put in is not looked at again
        ("answers/%c", "a/b", "ada", None),
        ("answers/%c", "a+", "ada", None),
        ("answers/%c", "#", "ada", None),
        ("answers/%u", "c1", "", None),
        ("", "c1", "ada", None),
    ],
)
def test_response_information_is_one_level_for_each_name(
    template: str, client_id: str, user: str, told: str | None
) -> None:
    """[MQTT-3.1.2-28]: and none for whom does not ask."""
    offer = Offer(response_information=template)
    asking = {REQUEST_RESPONSE_INFO: 1}
    terms = terms_of(offer, client_id, username="claimed", properties=asking)
    tell_response_information(terms, user)
    assert terms.properties.get(RESPONSE_INFO) == told
    for silent in (None, {REQUEST_RESPONSE_INFO: 0}):
        terms = terms_of(offer, client_id, properties=silent)
        tell_response_information(terms, user)
        assert RESPONSE_INFO not in terms.properties


@pytest.mark.parametrize(("taken", "offered", "used"), [(0, 9, 0), (5, 9, 5), (9, 5, 5)])
def test_aliases_are_as_many_as_both_take(taken: int, offered: int, used: int) -> None:
    """[MQTT-3.1.2-26, MQTT-3.1.2-27]"""
    terms = terms_of(
        Offer(topic_alias_out_max=offered), properties={TOPIC_ALIAS_MAXIMUM: taken}
    )
    assert terms.topic_alias_out_max == used


def test_response_information_that_names_make_too_long_is_not_told() -> None:
    offer = Offer(response_information="%u" * 8_000)
    connect = Connect(5, "c", True, 60, None, None, None, {REQUEST_RESPONSE_INFO: 1})
    for user, told in (("ann", True), ("a" * 9, False)):
        terms = agree(connect, offer, "spare")
        tell_response_information(terms, user)
        assert (RESPONSE_INFO in terms.properties) is told
