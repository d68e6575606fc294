"""One server for each module of the conformance tests, and clients that are closed afterwards.

All of them meet the server as any client does, over TCP; so they are end-to-end tests by their
mark, and each takes names of its own because the server is shared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tests.conformance.raw_client import RawClient
from tests.e2e.patience import HANG_S
from tests.e2e.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(HANG_S))


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Return the settings of the module's server; a module overrides it for its limits."""
    return {}


@pytest.fixture(scope="module")
def server(
    settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Return the running server of the module; it must not have met a bug of its own."""
    process = ServerProcess(tmp_path_factory.mktemp("server"), settings)
    process.start()
    yield process
    process.stop()
    assert [line for line in process.log_lines() if "Traceback" in line] == []


@pytest.fixture
def dial(server: ServerProcess) -> Iterator[Callable[..., RawClient]]:
    """Return a way to a new connection on which nothing was said yet."""
    clients: list[RawClient] = []

    def connection(version: int = 5) -> RawClient:
        client = RawClient(server.mqtt, version)
        clients.append(client)
        return client

    yield connection
    for client in clients:
        client.cut()


@pytest.fixture
def join(dial: Callable[..., RawClient], unique: str) -> Callable[..., RawClient]:
    """Return a way to a new client that is connected."""
    count = 0

    def joined(client_id: str | None = None, version: int = 5, **options: Any) -> RawClient:
        nonlocal count
        count += 1
        client = dial(version)
        client.open(f"{unique}-{count}" if client_id is None else client_id, **options)
        return client

    return joined


@pytest.fixture(scope="module")
def bystander(server: ServerProcess) -> Iterator[RawClient]:
    """Return a client that was there before all others, and has subscribed to everything."""
    client = RawClient(server.mqtt)
    client.open("bystander")
    client.subscribe("#")
    yield client
    client.leave()


@pytest.fixture
def unique() -> str:
    """Return a name that no other test uses, fit for a topic name and a client id."""
    return f"t{uuid4().hex[:12]}"
