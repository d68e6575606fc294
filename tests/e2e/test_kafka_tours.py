"""Clients in other languages go round: a topic, a group of two, settings, and all deleted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.e2e.kafka_commands import run_to_end
from tests.e2e.kafka_scripted import BUILT_PROGRAMS, Built

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores


@pytest.mark.parametrize("name", BUILT_PROGRAMS)
def test_groups_and_administration(name: str, shores: Shores, unique: str) -> None:
    program = Built(name)
    if program.missing():
        pytest.skip(program.missing())
    seen = json.loads(run_to_end(program.command(shores.kafka, "tour", unique)))
    assert seen.pop("read") >= 40
    assert seen == {
        "shared": [2, 2],
        "retention": "123456789",
        "kind": "consumer",
        "state": "Empty",
        "lag": 0,
        "start": 3,
        "gone": True,
    }
