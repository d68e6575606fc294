"""One request over HTTP to a server that is configured: with a time limit, checked, bounded.

For threads: it blocks. A connection is used again by the thread that made it. TLS is checked
against the system's CAs or those of a file. No redirect is followed, no proxy is asked.
"""

from __future__ import annotations

import ssl
import threading
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_BYTES_MAX: Final = 1 << 20


class NoAnswer(Exception):
    """A server did not answer as it should; the text says how."""


class HttpClient:
    """What is asked of one URL."""

    def __init__(self, setting: str, url: str, *, timeout_s: float) -> None:
        """Raises ConfigError for what is no URL."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise ConfigError(f"{setting} = {url!r} is no URL with http:// or https://")
        if parts.username or parts.password or parts.fragment:
            raise ConfigError(f"{setting} is a URL without user, password and fragment")
        self._host, self._port = parts.hostname, port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s
        self._is_encrypted = parts.scheme == "https"
        self._tls = ssl.create_default_context() if self._is_encrypted else None
        self._kept = threading.local()

    def believe(self, authorities: ssl.SSLContext) -> None:
        """Have others than the system's CAs say who the server is, for new connections."""
        if self._is_encrypted:
            self._tls = authorities

    def ask(
        self, method: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Return what a status of 200 brings. Raises NoAnswer, which repeats nothing of it.

        A connection of before that turns out to be closed is opened anew.
        """
        for is_new in (False, True):
            connection: HTTPConnection | None = getattr(self._kept, "connection", None)
            if connection is None or is_new:
                connection, is_new = self._connection(), True
            self._kept.connection = None
            try:
                if is_new:
                    connection.connect()
                connection.request(method, self._target, body, dict(headers or {}))
                response = connection.getresponse()
                content = response.read(ANSWER_BYTES_MAX + 1)
            except TimeoutError:
                connection.close()
                raise NoAnswer(f"no answer within {self._timeout_s:g} s") from None
            except (OSError, HTTPException) as error:
                connection.close()
                if is_new:
                    raise NoAnswer(f"no answer: {type(error).__name__}") from None
                continue
            if response.isclosed() and not response.will_close:
                self._kept.connection = connection
            else:
                connection.close()
            if response.status != 200:
                raise NoAnswer(f"the answer has status {response.status}")
            if len(content) > ANSWER_BYTES_MAX:
                raise NoAnswer(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
            return content
        raise AssertionError("a new connection answers or fails")

    def _connection(self) -> HTTPConnection:
        """Return a connection that is opened once: a later one may be to believe others."""
        connection = (
            HTTPConnection(self._host, self._port, timeout=self._timeout_s)
            if self._tls is None
            else HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._tls
            )
        )
        connection.auto_open = 0
        return connection


def believing(text: str, file: str) -> ssl.SSLContext:
    """Return what believes the CAs in a file, in PEM, and no others. Raises ConfigError."""
    try:
        return ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{file} holds no certificates of CAs: {error}") from None
