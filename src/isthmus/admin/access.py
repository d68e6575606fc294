"""Rules of access over REST: those in force, those that the server keeps, what they mean.

A rule is one line of text (broker/access_rules.py) and names itself: `PUT` and `DELETE` have it
in the path. Only the rules that the server keeps change here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from isthmus.admin.api import (
    PAGING,
    Refusal,
    Told,
    durable,
    json_of,
    limit_in,
    needed,
    not_there,
    query_of,
)
from isthmus.broker.access_rules import asked_resource, parse_rule
from isthmus.broker.identity import Identity, Principal
from isthmus.broker.inspection import Page
from isthmus.errors import ConfigError, QuotaExceeded

if TYPE_CHECKING:
    from starlette.requests import Request

    from isthmus.admin.api import Endpoint
    from isthmus.broker.access import Access
    from isthmus.broker.access_rules import Rule
    from isthmus.broker.kept_rules import KeptRules
    from isthmus.broker.users import Users
    from isthmus.errors import IsthmusError

ASKED = ("user", "operation", "resource", "group", "client_id", "address", "listener")


class RuleView(msgspec.Struct):
    """What is answered of a rule."""

    rule: str
    origin: str  # where it is written
    added_by: str | None  # of those that the server keeps
    added_at_ms: int | None


class AccessApi:
    """The rules of a server."""

    def __init__(self, users: Users, access: Access, kept: KeptRules) -> None:
        self._access = access
        self._kept = kept
        self._users = users

    def table(self) -> dict[str, dict[str, Endpoint]]:
        """Return what there is to ask."""
        return {
            "/access/rules": {"GET": self._list},
            "/access/rules/{rule:path}": {"PUT": self._add, "DELETE": self._remove},
            "/access/decision": {"GET": self._decide},
        }

    async def _list(self, request: Request) -> Response:
        query = query_of(request, *PAGING)
        limit, cursor = limit_in(query), query.get("cursor", "0")
        if not re.fullmatch("[0-9]{1,9}", cursor):
            raise Refusal(400, "it is none of ours", "query cursor")
        first = int(cursor)
        rules = self._access.rules
        following = str(first + limit) if len(rules) > first + limit else None
        added = {id(kept.rule): (kept.by, kept.at_ms) for kept in self._kept}
        return json_of(
            Page(
                [
                    RuleView(rule.text, rule.origin, *added.get(id(rule), (None, None)))
                    for rule in rules[first : first + limit]
                ],
                following,
            )
        )

    async def _add(self, request: Request) -> Response:
        query_of(request)
        rule = rule_in(request)
        told: Told[IsthmusError | None] = Told()
        try:
            self._kept.add([rule], who_asks(request), told.tell)
        except QuotaExceeded as error:
            raise Refusal(409, str(error), "server") from None
        await durable(told)
        return Response(status_code=204)

    async def _remove(self, request: Request) -> Response:
        query_of(request)
        rule = rule_in(request)
        if not any(self._kept.has(one) for one in rule.single()):
            raise not_there(f"no such rule is kept: {rule.canonical}")
        told: Told[IsthmusError | None] = Told()
        self._kept.remove([rule], who_asks(request), told.tell)
        await durable(told)
        return Response(status_code=204)

    async def _decide(self, request: Request) -> Response:
        query = query_of(request, *ASKED)
        name, operation = needed(query, "user"), needed(query, "operation")
        try:
            kind, resource = asked_resource(operation, needed(query, "resource"))
        except ConfigError as error:
            raise Refusal(400, str(error), "query") from None
        user = self._users.find(name)
        groups = frozenset(query["group"].split(",")) if query.get("group") else None
        if groups is None:
            groups = user.groups if user is not None else frozenset()
        where = Identity(query.get("address", ""), 0, query.get("listener", ""))
        who = Principal(name, query.get("client_id", "client"), where, groups=groups)
        verdict = self._access.allows(who, operation, resource, kind)
        rule = str(verdict.rule) if verdict.rule is not None else None
        return json_of({"allowed": verdict.allowed, "rule": rule, "groups": sorted(groups)})


def rule_in(request: Request) -> Rule:
    """Return the rule in the path. Raises Refusal."""
    try:
        return parse_rule(request.path_params["rule"], "the rule")
    except ConfigError as error:
        raise Refusal(400, str(error), "path") from None


def who_asks(request: Request) -> str:
    """Return who sends a request, as the log and the rules that the server keeps name it."""
    who = getattr(request.state, "who", "")
    host = request.state.identity.address
    return f"{who or '-'}@{host}"
