"""`isthmus users` on a file: what it writes, what it leaves alone, what it says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from tests.unit.broker.test_users import PBKDF2

from isthmus.broker.users import parse_users
from isthmus.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def run(file: Path, *words: str, password: str = "") -> Result:
    command = ["users", *words, "--file", str(file)]
    return CliRunner().invoke(main, command, input=f"{password}\n", catch_exceptions=False)


def test_a_line_is_changed_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"# the plant\n\nann:{PBKDF2}:a\n  \nbob:{PBKDF2}\n")
    file.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert run(link, "passwd", "ann", password="neu").exit_code == 0
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    lines = file.read_text().splitlines()
    assert [*lines[:2], lines[3], lines[4]] == ["# the plant", "", "  ", f"bob:{PBKDF2}"]
    ann = parse_users(file.read_text(), "f")["ann"]
    assert ann.groups == {"a"} and ann.credentials[0].matches(b"neu")
    assert run(file, "remove", "bob").exit_code == 0
    assert file.read_text().splitlines() == lines[:4]
    assert [each.name for each in tmp_path.iterdir()].count("users") == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_new_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    file = tmp_path / "users"
    ended = run(file, "add", "ann", "--group", "b", "--group", "a", password="geheim")
    assert (ended.exit_code, ended.output) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "geheim" not in file.read_text()
    (listed,) = run(file, "list", "--json").output.splitlines()
    assert json.loads(listed) == {"name": "ann", "groups": ["a", "b"], "enabled": True}


def test_a_user_is_disabled_and_enabled_with_the_password_of_before(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"ann:{PBKDF2}\n")
    assert run(file, "disable", "ann").exit_code == 0
    assert file.read_text() == f"ann:!{PBKDF2}\n"
    assert run(file, "list").output.split()[-3:] == ["ann", "-", "no"]
    assert run(file, "groups", "ann", "g").exit_code == 0
    assert run(file, "enable", "ann").exit_code == 0
    assert file.read_text() == f"ann:{PBKDF2}:g\n"


@pytest.mark.parametrize(
    ("words", "password", "says"),
    [
        (("add", "ann"), "pw", "there is a user 'ann' already"),
        (("add", "a:b"), "pw", "is no user name"),
        (("add", "bob"), "", "a password has 1 to"),
        (("add", "bob"), "x" * 70_000, "a password has 1 to"),
        (("add", "bob", "--group", "a b"), "pw", "no name of a group"),
        (("passwd", "bob"), "pw", "there is no user 'bob'"),
        (("remove", "bob"), "", "there is no user 'bob'"),
        (("disable", "bob"), "", "there is no user 'bob'"),
        (("groups", "ann", "x,y"), "", "no name of a group"),
    ],
)
def test_what_is_refused_changes_nothing(
    tmp_path: Path, words: tuple[str, ...], password: str, says: str
) -> None:
    file = tmp_path / "users"
    file.write_text(f"ann:{PBKDF2}\n")
    ended = run(file, *words, password=password)
    assert ended.exit_code != 0
    assert says in ended.output
    assert file.read_text() == f"ann:{PBKDF2}\n"


def test_a_file_that_is_wrong_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("ann:geheim\n")
    ended = run(file, "add", "bob", password="pw")
    assert (ended.exit_code, f"{file}:1: " in ended.output) == (2, True)
    assert "geheim" not in ended.output
    assert file.read_text() == "ann:geheim\n"


def test_a_password_is_never_an_argument(tmp_path: Path) -> None:
    assert run(tmp_path / "users", "add", "ann", "geheim").exit_code == 2
