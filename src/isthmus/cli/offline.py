"""For commands that look into a data directory without a server: which one, and a runtime.

The runtime is for opening the log once and closing it again: what is put off for later comes
only if one waits for it (`turn_until`), and what is put on another thread is done at once.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from isthmus.cli.options import SOURCES, sources_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = TypeVar("Command", bound=Callable[..., Any])


class OfflineRuntime:
    """A `Runtime` without a loop."""

    def __init__(self) -> None:
        self._deferred: deque[Callable[[], object]] = deque()

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Return a clock that never goes back, in milliseconds."""
        return time.monotonic_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return the same clock in seconds."""
        return time.monotonic()

    def defer(self, call: Callable[[], object], /) -> None:
        """Put off what a turn of the loop would do."""
        self._deferred.append(call)

    post = defer

    def turn_until(self, is_over: Callable[[], bool]) -> None:
        """Do what was put off, until it is over or nothing is left."""
        while not is_over() and self._deferred:
            self._deferred.popleft()()

    def later(self, _delay_ms: int, _call: Callable[[], object]) -> Callable[[], None]:
        """Never call: the log is closed before anything falls due."""
        return lambda: None

    def offload_read(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> None:
        """Run `work` here and now, then `done`."""
        self.offload(work, done)

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> None:
        """Run `work` here and now, then `done`."""
        try:
            result = work()
        except Exception as error:
            done(None, error)
        else:
            done(result, None)

    def random_bytes(self, count: int) -> bytes:
        """Return `count` unpredictable bytes."""
        return secrets.token_bytes(count)


def data_options(command: Command) -> Command:
    """Give a command `--config` and `--data`, as `serve` has them, for `directory_of`."""
    for option in reversed(SOURCES[:2]):
        command = option(command)
    return command


def directory_of(file: Path | None, data: str | None) -> Path:
    """Return the data directory that `serve` would use with these options."""
    sources = sources_from(
        file=file, data=data, mqtt=None, kafka=None, http=None, assignments=()
    )
    return Path(sources.read().settings.storage.local.directory)


@contextmanager
def progress_bar(total_bytes: int, what: str) -> Iterator[Callable[[int], object]]:
    """Give a function that is told of bytes done; a terminal shows a bar meanwhile."""
    if not sys.stderr.isatty() or not total_bytes:
        yield lambda _bytes: None
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn(what),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=total_bytes)
        yield lambda count: shown.advance(task, count)


def in_units(size: int) -> str:
    """Return a number of bytes for people."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def at_time(timestamp_ms: int) -> str:
    """Return a time of a record in UTC; `-` for none."""
    if timestamp_ms < 0:
        return "-"
    moment = time.gmtime(timestamp_ms // 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{timestamp_ms % 1000:03d}Z"


class CouldNotLook(click.ClickException):
    """The disk or the directory does not let us; no judgement of what is in it."""

    exit_code = 2


def reason_of(error: Exception) -> str:
    """Return why, and at which file, without what only programs want to know."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f" ({error.filename})" if error.filename else "")
    return str(error)
