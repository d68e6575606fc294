"""Rules that the server keeps: in force once durable, read back, and told of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.broker.kafka_room import KafkaRoom

from isthmus.broker import kept_rules
from isthmus.broker.access import Access
from isthmus.broker.access_rules import parse_rules
from isthmus.broker.identity import Identity, Principal
from isthmus.broker.kept_rules import ACCESS_LOG_TOPIC, KeptRules
from isthmus.errors import NoSpace, QuotaExceeded

if TYPE_CHECKING:
    from isthmus.broker.access_rules import Rule
    from isthmus.errors import IsthmusError

ANN = Principal("ann", "c", Identity("10.0.0.7", 1, "tcp"))


def rules_of(*texts: str) -> list[Rule]:
    return parse_rules("\n".join(texts), "test")


class Room(KafkaRoom):
    """The rules of a server, which can start anew."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[IsthmusError | None] = []
        self.start()

    def start(self) -> None:
        self.access = Access(default=None)
        self.changes: list[int] = []
        self.access.follow(lambda: self.changes.append(self.access.generation))
        self.kept = KeptRules(self.runtime, self.log, self.appends, self.access)
        self.runtime.settle()

    def add(self, *texts: str, by: str = "me") -> None:
        self.kept.add(rules_of(*texts), by, self.told.append)
        self.runtime.settle()

    def remove(self, *texts: str) -> None:
        self.kept.remove(rules_of(*texts), "me", self.told.append)
        self.runtime.settle()

    @property
    def texts(self) -> list[str]:
        return [each.rule.text for each in self.kept]


def test_a_rule_counts_when_it_is_durable_and_after_the_next_start() -> None:
    room = Room()
    assert room.access.allows(ANN, "publish", "b")
    room.kept.add(rules_of("allow all publish a"), "me", room.told.append)
    assert room.access.allows(ANN, "publish", "b")
    room.runtime.settle()
    assert not room.access.allows(ANN, "publish", "b")
    room.start()
    assert not room.access.allows(ANN, "publish", "b")
    assert [(each.rule.text, each.by) for each in room.kept] == [("allow all publish a", "me")]
    room.remove("allow all publish a")
    assert room.access.allows(ANN, "publish", "b")
    room.start()
    assert not room.texts
    assert room.told == [None, None]


def test_what_says_the_same_is_kept_once_and_in_pieces() -> None:
    room = Room()
    room.add("allow user:ann read,write log:a", "deny user:ann write log:b")
    room.add('allow  "user:ann"  write,describe log:a', by="another")
    assert room.texts == [
        "allow user:ann read log:a",
        "allow user:ann write log:a",
        "deny user:ann write log:b",
        "allow user:ann describe log:a",
    ]
    assert [each.by for each in room.kept] == ["me", "me", "me", "another"]
    room.remove("allow user:ann write,delete log:a", "deny all write log:b")
    assert len(room.kept) == 3
    changes = len(room.changes)
    room.remove("allow user:ann delete log:a")
    assert len(room.changes) == changes
    assert room.told == [None] * 4


def test_what_is_configured_anew_leaves_alone_what_is_kept() -> None:
    room = Room()
    room.add("allow user:ann publish a", "allow user:* subscribe $SYS/up")
    room.access.replace(rules_of("deny all publish a/b"), default=None)
    assert [rule.text for rule in room.access.rules] == [
        "deny all publish a/b",
        "allow user:ann publish a",
        "allow user:* subscribe $SYS/up",
    ]
    assert room.access.allows(ANN, "publish", "a")
    room.remove("allow user:* subscribe $SYS/up")
    assert room.access.rules[-1].origin == "built in"


def test_what_cannot_be_written_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room()
    room.appends.error = NoSpace("full")
    room.add("allow all publish a")
    assert isinstance(room.told[0], NoSpace)
    assert not room.texts and room.access.is_open
    monkeypatch.setattr(kept_rules, "KEPT_MAX", 1)
    with pytest.raises(QuotaExceeded, match="1 rules"):
        room.add("allow all publish,subscribe a")


def test_a_record_that_is_no_rule_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    room.add("allow all publish a")
    room.produce(ACCESS_LOG_TOPIC)  # its key is no rule
    room.start()
    assert room.texts == ["allow all publish a"]
    assert "access rule not readable rule='k'" in caplog.text


def test_rules_about_places_and_kafka_s_things() -> None:
    room = Room()
    room.add("allow user:ann read log:a from 10.0.0.7", "deny all all group:g* from ::1")
    assert room.access.allows(ANN, "describe", "a")
    elsewhere = Principal("ann", "c", Identity("10.0.0.8", 1, "tcp"))
    assert not room.access.allows(elsewhere, "read", "a")
    assert not room.access.allows(ANN, "write", "a")
    assert room.access.allows(ANN, "write", "b")  # no rule is about it
    assert not room.access.allows(ANN, "read", "g1", "group")
    assert room.access.allows(ANN, "read", "h", "group")
    assert room.access.is_open  # of topic names
    assert not room.access.is_open_for_kafka
