"""The rules as they are configured: their two places, the default, and both read again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from isthmus.broker.access_rules import PUBLISH
from isthmus.broker.identity import Identity, Principal
from isthmus.config import AccessSettings, Settings
from isthmus.errors import ConfigError
from isthmus.server.rules import ConfiguredRules

if TYPE_CHECKING:
    from pathlib import Path

ANN = Principal("ann", "c", Identity("", 0, ""))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rules"


def may_publish(rules: ConfiguredRules, *names: str) -> list[bool]:
    return [rules.access.allows(ANN, PUBLISH, name).allowed for name in names]


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        (AccessSettings(), True),
        (AccessSettings(default="deny"), False),
        (AccessSettings(rules=("allow all publish b",)), False),
        (AccessSettings(rules=("deny all publish b",), default="allow"), True),
    ],
)
def test_what_no_rule_speaks_of(settings: AccessSettings, allowed: bool) -> None:
    assert may_publish(ConfiguredRules(settings), "a") == [allowed]


def test_an_empty_file_for_rules_means_that_there_are_to_be_some(file: Path) -> None:
    file.write_text("", "utf-8")
    rules = ConfiguredRules(AccessSettings(rules_file=str(file)))
    assert not rules.access.is_open
    assert may_publish(rules, "a") == [False]


def test_the_rules_of_both_places_count_together(file: Path) -> None:
    file.write_text("allow all publish #\n", "utf-8")
    own = ("deny all publish a",)
    rules = ConfiguredRules(AccessSettings(rules=own, rules_file=str(file)))
    assert may_publish(rules, "a", "b") == [False, True]


def test_settings_and_file_change_each_for_itself(file: Path) -> None:
    file.write_text("allow all publish a\n", "utf-8")
    before = AccessSettings(rules=("allow all publish b",), rules_file=str(file))
    rules = ConfiguredRules(before)
    assert may_publish(rules, "a", "b", "c") == [True, True, False]
    after = AccessSettings(rules=("allow all publish c",), rules_file=str(file))
    rules.prepare(Settings(access=after))()
    assert may_publish(rules, "a", "b", "c") == [True, False, True]
    file.write_text("allow all publish d/#\n", "utf-8")
    asyncio.run(rules.watched[0].renew(forced=False))
    assert may_publish(rules, "a", "c", "d") == [False, True, True]


def test_what_is_wrong_changes_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("allow all publish a\n", "utf-8")
    rules = ConfiguredRules(AccessSettings(rules_file=str(file)))
    wrong = AccessSettings(rules=("allow all fly b",), rules_file=str(file))
    with pytest.raises(ConfigError, match=r"^access\.rules\[0\]: 'fly'"):
        rules.prepare(Settings(access=wrong))
    file.write_text("allow all publish b\nallow all fly b\n", "utf-8")
    asyncio.run(rules.watched[0].renew(forced=False))
    assert f"{file}:2: 'fly'" in caplog.text
    assert may_publish(rules, "a", "b") == [True, False]
    with pytest.raises(ConfigError, match=r"rules:2: 'fly'"):
        ConfiguredRules(AccessSettings(rules_file=str(file)))
