"""The table of clauses says the truth: none is missing, and each test that it names cites it.

`all_clauses.toml` counts the normative statements of MQTT 5.0 and 3.1.1. Each is in
`clauses.toml`, with the node ids of the tests that show it: among those of the server, or among
those that bind clients only, with what the server does with a client that breaks it.
"""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def toml(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text("utf-8"))


TABLE = toml(Path(__file__).with_name("clauses.toml"))
COUNTS: dict[str, dict[str, list[int]]] = toml(Path(__file__).with_name("all_clauses.toml"))
ALL = {
    version: {
        f"MQTT-{section}-{number}"
        for section, (first, last) in sections.items()
        for number in range(first, last + 1)
    }
    for version, sections in COUNTS.items()
}
SHOWN: dict[str, dict[str, list[str]]] = {
    version: TABLE[version]
    | {clause: row["tests"] for clause, row in TABLE["client"][version].items()}
    for version in ALL
}
WIRE_CASES = toml(ROOT / "tests/wire/mqtt_cases.toml")["case"]
CLAUSE = re.compile(r"MQTT-\d+\.\d+\.\d+-\d+")
VERSIONS = pytest.mark.parametrize("version", ["mqtt5", "mqtt311"])


@cache
def docstrings(file: str) -> dict[str, str]:
    """Return the docstring of each test of a file."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {
        node.name: ast.get_docstring(node) or ""
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def cited(docstring: str) -> set[tuple[str, str]]:
    """Return the clauses of a docstring, as (version, clause)."""
    new, _, old = docstring.partition("MQTT 3.1.1:")
    return {("mqtt5", one) for one in CLAUSE.findall(new)} | {
        ("mqtt311", one) for one in CLAUSE.findall(old)
    }


def is_shown(version: str, clause: str, test: str) -> bool:
    file, _, name = test.partition("::")
    name, _, parameter = name.partition("[")
    if name not in docstrings(file):
        return False
    if parameter:  # a wire case, named by its clause of 5.0
        return version == "mqtt5" and any(
            case["clause"] == clause and f"{clause}: {case['name']}]" == parameter
            for case in WIRE_CASES
        )
    return (version, clause) in cited(docstrings(file)[name])


def test_the_specifications_have_so_many_clauses() -> None:
    assert {version: len(clauses) for version, clauses in ALL.items()} == {
        "mqtt5": 251,
        "mqtt311": 141,
    }


@VERSIONS
def test_each_clause_is_in_the_table_once(version: str) -> None:
    shown, by_client = TABLE[version], TABLE["client"][version]
    assert shown.keys() | by_client.keys() == ALL[version]
    assert not shown.keys() & by_client.keys()
    assert all(
        row.keys() == {"server", "tests"} and row["server"] for row in by_client.values()
    )


@VERSIONS
def test_each_test_that_the_table_names_is_there_and_cites_its_clause(version: str) -> None:
    assert set(TABLE) == {"mqtt5", "mqtt311", "client"}
    assert all(SHOWN[version].values())
    assert [
        f"{clause}: {test}"
        for clause, tests in SHOWN[version].items()
        for test in tests
        if not is_shown(version, clause, test)
    ] == []


def test_each_clause_that_a_conformance_test_cites_is_in_the_table() -> None:
    assert [
        f"{version} {clause}: {file.name}::{name}"
        for file in sorted(Path(__file__).parent.glob("test_*.py"))
        for name, docstring in docstrings(str(file.relative_to(ROOT))).items()
        for version, clause in sorted(cited(docstring))
        if f"tests/conformance/{file.name}::{name}" not in SHOWN[version].get(clause, [])
    ] == []
