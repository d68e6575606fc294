"""`isthmus demo`: see it work in a minute.

Starts a server on free ports in a temporary directory (or takes one that runs), lets a small
factory publish over MQTT, reads it with a stock Kafka client, sends commands the other way, and
shows both sides as they go: a live table on a terminal, a line each second elsewhere. Cleans up
behind itself, whichever way it ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from isthmus.config_listeners import Address, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from isthmus.cli.demo_factory import Figures, Line, Office

CONFIGURATION: Final = """\
[[routes]]
mqtt = "factory/{line}/temperature"
log = "temperatures"
key = "{line}"
"""
FREE: Final = "127.0.0.1:0"
START_S_MAX: Final = 30.0
STOP_S_MAX: Final = 10.0
ARRIVAL_S_MAX: Final = 20.0
TURN_S: Final = 0.1  # each line measures once a turn
COMMAND_TURNS: Final = 5  # one line is sent a command every so many turns


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), help="End after so long; else Ctrl-C.")
@click.option("--lines", type=click.IntRange(1, 50), default=3, show_default=True)
@click.option("--connect", metavar="mqtt=HOST:PORT,kafka=HOST:PORT", help="Use this server.")
@click.option("--data", metavar="DIR", help="Keep the log here; else in a temporary directory.")
@click.option("--mqtt", metavar="HOST:PORT", default=FREE, help="Serve MQTT here.")
@click.option("--kafka", metavar="HOST:PORT", default=FREE, help="Serve Kafka here.")
@click.option("--http", metavar="HOST:PORT", default=FREE, help="Serve HTTP here.")
def demo(seconds: float | None, lines: int, connect: str | None, **serve: str | None) -> None:
    """See devices publish over MQTT and a stock Kafka client read it, and the way back."""
    signal.signal(signal.SIGTERM, interrupt)
    with contextlib.ExitStack() as stack:
        if connect is not None:
            addresses = addresses_of(connect.split(","))
        else:
            addresses = stack.enter_context(running_server(serve))
            create_route_topic(addresses["kafka"])
        run_factory(addresses, lines, seconds)


def interrupt(*_: Any) -> NoReturn:
    """End as Ctrl-C does, so that everything is put away."""
    raise KeyboardInterrupt


def addresses_of(words: Sequence[str]) -> dict[str, Address]:
    """Read `mqtt=HOST:PORT` and the like, as the ready line has them."""
    found = {}
    for word in words:
        name, _, address = word.partition("=")
        found[name.strip()] = parse_address(f"tcp://{address.strip()}")
    if not {"mqtt", "kafka"} <= set(found):
        raise click.UsageError("--connect needs both, as in mqtt=HOST:PORT,kafka=HOST:PORT")
    return found


# --- the server -------------------------------------------------------------------------------


@contextlib.contextmanager
def running_server(serve: dict[str, str | None]) -> Iterator[dict[str, Address]]:
    """Run `isthmus serve` in a process of its own; give its addresses; stop it afterwards."""
    with tempfile.TemporaryDirectory(prefix="isthmus-demo-") as name:
        directory = Path(name)
        (directory / "isthmus.toml").write_text(CONFIGURATION, "utf-8")
        options = {"data": str(directory / "data")} | {
            key: value for key, value in serve.items() if value is not None
        }
        command = [sys.executable, "-m", "isthmus", "serve"]
        command += ["--config", str(directory / "isthmus.toml")]
        command += [word for key, value in options.items() for word in (f"--{key}", value)]
        with (
            (directory / "log").open("w+", encoding="utf-8") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
        ):
            try:
                ready = ready_line(server)
                if not ready.startswith("ready "):
                    log.seek(0)
                    said = log.read().strip().removeprefix("Error: ") or "it says nothing"
                    raise click.ClickException(f"the server did not start: {said}")
                click.echo(ready)
                yield addresses_of(ready.split()[1:])
            finally:
                server.terminate()
                try:
                    server.wait(STOP_S_MAX)
                except subprocess.TimeoutExpired:
                    server.kill()


def ready_line(server: subprocess.Popen[str]) -> str:
    """Return the server's first line; empty if it ends, or is silent for too long."""
    import threading

    assert server.stdout is not None
    alarm = threading.Timer(START_S_MAX, server.kill)
    alarm.start()
    try:
        return server.stdout.readline().strip()
    finally:
        alarm.cancel()


def create_route_topic(kafka: Address) -> None:
    """Create the route's log topic beforehand, so that the office reads it from the start."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported, not said so
        AdminClient,
        NewTopic,
    )

    from isthmus.cli.demo_factory import ANSWER_S_MAX, ROUTE_LOG_TOPIC

    admin = AdminClient({"bootstrap.servers": kafka.authority, "log_level": 0})
    with contextlib.suppress(KafkaException):  # it is there, from the last time
        admin.create_topics([NewTopic(ROUTE_LOG_TOPIC, 1)])[ROUTE_LOG_TOPIC].result(
            ANSWER_S_MAX
        )


# --- the factory ------------------------------------------------------------------------------


def run_factory(addresses: dict[str, Address], count: int, seconds: float | None) -> None:
    """Let the lines and the office work until the time is over or Ctrl-C is pressed."""
    from isthmus.cli.demo_factory import Figures, Line, Office

    run = secrets.token_hex(3)
    names = [f"line-{number + 1}" for number in range(count)]
    figures = {name: Figures() for name in names}
    lines = [Line(name, place, run, figures[name]) for place, name in enumerate(names)]
    office = Office(addresses["kafka"], figures)
    office.start()
    started: list[Line] = []
    try:
        with showing(figures, office) as show, contextlib.suppress(KeyboardInterrupt):
            for line in lines:
                line.start(addresses["mqtt"])
                started.append(line)
            work(lines, office, seconds, show)
            wait_for_arrival(figures)
    finally:
        for line in started:
            line.stop()
        office.stop()
    click.echo(summary(figures, office))
    if not any(each.consumed for each in figures.values()):
        raise click.ClickException("nothing came through to the Kafka side")


def work(
    lines: Sequence[Line], office: Office, seconds: float | None, show: Callable[[float], None]
) -> None:
    """Measure, command, show, ten times a second."""
    start = time.monotonic()
    turn = 0
    while seconds is None or turn * TURN_S < seconds:
        for line in lines:
            line.measure(turn * TURN_S)
        if turn % COMMAND_TURNS == 0:
            office.command(lines[turn // COMMAND_TURNS % len(lines)].name)
        turn += 1
        show(turn * TURN_S)
        time.sleep(max(0.0, start + turn * TURN_S - time.monotonic()))


def wait_for_arrival(figures: dict[str, Figures]) -> None:
    """Wait until what is on its way has come out at the other end, but not for ever."""
    end = time.monotonic() + ARRIVAL_S_MAX
    while time.monotonic() < end and not all(each.has_arrived() for each in figures.values()):
        time.sleep(TURN_S)


# --- what is seen -----------------------------------------------------------------------------


@contextlib.contextmanager
def showing(figures: dict[str, Figures], office: Office) -> Iterator[Callable[[float], None]]:
    """Give a function that shows how things stand: on a terminal a table, else lines."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":

        def show_line(seconds: float) -> None:
            if abs(seconds - round(seconds)) < TURN_S / 2:
                click.echo(f"{round(seconds):>4} s  {summary(figures, office)}")

        yield show_line
        return

    from rich.live import Live

    with Live(refresh_per_second=1 / TURN_S, transient=True) as live:
        yield lambda seconds: live.update(table_of(figures, office, seconds))


def table_of(figures: dict[str, Figures], office: Office, seconds: float) -> Any:
    """Return both sides as a table."""
    from rich.table import Table

    table = Table(
        title=f"One log, two shores: {seconds:.0f} s",
        caption=f"MQTT publish to Kafka consumer {spread(office.up_ms)}\n"
        f"Kafka command to device and back {spread(office.round_ms)}\nCtrl-C ends it",
    )
    table.add_column("line")
    for name in ("published\nover MQTT", "consumed\nover Kafka", "°C", "mm/s"):
        table.add_column(name, justify="right")
    table.add_column("state")
    for name in ("commands\nover Kafka", "received\nover MQTT", "answers\nover Kafka"):
        table.add_column(name, justify="right")
    for name, each in figures.items():
        table.add_row(
            name,
            str(each.published),
            str(each.consumed),
            f"{each.celsius:.1f}",
            f"{each.vibration:.2f}",
            each.state,
            str(each.commanded),
            str(each.received),
            str(each.answered),
        )
    return table


def summary(figures: dict[str, Figures], office: Office) -> str:
    """Return how things stand, on one line."""
    everything = list(figures.values())
    return (
        f"MQTT published {sum(each.published for each in everything)}"
        f"  Kafka consumed {sum(each.consumed for each in everything)}"
        f"  latency {spread(office.up_ms)}"
        f"  commands {sum(each.commanded for each in everything)}"
        f"  answers {sum(each.answered for each in everything)}"
        f"  round trip {spread(office.round_ms)}"
    )


def spread(latencies_ms: Sequence[float]) -> str:
    """Return the middle and the 99th percentile."""
    ordered = sorted(latencies_ms)
    if not ordered:
        return "-"
    middle, high = (ordered[int(part * (len(ordered) - 1))] for part in (0.5, 0.99))
    return f"p50 {middle:.1f} ms p99 {high:.1f} ms"
