"""The way "http": a program of yours says who somebody is.

Asked by POST, with what the client shows as JSON; the answer is JSON as well:

    {"client_id": "c7", "user_name": "ann", "password": "…", "address": "10.0.0.7",
     "listener": "field", "certificate": ""}
    {"result": "allow", "user": "ann", "groups": ["fitters"], "expires_s": 3600}

`result` is `allow`, `deny` or `ignore` (the next way of the listener is asked); the rest may be
left out. A password that is no text comes as `password_base64`. Whoever is not let in by an
answer that says so stays outside: also where none comes in time, or one of another form.

Questions are asked on threads of their own, and who waits for an answer holds nobody else up.
Who was let in is remembered for a while, by a keyed hash of what it showed.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.authentication import Found
from isthmus.broker.users import checked_groups, checked_name
from isthmus.errors import ConfigError, NotAuthorized, ServerBusy
from isthmus.server.http_client import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.broker.authentication import Conversation, Request, Verdict
    from isthmus.runtime import Crew, Runtime
    from isthmus.server.http_client import HttpClient

logger = logging.getLogger(__name__)

REMEMBERED_MAX: Final = 100_000
KEY_BYTES: Final = 32


class HookWay:
    """What one program of yours says."""

    name = "http"
    methods: Mapping[str, Callable[[Request], Conversation]] = {}

    def __init__(
        self, client: HttpClient, crew: Crew, runtime: Runtime, *, remember_s: int = 0
    ) -> None:
        """Ask through `client`."""
        self._crew = crew
        self._runtime = runtime
        self._remembered: OrderedDict[bytes, tuple[int, Found]] = OrderedDict()
        self.change(client, remember_s=remember_s)

    def change(self, client: HttpClient, *, remember_s: int) -> None:
        """Ask through another one from now on, and about everybody anew."""
        self._client = client
        self._remember_ms = remember_s * 1000
        self._remembered.clear()
        self._key = self._runtime.random_bytes(KEY_BYTES)  # answers under way are not for later
        self._headers = {"Content-Type": "application/json"}

    def show(self, authorization: str) -> None:
        """Show this as the header that says who asks."""
        self._headers = {**self._headers, "Authorization": authorization}

    def judge(self, request: Request, answer: Callable[[Verdict], object]) -> None:
        """Say what the program says."""
        question = question_of(request)
        digest = hmac.digest(self._key, question, "sha256")
        found = self._recall(digest)
        if found is not None:
            answer(found)
            return
        work = partial(self._client.ask, "POST", question, self._headers)
        if not self._crew.offload(work, partial(self._answered, digest, request, answer)):
            answer(ServerBusy("too many wait to be let in; try again"))

    def _answered(
        self,
        digest: bytes,
        request: Request,
        answer: Callable[[Verdict], object],
        content: bytes | None,
        error: BaseException | None,
    ) -> None:
        if content is None:
            why = str(error) if isinstance(error, NoAnswer) else type(error).__name__
            logger.warning("authentication hook without answer reason=%s", why)
            answer(ServerBusy("it cannot be found out who that is; try again"))
            return
        now_ms = self._runtime.now_ms()
        try:
            verdict = verdict_in(content, request, now_ms)
        except (ConfigError, ValueError, RecursionError) as wrong:
            logger.error("authentication hook not understood reason=%s", wrong)
            answer(NotAuthorized("it cannot be found out who that is"))
            return
        if isinstance(verdict, Found) and self._remember_ms:
            until_ms = min(now_ms + self._remember_ms, verdict.until_ms or 1 << 62)
            self._remembered[digest] = (until_ms, verdict)
            if len(self._remembered) > REMEMBERED_MAX:
                self._remembered.popitem(last=False)
        answer(verdict)

    def _recall(self, digest: bytes) -> Found | None:
        until_ms, found = self._remembered.get(digest, (0, None))
        return found if self._runtime.now_ms() < until_ms else None


def question_of(request: Request) -> bytes:
    """Return what the program is asked."""
    identity = request.identity
    fields: dict[str, Any] = {
        "client_id": request.client_id,
        "user_name": request.user_name,
        "address": identity.address,
        "listener": identity.listener,
        "certificate": identity.user,
    }
    try:
        fields["password"] = None if request.password is None else request.password.decode()
    except UnicodeDecodeError:
        fields["password_base64"] = base64.b64encode(request.password or b"").decode()
    return json.dumps(fields).encode()


def verdict_in(content: bytes, request: Request, now_ms: int) -> Verdict:
    """Read an answer. Raises ValueError, ConfigError for one that is none."""
    said = json.loads(content)
    result = said.get("result") if isinstance(said, dict) else None
    if result == "deny":
        return NotAuthorized("not let in")
    if result == "ignore":
        return None
    if result != "allow":
        raise ValueError("result is neither allow, deny nor ignore")
    user = said.get("user", request.user_name or "")
    groups, expires_s = said.get("groups", []), said.get("expires_s", 0)
    if not isinstance(user, str) or not isinstance(groups, list):
        raise ValueError("user is no text, or groups no list")
    if not all(isinstance(group, str) for group in groups):
        raise ValueError("groups is no list of texts")
    if type(expires_s) is not int or not 0 <= expires_s < 1 << 32:
        raise ValueError("expires_s is no number of seconds")
    until_ms = now_ms + expires_s * 1000 if expires_s else 0
    return Found(checked_name(user) if user else "", checked_groups(groups), until_ms)
