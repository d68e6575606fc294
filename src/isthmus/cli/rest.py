"""A client of the REST API for commands: one request at a time, one sentence for what fails.

Who sends it stands in the environment: `ISTHMUS_USER` and `ISTHMUS_PASSWORD`, or a token in
`ISTHMUS_TOKEN`. Where the server wants to know and that is not there, somebody at a terminal is
asked. Never in an argument, which other users of the machine could see.

With TLS the server's CA has to be one that the system believes, or that in the file
`ISTHMUS_CA`; where it asks for a certificate, the file `ISTHMUS_CERTIFICATE` has one, with its
key.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.client import HTTPResponse

    from isthmus.config_listeners import Address

ANSWER_S_MAX: Final = 30.0
PAGE: Final = 1_000


class RestShore:
    """One server's REST API."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._headers = credentials_in(os.environ)

    def get(self, *path: str, **query: Any) -> Any:
        """Return what an address answers; the parts of `path` are percent-encoded."""
        return self._ask("GET", path, query)

    def put(self, *path: str, body: Any = None, **query: Any) -> Any:
        """Have what an address names be there; return how it is."""
        return self._ask("PUT", path, query, body)

    def delete(self, *path: str) -> None:
        """Delete what an address names."""
        self._ask("DELETE", path, {})

    def items(self, *path: str, limit: int | None = None, **query: Any) -> Iterator[Any]:
        """Yield the items of all pages, up to `limit`; a parameter that is None is left out."""
        left = limit
        while left is None or left > 0:
            page = self.get(*path, limit=PAGE if left is None else min(left, PAGE), **query)
            yield from page["items"]
            if page["next"] is None:
                return
            if left is not None:
                left -= len(page["items"])
            query["cursor"] = page["next"]

    def lines(self, *path: str, **query: Any) -> Iterator[bytes]:
        """Yield the lines of an answer as they come, however long that takes."""
        with self._answer("GET", path, query, silence_s_max=None) as response:
            yield from response

    def _ask(
        self, method: str, path: tuple[str, ...], query: dict[str, Any], body: Any = None
    ) -> Any:
        with self._answer(method, path, query, body, silence_s_max=ANSWER_S_MAX) as response:
            content = response.read()
        return json.loads(content) if content else None

    @contextmanager
    def _answer(
        self,
        method: str,
        path: tuple[str, ...],
        query: dict[str, Any],
        body: Any = None,
        *,
        silence_s_max: float | None,
    ) -> Iterator[HTTPResponse]:
        where = "/api/v1/" + "/".join(quote(part, safe="") for part in path)
        given = {name: value for name, value in query.items() if value is not None}
        if given:
            where += "?" + urlencode(given)
        try:
            connection = connection_to(self._address)
        except OSError as error:
            raise click.ClickException(f"ISTHMUS_CA, ISTHMUS_CERTIFICATE: {error}") from None
        try:
            connection.connect()
            connection.timeout = silence_s_max
            connection.sock.settimeout(silence_s_max)
            content = None if body is None else json.dumps(body)
            connection.request(method, where, content, self._headers)
            response = connection.getresponse()
            if response.status == 401 and not self._headers and sys.stdin.isatty():
                response.read()
                self._headers = credentials_asked_for()
                connection.request(method, where, content, self._headers)
                response = connection.getresponse()
            if response.status >= 300:
                raise click.ClickException(
                    f"{self._address.authority} refuses: {said_in(response.read())}"
                )
            yield response
        except (OSError, HTTPException) as error:
            raise click.ClickException(
                f"no Isthmus answers HTTP at {self._address.authority}: {error}"
            ) from None
        finally:
            connection.close()


def connection_to(address: Address) -> HTTPConnection:
    """Return a connection that is not opened yet. Raises OSError for a file that is no good."""
    if address.scheme != "tls":
        return HTTPConnection(address.host, address.port, timeout=ANSWER_S_MAX)
    context = ssl.create_default_context(cafile=os.environ.get("ISTHMUS_CA"))
    own = os.environ.get("ISTHMUS_CERTIFICATE")
    if own is not None:
        context.load_cert_chain(own)
    return HTTPSConnection(address.host, address.port, timeout=ANSWER_S_MAX, context=context)


def credentials_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the header that says who sends a request; none where the environment does not."""
    if "ISTHMUS_TOKEN" in environ:
        return {"Authorization": f"Bearer {environ['ISTHMUS_TOKEN']}"}
    if "ISTHMUS_USER" in environ:
        return basic(environ["ISTHMUS_USER"], environ.get("ISTHMUS_PASSWORD", ""))
    return {}


def credentials_asked_for() -> dict[str, str]:
    """Return the same from somebody at the terminal."""
    user = click.prompt("User", err=True)
    return basic(user, click.prompt("Password", hide_input=True, err=True))


def basic(user: str, password: str) -> dict[str, str]:
    """Return a user name and a password as a header [RFC 7617]."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def said_in(content: bytes) -> str:
    """Return what a refusal says, whoever it is that refuses."""
    try:
        said = json.loads(content)
        return f"{said['what']} ({said['where']})"
    except (ValueError, TypeError, KeyError):
        return content[:200].decode("utf-8", "replace")
