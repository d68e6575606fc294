"""`isthmus acls`: the rules in force, and what they mean for somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from isthmus.broker.access import Access
from isthmus.broker.access_rules import parse_rules
from isthmus.broker.credentials import parse_credential
from isthmus.broker.users import User
from isthmus.cli.main import main
from isthmus.cli.user_stores import DirectoryStore

if TYPE_CHECKING:
    from pathlib import Path

RULES = (
    "# who\nallow user:line-* publish factory/%u/%c\nallow group:staff subscribe factory/#\n"
)
HASHED = "$7$101$c2FsdHNhbHRzYWx0$" + "QUJD" * 21 + "QQ=="


@pytest.fixture
def configured(tmp_path: Path) -> list[str]:
    """Return the options that name the rules and the users."""
    rules, users = tmp_path / "rules", tmp_path / "users"
    rules.write_text(RULES, "utf-8")
    users.write_text(f"ann:{HASHED}:staff\n", "utf-8")
    own = 'access.rules=["deny all subscribe factory/+/secret"]'
    files = (f"access.rules_file={rules}", f"authentication.users_file={users}")
    return [word for each in (own, *files) for word in ("--set", each)]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["acls", *arguments], catch_exceptions=False)
    return result.exit_code, result.output


def test_the_rules_in_force_with_their_places(configured: list[str], tmp_path: Path) -> None:
    status, text = run("list", *configured)
    assert status == 0
    assert text.splitlines() == [
        "access.rules[0]: deny all subscribe factory/+/secret",
        f"{tmp_path}/rules:2: allow user:line-* publish factory/%u/%c",
        f"{tmp_path}/rules:3: allow group:staff subscribe factory/#",
        "built in: allow user:* subscribe $SYS/#",
        "default: deny",
    ]
    assert run("list")[1].splitlines()[-1] == "default: allow what no rule is about"


@pytest.mark.parametrize(
    ("question", "allowed", "by"),
    [
        ("line-7 publish factory/line-7/c --client-id c", True, "rules:2"),
        ("line-7 publish factory/line-7/d --client-id c", False, "default"),
        ("ann subscribe factory/#", True, "rules:3"),
        ("ann subscribe $share/g/factory/#", True, "rules:3"),
        ("bob subscribe factory/#", False, "default"),
        ("bob subscribe factory/# --group staff", True, "rules:3"),
        ("ann subscribe factory/1/secret", False, "access.rules[0]"),
        ("- subscribe $SYS/#", False, "default"),
        ("ann subscribe $SYS/#", True, "built in"),
        ("ann read log:mqtt", False, "default"),
    ],
)
def test_who_may_do_what_and_why(
    configured: list[str], question: str, allowed: bool, by: str
) -> None:
    status, text = run("test", *question.split(), *configured)
    assert (status, text.split()[0]) == ((0, "allowed") if allowed else (1, "denied"))
    assert f"{by}:" in text


@pytest.mark.parametrize("resource", ["a/#", "a/#/b", ""])
def test_what_is_no_topic_name(configured: list[str], resource: str) -> None:
    status, text = run("test", "ann", "publish", resource, *configured)
    assert status == 2 and "topic name" in text


def test_rules_are_added_to_the_file_and_taken_out(
    configured: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "rules"
    new = 'allow  "user:line 7"  subscribe,publish "hall 2/#"'
    assert run("add", new, "allow group:staff subscribe factory/#", *configured) == (0, "")
    assert file.read_text("utf-8") == f"{RULES}{new}\n"
    assert run("add", 'allow "user:line 7" publish,subscribe "hall 2/#"', *configured)[0] == 0
    assert file.read_text("utf-8") == f"{RULES}{new}\n"
    same = 'allow "user:line 7" publish,subscribe "hall 2/#"'
    assert run("remove", same, *configured) == (0, "")
    assert file.read_text("utf-8") == RULES
    status, text = run("remove", same, *configured)
    assert status == 1 and "has no rule" in text


def test_a_file_of_rules_is_made_and_one_that_is_wrong_is_left(tmp_path: Path) -> None:
    file = tmp_path / "rules"
    setting = ("--set", f"access.rules_file={file}")
    assert run("add", "deny all publish a", *setting)[0] == 0
    assert file.read_text("utf-8") == "deny all publish a\n"
    assert run("add", "deny all fly a", *setting)[0] == 2
    assert run("add", "deny all publish a")[0] == 2
    file.write_text("nonsense\n", "utf-8")
    status, text = run("add", "deny all publish a", *setting)
    assert status == 2 and f"{file}:1:" in text
    assert file.read_text("utf-8") == "nonsense\n"


def test_what_the_server_keeps_counts_where_it_is_stopped(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, 4096)
    kept = store.put_in_force(Access())
    kept.add(parse_rules("allow group:staff read log:temps", ""), "me", lambda _: None)
    store.write(User("ann", (parse_credential(HASHED),), frozenset({"staff"})))
    asked = ("ann", "read", "log:temps", "--data", str(tmp_path))
    status, text = run("test", *asked)
    assert status == 0 and text.startswith("not looked at: ")  # it is in use
    store.close()
    assert run("test", *asked, "--group", "x")[0] == 1
    assert run("test", *asked) == (0, "allowed by kept: allow group:staff read log:temps\n")
    assert "kept: allow group:staff read log:temps" in run("list", "--data", str(tmp_path))[1]
