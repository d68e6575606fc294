"""What SIGHUP has read again, and what stays as it was."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from isthmus.config import LogSettings, MqttSettings, Settings
from isthmus.errors import ConfigError
from isthmus.server.reloads import Reloads

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

OLD = Settings()
NEW = Settings(mqtt=MqttSettings(connections_max=5))


class Part:
    """One part of a server: the settings that it was prepared with, and those in place."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.prepared: list[Settings] = []
        self.in_place: list[Settings] = []

    def prepare(self, settings: Settings) -> Callable[[], object]:
        self.prepared.append(settings)
        if self.failure is not None:
            raise self.failure
        return lambda: self.in_place.append(settings)


def reload(read: Callable[[], Settings], **parts: Part) -> None:
    async def run() -> None:
        reloads = Reloads(OLD, read)
        for name, part in parts.items():
            reloads.add(name, part.prepare)
        stop = asyncio.Event()
        done = asyncio.Event()

        def last(_: Settings) -> Callable[[], object]:
            return done.set

        reloads.add("last", last)
        running = asyncio.create_task(reloads.run(stop))
        reloads.ask()
        await done.wait()
        stop.set()
        reloads.ask()
        await running

    asyncio.run(run())


def test_each_part_takes_the_new_settings() -> None:
    one, other = Part(), Part()
    reload(lambda: NEW, one=one, other=other)
    assert one.in_place == other.in_place == [NEW]


def test_a_part_that_fails_stays_as_it_was_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong, gone, good = Part(ConfigError("no such user")), Part(FileNotFoundError()), Part()
    reload(lambda: NEW, users=wrong, rules=gone, limits=good)
    assert (wrong.in_place, gone.in_place, good.in_place) == ([], [], [NEW])
    lines = [record.getMessage() for record in caplog.records]
    assert [line.startswith("not reloaded part=users") for line in lines] == [True, False]


def test_settings_that_cannot_be_read_are_as_before_and_files_are_read_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def read() -> Settings:
        raise ConfigError("line 3 is not valid")

    part = Part()
    reload(read, users=part)
    assert part.in_place == [OLD]
    assert "line 3 is not valid" in caplog.text


def test_what_needs_a_restart_is_named(caplog: pytest.LogCaptureFixture) -> None:
    part = Part()
    reload(lambda: Settings(log=LogSettings(level="debug")), part=part)
    (line,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert line == "changed, and needs a restart setting=log.level"
    assert len(part.in_place) == 1
