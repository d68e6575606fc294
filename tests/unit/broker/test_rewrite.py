"""Rewriting: which rule applies, and what becomes of topic names and filters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.broker.shore import Client, Shore

from isthmus.broker.access import Access
from isthmus.broker.access_rules import parse_rule
from isthmus.broker.rewrite import Rewriting, Rewritings
from isthmus.errors import ConfigError
from isthmus.mqtt.packets import Subscribe, Unsubscribe, Will
from isthmus.mqtt.properties import TOPIC_ALIAS
from isthmus.topics.filter import check_topic_filter, filter_matches

RULES = Rewritings(
    [
        Rewriting("old/{rest...}", "new/{rest...}"),
        Rewriting("x/{a}/y/{b}", "z/{b}/{a}"),
        Rewriting("x/1/y/{b}", "first/{b}"),
        Rewriting("in/{a}", "both/{a}", of_filters=False),
        Rewriting("out/{a}", "both/{a}", of_names=False),
    ]
)


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("x/2/y/3", "z/3/2"),
        ("x/1/y/3", "first/3"),  # the most specific rule, and only that
        ("old/x/2/y/3", "new/x/2/y/3"),  # once
        ("old", "old"),
        ("old/", "new/"),
        ("in/a", "both/a"),
        ("out/a", "out/a"),
        ("x/2/y", "x/2/y"),
        ("x/2/y/3/4", "x/2/y/3/4"),
        ("$SYS/old/a", "$SYS/old/a"),
    ],
)
def test_a_topic_name_becomes_another_one(name: str, becomes: str) -> None:
    for _ in range(2):  # the second time it is known
        assert RULES.topic_name(name.encode()) == becomes.encode()
    assert RULES.concern(name.encode()) == (name != becomes)


@pytest.mark.parametrize(
    ("topic_filter", "becomes"),
    [
        ("x/2/y/3", "z/3/2"),
        ("x/+/y/+", "z/+/+"),
        ("x/+/y/#", "x/+/y/#"),  # it matches more than the rule
        ("x/#", "x/#"),
        ("+/2/y/3", "+/2/y/3"),
        ("old/#", "new/#"),
        ("old/+/#", "new/+/#"),
        ("#", "#"),
        ("$share/g/old/+/b", "$share/g/new/+/b"),
        ("$share/old/old", "$share/old/old"),
        ("out/+", "both/+"),
        ("in/+", "in/+"),
    ],
)
def test_a_filter_becomes_another_one(topic_filter: str, becomes: str) -> None:
    assert RULES.topic_filter(topic_filter) == becomes


LEVELS = st.lists(st.sampled_from(["x", "y", "", "+"]), min_size=1, max_size=4)
ONE_RULE = st.sampled_from(
    [
        Rewriting("x/{a}", "new/{a}"),
        Rewriting("{a}/x/{b}", "new/{b}/{a}"),
        Rewriting("x/{a}/{rest...}", "new/{a}/of/{rest...}"),
        Rewriting("{a}/{rest...}", "new/{rest...}"),
    ]
)


@given(ONE_RULE, LEVELS, st.lists(st.sampled_from("xy"), max_size=2), st.data())
def test_what_a_filter_matches_it_matches_rewritten(
    rule: Rewriting, levels: list[str], more: list[str], data: st.DataObject
) -> None:
    """A filter that is rewritten goes where all the names go that it matches."""
    topic_filter = "/".join([*levels, "#"] if more else levels)
    rules = Rewritings([rule])
    if not topic_filter or rules.topic_filter(topic_filter) == topic_filter:
        return
    check_topic_filter(rules.topic_filter(topic_filter))
    some = [data.draw(st.sampled_from("xyz")) if each == "+" else each for each in levels]
    name = "/".join(some + more)
    assert filter_matches(topic_filter, name)
    meant = rules.topic_name(name.encode()).decode()
    assert filter_matches(rules.topic_filter(topic_filter), meant)
    assert meant != name


def test_without_rules_everything_is_as_it_is() -> None:
    assert Rewritings().topic_name(b"a/b") == b"a/b"
    assert Rewritings().topic_filter("$share/g/#") == "$share/g/#"


def test_two_rules_for_the_same_names_are_refused() -> None:
    rules = [Rewriting("a/{b}", "x/{b}"), Rewriting("a/{c}", "y/{c}", of_filters=False)]
    with pytest.raises(ConfigError, match=r'rewriting "a/\{b\}" and "a/\{c\}" match the same'):
        Rewritings(rules)
    apart = [rules[1], Rewriting("a/{c}", "y/{c}", of_names=False)]
    assert Rewritings(apart).topic_filter("a/+") == "y/+"


# --- the shore --------------------------------------------------------------------------------

TEMPERATURES = Rewriting("old/{a}/temp", "plant/temp/{a}")


@pytest.fixture
def shore() -> Shore:
    return Shore(rewritings=Rewritings([TEMPERATURES]))


def subscriber(shore: Shore, topic_filter: str) -> Client:
    client = shore.client(f"of {topic_filter}")
    client.subscribe(topic_filter)
    client.packets()
    return client


def test_what_is_published_goes_to_the_new_name_only(shore: Shore) -> None:
    old, new = subscriber(shore, "old/#"), subscriber(shore, "plant/#")
    publisher = shore.client("p")
    for payload in (b"1", b"2"):
        publisher.publish("old/7/temp", payload, 1, packet_id=1, retain=True)
    publisher.publish("plant/temp/7", b"3")
    assert [packet.reason for packet in publisher.packets()] == [0, 0]
    assert [(name, payload) for name, payload, _ in new.messages()] == [
        ("plant/temp/7", payload) for payload in (b"1", b"2", b"3")
    ]
    assert old.messages() == []
    assert {record.key for record in shore.records("mqtt")} == {b"plant/temp/7"}
    late = shore.client("late")
    late.subscribe("#")
    assert late.messages() == [("plant/temp/7", b"2", 1)]


def test_an_alias_is_that_of_the_name_that_was_said(shore: Shore) -> None:
    new = subscriber(shore, "plant/#")
    publisher = shore.client("p")
    publisher.publish("old/7/temp", b"1", properties={TOPIC_ALIAS: 1})
    publisher.publish("", b"2", properties={TOPIC_ALIAS: 1})
    assert [name for name, *_ in new.messages()] == ["plant/temp/7"] * 2


def test_a_record_under_the_old_name_stays_there_and_changes_nothing(shore: Shore) -> None:
    """A record may resolve the name first; clients' messages are rewritten all the same."""
    old, new = subscriber(shore, "old/#"), subscriber(shore, "plant/#")
    shore.produce("mqtt", b"old/7/temp", b"record")
    shore.client("p").publish("old/7/temp", b"message")
    shore.produce("mqtt", b"old/7/temp", b"record")
    assert old.messages() == [("old/7/temp", b"record", 1)] * 2
    assert new.messages() == [("plant/temp/7", b"message", 0)]


def test_wills_and_delayed_messages_are_rewritten(shore: Shore) -> None:
    new = subscriber(shore, "plant/#")
    shore.client("w", will=Will(b"old/7/temp", b"will")).lose()
    shore.client("p").publish("$delayed/1/old/8/temp", b"delayed")
    shore.runtime.advance(1_000)
    assert new.messages() == [
        ("plant/temp/7", b"will", 0),
        ("plant/temp/8", b"delayed", 0),
    ]


def test_a_filter_is_answered_and_given_up_as_it_was_said(shore: Shore) -> None:
    client = shore.client()
    client.send(Subscribe(1, [("old/+/temp", 1), ("old/#/temp", 1)]))
    assert client.packets()[0].reasons == [1, 0x8F]
    shore.client("p").publish("plant/temp/7", b"x")
    assert client.messages() == [("plant/temp/7", b"x", 0)]
    client.send(Unsubscribe(2, ["old/+/temp", "old/+/temp", "old/#/temp"]))
    assert client.packets()[0].reasons == [0, 0x11, 0x8F]
    shore.client("p").publish("plant/temp/7", b"x")
    assert client.messages() == []


def test_a_shared_subscription_stays_in_its_group(shore: Shore) -> None:
    members = [shore.client("one"), shore.client("two")]
    for member in members:
        member.subscribe("$share/g/old/+/temp")
        assert [packet.reasons for packet in member.packets()] == [[1]]
    for number in range(4):
        shore.client("p").publish(f"old/{number}/temp", b"x")
    came = [member.messages() for member in members]
    assert [len(each) for each in came] == [2, 2]
    members[0].send(Unsubscribe(2, ["$share/g/old/+/temp"]))
    assert members[0].packets()[0].reasons == [0]


def test_sessions_have_the_new_filter_and_keep_those_from_before(shore: Shore) -> None:
    client = shore.client(expiry_s=1000)
    client.subscribe("old/+/temp")
    plain = Shore(log=shore.crash().log)
    assert list(plain.broker.subscriptions.of(plain.clients.sessions.entries["c"].session)) == [
        "plant/temp/+"
    ]
    client = Client(plain, "c", 5)
    client.connect(clean_start=False, expiry_s=1000)
    client.subscribe("old/9/temp")
    plain.settings["rewritings"] = Rewritings([TEMPERATURES])
    client = Client(plain.crash(), "c", 5)
    client.connect(clean_start=False, expiry_s=1000)
    client.send(Unsubscribe(2, ["old/9/temp", "old/+/temp"]))
    assert client.packets()[0].reasons == [0, 0]


def test_rights_are_those_of_the_name_that_is_meant() -> None:
    rules = [
        parse_rule("allow all publish plant/#", "t"),
        parse_rule("allow all subscribe old/#", "t"),
    ]
    shore = Shore(rewritings=Rewritings([TEMPERATURES]), access=Access(rules, default=False))
    client = shore.client()
    client.publish("old/7/temp", b"x", 1, packet_id=1)
    client.publish("old/7/pressure", b"x", 1, packet_id=2)
    client.send(Subscribe(3, [("old/+/temp", 0), ("old/+/pressure", 0)]))
    puback, refused, suback = client.packets()
    assert (puback.reason, refused.reason) == (0x10, 0x87)
    assert suback.reasons == [0x87, 0]


def test_a_rule_opens_nothing_that_belongs_to_the_server() -> None:
    shore = Shore(rewritings=Rewritings([Rewriting("open/{rest...}", "{rest...}")]))
    client = shore.client()
    client.publish("open/$SYS/broker/uptime", b"x", 1, packet_id=1)
    client.publish("open/", b"x", 1, packet_id=2)
    assert [packet.reason for packet in client.packets()] == [0x87, 0x90]
