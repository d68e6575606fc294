"""Asks an ASGI application as a server would, without one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from isthmus.broker.identity import Identity
from isthmus.broker.security import Security, open_security

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.unit.broker.shore import Shore


def security_of(shore: Shore) -> Security:
    """Return users and rules over the log of a broker in memory; there are none yet."""
    security = open_security(shore.runtime, shore.log, shore.broker)
    shore.runtime.settle()
    return security


def ask(
    application: Any,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]],
    content: bytes = b"",
    *,
    client: tuple[str, int] | None = None,
    user: str = "",
    settle: Callable[[], object] = lambda: None,
) -> tuple[int, bytes, dict[str, str]]:
    """Return the status, the content and the headers of an answer.

    `settle` is called until the answer is there: what it waits for happens then.
    """
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), text.encode()) for name, text in headers],
        "client": client,
        "state": {"identity": Identity(*(client or ("10.0.0.9", 5000)), "http", user)},
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content}

    async def send(message: Any) -> None:
        sent.append(message)

    async def scene() -> None:
        answering = asyncio.ensure_future(application(scope, receive, send))
        while not answering.done():
            await asyncio.sleep(0)
            settle()
        answering.result()

    asyncio.run(scene())
    answer = b"".join(message.get("body", b"") for message in sent[1:])
    given = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
    return sent[0]["status"], answer, given
