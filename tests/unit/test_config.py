"""The settings and their sources: who wins, which line an error names."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest
from tests.unit.config_files import mistake, written

from isthmus.cli.settings import listing
from isthmus.config import AutoSubscription, Route, Settings, check_route
from isthmus.config_listeners import Address
from isthmus.config_sources import DEFAULT, FIELDS, Sources, lines_of, variable_of
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_without_sources_everything_has_its_default() -> None:
    configuration = Sources().read()
    assert configuration.settings == Settings()
    assert set(configuration.origins.values()) == {DEFAULT}
    assert all(
        listener.address.is_loopback for listener in configuration.settings.mqtt.listeners
    )


def test_file_then_environment_then_set_then_flags(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [mqtt]
        receive_maximum = 1
        inflight_max = 1
        topic_alias_max = 1
        keep_alive_max_s = 1
        """,
    )
    configuration = Sources(
        file=file,
        environ={
            "ISTHMUS_MQTT__INFLIGHT_MAX": "2",
            "ISTHMUS_MQTT__TOPIC_ALIAS_MAX": "2",
            "ISTHMUS_MQTT__KEEP_ALIVE_MAX_S": "2",
        },
        assignments=["mqtt.topic_alias_max=3", "mqtt.keep_alive_max_s=3"],
        flags={"mqtt.keep_alive_max_s": ("--keep-alive", 4)},
    ).read()
    mqtt = configuration.settings.mqtt
    values = (
        mqtt.receive_maximum,
        mqtt.inflight_max,
        mqtt.topic_alias_max,
        mqtt.keep_alive_max_s,
    )
    assert values == (1, 2, 3, 4)
    origins = configuration.origins
    assert origins["mqtt.receive_maximum"] == f"{file}:3"
    assert origins["mqtt.inflight_max"] == "ISTHMUS_MQTT__INFLIGHT_MAX"
    assert origins["mqtt.topic_alias_max"] == "--set"
    assert origins["mqtt.keep_alive_max_s"] == "--keep-alive"
    assert origins["mqtt.retained_max"] == DEFAULT


@pytest.mark.parametrize(
    "text",
    [
        "tcp://127.0.0.1:1, tcp://[::1]:0",
        '["tcp://127.0.0.1:1", "tcp://[::1]:0"]',
        "['tcp://127.0.0.1:1', 'tcp://[::1]:0',]",
    ],
)
def test_a_list_in_the_environment_has_commas_json_or_toml(text: str) -> None:
    settings = Sources(environ={"ISTHMUS_MQTT__LISTENERS": text}).read().settings
    assert [listener.address for listener in settings.mqtt.listeners] == [
        Address("tcp", "127.0.0.1", 1),
        Address("tcp", "::1", 0),
    ]


def test_an_empty_list_turns_a_protocol_off() -> None:
    assert Sources(assignments=["http.listeners="]).read().settings.http.listeners == ()


@pytest.mark.parametrize(
    "text",
    ['[{"mqtt": "a/{b}", "log": "x", "key": "{b}"}]', '[{mqtt="a/{b}", log="x", key="{b}"}]'],
)
def test_routes_come_from_the_environment_as_json_or_toml(text: str) -> None:
    settings = Sources(environ={"ISTHMUS_ROUTES": text}).read().settings
    assert settings.routes == (Route(mqtt="a/{b}", log="x", key="{b}"),)


def test_texts_are_taken_as_they_are() -> None:
    settings = Sources(assignments=["storage.local.directory=12=[3"]).read().settings
    assert settings.storage.local.directory == "12=[3"


def test_other_variables_of_ours_are_left_alone() -> None:
    Sources(environ={"ISTHMUS_REQUIRE_ALL": "1", "ISTHMUS_SKIP_COMPILE": "1"}).read()


# --- errors name the place and the remedy -----------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("\n[mqtt]\nlistners = []", 3, "the nearest valid name is mqtt.listeners"),
        ("[mqqt]\nlisteners = []", 1, "there is no section [mqqt]; the nearest is [mqtt]"),
        ("[storage.locl]\nx = 1", 1, "the nearest is [storage.local]"),
        ("packet_size_max = 1", 1, "the nearest valid name is mqtt.packet_size_max"),
        ("mqtt = 3", 1, "mqtt is a section, written [mqtt]"),
        ("[[mqtt]]\nlisteners = []", 1, "mqtt is a section, written [mqtt]"),
        ("[storage]\nlocal = { directry = 'x' }", 2, "valid name is storage.local.directory"),
        ('[mqtt]\n\n# note\nconnections_max = "9"', 4, 'whole number, 1 or more, not "9"'),
        ("[mqtt]\nreceive_maximum = 0", 2, "must be a whole number from 1 to 65535, not 0"),
        ("[mqtt]\nreceive_maximum = true", 2, "must be a whole number from 1 to 65535"),
        ("[mqtt]\nallow_anonymous = 1", 2, "must be true or false, not 1"),
        ("[log]\nlevel = 'loud'", 2, '"debug" or "info" or "warning" or "error", not "loud"'),
        ("[storage.local]\ndirectory = ''", 2, "must be a text that is not empty"),
        (
            "[mqtt]\nlisteners = [\n  1]",
            2,
            'a list of addresses, as in ["tcp://127.0.0.1:1883"]',
        ),
        ("[mqtt.listeners]\na = 1", 1, "must be a list of addresses"),
        ("routes = 3", 1, "each begun by [[routes]]"),
        ("[[routes]]\nmqtt = 'a'\nlog = 'b'\n[[routes]]\nlog = 'c'", 4, "routes[1] needs mqtt"),
        ("[[routes]]\nmqtt = 'a'\nlogg = 'b'", 3, "the nearest valid name is log"),
        ("[[routes]]\nmqtt = 'a/+'\nlog = 'b'", 1, "plain +: give it a name, as in {name}"),
        ("[[routes]]\nmqtt = 'a'\nlog = 'b'\npartitions = 0", 4, "from 1 to 10000, not 0"),
    ],
)
def test_an_error_in_a_file_names_the_line(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    file = written(tmp_path, text)
    text = mistake(file=file)
    assert text.startswith(f"{file}:{line}: ")
    assert says in text


def test_a_file_that_is_no_toml_or_not_there(tmp_path: Path) -> None:
    file = written(tmp_path, "[mqtt")
    assert f"{file} is not valid TOML" in mistake(file=file)
    assert "No such file" in mistake(file=tmp_path / "other.toml")
    file.write_bytes(b"\xff")
    assert "not UTF-8" in mistake(file=file)


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("ISTHMUS_MQTT__LISTNERS", "ISTHMUS_MQTT__LISTENERS"),
        ("ISTHMUS_MQTT_LISTENERS", "ISTHMUS_MQTT__LISTENERS"),
        ("ISTHMUS_STORAGE__DIRECTORY", "ISTHMUS_STORAGE__LOCAL__DIRECTORY"),
    ],
)
def test_a_variable_with_a_slip_in_its_name(variable: str, nearest: str) -> None:
    text = mistake(environ={variable: "x"})
    assert text.startswith(f"the environment variable {variable} ")
    assert text.endswith(nearest)


def test_an_assignment_with_a_slip() -> None:
    assert "needs a value" in mistake(assignments=["mqtt.listeners"])
    assert "nearest valid name is log.level" in mistake(assignments=["log.levl=info"])
    assert "mqtt is not a setting" in mistake(assignments=["mqtt=3"])


# --- routes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "route",
    [
        Route(mqtt="factory/{line}/temperature", log="temperatures", key="{line}"),
        Route(mqtt="{site}/{rest...}", log="all.of_it-1", key="{site}/{rest}"),
        Route(mqtt="/a//{b}", log="x"),
        Route(mqtt="+/a/#", log="x", direction="to-log"),
    ],
)
def test_a_route_of_good_form(route: Route) -> None:
    check_route(route)


@pytest.mark.parametrize(
    ("route", "says"),
    [
        (Route(mqtt="a/#", log="x"), "plain #: give it a name, as in {rest...}"),
        (Route(mqtt="a/#/b", log="x", direction="to-log"), "# before its end"),
        (Route(mqtt="a/b+", log="x", direction="to-log"), "whole level"),
        (Route(mqtt="a/x{b}", log="x"), "whole level"),
        (Route(mqtt="a/{1}", log="x"), "whole level"),
        (Route(mqtt="{a}/{a}", log="x"), "captures {a} twice"),
        (Route(mqtt="{a...}/b", log="x"), "so it is last"),
        (Route(mqtt="a", log="x y"), "no name for a log topic"),
        (Route(mqtt="a", log=".."), "no name for a log topic"),
        (Route(mqtt="a", log="x" * 250), "no name for a log topic"),
        (Route(mqtt="a", log="__consumer_offsets"), "server's own"),
        (Route(mqtt="a/{b}", log="x", key="{c}"), "{c}, which mqtt = 'a/{b}' does not"),
        (Route(mqtt="a/{b}", log="x", key="{b"), "a brace that belongs to no capture"),
    ],
)
def test_a_route_of_bad_form(route: Route, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_route(route)
    assert says in str(caught.value)


# --- other tables -----------------------------------------------------------------------------


def test_tables_below_mqtt_are_read_and_printed(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [[mqtt.auto_subscribe]]
        filter = "devices/%c/in"
        qos = 1
        [[mqtt.rewrite]]
        topic = "old/{a}/{rest...}"
        to = "new/{rest...}"
        [[mqtt.rewrite]]
        topic = "x/{a}/y/{b}"
        to = "{b}/{a}"
        action = "publish"
        """,
    )
    configuration = Sources(file=file).read()
    mqtt = configuration.settings.mqtt
    assert mqtt.auto_subscribe == (AutoSubscription(filter="devices/%c/in", qos=1),)
    assert [(each.to, each.action) for each in mqtt.rewrite] == [
        ("new/{rest...}", "all"),
        ("{b}/{a}", "publish"),
    ]
    again = written(tmp_path, listing(configuration))
    assert Sources(file=again).read().settings == configuration.settings


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[[mqtt.rewrite]]\ntopic = 'a/{b}'", 1, "mqtt.rewrite[0] needs to"),
        (
            "[[mqtt.rewrite]]\ntopic = 'a/+'\nto = 'b'",
            1,
            "plain +: give it a name, as in {name}",
        ),
        ("[[mqtt.rewrite]]\ntopic = '$a/{b}'\nto = 'b'", 1, "one of the server's own names"),
        ("[[mqtt.rewrite]]\ntopic = 'a/{b}'\nto = 'x{b}'", 1, "whole level"),
        ("[[mqtt.rewrite]]\ntopic = 'a/{b}'\nto = '{c}'", 1, "{c}, which topic = 'a/{b}'"),
        ("[[mqtt.rewrite]]\ntopic = 'a/{b...}'\nto = '{b}/c'", 1, "uses {b}, which topic"),
        ("[[mqtt.rewrite]]\ntopic = 'a'\nto = 'b'\naction = 'x'", 4, '"all" or "publish"'),
        ("[[mqtt.auto_subscribe]]\nfliter = 'a'", 2, "the nearest valid name is filter"),
        ("[[mqtt.auto_subscribe]]\nfilter = 'a'\nqos = 3", 3, "a whole number from 0 to 2"),
        ("[mqtt]\nrewrite = ['a']", 2, "a list of tables, each begun by [[mqtt.rewrite]]"),
    ],
)
def test_an_error_in_a_table_names_its_line(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    file = written(tmp_path, text)
    text = mistake(file=file)
    assert text.startswith(f"{file}:{line}: ") and says in text


# --- what is printed can be read --------------------------------------------------------------


def test_the_listing_is_a_configuration_file_again(tmp_path: Path) -> None:
    first = written(
        tmp_path,
        '[mqtt]\nlisteners = ["tcp://[::1]:0"]\n[[routes]]\nmqtt = "a/{b}"\nlog = "x"\n',
    )
    configuration = Sources(file=first, assignments=["log.format=json"]).read()
    printed = listing(configuration)
    assert f"# {first}:2" in printed and "# --set" in printed and "# default" in printed
    second = tmp_path / "again.toml"
    second.write_text(printed, "utf-8")
    assert Sources(file=second).read().settings == configuration.settings


def test_every_setting_has_a_variable_of_its_own() -> None:
    assert len({variable_of(name) for name in FIELDS}) == len(FIELDS)


def test_lines_are_found_whatever_the_layout() -> None:
    text = '''a.b = 1
c = """
[d]
e = 1"""
[f] # header
"g" = [
  1,
]
[[routes]]
x = {y = 1}
[[routes]]
x = 1
[[m.list]]
x = 1
[m.list.deep]
x = 1
[[m.list.deeper]]
x = 1
[[m.list]]
[[m.list.deeper]]
[[m.list.deeper]]
x = 1
'''
    assert tomllib.loads(text)
    lines = lines_of(text)
    assert lines["a", "b"] == 1
    assert lines["c",] == 2
    assert ("d",) not in lines
    assert (lines["f",], lines["f", "g"]) == (5, 6)
    assert (lines["routes", 0], lines["routes", 0, "x"]) == (9, 10)
    assert (lines["routes", 1], lines["routes", 1, "x"]) == (11, 12)
    assert (lines["m", "list", 0], lines["m", "list", 0, "x"]) == (13, 14)
    assert lines["m", "list", 0, "deep", "x"] == 16
    assert lines["m", "list", 0, "deeper", 0, "x"] == 18
    assert (lines["m", "list", 1], lines["m", "list", 1, "deeper", 1, "x"]) == (19, 22)
