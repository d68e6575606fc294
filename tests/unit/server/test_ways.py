"""The ways to find out who somebody is, exchanged while the server runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.sim import SimCrew
from tests.unit.broker.shore import Shore

from isthmus.broker.security import open_security
from isthmus.config import AuthenticationSettings, DelegationTokenSettings, Settings
from isthmus.errors import ConfigError
from isthmus.server.ways import Ways

if TYPE_CHECKING:
    from pathlib import Path

LINE = (
    "%s:$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n"
)


class Room:
    """A server's users, and the ways that ask about them."""

    def __init__(self, settings: Settings) -> None:
        shore = Shore()
        security = open_security(shore.runtime, shore.log, shore.broker)
        self.users = security.users
        self.changed: list[set[str]] = []
        self.users.follow(self.changed.append)
        self.ways = Ways(settings)
        runtime: Any = shore.runtime
        runtime.crew = lambda *_: SimCrew()
        self.ways.open(runtime, security)
        self.changed.clear()

    def reload(self, **own: Any) -> None:
        self.ways.prepare(Settings(authentication=AuthenticationSettings(**own)))()


def users_in(file: Path, *names: str) -> str:
    file.write_text("".join(LINE % name for name in names))
    return str(file)


def test_another_file_of_users_and_none(tmp_path: Path) -> None:
    one = users_in(tmp_path / "one", "ann", "bob")
    room = Room(Settings(authentication=AuthenticationSettings(users_file=one)))
    room.reload(users_file=users_in(tmp_path / "two", "bob", "eve"), iterations=5000)
    assert room.changed == [{"ann", "eve"}]  # who is the same is not told of
    assert room.users.iterations == 5000
    room.reload()
    assert room.changed[1:] == [{"bob", "eve"}]


def test_a_file_that_was_left_counts_no_more(tmp_path: Path) -> None:
    """Not even where it was being read just then."""
    one = users_in(tmp_path / "one", "ann")
    room = Room(Settings(authentication=AuthenticationSettings(users_file=one)))
    users_in(tmp_path / "one", "ann", "eve")

    async def scenario() -> None:
        looking = asyncio.create_task(room.ways.renew(forced=True))
        await asyncio.sleep(0)  # it is on another thread now
        room.reload(users_file=users_in(tmp_path / "two", "bob"))
        await looking

    asyncio.run(scenario())
    assert [user.name for user in room.users] == ["bob"]


def test_what_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    one = users_in(tmp_path / "one", "ann")
    room = Room(Settings(authentication=AuthenticationSettings(users_file=one)))
    with pytest.raises(ConfigError, match="cannot be read"):
        room.reload(users_file=str(tmp_path / "none"), iterations=5000)
    assert [user.name for user in room.users] == ["ann"]
    assert room.users.iterations == 4096


def test_the_key_of_delegation_tokens_is_read_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "key"
    tokens = DelegationTokenSettings(master_key_file=str(file), expiry_s=5)
    settings = Settings(authentication=AuthenticationSettings(delegation_tokens=tokens))
    with pytest.raises(ConfigError, match="master_key_file"):
        Ways(settings)
    file.write_bytes(b"k" * 31 + b"\n")
    with pytest.raises(ConfigError, match="less than 32 bytes"):
        Ways(settings)
    file.write_bytes(b"k" * 32 + b"\n")
    terms = Ways(settings).delegation
    assert (terms.master_key, terms.renewal_ms_max) == (b"k" * 32, 5000)
    assert Ways(Settings()).delegation.master_key == b""
