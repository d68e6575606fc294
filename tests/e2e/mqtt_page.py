"""mqtt.js in a page of a headless Chromium, told what to do over HTTP.

The page comes from this machine, from a server that lasts as long as the client: it has the
page, its scripts and mqtt.js as npm brings it, hands out commands to who asks for the next
(`/command` waits) and takes events. What the page speaks to Isthmus is MQTT over WebSocket.
"""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tests.e2e.mqtt_programs import CLIENTS, node_missing
from tests.e2e.mqtt_scripted import Client, Scripted
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.server_process import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.server_process import Address

PAGE: Final = "mqtt_page.html"
FILES: Final = {
    f"/{PAGE}": "text/html",
    "/mqtt_session.js": "text/javascript",
    "/node_modules/mqtt/dist/mqtt.min.js": "text/javascript",
}
CHROMIUM: Final = (
    "chromium",
    "--headless=new",
    "--no-sandbox",  # there is none for root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)


class Page(Scripted):
    """One page, in a browser of its own."""

    def __init__(self, scheme: str = "ws", *flags: str) -> None:
        """Prepare; `flags` are more of Chromium's."""
        super().__init__("mqtt.js in Chromium", 5, scheme + "://{}/mqtt")
        self._flags = flags

    def missing(self) -> str:
        return node_missing("mqtt") or ("" if shutil.which("chromium") else "no chromium")

    @contextlib.contextmanager
    def client(self, server: Address) -> Iterator[Client]:
        client = Client(self._version)
        with (
            tempfile.TemporaryDirectory(prefix="chromium-") as profile,
            _Server(client) as pages,
        ):
            client.pipe = pages
            url = quote(self._url.format(text_of(server)), safe="")
            browser = subprocess.Popen(
                [
                    *CHROMIUM,
                    *self._flags,
                    f"--user-data-dir={profile}",
                    f"http://{text_of(pages.address)}/{PAGE}?url={url}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                yield client
            finally:
                pages.send(None)
                browser.terminate()
                browser.wait(TIMEOUT_S)


class _Server:
    """The page's way to the test and back."""

    def __init__(self, client: Client) -> None:
        self._commands: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(client, self._commands))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever)
        self.address: Address = ("127.0.0.1", self._http.server_address[1])

    def send(self, command: dict[str, Any] | None) -> None:
        self._commands.put(command)

    def __enter__(self) -> _Server:
        self._thread.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        self._http.shutdown()
        self._thread.join(TIMEOUT_S)
        self._http.server_close()


def _handler(
    client: Client, commands: queue.Queue[dict[str, Any] | None]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path not in FILES:
                self.send_error(404)
                return
            self._answer((CLIENTS / path[1:]).read_bytes(), FILES[path])

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/event":
                client.heard(json.loads(body))
                self._answer(b"", "text/plain")
            else:
                with contextlib.suppress(BrokenPipeError):
                    self._answer(json.dumps(commands.get()).encode(), "application/json")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing of requests that went well."""

    return Handler
