"""What a plan works out, and what it refuses in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.config_listeners import parse_address
from isthmus.load.errors import LoadError
from isthmus.load.plan import BURST_BYTES, MqttPlan

ADDRESS = parse_address("tcp://127.0.0.1:1883")


def plan(**more: Any) -> MqttPlan:
    return MqttPlan(address=ADDRESS, **more)


def test_names_have_one_length_and_the_filter_matches_them_all() -> None:
    made = plan(publishers=11, topics=100, subscribers=3)
    assert made.topic_names[0][0] == "isthmus-bench/00/00"
    assert made.topic_names[10][99] == "isthmus-bench/10/99"
    assert {len(name) for names in made.topic_names for name in names} == {19}
    assert made.filters_of(2) == ["isthmus-bench/+/+"]
    assert made.fans() == [[3] * 100] * 11


def test_a_filter_of_each_subscribers_own() -> None:
    made = plan(publishers=20, subscribers=10, topic="d/{client}", filters=("d/0{client}",))
    assert made.fans() == [[1]] * 10 + [[0]] * 10
    assert made.filters_of(7) == ["d/07"]


def test_a_group_has_each_message_once() -> None:
    made = plan(publishers=2, subscribers=5, filters=("$share/g/isthmus-bench/#",))
    assert made.is_shared and made.fans() == [[1], [1]]


def test_windows_and_bursts_that_nobody_asked_for() -> None:
    made = (plan(), plan(qos=1), plan(window=7))
    assert [each.window_size for each in made] == [1_000, 100, 7]
    assert plan().burst_size == BURST_BYTES // plan().packet_bytes
    assert plan(publishers=100).burst_size == 10
    assert plan(publishers=10_000).burst_size == 1
    assert plan(burst=3).burst_size == 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"publishers": 0, "subscribers": 0}, "needs clients"),
        ({"publishers": 0}, "without publishers get nothing"),
        ({"payload_bytes": 15}, "a payload needs 16 bytes"),
        ({"topics": 2, "topic": "a/{client}"}, "need {n} in"),
        ({"topic": "a/#"}, "wildcard"),
        ({"topic": ""}, "topic name"),
        ({"filters": ("a/#/b",)}, "wildcard"),
        ({"filters": ("other/#",)}, "no filter matches"),
        ({"filters": ("#", "+/#")}, "two filters of one subscriber match"),
        ({"filters": ("$share/g/#", "#")}, "do not go together"),
        ({"filters": ("$share/g{client}/#",)}, "the same for all"),
        ({"qos": 1, "window": 65_536}, "packet identifiers"),
        ({"version": 4, "password": b"x"}, "without a user name"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        plan(**wrong).fans()
