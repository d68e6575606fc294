"""Users: the text of a file, the records of the log topic, and who hears of a change."""

from __future__ import annotations

import subprocess
from shutil import which
from typing import TYPE_CHECKING, Any

import argon2
import pytest
from tests.unit.broker.shore import Shore

from isthmus.broker.credentials import Pbkdf2, Sha512, parse_credential, text_of
from isthmus.broker.users import (
    USERS_LOG_TOPIC,
    User,
    Users,
    credentials_of,
    parse_user,
    parse_users,
)
from isthmus.errors import ConfigError, IsthmusError, NoSpace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHA512 = (
    "$6$RhRiicgQjblau5qD$"
    "DX0ACFTtYBQkQ9YI5TI/9TJRyzWqHjXlCQhGH/dDGo9H/WgYZfGdJApFxlXWJXOlxAAX9pK7mXLfZq5NkexN2w=="
)
PBKDF2 = (
    "$7$101$gjHdtqPJ9vaOZpeK$"
    "4sFvt4TrkKMJNjlxDKbzMaE3WorLM8ZxwKYkGwXMeyy47dMVwC5Nto+RnZUGANiRlwPaRJN8meezjITkUa/siA=="
)
SCRAM = (
    "$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


def fake_bytes(count: int) -> bytes:
    return bytes(range(count))


# --- credentials ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "password"),
    [(SHA512, "pw"), (PBKDF2, "pässword"), (SCRAM, "pencil")],
    ids=["6", "7", "scram"],
)
def test_a_credential_is_read_checked_and_written(text: str, password: str) -> None:
    """The first two were written by mosquitto_passwd, the third is from RFC 7677."""
    credential = parse_credential(text)
    assert credential.matches(password.encode())
    assert not credential.matches(password[:-1].encode())
    assert not credential.matches(b"")
    assert text_of(credential) == text


def test_argon2_as_other_programs_write_it() -> None:
    text = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("pw")
    credential = parse_credential(text)
    assert credential.matches(b"pw")
    assert not credential.matches(b"px")
    assert text_of(credential) == text


def test_argon2_without_its_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "argon2", None)
    with pytest.raises(ConfigError, match=r"pip install 'isthmus\[argon2\]'"):
        parse_credential("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaA")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "$",
        "$5$salt$hash",
        "$6",
        "$7",
        "$argon2id",
        "$6$only",
        "$6$!!$" + SHA512.rpartition("$")[2],
        "$6$$" + SHA512.rpartition("$")[2],
        SHA512[:-8],
        PBKDF2.replace("$101$", "$0$"),
        PBKDF2.replace("$101$", "$99999999$"),
        PBKDF2.replace("$101$", "$x$"),
        PBKDF2.replace("$101$", "$"),
        SCRAM + "$more",
        SCRAM.rpartition("$")[0],
        SCRAM.replace("256", "512"),
        SCRAM.removeprefix("$"),
        "$argon2id$v=19$m=99999999,t=1,p=1$c2FsdHNhbHQ$aGFzaA",
        "$argon2id$v=19$m=1048576,t=1000,p=1$c2FsdHNhbHQ$aGFzaA",
        "$argon2id$v=19$t=1$c2FsdHNhbHQ$aGFzaA",
    ],
)
def test_a_text_that_is_no_credential_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_credential(text)
    assert len(text) < 10 or text not in str(refused.value)


@pytest.mark.skipif(which("mosquitto_passwd") is None, reason="needs mosquitto_passwd")
@pytest.mark.parametrize(("hash_", "kind"), [("sha512", Sha512), ("sha512-pbkdf2", Pbkdf2)])
def test_the_files_of_mosquitto_passwd(tmp_path: Path, hash_: str, kind: type) -> None:
    file = tmp_path / "passwd"
    file.touch(0o600)
    for name, password in (("ann", "one"), ("bob", "zwölf")):
        command = ["mosquitto_passwd", "-H", hash_, "-b", str(file), name, password]
        subprocess.run(command, check=True, capture_output=True)
    users = parse_users(file.read_text(), str(file))
    assert [*users] == ["ann", "bob"]
    for user, password in (("ann", "one"), ("bob", "zwölf")):
        (credential,) = users[user].credentials
        assert isinstance(credential, kind)
        assert credential.matches(password.encode())


# --- text -------------------------------------------------------------------------------------


def test_a_file_has_a_user_in_each_line() -> None:
    text = f"# ours\n\nann:{SCRAM} {PBKDF2}:b,a\nbob smith:!{SHA512}\n"
    users = parse_users(text, "f")
    ann, bob = users["ann"], users["bob smith"]
    assert (ann.groups, ann.is_enabled, ann.is_foreign) == (frozenset("ab"), True, False)
    assert (bob.groups, bob.is_enabled, bob.is_foreign) == (frozenset(), False, True)
    assert ann.text == f"{SCRAM} {PBKDF2}:a,b"
    assert bob.text == f"!{SHA512}"
    assert parse_user("ann", ann.text).text == ann.text


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ann", "a line is"),
        (f":{SHA512}", "is no user name"),
        (f" ann:{SHA512}", "is no user name"),
        (f"!ann:{SHA512}", "is no user name"),
        (f"a\u2028nn:{SHA512}", "a line is"),
        (f"{'n' * 256}:{SHA512}", "is no user name"),
        ("ann:", "one to 4 credentials"),
        ("ann:!", "one to 4 credentials"),
        ("ann:" + f"{SHA512} " * 5, "one to 4 credentials"),
        ("ann:plain", "a credential begins with"),
        (f"ann:{SHA512}:a b", "no name of a group"),
        (f"ann:{SHA512}:a:b", "no name of a group"),
        (f"ann:{SHA512}:" + ",".join(map(str, range(101))), "100 groups"),
        (f"bob:{SHA512}", "stands here twice"),
    ],
)
def test_a_line_that_is_wrong_is_named(line: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_users(f"bob:{PBKDF2}\n{line}\n", "/etc/users")
    assert str(refused.value).startswith("/etc/users:2: ")
    assert why in str(refused.value)
    assert "==" not in str(refused.value)


# --- the users of a server --------------------------------------------------------------------


class Room:
    """The users of a server over the memory engine, and what was told of them."""

    def __init__(self, shore: Shore | None = None) -> None:
        self.shore = shore or Shore()
        self.users = Users(self.shore.runtime, self.shore.log, self.shore.broker, 4096)
        self.told: list[set[str]] = []
        self.users.follow(self.told.append)
        self.shore.runtime.settle()

    def do(self, change: Callable[..., None], *arguments: Any, **options: Any) -> Any:
        answers: list[IsthmusError | None] = []
        change(*arguments, answers.append, **options)
        assert answers == []  # not before it is durable
        self.shore.runtime.settle()
        (answer,) = answers
        return answer

    def again(self) -> Room:
        return Room(self.shore.crash())


def user(name: str, password: bytes = b"pw", *groups: str, is_enabled: bool = True) -> User:
    credentials = credentials_of(password, 4096, fake_bytes)
    return User(name, credentials, frozenset(groups), is_enabled=is_enabled)


def test_users_are_there_after_a_crash() -> None:
    room = Room()
    for each in (user("bob", b"1", "fitters"), user("ann", is_enabled=False), user("eve")):
        assert room.do(room.users.put, each) is None
    assert room.do(room.users.remove, "eve") is None
    assert room.told == [{"bob"}, {"ann"}, {"eve"}, {"eve"}]
    room = room.again()
    assert [each.name for each in room.users] == ["ann", "bob"]
    bob, ann = room.users.find("bob"), room.users.find("ann")
    assert bob is not None and bob.groups == {"fitters"} and bob.is_enabled
    assert bob.credentials[0].matches(b"1")
    assert ann is not None and not ann.is_enabled
    assert room.users.find("eve") is None


def test_a_change_that_the_disk_does_not_take_does_not_count() -> None:
    room = Room()
    room.do(room.users.put, user("ann"))
    room.told.clear()
    partition = room.shore.log.topics[USERS_LOG_TOPIC].partitions[0]
    answers: list[IsthmusError | None] = []
    partition.append = lambda batch, ticket, **_: ticket.failed(NoSpace("full"))
    room.users.remove("ann", answers.append)
    assert [type(answer) for answer in answers] == [NoSpace]
    assert room.users.find("ann") is not None
    assert room.told == []


def test_the_file_counts_before_the_table() -> None:
    room = Room()
    room.do(room.users.put, user("ann", b"table"))
    room.do(room.users.put, user("bob"))
    room.told.clear()
    listed = parse_users(f"ann:{PBKDF2}\neve:{PBKDF2}\n", "f")
    room.users.use_file(listed)
    assert room.told == [{"ann", "eve"}]
    assert room.users.find("ann") is listed["ann"]
    assert [each.name for each in room.users] == ["ann", "bob", "eve"]
    assert (room.users.is_listed("ann"), room.users.is_listed("bob")) == (True, False)
    room.users.use_file(parse_users(f"# other\nann:{PBKDF2}\neve:{PBKDF2}:new\n", "f"))
    assert room.told[1:] == [{"eve"}]
    assert room.users.find("ann") is listed["ann"]  # with the proof of its password
    room.users.use_file({})
    assert room.told[2:] == [{"ann", "eve"}]
    ann = room.users.find("ann")
    assert ann is not None and ann.credentials[0].matches(b"table")


def test_the_same_password_in_another_form_is_no_other_user() -> None:
    room = Room()
    room.do(room.users.put, parse_user("ann", SHA512))
    room.told.clear()
    room.do(room.users.put, user("ann"), same_password=True)
    assert room.told == []
    ann = room.again().users.find("ann")
    assert ann is not None and not ann.is_foreign


def test_a_record_that_cannot_be_read_costs_its_user_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    room = Room()
    room.do(room.users.put, user("ann"))
    room.do(room.users.put, user("bob"))
    room.shore.produce(USERS_LOG_TOPIC, b"ann", b"$9$of a later version")
    room = room.again()
    assert [each.name for each in room.users] == ["bob"]
    assert "user not readable user=ann" in caplog.text


def test_who_is_not_there_has_always_the_same_decoy() -> None:
    room = Room()
    assert room.users.decoy("nobody") is None
    for name in ("ann", "bob", "eve"):
        room.do(room.users.put, user(name))
    decoys = {name: room.users.decoy(name) for name in map(str, range(50))}
    assert {decoy.name for decoy in decoys.values() if decoy} == {"ann", "bob", "eve"}
    keys = room.users.decoy_keys("SCRAM-SHA-512", "nobody")
    assert len(keys.salt) == 16 and keys.iterations == 4096
    room = room.again()
    assert {name: room.users.decoy(name).name for name in decoys} == {
        name: decoy.name for name, decoy in decoys.items() if decoy
    }
    assert room.users.decoy_keys("SCRAM-SHA-512", "nobody") == keys
    assert room.users.decoy_keys("SCRAM-SHA-512", "nobody2").salt != keys.salt
