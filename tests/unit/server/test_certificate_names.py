"""Whom a certificate names, and the rules that make a user of that."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.config_listeners import TlsOptions
from isthmus.errors import ConfigError, NotAuthorized
from isthmus.server.certificate_names import CertificateNames, name_in

SHOWN: dict[str, Any] = {
    "subject": (
        (("countryName", "DE"),),
        (("organizationName", "Plant, South"),),
        (("commonName", "press-7"), ("serialNumber", "#1 ")),
    ),
    "subjectAltName": (
        ("email", "first@y.example"),
        ("DNS", "press-7.example"),
        ("DNS", "other.example"),
    ),
}
SUBJECT = r"serialNumber=\#1\ ,CN=press-7,O=Plant\, South,C=DE"


@pytest.mark.parametrize(
    ("user_from", "user"),
    [
        ("cn", "press-7"),
        ("san-dns", "press-7.example"),
        ("san-email", "first@y.example"),
        ("subject", SUBJECT),
    ],
)
def test_the_user_is_the_first_name_of_the_kind_wanted(user_from: str, user: str) -> None:
    assert name_in(SHOWN, user_from) == user
    assert name_in({"subject": ()}, user_from) == ""


def user_by(*rules: str, user_from: Any = "subject") -> str:
    """Return the user that rules make of the certificate."""
    names = CertificateNames(TlsOptions(user_from=user_from, user_mapping=rules), "door")
    return names.user_of(SHOWN)


@pytest.mark.parametrize(
    ("rules", "user"),
    [
        ((), SUBJECT),
        (("DEFAULT",), SUBJECT),
        (("RULE:.*CN=([^,]+).*/$1/",), "press-7"),
        (("RULE:.*CN=([^,]+),O=(.*), (.*),C=.*/$1@$3/L",), "press-7@south"),
        (("RULE:.*CN=([^,]+).*/$1/U",), "PRESS-7"),
        (("RULE:CN=(.*)/$1/", "RULE:.*C=(..)/from $1/", "DEFAULT"), "from DE"),  # wholly
        (("RULE:CN=(.*)/$1/", "DEFAULT"), SUBJECT),
        ((r"RULE:.*CN=([^,]+).*/a\/b\$1-$0/L",), rf"a/b$1-{SUBJECT}".lower()),
        (("RULE:.*(x)?C=DE/[$1]/",), "[]"),  # a group that has taken no part
    ],
)
def test_the_first_rule_that_is_about_a_name_decides(rules: tuple[str, ...], user: str) -> None:
    assert user_by(*rules) == user


def test_other_names_can_be_mapped_too() -> None:
    assert user_by(r"RULE:([^.]+)\..*/$1/", user_from="san-dns") == "press-7"


@pytest.mark.parametrize("rule", ["RULE:CN=x/x/", "RULE:.*//"])
def test_who_is_nobody_by_the_rules_is_refused(rule: str) -> None:
    with pytest.raises(NotAuthorized, match="no rule of user_mapping"):
        user_by(rule)


def test_a_certificate_without_a_name_is_refused() -> None:
    names = CertificateNames(TlsOptions(user_from="cn"), "door")
    with pytest.raises(NotAuthorized, match="names no user"):
        names.user_of({"subject": ()})


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("RULE:a", "takes RULE:pattern/replacement"),
        ("RULE:a/b", "takes RULE:pattern/replacement"),
        ("RULE:a/b/X", "takes RULE:pattern/replacement"),
        ("default", "takes RULE:pattern/replacement"),
        ("RULE:(/b/", "pattern is wrong"),
        ("RULE:(a)/$2/", "has 1 groups only"),
    ],
)
def test_what_is_no_rule_ends_the_start(rule: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"^the listener door: user_mapping has ") as caught:
        user_by(rule)
    assert says in str(caught.value)
