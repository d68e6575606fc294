"""The REST API below `/api/v1`: look at clients and what they leave, end it, keep them out.

Answers are JSON; lists come in pages: `items`, and in `next` the cursor of the page that
follows, or null. What is refused says `what` is wrong and `where`, in the query, in the path or
elsewhere. Client ids and topic names stand in the path, percent-encoded. The reference for
users is docs/reference/rest-api.md; what the answers hold is in broker/inspection.py.

Who may ask is decided by one function, `authorize`, before anything else (authority.py).
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from isthmus.admin.trace import Feed
from isthmus.broker.bans import KINDS
from isthmus.broker.inspection import PAGE_MAX, CursorUnknown, Page, Wanted
from isthmus.broker.traces import Trace
from isthmus.errors import ConfigInvalid, QuotaExceeded, StorageError, TopicInvalid
from isthmus.topics.filter import SHARED_PREFIX, check_topic_filter, check_topic_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from isthmus.broker.bans import Kind
    from isthmus.broker.inspection import Inspection
    from isthmus.broker.traces import Traces
    from isthmus.errors import IsthmusError

    Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

Answer = TypeVar("Answer")

PREFIX: Final = "/api/v1"
PAGE_DEFAULT: Final = 100
PAGING: Final = ("limit", "cursor")
BAN_S_MAX: Final = 315_360_000  # ten years; without a number it is for good
TRACED: Final = ("client_id", "address", "filter")
TRACE_S_DEFAULT: Final = 60
TRACE_S_MAX: Final = 86_400
FLAGS: Final = {"true": True, "false": False}


class Refusal(Exception):
    """A request that is refused: an HTTP status, what is wrong, and where in the request."""

    def __init__(
        self, status: int, what: str, where: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what)
        self.status = status
        self.what = what
        self.where = where
        self.headers = headers  # of the answer


Authorize: TypeAlias = "Callable[[Request], Awaitable[Refusal | None]]"


class Api:
    """The routes, over one broker."""

    def __init__(
        self,
        inspection: Inspection,
        traces: Traces,
        authorize: Authorize,
        others: dict[str, dict[str, Endpoint]],
    ) -> None:
        """`others`: what is answered elsewhere, by its path."""
        self._inspection = inspection
        self._traces = traces
        self._authorize = authorize
        self._others = others

    def routes(self) -> list[Route]:
        """Return what there is to ask."""
        table: dict[str, dict[str, Endpoint]] = {
            "/clients": {"GET": self._clients},
            "/clients/{client_id:path}": {"GET": self._client, "DELETE": self._kick},
            "/sessions": {"GET": self._sessions},
            "/sessions/{client_id:path}": {"GET": self._session, "DELETE": self._end_session},
            "/subscriptions": {"GET": self._subscriptions},
            "/retained": {"GET": self._retained},
            "/retained/{topic_name:path}": {
                "GET": self._retained_message,
                "DELETE": self._remove_retained,
            },
            "/delayed": {"GET": self._delayed},
            "/delayed/{key}": {"DELETE": self._cancel_delayed},
            "/bans": {"GET": self._bans},
            "/bans/{kind}/{who:path}": {"PUT": self._ban, "DELETE": self._unban},
            "/traces": {"GET": self._list_traces},
            "/trace": {"GET": self._trace},
        }
        return [
            Route(PREFIX + path, self._guarded(endpoints), methods=list(endpoints))
            for path, endpoints in (table | self._others).items()
        ]

    def _guarded(self, endpoints: dict[str, Endpoint]) -> Endpoint:
        """Return what answers requests of one path, after asking whether it may."""

        async def answer(request: Request) -> Response:
            refusal = await self._authorize(request)
            if refusal is not None:
                raise refusal
            method = "GET" if request.method == "HEAD" else request.method
            return await endpoints[method](request)

        return answer

    # --- clients and sessions -----------------------------------------------------------------

    async def _clients(self, request: Request) -> Response:
        names = ("search", "user", "address", "listener", "topic_name")
        query = query_of(request, *names, *PAGING)
        return self._sessions_page(query, connected=True)

    async def _sessions(self, request: Request) -> Response:
        query = query_of(request, "search", "connected", "topic_name", *PAGING)
        return self._sessions_page(query, connected=flag_in(query, "connected"))

    def _sessions_page(self, query: dict[str, str], *, connected: bool | None) -> Response:
        limit = limit_in(query)
        cursor = query.pop("cursor", "-1")
        if not re.fullmatch("-1|[0-9]{1,18}", cursor):
            raise cursor_unknown()
        if "topic_name" in query:
            check_named(query["topic_name"])
        wanted = Wanted(**query)._replace(connected=connected)  # type: ignore[arg-type]
        page = self._inspection.sessions(wanted, int(cursor), limit)
        return json_of(page)

    async def _client(self, request: Request) -> Response:
        query_of(request)
        client_id = request.path_params["client_id"]
        found = self._inspection.session(client_id)
        if found is None or not found.connected:
            raise not_there(f"no client {client_id!r} is connected")
        return json_of(found)

    async def _session(self, request: Request) -> Response:
        query_of(request)
        client_id = request.path_params["client_id"]
        found = self._inspection.session(client_id)
        if found is None:
            raise not_there(f"there is no session of a client {client_id!r}")
        return json_of(found)

    async def _subscriptions(self, request: Request) -> Response:
        query = query_of(request, "client_id", *PAGING)
        client_id = needed(query, "client_id")
        after = query.get("cursor", "")
        page = self._inspection.subscriptions(client_id, after, limit_in(query))
        if page is None:
            what = f"there is no session of a client {client_id!r}"
            raise Refusal(404, what, "query client_id")
        return json_of(page)

    async def _kick(self, request: Request) -> Response:
        query_of(request)
        client_id = request.path_params["client_id"]
        if not self._inspection.kick(client_id):
            raise not_there(f"no client {client_id!r} is connected")
        return Response(status_code=204)

    async def _end_session(self, request: Request) -> Response:
        query_of(request)
        client_id = request.path_params["client_id"]
        told: Told[IsthmusError | None] = Told()
        if not self._inspection.end_session(client_id, told.tell):
            raise not_there(f"there is no session of a client {client_id!r}")
        await durable(told)
        return Response(status_code=204)

    # --- retained messages --------------------------------------------------------------------

    async def _retained(self, request: Request) -> Response:
        query = query_of(request, "filter", *PAGING)
        topic_filter = query.get("filter", "#")
        check_filter(topic_filter)
        told: Told[Page | StorageError] = Told()
        try:
            self._inspection.retained(
                topic_filter, query.get("cursor"), limit_in(query), told.tell
            )
        except CursorUnknown:
            raise cursor_unknown() from None
        return json_of(readable(await told.future))

    async def _retained_message(self, request: Request) -> Response:
        query_of(request)
        topic_name = request.path_params["topic_name"]
        told: Told[Any] = Told()
        self._inspection.retained_message(topic_name, told.tell)
        message = readable(await told.future)
        if message is None:
            raise not_there(f"nothing is retained under {topic_name!r}")
        fields = msgspec.structs.asdict(message)
        payload = fields.pop("payload")
        return json_of(fields | shown_payload(payload))

    async def _remove_retained(self, request: Request) -> Response:
        query_of(request)
        topic_name = request.path_params["topic_name"]
        told: Told[IsthmusError | None] = Told()
        if not self._inspection.remove_retained(topic_name, told.tell):
            raise not_there(f"nothing is retained under {topic_name!r}")
        await durable(told)
        return Response(status_code=204)

    # --- delayed messages ---------------------------------------------------------------------

    async def _delayed(self, request: Request) -> Response:
        query = query_of(request, *PAGING)
        limit, after = limit_in(query), query.get("cursor", "0")
        if not re.fullmatch("[0-9]{1,18}", after):
            raise cursor_unknown()
        told: Told[Page | StorageError] = Told()
        self._inspection.delayed(int(after), limit, told.tell)
        return json_of(readable(await told.future))

    async def _cancel_delayed(self, request: Request) -> Response:
        query_of(request)
        key = request.path_params["key"]
        told: Told[IsthmusError | None] = Told()
        if not self._inspection.cancel_delayed(key, told.tell):
            raise not_there(f"no delayed message {key!r} waits")
        await durable(told)
        return Response(status_code=204)

    # --- bans ---------------------------------------------------------------------------------

    async def _bans(self, request: Request) -> Response:
        query = query_of(request, *PAGING)
        return json_of(self._inspection.bans(query.get("cursor", ""), limit_in(query)))

    async def _ban(self, request: Request) -> Response:
        query = query_of(request, "for_s", "reason")
        kind, who = kind_in(request), request.path_params["who"]
        seconds = number_in(query, "for_s", 1, BAN_S_MAX) if "for_s" in query else None
        reason = query.get("reason", "")
        told: Told[IsthmusError | None] = Told()
        try:
            view = self._inspection.ban(
                kind, who, seconds=seconds, reason=reason, done=told.tell
            )
        except ConfigInvalid as error:
            raise Refusal(400, str(error), "path") from None
        except QuotaExceeded as error:
            raise Refusal(409, str(error), "server") from None
        await durable(told)
        return json_of(view)

    async def _unban(self, request: Request) -> Response:
        query_of(request)
        kind, who = kind_in(request), request.path_params["who"]
        told: Told[IsthmusError | None] = Told()
        try:
            found = self._inspection.unban(kind, who, told.tell)
        except ConfigInvalid as error:
            raise Refusal(400, str(error), "path") from None
        if not found:
            raise not_there(f"the {kind} {who!r} is not banned")
        await durable(told)
        return Response(status_code=204)

    # --- traces -------------------------------------------------------------------------------

    async def _list_traces(self, request: Request) -> Response:
        query_of(request)
        return json_of({"items": self._traces.views(), "next": None})

    async def _trace(self, request: Request) -> Response:
        query = query_of(request, *TRACED, "for_s", "payload")
        seconds = number_in(query, "for_s", TRACE_S_DEFAULT, TRACE_S_MAX)
        with_payloads = flag_in(query, "payload") or False
        if len(query) != 1:
            raise Refusal(400, f"one of {', '.join(TRACED)} is wanted", "query")
        ((name, value),) = query.items()
        if not value:
            raise Refusal(400, "it is empty", f"query {name}")
        if name == "filter":
            check_filter(value)
        feed = Feed()
        trace = Trace(
            feed.put,
            client_id=query.get("client_id", ""),
            address=query.get("address", ""),
            topic_filter=query.get("filter", ""),
            with_payloads=with_payloads,
        )
        if self._traces.is_full:
            raise Refusal(503, "there are as many traces as there may be", "server")
        lines = feed.read(self._traces, trace, seconds)
        return StreamingResponse(lines, media_type="application/x-ndjson")


def status_page(status: Callable[[], Mapping[str, object]]) -> Endpoint:
    """Return what answers how the server is."""

    async def answer(request: Request) -> Response:
        query_of(request)
        return json_of(status())

    return answer


class Told(Generic[Answer]):
    """An answer that comes through a function, and may come when nobody waits any more."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def tell(self, answer: Answer) -> None:
        """Give the answer."""
        if not self.future.done():
            self.future.set_result(answer)


# --- requests ---------------------------------------------------------------------------------


def query_of(request: Request, *known: str) -> dict[str, str]:
    """Return the query's parameters. Raises Refusal for one unknown, or there twice."""
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            offered = ", ".join(known) or "none"
            raise Refusal(400, f"unknown; known here: {offered}", f"query {name}")
        if name in query:
            raise Refusal(400, "it is there twice", f"query {name}")
        query[name] = value
    return query


def needed(query: dict[str, str], name: str) -> str:
    """Return a parameter that must be there. Raises Refusal."""
    if name not in query:
        raise Refusal(400, "it is missing", f"query {name}")
    return query[name]


def limit_in(query: dict[str, str]) -> int:
    """Take out how many items a page may have. Raises Refusal."""
    return number_in(query, "limit", PAGE_DEFAULT, PAGE_MAX)


def number_in(query: dict[str, str], name: str, default: int, number_max: int) -> int:
    """Take out a number from 1 on. Raises Refusal."""
    text = query.pop(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= number_max:
        what = f"a whole number from 1 to {number_max} is wanted"
        raise Refusal(400, what, f"query {name}")
    return int(text)


def flag_in(query: dict[str, str], name: str) -> bool | None:
    """Take out a flag, None where it is not given. Raises Refusal."""
    text = query.pop(name, None)
    if text is not None and text not in FLAGS:
        raise Refusal(400, "true or false is wanted", f"query {name}")
    return None if text is None else FLAGS[text]


def kind_in(request: Request) -> Kind:
    """Return whom a ban is about. Raises Refusal."""
    kind: Kind | None = next(
        (each for each in KINDS if each == request.path_params["kind"]), None
    )
    if kind is None:
        raise Refusal(404, f"what can be banned: {', '.join(KINDS)}", "path")
    return kind


def check_filter(topic_filter: str) -> None:
    """Check a topic filter, which is not a shared one. Raises Refusal."""
    try:
        check_topic_filter(topic_filter)
    except TopicInvalid as error:
        raise Refusal(400, str(error), "query filter") from None
    if topic_filter.startswith(SHARED_PREFIX):
        raise Refusal(400, "a shared filter belongs to subscriptions only", "query filter")


# --- answers ----------------------------------------------------------------------------------


def json_of(content: object) -> Response:
    """Return an answer in JSON; a page as its items and its cursor."""
    if isinstance(content, Page):
        content = content._asdict()
    return Response(msgspec.json.encode(content), media_type="application/json")


def shown_payload(payload: bytes) -> dict[str, str]:
    """Return a payload as text, or, where it is none, in base64."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}


async def durable(told: Told[IsthmusError | None]) -> None:
    """Wait until something is durable. Raises Refusal where it cannot be."""
    error = await told.future
    if error is not None:
        raise Refusal(503, f"the log does not take it: {error}", "server")


def readable(answer: Answer | StorageError) -> Answer:
    """Return what was read from the log. Raises Refusal where that could not be."""
    if isinstance(answer, StorageError):
        raise Refusal(503, f"the log cannot be read: {answer}", "server")
    return answer


def not_there(what: str) -> Refusal:
    """Return the refusal of what is named in the path and not there."""
    return Refusal(404, what, "path")


def check_named(topic_name: str) -> None:
    """Raise the Refusal of what is no topic name."""
    try:
        check_topic_name(topic_name)
    except TopicInvalid as error:
        raise Refusal(400, str(error), "query topic_name") from None


def cursor_unknown() -> Refusal:
    """Return the refusal of a cursor that is not, or no longer, one of ours."""
    return Refusal(410, "this listing is over: begin it anew, without a cursor", "query cursor")


def refused(_: Request, error: Exception) -> Response:
    """Answer a request that is refused; the one place where that becomes HTTP."""
    headers: Mapping[str, str] | None
    if isinstance(error, Refusal):
        status, said = error.status, {"what": error.what, "where": error.where}
        headers = error.headers
    else:
        assert isinstance(error, HTTPException), "nothing else is sent here"
        where = "method" if error.status_code == 405 else "path"
        status, said = error.status_code, {"what": error.detail, "where": where}
        headers = error.headers
    content = msgspec.json.encode(said)
    return Response(content, status, headers, media_type="application/json")
