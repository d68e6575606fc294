"""Users over REST: the listing, and changes by whoever looks after the server.

Nothing that is kept of a password is ever answered. A password may come as such, or as the
credentials made from it (broker/credentials.py), which is what `isthmus users` sends.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import Response

from isthmus.admin.api import (
    PAGING,
    Refusal,
    Told,
    durable,
    json_of,
    limit_in,
    not_there,
    query_of,
)
from isthmus.broker.credentials import parse_credential
from isthmus.broker.inspection import Page
from isthmus.broker.users import (
    CREDENTIALS_MAX,
    User,
    checked_groups,
    checked_name,
    credentials_of,
)
from isthmus.errors import ConfigError, QuotaExceeded

if TYPE_CHECKING:
    from starlette.requests import Request

    from isthmus.admin.api import Endpoint
    from isthmus.broker.credentials import Credential
    from isthmus.broker.users import Users
    from isthmus.errors import IsthmusError

BODY_BYTES_MAX: Final = 1 << 18


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """What is said of a user; what is left out stays as it is."""

    password: str | None = None
    credentials: list[str] | None = None
    groups: list[str] | None = None
    enabled: bool | None = None


class UserView(msgspec.Struct):
    """What is answered of a user."""

    name: str
    groups: list[str]
    enabled: bool
    from_file: bool  # where the server does not change it


class UsersApi:
    """The users of a server."""

    def __init__(self, users: Users) -> None:
        self._users = users

    def table(self) -> dict[str, dict[str, Endpoint]]:
        """Return what there is to ask."""
        return {
            "/users": {"GET": self._list},
            "/users/{name:path}": {"GET": self._show, "PUT": self._put, "DELETE": self._remove},
        }

    async def _list(self, request: Request) -> Response:
        query = query_of(request, *PAGING)
        limit = limit_in(query)
        found = self._users.page(query.get("cursor", ""), limit + 1)
        following = found[limit - 1].name if len(found) > limit else None
        return json_of(Page([self._view(user) for user in found[:limit]], following))

    async def _show(self, request: Request) -> Response:
        query_of(request)
        return json_of(self._view(self._user_in(request)))

    async def _put(self, request: Request) -> Response:
        query_of(request)
        users, name = self._users, self._name_in(request)
        change = await change_in(request)
        credentials = await self._credentials_in(change)
        present = users.find(name)  # now, behind all that took time
        if users.is_listed(name):
            raise Refusal(409, f"the user {name!r} is the users_file's", "path")
        if present is None and credentials is None:
            raise Refusal(400, "a new user needs a password or credentials", "body")
        groups = None if change.groups is None else groups_in(change.groups)
        if present is None:
            present = User(name, credentials or ())
        user = present.but(credentials=credentials, groups=groups, is_enabled=change.enabled)
        told: Told[IsthmusError | None] = Told()
        try:
            users.put(user, told.tell)
        except QuotaExceeded as error:
            raise Refusal(409, str(error), "server") from None
        await durable(told)
        return json_of(self._view(user))

    async def _remove(self, request: Request) -> Response:
        query_of(request)
        user = self._user_in(request)
        if self._users.is_listed(user.name):
            raise Refusal(409, f"the user {user.name!r} is the users_file's", "path")
        told: Told[IsthmusError | None] = Told()
        self._users.remove(user.name, told.tell)
        await durable(told)
        return Response(status_code=204)

    # --- inside -------------------------------------------------------------------------------

    def _name_in(self, request: Request) -> str:
        try:
            return checked_name(request.path_params["name"])
        except ConfigError as error:
            raise Refusal(400, str(error), "path") from None

    def _user_in(self, request: Request) -> User:
        user = self._users.find(self._name_in(request))
        if user is None:
            raise not_there(f"there is no user {request.path_params['name']!r}")
        return user

    async def _credentials_in(self, change: Change) -> tuple[Credential, ...] | None:
        if change.password is None:
            return None if change.credentials is None else credentials_in(change.credentials)
        if change.credentials is not None or not change.password:
            raise Refusal(400, "a password that is not empty, or credentials", "body password")
        users = self._users
        password = change.password.encode()
        return await asyncio.to_thread(
            credentials_of, password, users.iterations, users.random_bytes
        )

    def _view(self, user: User) -> UserView:
        from_file = self._users.is_listed(user.name)
        return UserView(user.name, sorted(user.groups), user.is_enabled, from_file)


async def change_in(request: Request) -> Change:
    """Read the body. Raises Refusal, which repeats nothing of it."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise Refusal(413, f"at most {BODY_BYTES_MAX} bytes are wanted", "body")
    try:
        return msgspec.json.decode(body, type=Change)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(400, str(error), "body") from None


def credentials_in(texts: list[str]) -> tuple[Credential, ...]:
    """Read credentials. Raises Refusal."""
    if not 0 < len(texts) <= CREDENTIALS_MAX:
        raise Refusal(400, f"one to {CREDENTIALS_MAX} are wanted", "body credentials")
    try:
        return tuple(map(parse_credential, texts))
    except ConfigError as error:
        raise Refusal(400, str(error), "body credentials") from None


def groups_in(names: list[str]) -> frozenset[str]:
    """Read the names of groups. Raises Refusal."""
    try:
        return checked_groups(names)
    except ConfigError as error:
        raise Refusal(400, str(error), "body groups") from None
