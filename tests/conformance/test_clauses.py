"""The table of clauses says the truth: each test it names is there, and cites the clause.

`clauses.toml` holds, for MQTT 5.0 and for 3.1.1, each normative statement that a test shows,
with the node ids of the tests that show it. A statement that no test shows yet is not in it.
"""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TABLE: dict[str, dict[str, list[str]]] = tomllib.loads(
    Path(__file__).with_name("clauses.toml").read_text("utf-8")
)
WIRE_CASES = tomllib.loads((ROOT / "tests/wire/mqtt_cases.toml").read_text("utf-8"))["case"]
CLAUSE = re.compile(r"MQTT-\d+\.\d+\.\d+-\d+")


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


@pytest.mark.parametrize("version", ["mqtt5", "mqtt311"])
def test_each_test_that_the_table_names_is_there_and_cites_its_clause(version: str) -> None:
    assert set(TABLE) == {"mqtt5", "mqtt311"}
    assert all(CLAUSE.fullmatch(clause) and tests for clause, tests in TABLE[version].items())
    assert [
        f"{clause}: {test}"
        for clause, tests in TABLE[version].items()
        for test in tests
        if not is_shown(version, clause, test)
    ] == []


def test_each_clause_that_a_conformance_test_cites_is_in_the_table() -> None:
    assert [
        f"{version} {clause}: {file.name}::{name}"
        for file in sorted(Path(__file__).parent.glob("test_*.py"))
        for name, docstring in docstrings(str(file.relative_to(ROOT))).items()
        for version, clause in sorted(cited(docstring))
        if f"tests/conformance/{file.name}::{name}" not in TABLE[version].get(clause, [])
    ] == []
