"""Each target over all that it begins with, compiled or not."""

from __future__ import annotations

import pytest
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS, NoBugs


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_holds_over_what_it_begins_with(target: str) -> None:
    found = seeds(target)
    assert len(found) >= 10
    for number, data in enumerate(found):
        for piece in (data, data[: len(data) // 2], data + data):
            try:
                with NoBugs():
                    TARGETS[target](piece)
            except Exception as error:
                error.add_note(f"seed {number}: {piece!r}")
                raise
