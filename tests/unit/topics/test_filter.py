"""The rules of topic names and filters, clause by clause."""

from __future__ import annotations

import pytest

from isthmus.errors import TopicInvalid
from isthmus.topics.filter import (
    TOPIC_BYTES_MAX,
    TOPIC_LEVELS_MAX,
    check_topic_filter,
    check_topic_name,
    filter_matches,
    parse_shared,
)

DEEPEST = "/".join("a" * TOPIC_LEVELS_MAX)
LONGEST = "é" * (TOPIC_BYTES_MAX // 2) + "a"


@pytest.mark.parametrize(
    "name", ["a", "/", "//", "a/b", "/a", "a/", " ", "$SYS/load", "Ω/°", DEEPEST, LONGEST]
)
def test_a_name_is_any_text_without_wildcards(name: str) -> None:
    check_topic_name(name)
    check_topic_filter(name)


@pytest.mark.parametrize(
    "text",
    ["", "a\0b", "a\ud800b", DEEPEST + "/a", LONGEST + "a", "\0" * 200, "é" * TOPIC_BYTES_MAX],
)
def test_what_is_neither_a_name_nor_a_filter(text: str) -> None:
    with pytest.raises(TopicInvalid):
        check_topic_name(text)
    with pytest.raises(TopicInvalid):
        check_topic_filter(text)


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+", "+/#", "/#", "a/+/b", "+/+", "a/#", "$SYS/#", "$share", "$share/g/#"],
)
def test_a_filter_may_hold_wildcards_where_a_name_may_not(topic_filter: str) -> None:
    check_topic_filter(topic_filter)
    if "+" in topic_filter or "#" in topic_filter:
        with pytest.raises(TopicInvalid):
            check_topic_name(topic_filter)


@pytest.mark.parametrize(
    "topic_filter", ["a#", "#a", "#/a", "a/#/b", "##", "a+", "+a", "a/b+/c", "++", "a/+#", "#/"]
)
def test_a_wildcard_has_its_level_to_itself(topic_filter: str) -> None:
    """[MQTT-4.7.1-1] and [MQTT-4.7.1-2]."""
    with pytest.raises(TopicInvalid):
        check_topic_filter(topic_filter)


def test_a_shared_filter_is_a_group_and_a_filter() -> None:
    assert parse_shared("$share/workers/plant/+/temp") == ("workers", "plant/+/temp")
    assert parse_shared("$share/workers//") == ("workers", "/")
    assert parse_shared("plant/#") == ("", "plant/#")
    assert parse_shared("$share") == ("", "$share")


@pytest.mark.parametrize(
    "topic_filter",
    ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"],
)
def test_a_shared_filter_needs_both(topic_filter: str) -> None:
    """[MQTT-4.8.2-1] and [MQTT-4.8.2-2]."""
    with pytest.raises(TopicInvalid):
        parse_shared(topic_filter)
    with pytest.raises(TopicInvalid):
        check_topic_filter(topic_filter)


def test_the_filter_inside_a_shared_one_is_checked() -> None:
    with pytest.raises(TopicInvalid):
        check_topic_filter("$share/g/a#")


@pytest.mark.parametrize(
    ("topic_filter", "matching", "other"),
    [
        # the examples of section 4.7.1, and the corners they leave out
        (
            "sport/tennis/player1/#",
            ["sport/tennis/player1", "sport/tennis/player1/ranking"],
            ["sport"],
        ),
        ("sport/#", ["sport", "sport/", "sport/a/b"], ["sports", "/sport"]),
        ("#", ["a", "/", "a/b/c"], ["$SYS", "$SYS/a", "$"]),
        (
            "sport/tennis/+",
            ["sport/tennis/player1", "sport/tennis/"],
            ["sport/tennis", "sport/tennis/a/b"],
        ),
        ("sport/+", ["sport/", "sport/a"], ["sport"]),
        ("+", ["finance", ""], ["/finance", "$SYS"]),
        ("+/+", ["/finance", "/", "a/b"], ["finance", "a/b/c", "$SYS/a"]),
        ("/+", ["/finance", "/"], ["finance"]),
        ("+/tennis/#", ["sport/tennis", "sport/tennis/a", "/tennis"], ["$SYS/tennis"]),
        ("$SYS/#", ["$SYS", "$SYS/", "$SYS/a/b"], ["SYS"]),
        ("$SYS/monitor/+", ["$SYS/monitor/Clients"], ["$SYS/monitor"]),
        ("a//b", ["a//b"], ["a/b", "a/x/b"]),
        ("a/+/b", ["a//b", "a/$x/b"], ["a/b"]),
        ("ACCOUNTS", ["ACCOUNTS"], ["Accounts", "/ACCOUNTS", "ACCOUNTS/"]),
    ],
)
def test_matching_follows_the_specification(
    topic_filter: str, matching: list[str], other: list[str]
) -> None:
    """[MQTT-4.7.0-1] to [MQTT-4.7.3-4]."""
    assert [name for name in matching + other if filter_matches(topic_filter, name)] == matching


def test_an_error_text_stays_short_and_printable() -> None:
    with pytest.raises(TopicInvalid) as caught:
        check_topic_name("\n+" * 10_000)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()
