"""ACLs and SCRAM users by Kafka's admin API: the same rules, the same users."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import pytest
from tests.scram_client import ScramClient
from tests.unit.server.kafka_peer import Peer, ShoreRoom

from isthmus.broker.access_rules import parse_rules
from isthmus.broker.identity import Principal
from isthmus.broker.scram import Exchange, ScramKeys
from isthmus.broker.users import User, credentials_of, parse_users
from isthmus.errors import NoSpace
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode

INVALID = ErrorCode.INVALID_REQUEST
UNACCEPTABLE = ErrorCode.UNACCEPTABLE_CREDENTIAL
EVERY: dict[str, Any] = {
    "resource_type_filter": 1,
    "resource_name_filter": None,
    "pattern_type_filter": 1,
    "principal_filter": None,
    "host_filter": None,
    "operation": 1,
    "permission_type": 1,
}
BASE: dict[str, Any] = {
    "resource_type": 2,
    "resource_name": "t",
    "resource_pattern_type": 3,
    "principal": "User:ann",
    "host": "*",
    "operation": 3,
    "permission_type": 3,
}


class Room(ShoreRoom):
    """A Kafka shore and its ACLs, looked after by root."""

    def __init__(self) -> None:
        super().__init__()
        self.security.access.replace((), default=None, super_users=("root",))

    def peer(self, **addresses: tuple) -> Peer:
        peer = super().peer(**addresses)
        peer.connection.principal = Principal("root", "", peer.connection.identity)
        return peer

    def create(self, *changes: dict[str, Any], version: int = 3) -> list[tuple[int, str]]:
        creations = [BASE | change for change in changes]
        answer = self.peer().ask(ApiKey.CREATE_ACLS, version, {"creations": creations})
        return [(row["error_code"], row["error_message"]) for row in answer["results"]]

    def described(self, **wanted: Any) -> list[tuple[Any, ...]]:
        answer = self.peer().ask(ApiKey.DESCRIBE_ACLS, 3, EVERY | wanted)
        assert answer["error_code"] == 0, answer
        return [
            (
                *(one["resource_type"], one["resource_name"], one["pattern_type"]),
                *(acl["principal"], acl["host"], acl["operation"], acl["permission_type"]),
            )
            for one in answer["resources"]
            for acl in one["acls"]
        ]

    def delete(self, *filters: dict[str, Any]) -> list[int]:
        body = {"filters": [EVERY | each for each in filters]}
        answer = self.peer().ask(ApiKey.DELETE_ACLS, 3, body)
        assert not any(row["error_code"] for row in answer["filter_results"])
        return [len(row["matching_acls"]) for row in answer["filter_results"]]

    @property
    def rules(self) -> list[str]:
        return [each.rule.text for each in self.security.kept]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({}, "allow user:ann read log:t"),
        ({"permission_type": 2, "operation": 2}, "deny user:ann all log:t"),
        ({"principal": "User:*"}, "allow all read log:t"),
        ({"principal": "User:ANONYMOUS"}, "allow anonymous read log:t"),
        ({"principal": "Group:staff"}, "allow group:staff read log:t"),
        ({"principal": "Listener:in"}, "allow listener:in read log:t"),
        ({"principal": "User:a b"}, 'allow "user:a b" read log:t'),
        ({"principal": "User:a*"}, 'allow "user:a\\\\*" read log:t'),
        ({"principal": "User:CN=a,O=b"}, "allow user:CN=a,O=b read log:t"),
        ({"resource_name": "*"}, "allow user:ann read log:*"),
        ({"resource_pattern_type": 4}, "allow user:ann read log:t*"),
        (
            {"resource_name": "g*", "resource_type": 3},
            'allow user:ann read "group:g\\\\*"',
        ),
        (
            {"resource_name": "g*", "resource_type": 5, "resource_pattern_type": 4},
            'allow user:ann read "transaction:g\\\\**"',
        ),
        (
            {"resource_name": "kafka-cluster", "resource_type": 4, "operation": 12},
            "allow user:ann idempotent-write cluster",
        ),
        ({"resource_type": 6, "operation": 8}, "allow user:ann describe token:t"),
        ({"resource_type": 7, "operation": 13}, "allow user:ann create-tokens user:t"),
        ({"host": "10.0.0.7"}, "allow user:ann read log:t from 10.0.0.7"),
        ({"host": "2001:DB8::1"}, "allow user:ann read log:t from 2001:db8::1"),
        ({"operation": 15}, "allow user:ann two-phase-commit log:t"),
    ],
)
def test_an_acl_is_a_rule_and_the_rule_is_that_acl(change: dict[str, Any], rule: str) -> None:
    room = Room()
    assert room.create(change) == [(0, None)]
    assert room.rules == [rule]
    (parsed,) = parse_rules(rule, "here")
    assert parsed.meaning == next(iter(room.security.kept)).rule.meaning
    told = BASE | change
    if "host" in change:
        told["host"] = change["host"].lower()
    assert room.described() == [tuple(told.values())]
    assert room.delete({}) == [1]
    assert not room.rules and not room.described()


@pytest.mark.parametrize(
    "change",
    [
        {"resource_type": 1},
        {"resource_type": 99},
        {"operation": 1},
        {"operation": 0},
        {"permission_type": 1},
        {"resource_pattern_type": 1},
        {"resource_pattern_type": 2},
        {"resource_name": ""},
        {"resource_type": 4},
        {"principal": "ann"},
        {"principal": "User:"},
        {"principal": "Robot:ann"},
        {"host": "somewhere"},
    ],
)
def test_what_is_no_acl_is_told_so_and_the_others_are_made(change: dict[str, Any]) -> None:
    room = Room()
    (one, other) = room.create(change, {"resource_name": "u"})
    assert one[0] == INVALID and one[1]
    assert other == (0, None)
    assert room.rules == ["allow user:ann read log:u"]


def test_filters_find_what_is_about_something() -> None:
    room = Room()
    for change in (
        {"resource_name": "abc"},
        {"resource_name": "ab", "resource_pattern_type": 4},
        {"resource_name": "x", "resource_pattern_type": 4},
        {"resource_name": "*"},
        {"resource_name": "abc", "resource_type": 3, "operation": 8, "host": "10.0.0.7"},
    ):
        assert room.create(change) == [(0, None)]

    def found(**wanted: Any) -> list[tuple[int, str, int]]:
        return sorted(row[:3] for row in room.described(**wanted))

    name = {"resource_name_filter": "abc"}
    assert len(found()) == 5
    assert found(**name) == [(2, "abc", 3), (3, "abc", 3)]
    assert found(**name, pattern_type_filter=3) == [(2, "abc", 3), (3, "abc", 3)]
    assert found(**name, pattern_type_filter=4) == []
    matching = [(2, "*", 3), (2, "ab", 4), (2, "abc", 3), (3, "abc", 3)]
    assert found(**name, pattern_type_filter=2) == matching
    assert found(resource_type_filter=3) == [(3, "abc", 3)]
    assert found(host_filter="10.0.0.7") == [(3, "abc", 3)]
    assert len(found(host_filter="*")) == 4
    assert found(operation=8) == [(3, "abc", 3)]
    assert found(operation=2) == found(permission_type=2) == []
    assert found(principal_filter="User:bob") == []
    assert len(found(principal_filter="User:ann")) == 5
    wrong = room.peer().ask(ApiKey.DESCRIBE_ACLS, 2, EVERY | {"operation": 0})
    assert wrong["error_code"] == INVALID
    assert room.delete(name, {"pattern_type_filter": 4}) == [2, 2]
    assert found() == [(2, "*", 3)]


def test_what_is_configured_shows_and_stays_and_what_has_no_form_does_not_show() -> None:
    room = Room()
    rules = (
        "allow user:ann read,write log:t",
        "deny user:line-* read log:t",
        "allow all read log:a*b",
        "allow all publish t",
    )
    room.security.access.replace(parse_rules("\n".join(rules), "file"), default=True)
    room.create({})
    assert [row[5] for row in room.described()] == [3, 4]
    assert room.delete({}) == [1]
    assert len(room.described()) == 2


def test_who_has_changed_what_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    room = Room()
    room.create({})
    room.delete({})
    lines = [record.getMessage() for record in caplog.records]
    said = "by=root@10.0.0.9 rule='allow user:ann read log:t'"
    assert [line for line in lines if line.startswith("access rule")] == [
        f"access rule added {said}",
        f"access rule removed {said}",
    ]


def test_what_cannot_be_written_is_not_in_force() -> None:
    room = Room()
    room.create({})
    room.security.kept._appends.error = NoSpace("full")  # type: ignore[attr-defined]
    (told,) = room.create({"resource_name": "u"})
    assert told[0] == ErrorCode.KAFKA_STORAGE_ERROR
    answer = room.peer().ask(ApiKey.DELETE_ACLS, 1, {"filters": [EVERY]})
    (row,) = answer["filter_results"]
    assert (row["error_code"], row["matching_acls"]) == (ErrorCode.KAFKA_STORAGE_ERROR, [])
    assert room.rules == ["allow user:ann read log:t"]


# --- users ------------------------------------------------------------------------------------


def salted(password: str, *, sha: str = "sha256", iterations: int = 4096) -> dict[str, Any]:
    """Return what a client makes of a password."""
    key = hashlib.pbkdf2_hmac(sha, password.encode(), b"salt", iterations)
    mechanism = 1 if sha == "sha256" else 2
    about = {"mechanism": mechanism, "iterations": iterations, "salt": b"salt"}
    return {"name": "ann", **about, "salted_password": key}


class Users(ShoreRoom):
    """A Kafka shore, and its users by the admin API."""

    def alter(self, *upsertions: Any, deletions: tuple[Any, ...] = ()) -> dict[str, int]:
        body = {"upsertions": [*upsertions], "deletions": [*deletions]}
        answer = self.peer().ask(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, 0, body)
        return {row["user"]: row["error_code"] for row in answer["results"]}

    def described(self, *names: str) -> dict[str, Any]:
        body = {"users": [{"name": name} for name in names] or None}
        answer = self.peer().ask(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, 0, body)
        return {
            row["user"]: row["error_code"]
            or [(each["mechanism"], each["iterations"]) for each in row["credential_infos"]]
            for row in answer["results"]
        }

    def ann(self) -> User | None:
        return self.security.users.find("ann")


def test_a_user_of_the_admin_api_logs_in_everywhere() -> None:
    room = Users()
    assert room.alter(salted("pw")) == {"ann": 0}
    assert room.alter(salted("pw", sha="sha512", iterations=5000)) == {"ann": 0}
    ann = room.ann()
    assert ann is not None and ann.credentials[0].matches(b"pw")
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        keys = ann.keys(mechanism)
        assert keys is not None
        server = Exchange(lambda *_, keys=keys: (keys, True), b"n" * 18)  # type: ignore[misc]
        client = ScramClient(mechanism, "ann", "pw")
        assert client.is_server(server.step(client.final(server.step(client.first()))))
    assert room.described() == {"ann": [(1, 4096), (2, 5000)]}
    assert room.described("ann", "bob") == {
        "ann": [(1, 4096), (2, 5000)],
        "bob": ErrorCode.RESOURCE_NOT_FOUND,
    }
    assert room.described("ann", "ann") == {"ann": ErrorCode.DUPLICATE_RESOURCE}


def test_a_password_is_that_which_was_set_last() -> None:
    room = Users()
    kept = credentials_of(b"old", 4096, room.runtime.random_bytes)
    room.security.users.put(User("ann", kept, frozenset({"staff"})), lambda _: None)
    room.runtime.settle()
    assert room.alter(salted("new", sha="sha512")) == {"ann": 0}
    ann = room.ann()
    assert ann is not None and ann.groups == {"staff"}
    assert ann.credentials[0].matches(b"new")
    old = ann.keys("SCRAM-SHA-256")
    assert old is not None and old.matches(b"old")  # as Kafka has it: each by itself
    assert room.alter(deletions=({"name": "ann", "mechanism": 1},)) == {"ann": 0}
    ann = room.ann()
    assert ann is not None and len(ann.credentials) == 1
    assert room.alter(deletions=({"name": "ann", "mechanism": 2},)) == {"ann": 0}
    assert room.ann() is None and room.described() == {}


def test_another_program_s_hash_goes_with_the_first_password_that_is_set() -> None:
    room = Users()
    foreign = parse_users(
        "ann:$7$101$gjHdtqPJ9vaOZpeK$4sFvt4TrkKMJNjlxDKbzMaE3WorLM8ZxwKYkGwXMeyy47dMVwC5Nto+"
        "RnZUGANiRlwPaRJN8meezjITkUa/siA==",
        "f",
    )["ann"]
    room.security.users.put(foreign, lambda _: None)
    room.runtime.settle()
    assert room.described() == {}
    assert room.alter(salted("new")) == {"ann": 0}
    ann = room.ann()
    assert ann is not None
    assert [type(each) for each in ann.credentials] == [ScramKeys]


@pytest.mark.parametrize(
    ("upsertion", "deletion", "code"),
    [
        ({"iterations": 4095}, None, UNACCEPTABLE),
        ({"iterations": 16_385}, None, UNACCEPTABLE),
        ({"salt": b""}, None, UNACCEPTABLE),
        ({"salted_password": b""}, None, UNACCEPTABLE),
        ({"name": ""}, None, UNACCEPTABLE),
        ({"name": "a:b"}, None, UNACCEPTABLE),
        ({"name": "eve"}, None, UNACCEPTABLE),
        ({"mechanism": 3}, None, ErrorCode.UNSUPPORTED_SASL_MECHANISM),
        (None, {"mechanism": 0}, ErrorCode.UNSUPPORTED_SASL_MECHANISM),
        (None, {"mechanism": 1}, ErrorCode.RESOURCE_NOT_FOUND),
        ({}, {"mechanism": 1}, ErrorCode.DUPLICATE_RESOURCE),
        ({}, {"mechanism": 2}, ErrorCode.DUPLICATE_RESOURCE),
    ],
)
def test_what_is_refused(
    upsertion: dict[str, Any] | None, deletion: dict[str, Any] | None, code: ErrorCode
) -> None:
    room = Users()
    room.security.users.use_file(parse_users("eve:$6$YWJj$" + "QUJD" * 21 + "QQ==", "f"))
    changes = [] if upsertion is None else [salted("pw") | upsertion]
    gone = () if deletion is None else ({"name": "ann", **deletion},)
    name = (upsertion or {}).get("name", "ann")
    bob = salted("pw") | {"name": "bob"}
    assert room.alter(*changes, bob, deletions=gone) == {name: code, "bob": 0}
    assert room.ann() is None


def test_nothing_asked_for_is_nothing_done() -> None:
    assert Users().alter() == {}
