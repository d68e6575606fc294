"""The requests about delegation tokens: who may have, renew, end and see one [KIP-48, KIP-373].

A token speaks for its owner: whoever asks for it, or another user for whom the asker has the
right `create-tokens`. Owner and renewers manage it. Whoever has logged in by a token has no
business here, so that a token cannot prolong itself, nor has somebody without a name.

The guards (guards.py) let these requests pass: what may be done hangs on the token.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from isthmus.broker.access_rules import (
    ACCOUNT,
    CREATE_TOKENS,
    DESCRIBE,
    DESCRIBE_TOKENS,
    TOKEN,
)
from isthmus.broker.delegation import DELEGATION
from isthmus.errors import QuotaExceeded
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.acl_forms import ANONYMOUS
from isthmus.server.kafka_api.log_topics import RequestRefused, refusal_of

if TYPE_CHECKING:
    from isthmus.broker.delegation import DelegationToken
    from isthmus.errors import IsthmusError
    from isthmus.server.kafka_api.call import Call

USER: Final = "User"  # the only type of principal that logs in
RENEWERS_MAX: Final = 1_000  # of one token
NEVER: Final = -1  # in place of a time
REQUESTER_FIRST_VERSION: Final = 3  # of the answers that name one [KIP-373]


class Named(NamedTuple):
    """A principal, as requests have it."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def create_delegation_token(call: Call) -> None:
    """Make a token, and answer with its HMAC when it is durable."""
    request = call.request
    requester = _asking(call)
    owner = requester
    if request.get("owner_principal_name"):
        owner = Named(request["owner_principal_type"] or "", request["owner_principal_name"])
    renewers = [_named(one) for one in request["renewers"]]
    row = _whose(call, owner, requester)

    def done(token: DelegationToken | None, error: IsthmusError | None) -> None:
        if error is not None or token is None:
            times = dict.fromkeys(TIMES, NEVER)
            code = refusal_of(error) if error is not None else ErrorCode.NONE
            call.answer({"error_code": code, **times, "token_id": "", "hmac": b"", **row})
            return
        call.answer({**_row_of(token, TIMES), **row})

    try:
        _check_asking(call)
        if owner != requester and not _may(call, CREATE_TOKENS, ACCOUNT, str(owner)):
            raise RequestRefused(
                ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED, f"no tokens for {owner}"
            )
        if any(one.kind != USER for one in (owner, *renewers)):
            raise RequestRefused(
                ErrorCode.INVALID_PRINCIPAL_TYPE, "owner and renewers are users"
            )
        _check_enabled(call)
        if len(renewers) > RENEWERS_MAX:
            raise QuotaExceeded(f"a token has {RENEWERS_MAX} renewers at most")
        names = tuple(dict.fromkeys(one.name for one in renewers))
        lifetime_ms = request["max_lifetime_ms"]
        tokens = call.shore.security.delegation
        tokens.issue(owner.name, requester.name, names, lifetime_ms, done)
    except (QuotaExceeded, RequestRefused) as error:
        done(None, error)


def renew_delegation_token(call: Call) -> None:
    """Give a token more time, up to its end."""
    try:
        token = _managed(call)
        _check_lives(call, token)
    except RequestRefused as error:
        _answer_time(call, NEVER, error)
        return
    tokens = call.shore.security.delegation
    longest_ms = tokens.terms.renewal_ms_max
    period_ms = call.request["renew_period_ms"]
    period_ms = min(period_ms, longest_ms) if period_ms > 0 else longest_ms
    _extend(call, token, period_ms)


def expire_delegation_token(call: Call) -> None:
    """Have a token end earlier, or at another time up to its end; a time below 0 is now."""
    period_ms = call.request["expiry_time_period_ms"]
    try:
        token = _managed(call)
        if period_ms >= 0:
            _check_lives(call, token)
            _extend(call, token, period_ms)
            return
    except RequestRefused as error:
        _answer_time(call, NEVER, error)
        return
    now_ms = call.shore.runtime.now_ms()
    call.shore.security.delegation.remove([token], partial(_answer_time, call, now_ms))


def describe_delegation_token(call: Call) -> None:
    """Answer with the tokens of some owners, or all: those that the asker may see."""
    wanted = call.request["owners"]
    tokens: list[DelegationToken] = []
    code = ErrorCode.NONE
    try:
        _check_asking(call)
        _check_enabled(call)
        names = None if wanted is None else {one.name for one in map(_named, wanted)}
        tokens = [
            each
            for each in call.shore.security.delegation
            if (names is None or any(_concerns(each, name) for name in names))
            and _may_see(call, each)
        ]
    except RequestRefused as error:
        code = error.code
    call.answer(
        {"error_code": code, "tokens": [_description_of(call, each) for each in tokens]}
    )


# --- who may ----------------------------------------------------------------------------------


def _asking(call: Call) -> Named:
    principal = call.connection.principal
    return Named(USER, principal.user if principal and principal.user else ANONYMOUS)


def _check_asking(call: Call) -> None:
    """Raise RequestRefused unless somebody asks that is known, and not by a token."""
    principal = call.connection.principal
    if principal is None or principal.is_anonymous or principal.way == DELEGATION:
        raise RequestRefused(
            ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, "not without a login of one's own"
        )


def _check_enabled(call: Call) -> None:
    if not call.shore.security.delegation.is_enabled:
        raise RequestRefused(
            ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED,
            "authentication.delegation_tokens.master_key_file is not set",
        )


def _may(call: Call, operation: str, kind: str, name: str) -> bool:
    return call.rights is None or bool(call.rights.allows(operation, name, kind))


def _managed(call: Call) -> DelegationToken:
    """Return the token that a request is about, if the asker manages it."""
    _check_asking(call)
    _check_enabled(call)
    tokens = call.shore.security.delegation
    token = tokens.by_hmac(bytes(call.request["hmac"]))
    if token is None:
        raise RequestRefused(ErrorCode.DELEGATION_TOKEN_NOT_FOUND, "there is no such token")
    if not token.is_managed_by(_asking(call).name):
        raise RequestRefused(
            ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH, "neither its owner nor a renewer"
        )
    return token


def _check_lives(call: Call, token: DelegationToken) -> None:
    if call.shore.security.delegation.has_expired(token):
        raise RequestRefused(ErrorCode.DELEGATION_TOKEN_EXPIRED, "the token has expired")


def _concerns(token: DelegationToken, user: str) -> bool:
    return user == token.requester or token.is_managed_by(user)


def _may_see(call: Call, token: DelegationToken) -> bool:
    return (
        _concerns(token, _asking(call).name)
        or _may(call, DESCRIBE, TOKEN, token.id)
        or _may(call, DESCRIBE_TOKENS, ACCOUNT, str(Named(USER, token.owner)))
    )


# --- the wire form ----------------------------------------------------------------------------

TIMES: Final = ("issue_timestamp_ms", "expiry_timestamp_ms", "max_timestamp_ms")
DESCRIBED_TIMES: Final = ("issue_timestamp", "expiry_timestamp", "max_timestamp")


def _named(one: dict[str, Any]) -> Named:
    return Named(one["principal_type"], one["principal_name"])


def _whose(call: Call, owner: Named, requester: Named) -> dict[str, Any]:
    row = {"principal_type": owner.kind, "principal_name": owner.name}
    if call.version >= REQUESTER_FIRST_VERSION:
        row["token_requester_principal_type"] = requester.kind
        row["token_requester_principal_name"] = requester.name
    return row


def _row_of(token: DelegationToken, names: tuple[str, ...]) -> dict[str, Any]:
    times = (token.issued_ms, token.expires_ms, token.until_ms)
    return {
        **dict(zip(names, times, strict=True)),
        "token_id": token.id,
        "hmac": token.hmac,
    }


def _description_of(call: Call, token: DelegationToken) -> dict[str, Any]:
    return {
        **_row_of(token, DESCRIBED_TIMES),
        **_whose(call, Named(USER, token.owner), Named(USER, token.requester)),
        "renewers": [
            {"principal_type": USER, "principal_name": name} for name in token.renewers
        ],
    }


def _extend(call: Call, token: DelegationToken, period_ms: int) -> None:
    def done(error: IsthmusError | None) -> None:
        _answer_time(call, expires_ms, error)

    expires_ms = call.shore.security.delegation.extend(token, period_ms, done)


def _answer_time(call: Call, time_ms: int, error: IsthmusError | None) -> None:
    if error is not None:
        call.answer({"error_code": refusal_of(error), "expiry_timestamp_ms": NEVER})
    else:
        call.answer({"expiry_timestamp_ms": time_ms})
