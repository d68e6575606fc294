"""The settings and their sources: who wins, which line an error names, what stays closed."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from isthmus.cli.settings import listing
from isthmus.config import AutoSubscription, Route, Settings, check_route
from isthmus.config_listeners import Address, parse_address
from isthmus.config_sources import DEFAULT, FIELDS, Sources, lines_of, variable_of
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def written(directory: Path, text: str) -> Path:
    file = directory / "isthmus.toml"
    file.write_text(text, "utf-8")
    return file


def mistake(**sources: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Sources(**sources).read()
    text = str(caught.value)
    assert "\n" not in text and not text.endswith(".")  # one sentence, put into a line
    return text


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


# --- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://127.0.0.1:1883", "127.0.0.1", 1883),
        ("tcp://[::1]:0", "::1", 0),
        ("tcp://[2001:DB8::0]:65535", "2001:db8::", 65535),
        ("tcp://broker.example:1", "broker.example", 1),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int) -> None:
    listener = parse_address(text)
    assert (listener.scheme, listener.host, listener.port) == ("tcp", host, port)
    assert parse_address(str(listener)) == listener


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("127.0.0.1:1883", "needs a scheme"),
        ("tls://127.0.0.1:8883", "listen on tcp:// only"),
        ("tcp://127.0.0.1", "needs a host and a port"),
        ("tcp://:1883", "needs a host and a port"),
        ("tcp://::1:1883", "needs brackets"),
        ("tcp://[::g]:1883", "no IPv6 address"),
        ("tcp://a b:1883", "neither a host name nor an IP address"),
        ("tcp://localhost:65536", "not a number from 0 to 65535"),
        ("tcp://localhost:-1", "not a number from 0 to 65535"),
    ],
)
def test_an_address_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_address(text)


@pytest.mark.parametrize("path", ["/run/mqtt.sock", "run/mqtt.sock"])
def test_a_socket_may_be_a_file(path: str) -> None:
    address = parse_address(f"unix://{path}", ("unix",))
    assert (address.path, address.authority, str(address)) == (path, path, f"unix://{path}")
    settings = Sources(assignments=[f"mqtt.listeners=unix://{path}"]).read().settings
    (listener,) = settings.mqtt.listeners
    assert (listener.address, listener.mode) == (address, "0660")
    twice = f"mqtt.listeners=unix://{path},unix://{path}"
    assert "listened on twice" in mistake(assignments=[twice])


@pytest.mark.parametrize("path", ["", "/", "/mqtt", "/a/b"])
def test_a_websocket_has_a_path(path: str) -> None:
    address = parse_address(f"ws://[::1]:9001{path}", ("ws",))
    assert (address.host, address.port, address.path) == ("::1", 9001, path)
    assert str(address) == f"ws://[::1]:9001{path}"
    listeners = (
        "mqtt.listeners=ws://[::1]:0/a,ws://[::1]:0/a,{scheme}://[::1]:5/a,tcp://[::1]:5"
    )
    assert "listened on twice" in mistake(assignments=[listeners.format(scheme="ws")])


@pytest.mark.parametrize("path", ["/a b", "/a?b", "/a#b", "/\xe4"])
def test_a_path_is_one_that_a_url_may_have(path: str) -> None:
    with pytest.raises(ConfigError, match="none that a URL may have"):
        parse_address(f"ws://127.0.0.1:1{path}", ("ws",))


@pytest.mark.parametrize("path", ["", "x" * 108])
def test_a_path_is_as_long_as_the_system_takes(path: str) -> None:
    with pytest.raises(ConfigError, match="a path of 1 to 107 bytes"):
        parse_address(f"unix://{path}", ("unix",))


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "broker.example"])
@pytest.mark.parametrize("section", ["mqtt", "kafka", "http"])
def test_nothing_is_open_to_others_unless_that_is_written(section: str, host: str) -> None:
    listener = f"{section}.listeners=tcp://{host}:7"
    text = mistake(assignments=[listener])
    assert f"write {section}.allow_anonymous = true" in text
    opened = Sources(assignments=[listener, f"{section}.allow_anonymous=true"]).read()
    (listener,) = getattr(opened.settings, section).listeners
    assert getattr(listener, "address", listener).port == 7


def test_who_asks_may_be_open_to_others() -> None:
    listeners = "mqtt.listeners=[{address='tcp://0.0.0.0:1', authentication=['users']}%s]"
    Sources(assignments=[listeners % ""]).read()
    assert "mqtt.authentication" in mistake(assignments=[listeners % ", 'tcp://0.0.0.0:2'"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_loopback_needs_no_permission(host: str) -> None:
    Sources(assignments=[f"mqtt.listeners=tcp://{host}:7"]).read()


def test_one_port_is_listened_on_once() -> None:
    assert "listened on twice" in mistake(assignments=["mqtt.listeners=tcp://127.0.0.1:9092"])
    free = [f"{section}.listeners=tcp://127.0.0.1:0" for section in ("mqtt", "kafka", "http")]
    Sources(assignments=free).read()


# --- listeners as tables ----------------------------------------------------------------------


def test_a_listener_has_its_own_and_else_what_its_section_says(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [mqtt]
        receive_maximum = 7
        connections_max = 50
        [[mqtt.listeners]]
        address = "tcp://127.0.0.1:1"
        [[mqtt.listeners]]
        address = "tcp://0.0.0.0:2"
        name = "field"
        connections_max = 3
        allow_anonymous = true
        """,
    )
    configuration = Sources(file=file).read()
    inner, field = configuration.settings.mqtt.listeners
    assert (inner.name, inner.receive_maximum, inner.connections_max) == (
        "tcp://127.0.0.1:1",
        7,
        50,
    )
    assert (field.name, field.receive_maximum, field.connections_max) == ("field", 7, 3)
    assert not inner.allow_anonymous and field.allow_anonymous
    again = written(tmp_path, listing(configuration))
    assert Sources(file=again).read().settings == configuration.settings


def test_addresses_and_tables_may_stand_side_by_side() -> None:
    text = '["tcp://127.0.0.1:1", {address = "tcp://127.0.0.1:2", name = "two"}]'
    settings = Sources(environ={"ISTHMUS_MQTT__LISTENERS": text}).read().settings
    assert [listener.name for listener in settings.mqtt.listeners] == [
        "tcp://127.0.0.1:1",
        "two",
    ]


def test_the_default_listener_is_as_its_section_says() -> None:
    settings = Sources(assignments=["mqtt.keep_alive_max_s=9"]).read().settings
    assert [listener.keep_alive_max_s for listener in settings.mqtt.listeners] == [9]


LISTENER = "[[mqtt.listeners]]\naddress = 'tcp://127.0.0.1:1'\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (f"{LISTENER}[[mqtt.listeners]]\nname = 'x'", 3, "mqtt.listeners[1] needs address"),
        (f"{LISTENER}nmae = 'x'", 3, "mqtt.listeners[0].nmae is not a setting; the nearest"),
        (f"{LISTENER}connections_max = 0", 3, "listeners[0].connections_max must be a whole"),
        ("[[mqtt.listeners]]\naddress = 'x://a:1'", 2, "listeners[0].address: 'x://a:1' asks"),
        ("[mqtt]\nlisteners = ['tcp://a']", 2, "listeners[0].address: 'tcp://a' needs a host"),
        ("[[mqtt.listeners]]\naddress = 1", 2, "must be an address, as in"),
    ],
)
def test_an_error_in_a_listener_names_its_line(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    file = written(tmp_path, text)
    text = mistake(file=file)
    assert text.startswith(f"{file}:{line}: ") and says in text


def test_tls_of_a_listener_is_its_own_and_else_that_of_all(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [tls]
        certificate = "all.pem"
        client_ca = "ca.pem"
        client_certificates = "required"
        [[tls.certificates]]
        names = ["a.example"]
        certificate = "a.pem"
        [[mqtt.listeners]]
        address = "tls://0.0.0.0:1"
        [[mqtt.listeners]]
        address = "tls://127.0.0.1:2"
        tls = { certificate = "two.pem", client_certificates = "optional" }
        [[mqtt.listeners]]
        address = "unix://run/x"
        mode = "0600"
        [[mqtt.listeners]]
        address = "tcp://127.0.0.1:3"
        proxy_protocol = true
        proxy_from = ["10.0.0.0/8"]
        """,
    )
    configuration = Sources(file=file).read()
    first, second, *_ = configuration.settings.mqtt.listeners
    assert first.tls.certificate == "all.pem" and first.is_authenticated
    assert (second.tls.certificate, second.tls.client_ca) == ("two.pem", "ca.pem")
    assert first.tls.certificates == second.tls.certificates
    assert first.tls.certificates[0].names == ("a.example",)
    again = written(tmp_path, listing(configuration))
    assert Sources(file=again).read().settings == configuration.settings


TLS = "mqtt.listeners=[{address='tls://127.0.0.1:1', tls={certificate='x', %s}}]"


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("mqtt.listeners=tls://127.0.0.1:1", "needs tls.certificate"),
        (TLS % "client_certificates='required'", "needs tls.client_ca"),
        (TLS % "psk_file='x', tls_min='1.3'", "tls.psk_file is for TLS 1.2, without"),
        (TLS % "user_from='cn'", "tls.user_from has no effect"),
        (TLS % "crl='x'", "tls.crl has no effect"),
        (TLS % "crt='x'", "mqtt.listeners[0].tls.crt is not a setting; the nearest"),
        (TLS % "certificates=[{names=['x']}]", "tls.certificates[0] needs certificate"),
        (TLS % "certificates=[{names='x'}]", "names must be a list of texts"),
        ("mqtt.listeners=[{address='tls://127.0.0.1:1', tls=3}]", "tls must be a table"),
        (
            "mqtt.listeners=[{address='tcp://127.0.0.1:1', tls={client_ca='x'}}]",
            "tls has no effect on tcp://127.0.0.1:1",
        ),
        ("mqtt.listeners=[{address='tcp://127.0.0.1:1', mode='0600'}]", "mode has no effect"),
        (
            "mqtt.listeners=[{address='tcp://127.0.0.1:1', proxy_from=['::1']}]",
            "proxy_from has no effect without proxy_protocol",
        ),
        (
            "mqtt.listeners=[{address='tcp://[::1]:1', proxy_protocol=true, proxy_from=['x']}]",
            "proxy_from: 'x' does not appear to be",
        ),
        (
            "mqtt.listeners=[{address='tcp://[::1]:1', proxy_protocol=true, proxy_user=true}]",
            "proxy_user lets whoever connects be anybody",
        ),
        (
            "mqtt.listeners=[{address='tcp://127.0.0.1:1', origins=['https://a.example']}]",
            "origins has no effect",
        ),
        ("mqtt.listeners=wss://127.0.0.1:1/mqtt", "needs tls.certificate"),
        ("mqtt.authentication=['users','magic']", "jwt, http once at most, and not magic"),
        ("mqtt.authentication=['users','users']", "once at most"),
        ("mqtt.authentication=users", "must be a list of texts"),
        ("mqtt.listeners=[{address='unix://x', mode='rw'}]", "mode must be three digits"),
        ("kafka.listeners=tls://127.0.0.1:1", "this can listen on tcp:// only"),
    ],
)
def test_tls_that_would_not_do_what_it_says_is_refused(assignment: str, says: str) -> None:
    assert says in mistake(assignments=[assignment])


def test_without_client_certificates_tls_is_not_open_to_others() -> None:
    listener = ["mqtt.listeners=tls://0.0.0.0:1", "tls.certificate=x"]
    assert "nobody has to log in there" in mistake(assignments=listener)


def test_two_listeners_have_two_names() -> None:
    text = ",".join(f'{{address="tcp://127.0.0.1:{port}", name="x"}}' for port in (1, 2))
    assert "two listeners are called 'x'" in mistake(assignments=[f"mqtt.listeners=[{text}]"])


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
