"""Servers for the end-to-end tests, and the marks that keep them apart.

`shores` is one server per test module; `fresh_server` one per test. With ISTHMUS_E2E_MQTT or
ISTHMUS_E2E_KAFKA (HOST:PORT) `shores` is that other server instead: a test that fails on
Mosquitto or Apache Kafka says something about the test. See README.md beside this file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.e2e.patience import HANG_S
from tests.e2e.server_process import Address, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Shores:
    """Where the server under test listens; a shore it does not have skips the test."""

    _mqtt: Address | None
    _kafka: Address | None

    @property
    def mqtt(self) -> Address:
        return self._mqtt or pytest.skip("the server given has no MQTT shore")

    @property
    def kafka(self) -> Address:
        return self._kafka or pytest.skip("the server given has no Kafka shore")


def address_given(variable: str) -> Address | None:
    """Return the address that an environment variable holds, if it is set."""
    host, colon, port = os.environ.get(variable, "").rpartition(":")
    return (host, int(port)) if colon else None


GIVEN = Shores(address_given("ISTHMUS_E2E_MQTT"), address_given("ISTHMUS_E2E_KAFKA"))
IS_GIVEN = Shores(None, None) != GIVEN


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(HANG_S))  # a test's own mark goes before it


@pytest.fixture(scope="session")
def own_process() -> None:
    """Skip where another server was given and the test needs an Isthmus process."""
    if IS_GIVEN:
        pytest.skip("needs an Isthmus process of its own, and another server was given")


@pytest.fixture(scope="module")
def own_server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Return a running server shared by the tests of a module."""
    every_line = {"log.repeats_s": "0"}
    server = ServerProcess(tmp_path_factory.mktemp("server"), every_line)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def server_stays_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test under which the module's server ended, and those after it at once."""
    shared = {"own_server", "shores"} & set(request.fixturenames)
    if IS_GIVEN or not shared:
        yield
        return
    server = request.getfixturevalue("own_server")

    def check() -> None:
        log = "\n".join(server.log_lines()[-40:])
        assert server.is_running(), f"the server ended by itself; its log:\n{log}"

    check()
    yield
    check()


@pytest.fixture(scope="module")
def shores(request: pytest.FixtureRequest) -> Shores:
    """Return where the module's server listens, or the server that was given."""
    if IS_GIVEN:
        return GIVEN
    server = request.getfixturevalue("own_server")
    return Shores(server.mqtt, server.kafka)


@pytest.fixture
def start_server(own_process: None, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Return a way to start servers of one's own, each in a directory of its own."""
    servers: list[ServerProcess] = []

    def start(**arguments: object) -> ServerProcess:
        server = ServerProcess(tmp_path / f"server-{len(servers)}", **arguments)  # type: ignore[arg-type]
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()
        print(f"--- {server.log_path.name} of {server.directory.name}, its end")
        print(*server.log_lines()[-40:], sep="\n")


@pytest.fixture
def fresh_server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """Return a running server that has never been used."""
    return start_server()


@pytest.fixture
def unique() -> str:
    """Return a name that no other test uses, fit for a topic, a client id and a group."""
    return f"t{uuid4().hex[:12]}"
