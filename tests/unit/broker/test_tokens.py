"""Tokens: who signed them, what they say, and everything that may be wrong with one."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.sim import SimCrew

from isthmus.broker.authentication import Chain, Request
from isthmus.broker.identity import Identity
from isthmus.broker.tokens import (
    Key,
    TokenRules,
    TokensWay,
    parse_key_set,
    parse_keys,
    parse_secret,
)
from isthmus.config import JwtSettings
from isthmus.errors import BadCredentials, ConfigError, NotAuthorized, ServerBusy

NOW_S = 1_700_000_000
HERE = Identity("10.0.0.1", 5000, "door")
SECRET = "0123456789abcdef0123456789abcdef"
PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "HS256": SECRET,
}


def public(algorithm: str) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    key = PRIVATE[algorithm].public_key()
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def token(algorithm: str = "RS256", *, key: Any = None, kid: str = "", **claims: Any) -> bytes:
    said = {"sub": "ann", "exp": NOW_S + 60} | claims
    said = {name: value for name, value in said.items() if value is not None}
    headers = {"kid": kid} if kid else None
    return jwt.encode(said, key or PRIVATE[algorithm], algorithm, headers=headers).encode()


class Desk:
    """One listener with the way "jwt" only."""

    def __init__(self, *keys: Key, waiting_max: int = 100, **settings: Any) -> None:
        self.crew = SimCrew(waiting_max)
        rules = TokenRules(JwtSettings(**settings))
        self.way = TokensWay(rules, self.crew, lambda: NOW_S * 1000)
        self.way.use("file", keys or parse_keys(public("RS256"), "f"))
        self.chain = Chain([self.way], allow_anonymous=False)

    def judge(self, password: bytes | None, name: str | None = "whoever") -> Any:
        answers: list[Any] = []
        self.chain.judge(Request(HERE, "c", name, password), answers.append)
        self.crew.finish()
        (answer,) = answers
        return answer


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_whom_a_signed_token_names_is_let_in(algorithm: str) -> None:
    keys = (
        parse_secret(SECRET, "f")
        if algorithm == "HS256"
        else parse_keys(public(algorithm), "f")
    )
    desk = Desk(*keys, algorithms=(algorithm,))
    principal = desk.judge(token(algorithm, groups=["fitters", "planners"]))
    assert (principal.user, principal.way) == ("ann", "jwt")
    assert principal.groups == {"fitters", "planners"}
    assert principal.until_ms == (NOW_S + 60 + 30) * 1000


def test_claims_are_where_the_settings_say() -> None:
    desk = Desk(user_claim="email", groups_claim="scope", leeway_s=0)
    principal = desk.judge(token(email="ann@a.example", scope="read write", sub=None), None)
    assert principal.user == "ann@a.example"
    assert principal.groups == {"read", "write"}
    assert principal.until_ms == (NOW_S + 60) * 1000


def unsigned() -> bytes:
    return jwt.encode({"sub": "ann", "exp": NOW_S + 60}, None, "none").encode()


def confused() -> bytes:
    """Return a token whose secret is the public key, which everybody knows."""
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "ann", "exp": NOW_S + 60})
    )
    import hashlib
    import hmac

    signature = hmac.digest(public("RS256").encode(), head + b"." + body, hashlib.sha256)
    return head + b"." + body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")


@pytest.mark.parametrize(
    ("password", "says"),
    [
        (token(key=rsa.generate_private_key(65537, 2048)), "by no key that is known"),
        (token("ES256"), "by no key that is known"),
        (token("HS256"), "by no key that is known"),
        (unsigned(), "by no key that is known"),
        (confused(), "by no key that is known"),
        (token(kid="another"), ""),  # the key has no id, so it may be any
        (token()[:-4] + b"AAAA", "by no key that is known"),
        (token(exp=None), "no exp"),
        (token(exp=NOW_S - 31), "has expired"),
        (token(exp=NOW_S - 29), ""),
        (token(nbf=NOW_S + 31), "not valid yet"),
        (token(nbf=NOW_S + 29), ""),
        (token(exp="soon"), "no exp"),
        (token(exp=True), "no exp"),
        (token(exp=1e300), "no exp"),
        (token(nbf=-1), "no nbf"),
        (token(sub=None), "names nobody"),
        (token(sub=""), "names nobody"),
        (token(sub="a\nb"), "names nobody"),
        (token(groups=[7]), "names nobody"),
        (token(groups={"a": 1}), "names nobody"),
        (token(groups=["a b"]), "names nobody"),
        (b"ey.ey.ey", "not valid"),
        (b"eyJhbGciOiJSUzI1NiJ9..", "by no key that is known"),
        (b"ey" + b"A" * 70_000 + b".x.y", "not valid"),
    ],
)
def test_what_may_be_wrong_with_a_token(password: bytes, says: str) -> None:
    found = Desk().judge(password)
    if says:
        assert type(found) is BadCredentials
        assert says in str(found)
        assert password.decode() not in str(found)
    else:
        assert found.user == "ann"


@pytest.mark.parametrize(
    ("settings", "claims", "says"),
    [
        ({"issuer": "i"}, {"iss": "i"}, ""),
        ({"issuer": "i"}, {"iss": "j"}, "iss"),
        ({"issuer": "i"}, {}, "not valid"),
        ({"audience": "a"}, {"aud": "a"}, ""),
        ({"audience": "a"}, {"aud": ["b", "a"]}, ""),
        ({"audience": "a"}, {"aud": "b"}, "aud"),
        ({"audience": "a"}, {}, "not valid"),
        ({}, {"aud": "b", "iss": "x"}, ""),
    ],
)
def test_from_whom_and_for_whom(settings: Any, claims: Any, says: str) -> None:
    found = Desk(**settings).judge(token(**claims))
    if says:
        assert type(found) is BadCredentials and says in str(found)
    else:
        assert found.user == "ann"


def test_what_is_no_token_is_for_the_next_way() -> None:
    desk = Desk()
    answers: list[Any] = []
    for password in (None, b"", b"secret", b"ey.no"):
        desk.way.judge(Request(HERE, "c", "ann", password), answers.append)
    assert answers == [None] * 4
    assert not desk.crew.waiting


def test_more_tokens_than_can_wait_are_not_checked() -> None:
    assert type(Desk(waiting_max=0).judge(token())) is ServerBusy


# --- keys -------------------------------------------------------------------------------------


def key_set(*algorithms: str) -> str:
    kinds = {
        "RS256": jwt.algorithms.RSAAlgorithm,
        "ES256": jwt.algorithms.ECAlgorithm,
        "EdDSA": jwt.algorithms.OKPAlgorithm,
    }
    rows = []
    for algorithm in algorithms:
        row = json.loads(kinds[algorithm].to_jwk(PRIVATE[algorithm].public_key()))
        rows.append(row | {"kid": f"our {algorithm}", "alg": algorithm})
    odd = [{"kty": "oct", "k": "AAAA"}, {"kty": "EC", "crv": "none", "x": "", "y": ""}]
    odd += [{"kty": "RSA", "use": "enc"}, {}]
    return json.dumps({"keys": odd + rows})


def test_a_key_set_has_keys_of_all_kinds() -> None:
    keys = parse_key_set(key_set("RS256", "ES256", "EdDSA"), "f")
    assert [(key.kind, key.key_id) for key in keys] == [
        ("RSA", "our RS256"),
        ("EC", "our ES256"),
        ("OKP", "our EdDSA"),
    ]
    desk = Desk(*keys)
    for algorithm in ("RS256", "ES256", "EdDSA"):
        assert desk.judge(token(algorithm, kid=f"our {algorithm}")).user == "ann"
    assert type(desk.judge(token("RS256", kid="our ES256"))) is BadCredentials
    assert type(desk.judge(token("RS256"))) is BadCredentials  # names no key, and each has one


def test_keys_that_are_taken_back_sign_nothing() -> None:
    desk = Desk()
    desk.way.use("url", parse_key_set(key_set("ES256"), "u"))
    assert desk.judge(token("ES256", kid="our ES256")).user == "ann"
    desk.way.use("url", [])
    assert type(desk.judge(token("ES256", kid="our ES256"))) is BadCredentials
    assert desk.judge(token()).user == "ann"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "{",
        "[]",
        '{"keys": 7}',
        '{"keys": [7]}',
        '{"keys": [{"kty": "oct"}]}',
        "{" * 99,
    ],
)
def test_what_is_no_key_set(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^https://a\.example holds no key"):
        parse_key_set(text, "https://a.example")


def test_what_is_no_key() -> None:
    for text in ("", "secret", public("RS256")[:-40]):
        with pytest.raises(ConfigError, match="holds no public key"):
            parse_keys(text, "f")
    with pytest.raises(ConfigError, match="less than 32 bytes"):
        parse_secret("short\n", "f")
    assert "0123" not in repr(parse_secret(SECRET, "f"))


@pytest.mark.parametrize("algorithms", [(), ("none",), ("RS256", "XS1")])
def test_algorithms_that_are_none(algorithms: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"authentication\.jwt\.algorithms"):
        TokenRules(JwtSettings(algorithms=algorithms))


# --- OAUTHBEARER ------------------------------------------------------------------------------


def bear(data: bytes, desk: Desk | None = None) -> Any:
    desk = desk or Desk()
    way, conversation = desk.chain.begin("OAUTHBEARER", Request(HERE, "c"))
    assert way == "jwt"
    answers: list[Any] = []
    conversation.step(data, answers.append)
    desk.crew.finish()
    (answer,) = answers
    return answer


def test_a_token_is_borne() -> None:
    """[RFC 7628, 3.1]"""
    shown = bear(b"n,,\x01host=h\x01auth=Bearer " + token() + b"\x01\x01")
    assert (shown.found.user, shown.data) == ("ann", None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"n,,",
        b"n,,\x01auth=Bearer \x01\x01",
        b"n,,\x01auth=Basic " + token() + b"\x01\x01",
        b"p=x,,\x01auth=Bearer " + token() + b"\x01\x01",
        b"n,,\x01auth=Bearer " + token(exp=1) + b"\x01\x01",
        b"n,,\x01auth=Bearer " + token("ES256") + b"\x01\x01",
    ],
)
def test_a_bearer_of_nothing_is_refused(data: bytes) -> None:
    assert type(bear(data)) is NotAuthorized


def test_keys_stay_as_long_as_the_settings_name_where_they_came_from() -> None:
    desk = Desk()
    own = JwtSettings(issuer="here")
    desk.way.change(TokenRules(own), {"file"})
    assert desk.judge(token(iss="here")).user == "ann"
    assert isinstance(desk.judge(token(iss="there")), BadCredentials)
    desk.way.change(TokenRules(own), {"another"})
    assert isinstance(desk.judge(token(iss="here")), BadCredentials)
