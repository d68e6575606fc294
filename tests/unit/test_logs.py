"""Log lines: event first, then key=value; nobody forges a line; JSON has real fields."""

from __future__ import annotations

import io
import json
import logging
import os
from typing import TYPE_CHECKING

import pytest
from tests.sim import SimRuntime

from isthmus import logs
from isthmus.config import LogSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def root_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def lines_of(form: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(LogSettings(level=level, format=form), stream)
    return stream


@pytest.mark.usefixtures("root_restored")
def test_text_is_event_then_pairs() -> None:
    stream = lines_of("text")
    logger = logging.getLogger("isthmus.broker.sessions")
    logger.info("session taken over client=%s old=%d", "plant-7", 41)
    time, level, rest = stream.getvalue().split(" ", 2)
    assert time.endswith("Z") and len(time) == 24
    assert level == "info"
    assert rest == "session taken over client=plant-7 old=41 logger=broker.sessions\n"


@pytest.mark.usefixtures("root_restored")
@pytest.mark.parametrize("value", ['x old=1\n2026 error "stop"', "", "a=b", "\x85", "\x1b[2J"])
def test_what_a_peer_chose_stays_one_word_of_one_line(value: str) -> None:
    stream = lines_of("text")
    logging.getLogger("isthmus.server").warning("refused client=%s", value)
    logging.getLogger("other").warning("said: %s.", value)
    first, second, end = stream.getvalue().split("\n")
    assert json.dumps(value) in first
    assert "said: " in second and not end
    assert "\x1b" not in stream.getvalue() and "\x85" not in stream.getvalue()


@pytest.mark.usefixtures("root_restored")
@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_peer_chose_is_not_as_long_as_it_likes(form: str) -> None:
    """A log that nobody reads must not fill up, and hold the server, for one client id."""
    stream = lines_of(form)
    logging.getLogger("isthmus.server").info("connected client=%s n=%d", "a" * 65_535, 10**9)
    line = stream.getvalue()
    assert "a" * logs.VALUE_CHARS_MAX in line and len(line) < 2 * logs.VALUE_CHARS_MAX
    assert str(10**9) in line


@pytest.mark.usefixtures("root_restored")
def test_json_has_the_fields() -> None:
    stream = lines_of("json")
    logging.getLogger("isthmus.server.mqtt").info("opened peer=%s event=%d", "::1", 3)
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "event": "opened",
        "logger": "server.mqtt",
        "peer": "::1",
        "event_": 3,
    }


@pytest.mark.usefixtures("root_restored")
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_comes_along(form: str) -> None:
    stream = lines_of(form)
    try:
        raise KeyError("here")
    except KeyError:
        logging.getLogger("isthmus").exception("broken id=%s", 3)
    assert "broken" in stream.getvalue() and "KeyError" in stream.getvalue()


@pytest.mark.usefixtures("root_restored")
def test_the_level_holds_and_a_second_set_up_replaces_the_first() -> None:
    first = lines_of("text")
    second = lines_of("text", "warning")
    logging.getLogger("isthmus").info("quiet")
    logging.getLogger("isthmus").warning("loud")
    assert not first.getvalue()
    assert second.getvalue().endswith("warning loud logger=isthmus\n")


def test_a_line_that_comes_again_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    runtime = SimRuntime()
    sparing, log = logs.Sparing(runtime, 10), logging.getLogger("isthmus.x")

    def say(address: str) -> None:
        sparing.warning(log, (address, "Malformed"), "refused peer=%s", address)

    for _ in range(5):
        say("192.0.2.1")
    say("192.0.2.2")
    assert [record.getMessage() for record in caplog.records] == [
        "refused peer=192.0.2.1",
        "refused peer=192.0.2.2",
    ]
    caplog.clear()
    runtime.advance(10_000)
    assert [record.getMessage() for record in caplog.records] == [
        "refused, repeated address=192.0.2.1 kind=Malformed times=4"
    ]
    caplog.clear()
    runtime.advance(10_000)
    say("192.0.2.1")
    assert [record.getMessage() for record in caplog.records] == ["refused peer=192.0.2.1"]


def test_lines_of_very_many_addresses_are_counted_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = SimRuntime()
    sparing, log = logs.Sparing(runtime, 10), logging.getLogger("isthmus.x")
    for number in range(logs.SPARING_KINDS_MAX + 500):
        sparing.warning(log, (str(number), "Malformed"), "refused peer=%s", number)
    assert len(caplog.records) == logs.SPARING_KINDS_MAX + 1
    caplog.clear()
    runtime.advance(10_000)
    assert [record.getMessage() for record in caplog.records] == [
        "refused, repeated address=others kind=any times=499"
    ]


def test_of_what_is_usual_more_is_written(caplog: pytest.LogCaptureFixture) -> None:
    runtime = SimRuntime()
    sparing, log = logs.Sparing(runtime, 10), logging.getLogger("isthmus.x")
    with caplog.at_level("INFO"):
        for number in range(logs.USUAL_LINES_MAX + 7):
            sparing.info(log, "192.0.2.1", "connected client=%d", number)
        runtime.advance(10_000)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[-2:] == [
        f"connected client={logs.USUAL_LINES_MAX - 1}",
        "connected, repeated address=192.0.2.1 kind=any times=7",
    ]


# --- whoever does not read them ---------------------------------------------------------------


class Pipe:
    """A pipe that log lines go into."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.stream = os.fdopen(writer, "w")
        self.handler = logs.LineHandler(self.stream)
        self.handler.setFormatter(logs.TextFormatter())
        self.logger = logging.Logger("isthmus.unread")
        self.logger.addHandler(self.handler)

    def read(self) -> list[str]:
        """Read what is there, and what is written then."""
        found = b""
        while True:
            try:
                found += os.read(self.reader, 1 << 16)
            except BlockingIOError:
                self.handler.flush()
                try:
                    found += os.read(self.reader, 1 << 16)
                except BlockingIOError:
                    return found.decode().splitlines()

    def close(self) -> None:
        self.handler.close()
        self.stream.close()
        os.close(self.reader)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    found = Pipe()
    yield found
    found.close()


def test_lines_wait_for_whoever_reads_them_later(pipe: Pipe) -> None:
    for number in range(2_000):
        pipe.logger.warning("line number=%d text=%s", number, "x" * 300)
    lines = pipe.read()
    assert [line.split()[3] for line in lines] == [f"number={n}" for n in range(2_000)]


def test_a_line_longer_than_a_pipe_takes_at_once_comes_whole(pipe: Pipe) -> None:
    text = "".join(map(str, range(50_000)))
    pipe.logger.warning(text)
    pipe.logger.warning("behind it")
    first, second = pipe.read()
    assert text in first
    assert "behind it" in second


def test_lines_that_nobody_reads_are_dropped_and_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LINES_WAITING_MAX", 100)
    for number in range(2_000):
        pipe.logger.warning("line number=%d text=%s", number, "x" * 300)
    lines = pipe.read()
    last = lines.pop()
    assert [line.split()[3] for line in lines] == [f"number={n}" for n in range(len(lines))]
    assert f"warning log lines dropped count={2_000 - len(lines)} logger=logs" in last
    pipe.logger.warning("again")
    assert ["again" in line for line in pipe.read()] == [True]


def test_a_reader_that_is_gone_is_nobodys_trouble(pipe: Pipe) -> None:
    os.close(pipe.reader)
    pipe.reader = os.open("/dev/null", os.O_RDONLY)
    for _ in range(3):
        pipe.logger.warning("nobody hears it")
