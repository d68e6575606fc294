"""A file that changes while the server runs: taken as a whole, or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from isthmus.errors import ConfigError
from isthmus.server.renewal import WatchedFile

if TYPE_CHECKING:
    from pathlib import Path


def numbers(text: str, file: str) -> list[int]:
    found = []
    for place, line in enumerate(text.splitlines(), 1):
        if not line.isdigit():
            raise ConfigError(f"{file}:{place}: no number")
        found.append(int(line))
    return found


def renew(watched: WatchedFile[list[int]], *, forced: bool = False) -> None:
    asyncio.run(watched.renew(forced=forced))


def test_a_file_is_read_when_it_has_changed_or_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "numbers"
    file.write_text("1\n")
    watched = WatchedFile("numbers", str(file), numbers)
    used: list[list[int]] = []
    watched.serve(used.append)
    renew(watched)
    assert used == [[1]]
    file.write_text("2\n3\n")
    renew(watched)
    assert used == [[1], [2, 3]]
    renew(watched, forced=True)
    assert used == [[1], [2, 3], [2, 3]]


def test_what_is_wrong_with_a_file_is_said_once_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "numbers"
    file.write_text("1\n")
    watched = WatchedFile("numbers", str(file), numbers)
    used: list[list[int]] = []
    watched.serve(used.append)
    file.write_text("2\nx\n")
    renew(watched)
    renew(watched)
    assert used == [[1]]
    assert [record.getMessage() for record in caplog.records] == [
        f"file not taken setting=numbers reason={file}:2: no number"
    ]
    file.unlink()
    renew(watched)
    assert "cannot be read: No such file or directory" in caplog.records[-1].getMessage()
    file.write_bytes(b"\xff")
    renew(watched)
    assert "it is not UTF-8 text" in caplog.records[-1].getMessage()
    file.write_text("4\n")
    renew(watched)
    assert used == [[1], [4]]


def test_a_file_that_is_wrong_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"numbers = '.*' cannot be read"):
        WatchedFile("numbers", str(tmp_path / "none"), numbers)
