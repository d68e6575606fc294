"""Commands log in at Kafka servers: options, environment, and SCRAM from the client's end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from isthmus.broker.scram import HASHES, Exchange, keys_of
from isthmus.cli.kafka_login import KafkaServer, Login, read_kafka_address, server_of
from isthmus.cli.kafka_socket import by_scram
from isthmus.config_listeners import Address
from isthmus.errors import Malformed, NotAuthorized

PLAIN = Address("tcp", "kafka", 9092)
TLS = Address("tls", "kafka", 9093)
USER = {"ISTHMUS_USER": "ann", "ISTHMUS_PASSWORD": "pw"}
SCRAM = "SCRAM-SHA-256"


def server(environ: dict[str, str], address: Address = PLAIN, **options: Any) -> KafkaServer:
    given = {"user": None, "password_file": None, "mechanism": None, "ca": None, **options}
    return server_of(kafka=address, environ=environ, **given)


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_bytes(b"se\xffcret\r\nmore\n")
    return file


def test_an_address_may_ask_for_tls() -> None:
    nothing: Any = None
    assert read_kafka_address(nothing, nothing, "kafka:9092") == PLAIN
    assert read_kafka_address(nothing, nothing, "tls://kafka:9093") == TLS


def test_nobody_logs_in_unless_it_is_said() -> None:
    found = server({"ISTHMUS_CA": "ca", "ISTHMUS_CERTIFICATE": "own"})
    assert found.settings() == {
        "bootstrap.servers": "kafka:9092",
        "security.protocol": "PLAINTEXT",
    }
    assert server({"ISTHMUS_CA": "ca", "ISTHMUS_CERTIFICATE": "own"}, TLS).settings() == {
        "bootstrap.servers": "kafka:9093",
        "security.protocol": "SSL",
        "ssl.ca.location": "ca",
        "ssl.certificate.location": "own",
        "ssl.key.location": "own",
    }
    assert server({}, TLS, ca=Path("other")).settings()["ssl.ca.location"] == "other"


def test_who_logs_in(password: Path) -> None:
    by_file = {"user": "bob", "password_file": password}
    assert server(USER).login == Login(SCRAM, "ann", "pw")
    assert server(USER, mechanism="PLAIN").login == Login("PLAIN", "ann", "pw")
    assert server(USER, user="bob").login == Login(SCRAM, "bob", "pw")
    assert server(USER | {"ISTHMUS_TOKEN": "t"}).login == Login("OAUTHBEARER", "", "t")
    for environ in (USER, {}, {"ISTHMUS_TOKEN": "t"}):
        assert server(environ, **by_file).login == Login(SCRAM, "bob", "se\udcffcret")
    assert server(USER, TLS).settings() == {
        "bootstrap.servers": "kafka:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": SCRAM,
        "sasl.username": "ann",
        "sasl.password": "pw",
    }
    token = server({"ISTHMUS_TOKEN": "t"}).settings()
    assert (token["security.protocol"], token["sasl.mechanism"]) == (
        "SASL_PLAINTEXT",
        "OAUTHBEARER",
    )
    assert token["oauth_cb"]("")[0] == "t"


@pytest.mark.parametrize(
    ("environ", "options"),
    [
        ({}, {"ca": Path("ca")}),
        ({}, {"mechanism": "PLAIN"}),
        ({}, {"user": "ann"}),  # and no terminal to ask at
        ({"ISTHMUS_USER": "ann"}, {}),
        ({}, {"password_file": Path("none")}),
    ],
)
def test_what_is_not_enough(environ: dict[str, str], options: dict[str, Any]) -> None:
    with pytest.raises(click.ClickException):
        server(environ, **options)


@pytest.mark.parametrize("mechanism", HASHES)
@pytest.mark.parametrize("user", ["ann", "a=n,n"])
def test_scram_agrees_with_the_server(mechanism: str, user: str) -> None:
    keys = keys_of(mechanism, b"p\xc3\xa4ss", b"salt", 4096)
    exchange = Exchange(lambda *_: (keys, True), b"n" * 18)
    by_scram(Login(mechanism, user, "päss"), exchange.step)
    assert exchange.is_done and exchange.user == user
    other = Exchange(lambda *_: (keys, True), b"n" * 18)
    with pytest.raises(NotAuthorized):
        by_scram(Login(mechanism, user, "wrong"), other.step)


@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        b"r=x,s=c2FsdA==,i=4096",  # of another conversation
        b"r=%b,s=!,i=4096",
        b"r=%b,s=c2FsdA==,i=0",
        b"r=%b,s=c2FsdA==,i=99999999999",
        b"r=%b,s=c2FsdA==",
    ],
)
def test_a_challenge_that_is_none(challenge: bytes) -> None:
    def say(data: bytes) -> bytes:
        return challenge.replace(b"%b", data.partition(b"r=")[2] + b"more")

    with pytest.raises(Malformed):
        by_scram(Login(SCRAM, "ann", "pw"), say)


def test_a_server_has_to_know_the_password_itself() -> None:
    answers = iter([b"r=%b,s=c2FsdA==,i=4096", b"v=AAAA"])

    def say(data: bytes) -> bytes:
        return next(answers).replace(b"%b", data.partition(b"r=")[2])

    with pytest.raises(Malformed, match="does not know"):
        by_scram(Login(SCRAM, "ann", "pw"), say)
