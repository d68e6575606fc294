"""SCRAM: the RFCs' own conversations, and what a client may get wrong."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.scram_client import ScramClient

from isthmus.broker.scram import HASHES, Exchange, ScramKeys, keys_of, prepared
from isthmus.errors import NotAuthorized

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
KEYS = {name: keys_of(name, b"pencil", SALT, 4096) for name in HASHES}


def exchange(keys: ScramKeys = KEYS["SCRAM-SHA-256"], *, is_real: bool = True) -> Exchange:
    return Exchange(lambda *_: (keys, is_real), b"server's nonce....")


def test_the_conversation_of_rfc_7677() -> None:
    """[RFC 7677, 3]"""
    server = exchange()
    server._nonce = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    challenge = server.step(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert challenge == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    assert not server.is_done
    last = server.step(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert last == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert (server.user, server.is_done) == ("user", True)


@pytest.mark.parametrize("mechanism", HASHES)
@pytest.mark.parametrize("header", ["n,,", "y,,", "n,a=user,"])
def test_whoever_knows_the_password_is_let_in_and_shown_the_same(
    mechanism: str, header: str
) -> None:
    client = ScramClient(mechanism, "user", "pencil", header=header)
    server = exchange(KEYS[mechanism])
    assert client.is_server(server.step(client.final(server.step(client.first()))))
    assert server.is_done
    assert KEYS[mechanism].matches(b"pencil")
    assert not KEYS[mechanism].matches(b"pencil ")


def test_the_clients_whose_nonce_stands_there_twice_are_let_in_too() -> None:
    """librdkafka before 2.6.1, of which many are in use."""
    client = ScramClient("SCRAM-SHA-256", "user", "pencil", repeated="fyko")
    server = exchange()
    assert client.is_server(server.step(client.final(server.step(client.first()))))
    other = Exchange(lambda *_: (KEYS["SCRAM-SHA-256"], True), b"another nonce.....")
    other.step(client.first())
    final = client.final(exchange().step(client.first()))
    with pytest.raises(NotAuthorized, match="does not continue"):
        other.step(final)


@pytest.mark.parametrize("real", [True, False])
def test_a_wrong_password_and_a_user_who_is_not_there_end_alike(real: bool) -> None:
    client = ScramClient("SCRAM-SHA-256", "user", "wrong" if real else "pencil")
    server = exchange(is_real=real)
    final = client.final(server.step(client.first()))
    with pytest.raises(NotAuthorized, match="shows no user's password"):
        server.step(final)
    assert not server.is_done


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n",
        b"n,,",
        b"n,,r=abc",
        b"n,,r=abc,n=user",
        b"n,,m=x,n=user,r=abc",
        b"n,,n=user",
        b"n,,n=user,r=",
        b"n,,n=user,r=a\x01c",
        b"n,,n=us=er,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,a=other,n=user,r=abc",
        b"p=tls-unique,,n=user,r=abc",
        b"x,,n=user,r=abc",
        b"n,,n=user,r=" + b"a" * 5000,
    ],
)
def test_a_first_message_that_is_none(message: bytes) -> None:
    with pytest.raises(NotAuthorized):
        exchange().step(message)


@pytest.mark.parametrize(
    "change",
    [
        (b"c=biws", b"c=eSws"),  # a downgrade: the client had said that it knows of binding
        (b",r=", b",r=x"),
        (b",r=", b",s="),
        (b",p=", b",q="),
        (b",p=", b",p=!"),
        (b"=,p=", b"=,p=="),
    ],
)
def test_a_last_message_that_does_not_continue_the_first(change: tuple[bytes, bytes]) -> None:
    client, server = ScramClient("SCRAM-SHA-256", "user", "pencil"), exchange()
    final = client.final(server.step(client.first()))
    changed = final.replace(*change)
    if changed == final:
        changed = final[:-4]
    with pytest.raises(NotAuthorized):
        server.step(changed)
    assert not server.is_done


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=2))
def test_bytes_let_nobody_in(messages: list[bytes]) -> None:
    server = exchange()
    for message in messages:
        try:
            server.step(b"n,,n=user,r=" + message if server._said == b"" else message)
        except NotAuthorized:
            return
    assert not server.is_done


def test_a_name_may_have_what_separates_attributes() -> None:
    client, server = ScramClient("SCRAM-SHA-256", "a=b,c", "pencil"), exchange()
    server.step(client.final(server.step(client.first())))
    assert server.user == "a=b,c"


@pytest.mark.parametrize(
    ("typed", "compared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0007\u00e4", "\u0007\u00e4"),  # prohibited: as it is
        ("\u0627\u0031\u00e4", "\u0627\u0031\u00e4"),  # mixed directions: as it is
        ("\u00ad", "\u00ad"),
    ],
)
def test_what_is_typed_is_prepared(typed: str, compared: str) -> None:
    """[RFC 4013, 3]"""
    assert prepared(typed) == compared


def test_a_password_may_be_any_bytes() -> None:
    keys: Any = keys_of("SCRAM-SHA-256", b"\xffa", SALT, 4096)
    assert keys.matches(b"\xffa")
    assert not keys.matches(b"\xff")
