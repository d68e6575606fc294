"""Aliases that the server gives: what they stand for, and who loses one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.mqtt.test_session import LOG, Client

from isthmus.mqtt.aliases import OutgoingAliases
from isthmus.mqtt.codec import Decoder
from isthmus.mqtt.handshake import Terms
from isthmus.mqtt.packets import Connect, Publish
from isthmus.mqtt.properties import TOPIC_ALIAS

NAMES = [b"name/%d" % number for number in range(6)]


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=40),
)
def test_what_the_client_holds_is_what_the_server_means(
    maximum: int, steps: list[tuple[bytes, bool]]
) -> None:
    """[MQTT-3.1.2-26, MQTT-3.3.2-12]: an alias alone stands for the name that had it last."""
    aliases, of_client = OutgoingAliases(maximum), {}
    for topic, is_sent in steps:
        alias = aliases.find(topic)
        assert alias == 0 or of_client[alias] == topic
        alias = alias or aliases.spare()
        assert 1 <= alias <= maximum
        if is_sent:  # else it did not fit, and nothing has changed
            aliases.used(topic, alias)
            of_client[alias] = topic


def test_the_name_used_least_recently_loses_its_alias() -> None:
    aliases = OutgoingAliases(2)
    for topic in (b"a", b"b", b"a", b"c"):
        aliases.used(topic, aliases.find(topic) or aliases.spare())
    assert [aliases.find(topic) for topic in (b"a", b"b", b"c")] == [1, 0, 2]


def attached(packet_size_max: int = 0, aliases: int = 2) -> Client:
    client = Client()
    terms = Terms(Connect(5, "c"), "c")
    terms.packet_size_max = packet_size_max
    terms.topic_alias_out_max = aliases
    client.session.attach(terms, client.transmit)
    return client


def sent(client: Client, *topics: bytes) -> list[tuple[bytes, int]]:
    """Deliver one message of each name; return the names and aliases that were sent."""
    for topic in topics:
        client.log.append(Publish(topic, b"x"))
        client.session.deliver(client.log[-1], 0, False, b"", LOG, len(client.log) - 1)
    packets = Decoder(1 << 20, 5).feed(client.session.output.take())
    return [(one.topic, (one.properties or {}).get(TOPIC_ALIAS, 0)) for one in packets]


def test_a_name_is_sent_once_then_its_alias() -> None:
    client = attached()
    assert sent(client, b"name/1", b"name/1", b"name/2", b"name/1") == [
        *((b"name/1", 1), (b"", 1)),
        *((b"name/2", 2), (b"", 1)),
    ]


def test_a_name_shorter_than_its_alias_has_none() -> None:
    assert sent(attached(), b"a/b", b"a/b") == [(b"a/b", 0)] * 2


def test_a_new_connection_knows_no_alias() -> None:
    client = attached()
    sent(client, b"name/1")
    client.session.detach()
    terms = Terms(Connect(5, "c"), "c")
    terms.topic_alias_out_max = 2
    client.session.attach(terms, client.transmit)
    assert sent(client, b"name/1") == [(b"name/1", 1)]


def test_what_only_fits_without_its_alias_goes_without_and_assigns_none() -> None:
    """fixed header 2, topic 2 + 6, property length 1, payload 1: 12 bytes, 15 with an alias"""
    client = attached(packet_size_max=12)
    assert sent(client, b"name/1", b"name/1") == [(b"name/1", 0)] * 2
    assert sent(client, b"name/12") == []
    assert client.session.dropped.too_large == 1
