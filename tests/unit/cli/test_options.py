"""Options: who sets what, pairs in their order, lines as bytes."""

from __future__ import annotations

import io
from typing import Any

import click
import pytest

from isthmus.cli.options import pairs_of, read_duration, read_lines, sources_from
from isthmus.errors import ConfigError

NONE: dict[str, Any] = {
    "file": None,
    "data": None,
    "mqtt": None,
    "kafka": None,
    "http": None,
    "assignments": (),
}


def test_flags_stand_above_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_MQTT__LISTENERS", "tcp://127.0.0.1:1")
    monkeypatch.setenv("ISTHMUS_KAFKA__LISTENERS", "tcp://127.0.0.1:2")
    given = NONE | {"mqtt": "[::1]:3", "data": "/there", "assignments": ("log.level=debug",)}
    configuration = sources_from(**given).read()
    settings, origins = configuration.settings, configuration.origins
    assert settings.mqtt.listeners[0].address.authority == "[::1]:3"
    assert settings.kafka.listeners[0].address.port == 2
    assert settings.storage.local.directory == "/there"
    assert settings.log.level == "debug"
    assert origins["mqtt.listeners"] == "--mqtt"
    assert origins["kafka.listeners"] == "ISTHMUS_KAFKA__LISTENERS"
    assert origins["storage.local.directory"] == "--data"


def test_a_flag_without_a_port() -> None:
    with pytest.raises(
        ConfigError, match=r"^--kafka: kafka.listeners\[0\].address: .*needs a host and a port"
    ):
        sources_from(**NONE | {"kafka": "localhost"}).read()


def test_pairs_keep_order_and_doubles() -> None:
    assert pairs_of(["b=1", "a=x=y", "b="], "-H") == [("b", "1"), ("a", "x=y"), ("b", "")]
    with pytest.raises(click.UsageError, match="-H b needs a value"):
        pairs_of(["b"], "-H")


def test_lines_are_bytes_without_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"one\r\n\n\xfftwo"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert list(read_lines()) == [b"one", b"", b"\xfftwo"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("30", 30), ("30s", 30), ("10m", 600), ("2h", 7200), ("7d", 604_800)],
)
def test_times(text: str | None, seconds: int | None) -> None:
    command = click.Command("any")
    option = click.Option(["--for"])
    assert read_duration(click.Context(command), option, text) == seconds
