"""HTTP for those who look after the server: `/healthz`, `/readyz`, `/metrics`, the REST API.

Starlette on uvicorn, inside the server's own loop. Both are slow to import (some 60 ms and
10 MB), so that happens here and in a thread, when MQTT and Kafka listen already; the sockets
are bound by then, and who connects meanwhile waits in their backlog. uvicorn is kept from what
is `app.py`'s: signals, the set-up of logging, listeners and their TLS, the end of the process.
What readiness means is a question to whoever started this: a function that gives the reason why
not, or None.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from uvicorn import Server

    from isthmus.admin.api import Authorize
    from isthmus.admin.metrics import Look
    from isthmus.broker.authentication import Chain
    from isthmus.broker.guard import Guard
    from isthmus.broker.identity import Identity
    from isthmus.broker.inspection import Inspection
    from isthmus.broker.security import Security
    from isthmus.broker.traces import Traces
    from isthmus.metrics import Metric

KEEP_ALIVE_S: Final = 5
SHUTDOWN_S: Final = 2
IDENTITY: Final = "identity"  # in a request's state: who is at the other end
HEAD_BYTES_MAX: Final = 1 << 18  # of a request: the longest topic name, percent-encoded


class Asked(NamedTuple):
    """How the REST API finds out who asks, and who may."""

    chain: Chain
    administrators: str  # a group
    observers: str  # one that may read the metrics
    guard: Guard


class Doors(Protocol):
    """The listeners of HTTP, which know nothing of it."""

    def __bool__(self) -> bool:
        """Whether there are any."""

    async def open(self, protocol: Callable[[Identity], asyncio.Protocol]) -> None:
        """Accept connections, each of which is given a protocol."""

    def close(self) -> None:
        """Accept no more, even if they were never opened."""


async def serve_http(doors: Doors, build: Callable[[], Starlette], stop: asyncio.Event) -> None:
    """Answer until `stop` is set (or this is cancelled).

    Requests under way are finished first, if they take no longer than `SHUTDOWN_S`. Without
    doors nothing is imported.

    `build` returns what is served; it is called in a thread.
    """
    if not doors:
        return
    try:
        server = await asyncio.to_thread(make_server, doors, build, stop)
        try:
            await server.serve()
        except asyncio.CancelledError:
            await server.shutdown()
            raise
    finally:
        doors.close()


def make_server(doors: Doors, build: Callable[[], Starlette], stop: asyncio.Event) -> Server:
    """Import what HTTP needs and put it together; slow, so not on the loop."""
    from uvicorn import Config, Server

    class Guest(Server):
        """uvicorn in our loop and behind our doors: it leaves signals alone, and waits."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=[])
            made: Any = self.config.http_protocol_class
            parts = {"config": self.config, "server_state": self.server_state}

            def protocol(identity: Identity) -> asyncio.Protocol:
                visit: asyncio.Protocol = made(**parts, app_state={IDENTITY: identity})
                return visit

            await doors.open(protocol)

        async def main_loop(self) -> None:
            await stop.wait()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            doors.close()
            await super().shutdown()

    config = Config(
        build(),
        http="h11",
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nobody is believed to speak for another address
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    config.load()
    return Guest(config)


def application(
    unready: Callable[[], str | None],
    inspection: Inspection,
    traces: Traces,
    *,
    security: Security,
    allow_anonymous: bool,
    asked: Asked | None = None,
    metrics: tuple[Sequence[Metric], Look] | None = None,
    status: Callable[[], Mapping[str, object]] = dict,
) -> Starlette:
    """Return the routes; `/healthz` is answered by whoever lives, `/readyz` asks `unready`.

    `unready` says why the server should get no traffic now, or None where it should.
    `allow_anonymous`: other machines may use the REST API. `asked`: only administrators may.
    `metrics`: which there are, and what gives what they are collected from. `status` says how
    the server is.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from isthmus.admin.access import AccessApi
    from isthmus.admin.api import Api, Refusal, refused, status_page
    from isthmus.admin.authority import Administrators, from_anywhere, from_this_machine
    from isthmus.admin.metrics import MetricsPage
    from isthmus.admin.users import UsersApi

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> JSONResponse:
        reason = unready()
        if reason is not None:
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse({"status": "ready"})

    authorize: Authorize = from_anywhere if allow_anonymous else from_this_machine
    observe = authorize
    if asked is not None:
        chain, administrators, observers, guard = asked
        users = security.users
        authorize = Administrators(chain, [administrators], guard, users)
        observe = Administrators(chain, [administrators, observers], guard, users)
    others = UsersApi(security.users).table() | AccessApi(*security[:3]).table()
    others["/status"] = {"GET": status_page(status)}
    api = Api(inspection, traces, authorize, others)
    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            *([MetricsPage(*metrics, observe).route()] if metrics else []),
            *api.routes(),
        ],
        exception_handlers={Refusal: refused, HTTPException: refused},
    )
