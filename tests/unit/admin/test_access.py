"""Rules over REST: listed, kept and removed; what they mean; and who has changed them."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
from tests.unit.admin.asgi import ask, security_of
from tests.unit.broker.shore import Shore
from tests.unit.broker.test_users import SCRAM

from isthmus.admin.http import application
from isthmus.broker.access_rules import parse_rules
from isthmus.broker.credentials import parse_credential
from isthmus.broker.inspection import Inspection
from isthmus.broker.kept_rules import ACCESS_LOG_TOPIC
from isthmus.broker.users import User
from isthmus.errors import NoSpace

HERE = (("host", "127.0.0.1:8080"),)
PEER = ("127.0.0.1", 5000)
RULE = 'allow "user:line 7" publish,subscribe hall/+/%u/#'


class Room:
    """The REST API over the rules of a server in memory."""

    def __init__(self) -> None:
        self.shore = Shore()
        self.security = security_of(self.shore)
        self.application = application(
            lambda: None,
            Inspection(self.shore.broker, self.shore.clients),
            self.shore.clients.traces,
            security=self.security,
            allow_anonymous=False,
        )

    def ask(self, method: str, target: str) -> tuple[int, Any]:
        target, settle = f"/api/v1/access/{target}", self.shore.runtime.settle
        status, answer, _ = ask(
            self.application, method, target, HERE, client=PEER, settle=settle
        )
        return status, json.loads(answer) if answer else None

    def rules(self) -> list[str]:
        return [row["rule"] for row in self.ask("GET", "rules")[1]["items"]]


def test_rules_are_kept_listed_and_removed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    room = Room()
    room.security.access.replace(parse_rules("deny all publish x", "file"), default=None)
    now_ms = room.shore.runtime.now_ms()
    assert room.ask("PUT", f"rules/{quote(RULE, safe='')}") == (204, None)
    _, page = room.ask("GET", "rules")
    kept = {"origin": "kept", "added_by": "-@127.0.0.1", "added_at_ms": now_ms}
    configured = {"added_by": None, "added_at_ms": None}
    mine = 'allow "user:line 7" {} hall/+/%u/#'
    assert page == {
        "items": [
            {"rule": "deny all publish x", "origin": "file:1", **configured},
            {"rule": mine.format("publish"), **kept},
            {"rule": mine.format("subscribe"), **kept},
            {"rule": "allow user:* subscribe $SYS/#", "origin": "built in", **configured},
        ],
        "next": None,
    }
    assert room.ask("GET", "rules?limit=1&cursor=1")[1] == {
        "items": page["items"][1:2],
        "next": "2",
    }
    assert room.ask("DELETE", f"rules/{quote(mine.format('publish'), safe='')}")[0] == 204
    assert room.ask("DELETE", f"rules/{quote(mine.format('publish'), safe='')}")[0] == 404
    assert mine.format("publish") not in room.rules()
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if line.startswith("access rule")] == [
        f"access rule added by=-@127.0.0.1 rule={mine.format('publish')!r}",
        f"access rule added by=-@127.0.0.1 rule={mine.format('subscribe')!r}",
        f"access rule removed by=-@127.0.0.1 rule={mine.format('publish')!r}",
    ]


def test_the_server_decides_with_the_groups_that_its_users_are_in() -> None:
    room = Room()
    ann = User("ann", (parse_credential(SCRAM),), frozenset({"staff"}))
    room.security.users.put(ann, lambda _: None)
    room.shore.runtime.settle()
    room.ask("PUT", f"rules/{quote('allow group:staff read log:temp*', safe='')}")
    asked = "decision?user={}&operation=read&resource=log:{}"
    assert room.ask("GET", asked.format("ann", "temps")) == (
        200,
        {
            "allowed": True,
            "rule": "kept: allow group:staff read log:temp*",
            "groups": ["staff"],
        },
    )
    assert room.ask("GET", asked.format("bob", "temps"))[1]["allowed"] is False
    assert room.ask("GET", asked.format("bob", "other"))[1]["allowed"] is True
    assert room.ask("GET", asked.format("bob", "temps") + "&group=staff")[1]["allowed"] is True


@pytest.mark.parametrize(
    ("method", "target", "status", "where"),
    [
        ("PUT", "rules/allow%20all%20fly%20a", 400, "path"),
        ("DELETE", "rules/allow%20all%20publish%20a", 404, "path"),
        ("GET", "rules?cursor=x", 400, "query cursor"),
        ("GET", "decision?user=a&operation=fly&resource=a", 400, "query"),
        ("GET", "decision?user=a&operation=read&resource=a", 400, "query"),
        ("GET", "decision?user=a&operation=publish&resource=%23", 400, "query"),
        ("GET", "decision?operation=publish&resource=a", 400, "query user"),
        ("POST", "rules", 405, "method"),
    ],
)
def test_what_is_refused(method: str, target: str, status: int, where: str) -> None:
    answer, said = Room().ask(method, target)
    assert (answer, said["where"]) == (status, where)


def test_what_the_log_does_not_take_is_not_in_force() -> None:
    room = Room()
    partition: Any = room.shore.log.topics[ACCESS_LOG_TOPIC].partitions[0]
    partition.append = lambda batch, ticket, **_: ticket.failed(NoSpace("full"))
    assert room.ask("PUT", "rules/deny%20all%20publish%20a")[0] == 503
    assert room.rules() == ["allow user:* subscribe $SYS/#"]
