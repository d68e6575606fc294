"""The rows of the benchmark table: each has its name, its peer, and its explanation."""

from __future__ import annotations

from pathlib import Path

from bench.__main__ import all_rows

README = Path(__file__).parents[3] / "bench" / "README.md"


def test_every_row_is_explained() -> None:
    rows = all_rows()
    keys = [row.key for row in rows]
    assert len(keys) == len(set(keys))
    explained = [
        line.split("|")[1]
        for line in README.read_text("utf-8").splitlines()
        if line.startswith("| `")
    ]
    named = {name.strip("` ") for cell in explained for name in cell.split(",")}
    assert [key for key in keys if key not in named] == []
    assert [name for name in named if name not in keys] == []


def test_a_row_compares_with_one_of_its_own_systems() -> None:
    for row in all_rows():
        names = [system.name for system in row.systems]
        assert len(names) == len(set(names)), row.key
        assert row.peer is None or row.peer in names, row.key
