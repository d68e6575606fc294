"""The server's log lines: standard logging, as text or as JSON, on standard error.

Every package logs with `logging.getLogger(__name__)` and one form of call: the event, then
key=value, as in `log.info("session taken over client=%s old=%d", client_id, old)`. The
formatters here read the keys out of that template, so the text form can quote what came from a
peer (nobody forges a line by choosing a client id) and the JSON form has real fields. One line
for each change of state, none for each message.

Nobody waits for whoever reads them: what a pipe has no room for waits in memory, up to a limit
beyond which lines are dropped and counted.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from isthmus.config import LogSettings
    from isthmus.runtime import Runtime

TEMPLATE: Final = re.compile(r"(?P<event>[^%]*?)(?P<pairs>(?: [a-z_]+=%[a-z])*)")
PLAIN: Final = re.compile(r"[^\s\"=\x00-\x1f\x7f-\x9f\u2028\u2029]+")
VALUE_CHARS_MAX: Final = 400  # of a value; a client id may have 65,535
USUAL_LINES_MAX: Final = 100  # of clients that come and go, from one address
SPARING_KINDS_MAX: Final = 1_000  # remembered at a time; what more there is counts as one
LINES_WAITING_MAX: Final = 10_000  # for somebody who reads them from a pipe
PIECE_BYTES: Final = 4_096  # that a pipe takes at once where it takes anything [pipe(7)]
AGAIN_S: Final = 1.0  # until it is tried again
CLOSE_MS: Final = 500  # that the end waits for a reader
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send every logger's lines to `stream` (standard error), in the form that is set."""
    handler = LineHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    root = logging.getLogger()
    for present in list(root.handlers):
        root.removeHandler(present)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    logging.captureWarnings(True)


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream, and never waits for whoever is at the other end of it.

    What is a file or a terminal takes all; a pipe or a socket is asked before each piece. Not
    by making it non-blocking: it may be other programs' standard error, too.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: deque[bytes] = deque()  # not written yet
        self._dropped = 0  # since the last that was written
        self._is_due = False  # another attempt
        self._room: select.poll | None = None  # None: what has no descriptor takes all
        try:
            self._fd = stream.fileno()
        except (OSError, AttributeError):
            return
        self._room = select.poll()
        self._room.register(self._fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, as soon as there is room; the caller holds the lock."""
        if self._room is None:
            super().emit(record)
            return
        try:
            if len(self._lines) < LINES_WAITING_MAX:
                self._lines.append(self._encoded(record))
            else:
                self._dropped += 1
            self._write(0)
        except Exception:  # as every handler of logging does: a line is no reason to fail
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        if self._room is None:
            super().flush()
            return
        self.acquire()
        try:
            self._is_due = False
            self._write(0)
        finally:
            self.release()

    def close(self) -> None:
        """Write what waits, to somebody who still reads."""
        if self._room is not None:
            self._write(CLOSE_MS)
        super().close()

    def _write(self, wait_ms: int) -> None:
        while self._lines:
            try:
                if self._room is None or not self._room.poll(wait_ms):
                    self._try_again_later()
                    return
                line = self._lines[0]
                written = os.write(self._fd, line[:PIECE_BYTES])
            except OSError:  # nobody can read it any more
                self._lines.clear()
                return
            if written < len(line):
                self._lines[0] = line[written:]
                continue
            self._lines.popleft()
            if self._dropped and not self._lines:
                told = logging.makeLogRecord(
                    {
                        "name": __name__,
                        "levelno": logging.WARNING,
                        "levelname": "WARNING",
                        "msg": "log lines dropped count=%d",
                        "args": (self._dropped,),
                    }
                )
                self._dropped = 0
                self._lines.append(self._encoded(told))

    def _try_again_later(self) -> None:
        if not self._is_due:
            self._is_due = True
            timer = threading.Timer(AGAIN_S, self.flush)
            timer.daemon = True
            timer.start()

    def _encoded(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z info session taken over client=p7 logger=broker.sessions`."""

    def format(self, record: logging.LogRecord) -> str:
        event, pairs = taken_apart(record)
        words = [time_of(record), record.levelname.lower(), event]
        words += [f"{key}={quoted(value)}" for key, value in pairs.items()]
        words.append(f"logger={short_name(record)}")
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """`{"time": "…", "level": "info", "event": "session taken over", "client": "p7", …}`."""

    def format(self, record: logging.LogRecord) -> str:
        event, pairs = taken_apart(record)
        line: dict[str, Any] = {
            "time": time_of(record),
            "level": record.levelname.lower(),
            "event": event,
            "logger": short_name(record),
        }
        for key, value in pairs.items():
            line[f"{key}_" if key in line else key] = value
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class Repeated:
    """Lines of one kind for one address, in the period that is running."""

    __slots__ = ("level", "logger", "most", "times")

    def __init__(self, logger: logging.Logger, level: int, most: int) -> None:
        self.logger = logger
        self.level = level
        self.most = most  # that are written
        self.times = 0


class Sparing:
    """Lines that a peer can cause as often as it likes: one of a kind for each address, or few.

    What comes again within `period_s` is counted, and said by one more line at its end.
    """

    def __init__(self, runtime: Runtime, period_s: int) -> None:
        """Begin with nothing said; `period_s` 0: nothing is counted."""
        self._runtime = runtime
        self._period_ms = period_s * 1000
        self._lines: dict[tuple[str, str, str], Repeated] = {}

    def warning(
        self, logger: logging.Logger, whose: tuple[str, str], template: str, *values: object
    ) -> None:
        """Write a line as `logger` does, or count it; `whose` are its address and its kind."""
        self._write(logger, logging.WARNING, 1, (template, *whose), values)

    def info(
        self, logger: logging.Logger, address: str, template: str, *values: object
    ) -> None:
        """Do the same for what is usual, so that more of it is written before it is counted."""
        self._write(logger, logging.INFO, USUAL_LINES_MAX, (template, address, ""), values)

    def _write(
        self,
        logger: logging.Logger,
        level: int,
        most: int,
        key: tuple[str, str, str],
        values: tuple[object, ...],
    ) -> None:
        template = key[0]
        if self._period_ms:
            if key not in self._lines and len(self._lines) >= SPARING_KINDS_MAX:
                key = (template, "others", "")
            line = self._lines.get(key)
            if line is None:
                if not self._lines:
                    self._runtime.later(self._period_ms, self._tell)
                line = self._lines[key] = Repeated(logger, level, most)
            line.times += 1
            if line.times > most:
                return
        logger.log(level, template, *values)

    def _tell(self) -> None:
        lines, self._lines = self._lines, {}
        for (template, address, kind), line in lines.items():
            if line.times > line.most:
                event, _ = parts_of(template) or (template, ())
                again = f"{event}, repeated address=%s kind=%s times=%d"
                line.logger.log(
                    line.level, again, address, kind or "any", line.times - line.most
                )


def taken_apart(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Return a record's event and its pairs; a foreign library's line is all event."""
    parts = parts_of(record.msg) if isinstance(record.msg, str) else None
    if (
        parts is not None
        and isinstance(record.args, tuple)
        and len(record.args) == len(parts[1])
    ):
        return parts[0], dict(zip(parts[1], map(shortened, record.args), strict=True))
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], record.getMessage()), {}


@lru_cache(maxsize=1024)
def parts_of(template: str) -> tuple[str, tuple[str, ...]] | None:
    """Split `event key=%s key=%d` into event and keys; None where it has another form."""
    found = TEMPLATE.fullmatch(template)
    if found is None:
        return None
    return found["event"], tuple(re.findall(r"([a-z_]+)=%", found["pairs"]))


def shortened(value: Any) -> Any:
    """Return a value that a peer chose as long as it likes as one that a line can hold."""
    text = value if isinstance(value, str) else str(value)
    return value if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}…"


def quoted(value: Any) -> str:
    """Return a value as one word, in quotes where it would not be one."""
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=True)


def time_of(record: logging.LogRecord) -> str:
    """Return when it happened, in UTC with milliseconds."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def short_name(record: logging.LogRecord) -> str:
    """Return the logger's name; ours without the name of the package."""
    return record.name.removeprefix("isthmus.")
