"""The demo's words: addresses, percentiles, one line of summary."""

from __future__ import annotations

import types
from typing import Any

import click
import pytest

from isthmus.cli.demo import addresses_of, spread, summary
from isthmus.cli.demo_factory import Figures


def test_addresses_as_the_ready_line_has_them() -> None:
    words = ["mqtt=127.0.0.1:1", "kafka=[::1]:2", "http=127.0.0.1:3"]
    found = addresses_of(words)
    assert (found["mqtt"].port, found["kafka"].host, found["http"].port) == (1, "::1", 3)
    with pytest.raises(click.UsageError, match="needs both"):
        addresses_of(["mqtt=127.0.0.1:1"])


def test_the_middle_and_the_high_end() -> None:
    assert spread([]) == "-"
    assert spread([1.0]) == "p50 1.0 ms p99 1.0 ms"
    assert spread([float(each) for each in range(101)]) == "p50 50.0 ms p99 99.0 ms"


def test_the_summary_adds_the_lines_up() -> None:
    figures = {"line-1": Figures(), "line-2": Figures()}
    for each in figures.values():
        each.published, each.consumed, each.commanded, each.answered = 4, 3, 2, 1
    office: Any = types.SimpleNamespace(up_ms=[2.0], round_ms=[])
    assert summary(figures, office) == (
        "MQTT published 8  Kafka consumed 6  latency p50 2.0 ms p99 2.0 ms"
        "  commands 4  answers 2  round trip -"
    )


def test_nothing_is_on_its_way_once_all_is_consumed_and_answered() -> None:
    figures = Figures()
    assert figures.has_arrived()
    figures.published = figures.commanded = 1
    assert not figures.has_arrived()
    figures.consumed = 1
    assert not figures.has_arrived()
    figures.answered = 1
    assert figures.has_arrived()
