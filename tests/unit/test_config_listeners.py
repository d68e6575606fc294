"""The settings of listeners: addresses, tables of their own, TLS, and what stays closed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.unit.config_files import mistake, written

from isthmus.cli.settings import listing
from isthmus.config_listeners import (
    Address,
    KafkaListenerSettings,
    mechanisms_of,
    parse_address,
)
from isthmus.config_sources import Sources
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


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
            'mqtt.listeners=[{address="tcp://127.0.0.1:1", response_information="a\\u0001"}]',
            "response_information must be a text of 16,383 characters at most, without control",
        ),
        ("mqtt.response_information=" + "ü" * 16_384, "a text of 16,383 characters at most"),
        ("mqtt.server_reference=" + "x" * 65_536, "a text of 16,383 characters at most"),
        ("mqtt.server_reference=a\nb", "without control characters"),
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
        (TLS % "user_mapping=['DEFAULT']", "tls.user_mapping has no effect"),
        ("kafka.listeners=tls://127.0.0.1:1", "needs tls.certificate"),
        ("kafka.listeners=ws://127.0.0.1:1", "this can listen on tcp:// or tls:// only"),
        ("kafka.listeners=[{address='tcp://127.0.0.1:1', advertised='h:1'}]", "needs a scheme"),
        ("kafka.advertised_listeners=tcp://a:1,tcp://b:2", "more addresses than"),
    ],
)
def test_tls_that_would_not_do_what_it_says_is_refused(assignment: str, says: str) -> None:
    assert says in mistake(assignments=[assignment])


def test_listeners_of_kafka_have_limits_and_tls_of_their_own(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [tls]
        certificate = "all.pem"
        [kafka]
        connections_max = 50
        [[kafka.listeners]]
        address = "tcp://127.0.0.1:1"
        [[kafka.listeners]]
        address = "tls://0.0.0.0:2"
        name = "outside"
        advertised = "tls://kafka.example:443"
        connections_max = 5
        tls = { client_ca = "ca.pem", client_certificates = "required" }
        """,
    )
    configuration = Sources(file=file).read()
    inside, outside = configuration.settings.kafka.listeners
    assert (inside.name, inside.connections_max) == ("tcp://127.0.0.1:1", 50)
    assert (outside.name, outside.connections_max) == ("outside", 5)
    assert outside.advertised == Address("tls", "kafka.example", 443)
    assert outside.tls.certificate == "all.pem" and outside.is_authenticated
    again = written(tmp_path, listing(configuration))
    assert Sources(file=again).read().settings == configuration.settings


def test_without_client_certificates_tls_is_not_open_to_others() -> None:
    listener = ["mqtt.listeners=tls://0.0.0.0:1", "tls.certificate=x"]
    assert "nobody has to log in there" in mistake(assignments=listener)


def test_two_listeners_have_two_names() -> None:
    text = ",".join(f'{{address="tcp://127.0.0.1:{port}", name="x"}}' for port in (1, 2))
    assert "two listeners are called 'x'" in mistake(assignments=[f"mqtt.listeners=[{text}]"])


@pytest.mark.parametrize(
    ("ways", "own", "offered"),
    [
        (("users",), (), ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")),
        (("certificate", "jwt"), (), ("PLAIN", "OAUTHBEARER")),
        (("http",), (), ("PLAIN",)),
        (("certificate",), (), ()),
        (("users", "jwt"), ("SCRAM-SHA-512",), ("SCRAM-SHA-512",)),
    ],
)
def test_sasl_mechanisms_follow_from_the_ways(
    ways: tuple[str, ...], own: tuple[str, ...], offered: tuple[str, ...]
) -> None:
    address = Address("tcp", "127.0.0.1", 1)
    listener = KafkaListenerSettings(address=address, authentication=ways, sasl_mechanisms=own)
    assert listener.is_authenticated
    assert mechanisms_of(listener) == offered


@pytest.mark.parametrize(
    ("assignments", "complaint"),
    [
        (
            ['kafka.authentication=["users"]', 'kafka.sasl_mechanisms=["OAUTHBEARER"]'],
            "OAUTHBEARER",
        ),
        (['kafka.sasl_mechanisms=["PLAIN"]'], "which are none"),
        (['kafka.authentication=["passwords"]'], "not passwords"),
    ],
)
def test_mechanisms_that_no_way_has(assignments: list[str], complaint: str) -> None:
    assert re.search(complaint, mistake(assignments=assignments))
