"""Routes: the way there, the way back, and what is refused because it has none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.broker.routes import Route, RouteTable
from isthmus.errors import ConfigError


def route(pattern: str, log: str = "log", key: str = "", *, to_log_only: bool = False) -> Route:
    return Route(pattern, log, key, None, to_log_only=to_log_only)


def test_without_a_route_the_topic_name_is_the_key_in_the_default_log_topic() -> None:
    table = RouteTable([])
    found, key = table.resolve("plant/7/temp")
    assert (found.log_topic, key) == ("mqtt", "plant/7/temp")
    assert table.topic_name_of("mqtt", b"plant/7/temp") == b"plant/7/temp"


def test_a_capture_becomes_the_key_and_leads_back() -> None:
    table = RouteTable([route("factory/{line}/temperature", "temperatures", "{line}")])
    found, key = table.resolve("factory/line-3/temperature")
    assert (found.log_topic, key) == ("temperatures", "line-3")
    assert table.topic_name_of("temperatures", b"line-3") == b"factory/line-3/temperature"


def test_the_rest_is_captured_over_several_levels() -> None:
    table = RouteTable([route("site/{name}/{rest...}", "sites", "{name}/{rest}")])
    assert table.resolve("site/a/b/c/d")[1] == "a/b/c/d"
    assert table.topic_name_of("sites", b"a/b/c/d") == b"site/a/b/c/d"
    assert table.resolve("site/a")[0].log_topic == "mqtt"


def test_a_key_with_text_around_captures_leads_back() -> None:
    table = RouteTable([route("a/{x}/b/{y}", "t", "dev-{y}/of-{x}/end")])
    assert table.resolve("a/1/b/2")[1] == "dev-2/of-1/end"
    assert table.topic_name_of("t", b"dev-2/of-1/end") == b"a/1/b/2"
    assert table.topic_name_of("t", b"dev-2/of-1/END") is None
    assert table.topic_name_of("t", b"dev-2") is None


def test_the_most_specific_route_wins_whatever_the_order() -> None:
    wide = route("factory/{rest...}", "all")
    middle = route("factory/{line}/temperature", "temperatures", "{line}")
    exact = route("factory/line-1/temperature", "first", to_log_only=True)
    for routes in ([wide, middle, exact], [exact, middle, wide], [middle, wide, exact]):
        table = RouteTable(routes)
        assert table.resolve("factory/line-1/temperature")[0] is exact
        assert table.resolve("factory/line-2/temperature")[0] is middle
        assert table.resolve("factory/line-2/pressure")[0] is wide


def test_wildcards_do_not_take_names_of_the_server() -> None:
    table = RouteTable([route("{all...}", "everything")])
    assert table.resolve("$SYS/load")[0].log_topic == "mqtt"


@pytest.mark.parametrize(
    ("pattern", "key", "says"),
    [
        ("a/{x}/{y}", "{x}", "does not hold {y}"),
        ("a/{x}/{y}", "{x}-{y}", "not followed by a /"),
        ("a/{x}/{y}", "{x}{y}", "not followed by a /"),
        ("a/{x}/{rest...}", "{rest}/{x}", "whose end cannot be told"),
    ],
)
def test_a_route_without_a_way_back_is_refused(pattern: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError, match="no way back") as caught:
        route(pattern, key=key)
    assert says in str(caught.value)
    assert pattern in str(caught.value)
    assert route(pattern, key=key, to_log_only=True).inverted is False


def test_two_ways_back_from_one_log_topic_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r'"a/\{x\}" and "b/\{x\}" both lead back'):
        RouteTable([route("a/{x}", key="{x}"), route("b/{x}", key="{x}")])
    RouteTable([route("a/{x}", key="{x}"), route("b/{x}", key="{x}", to_log_only=True)])


def test_two_routes_for_the_same_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="match the same topic names"):
        RouteTable([route("a/{x}", "one"), route("a/{y}", "two")])


@pytest.mark.parametrize("key", [None, b"\xff", b"", b"a/+/b", b"a/#", b"$SYS/x", b"a\x00b"])
def test_a_key_that_is_no_topic_name_is_not_deliverable(key: bytes | None) -> None:
    assert RouteTable([]).topic_name_of("mqtt", key) is None


def test_a_log_topic_without_route_does_not_lead_back() -> None:
    table = RouteTable([route("a/{x}", "to", to_log_only=True)])
    assert not table.leads_back("to")
    assert not table.leads_back("orders")
    assert table.leads_back("mqtt")


level = st.text(
    st.characters(exclude_characters="/+#\0$", exclude_categories=["Cs"]), max_size=4
)


@given(st.lists(level, min_size=4, max_size=6))
def test_every_routed_name_comes_back(levels: list[str]) -> None:
    name = "/".join(["r", *levels])
    table = RouteTable([route("r/{a}/{b}/{c...}", "t", "{b}/x-/{a}/{c}")])
    found, key = table.resolve(name)
    assert found.log_topic == "t"
    assert found.topic_name_of(key) == name
