"""Servers for the frameworks that stand on Kafka, and the JVMs that these run in.

Each test has a real `isthmus serve` process, and real programs of Apache Kafka or of others, of
which none is written here. They are slow to start, so they are apart from tests/e2e, whose
fixtures they share: `make interop` runs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests.e2e.conftest import start_server, unique
from tests.e2e.kafka_commands import JARS, JavaConsole
from tests.interop.programs import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.server_process import ServerProcess

__all__ = ["start_server", "unique"]

HERE: Final = Path(__file__).parent
HANG_S: Final = 1800.0
"""After so long a test is ended from outside: above what its own waits come to."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.timeout(HANG_S))


@pytest.fixture
def own_process() -> None:
    """Say nothing: here every server is an Isthmus process of its own."""


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> Iterator[ServerProcess]:
    """Return a running server; groups do not wait there for their first members' company."""
    process = start_server(settings={"kafka.group_initial_rebalance_delay_ms": "0"})
    yield process
    wrong = [line for line in process.log_lines() if " error " in line or "Traceback" in line]
    assert not wrong, wrong[:3]


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Return a way to start programs, each named; they end with the test."""
    started: list[Program] = []

    def start(name: str, *command: str) -> Program:
        program = Program(tmp_path / f"{name}.log", command)
        started.append(program)
        program.start()
        return program

    yield start
    for program in started:
        program.stop()
        print(f"--- {program.log_path.name}, its end", *program.lines()[-40:], sep="\n")


@pytest.fixture
def jars() -> None:
    """Skip where there is no Java, or nothing that it could run."""
    if missing := JavaConsole().missing():
        pytest.skip(missing)
    if not any(JARS.glob("kafka-streams-*.jar")):
        pytest.skip(f"no frameworks in {JARS}: .ci/run fetches them")
