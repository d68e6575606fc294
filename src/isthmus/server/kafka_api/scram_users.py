"""DescribeUserScramCredentials, AlterUserScramCredentials: users, by Kafka's API [KIP-554].

They are the server's users (broker/users.py), the same for MQTT, Kafka and HTTP. A client sends
no password but what SCRAM makes of one; a password given to PLAIN, to MQTT or to HTTP is held
against what was set last. The credential of another program's form goes with the first that is
set here. A user without a credential is none.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.scram import ITERATIONS_MIN, ScramKeys, keys_of_salted
from isthmus.broker.users import User, checked_name
from isthmus.errors import ConfigError, IsthmusError, QuotaExceeded
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.acls import told
from isthmus.server.kafka_api.log_topics import RequestRefused

if TYPE_CHECKING:
    from isthmus.broker.users import Users
    from isthmus.server.kafka_api.call import Call

MECHANISMS: Final = {1: "SCRAM-SHA-256", 2: "SCRAM-SHA-512"}
NUMBERS: Final = {name: number for number, name in MECHANISMS.items()}
ITERATIONS_MAX: Final = 16_384  # Kafka's


def describe_user_scram_credentials(call: Call) -> None:
    """Answer with the mechanisms of users, and their iterations: all users, or those named."""
    users, wanted = call.shore.security.users, call.request["users"]
    if wanted:
        names = [each["name"] for each in wanted]
        rows = [
            described(users, name, is_twice=names.count(name) > 1)
            for name in dict.fromkeys(names)
        ]
    else:
        rows = [described(users, user.name) for user in users if scram_of(user)]
    call.answer({"error_message": None, "results": rows})


def described(users: Users, name: str, *, is_twice: bool = False) -> dict[str, Any]:
    """Return the row of one user."""
    if is_twice:
        return {
            "user": name,
            "error_code": ErrorCode.DUPLICATE_RESOURCE,
            "error_message": f"{name} is asked about twice",
        }
    user = users.find(name)
    keys = scram_of(user) if user is not None else []
    if not keys:
        return {
            "user": name,
            "error_code": ErrorCode.RESOURCE_NOT_FOUND,
            "error_message": f"there is no user {name} with SCRAM credentials",
        }
    infos = [
        {"mechanism": NUMBERS[each.mechanism], "iterations": each.iterations}
        for each in sorted(keys)
    ]
    return {"user": name, "error_message": None, "credential_infos": infos}


def alter_user_scram_credentials(call: Call) -> None:
    """Set and delete credentials; each user as a whole, and the answer when all is durable."""
    request, users = call.request, call.shore.security.users
    changes: dict[str, tuple[list[int], list[dict[str, Any]]]] = {}
    for one in request["deletions"]:
        changes.setdefault(one["name"], ([], []))[0].append(one["mechanism"])
    for one in request["upsertions"]:
        changes.setdefault(one["name"], ([], []))[1].append(one)
    rows: dict[str, dict[str, Any]] = {}

    def settled(name: str, error: IsthmusError | None) -> None:
        rows[name] = {"user": name, "error_message": None}
        if error is not None:
            rows[name].update(told(error))
        if len(rows) == len(changes):
            call.answer({"results": [rows[each] for each in changes]})

    if not changes:
        call.answer({})
    for name, (deleted, upserted) in changes.items():
        done = partial(settled, name)
        try:
            changed = altered(users, name, deleted, upserted)
            if changed.credentials:
                users.put(changed, done)
            else:
                users.remove(changed.name, done)
        except (RequestRefused, QuotaExceeded) as error:
            done(error)


def altered(
    users: Users, name: str, deleted: list[int], upserted: list[dict[str, Any]]
) -> User:
    """Return a user as it is to be, perhaps without credentials. Raises RequestRefused."""
    try:
        known = checked_name(name)
    except ConfigError as error:
        raise RequestRefused(ErrorCode.UNACCEPTABLE_CREDENTIAL, str(error)) from None
    numbers = [*deleted, *(one["mechanism"] for one in upserted)]
    if any(number not in MECHANISMS for number in numbers):
        raise RequestRefused(
            ErrorCode.UNSUPPORTED_SASL_MECHANISM, "the mechanism is unknown here"
        )
    if len(numbers) > 1:
        raise RequestRefused(
            ErrorCode.DUPLICATE_RESOURCE, "a request changes one mechanism of a user"
        )
    if users.is_listed(known):
        raise RequestRefused(
            ErrorCode.UNACCEPTABLE_CREDENTIAL, "this user stands in authentication.users_file"
        )
    user = users.find(known) or User(known, ())
    present = {each.mechanism for each in scram_of(user)}
    gone = {MECHANISMS[number] for number in deleted}
    if gone - present:
        raise RequestRefused(
            ErrorCode.RESOURCE_NOT_FOUND, "there is no such credential to be deleted"
        )
    new = [keys_in(one) for one in upserted]
    replaced = gone | {each.mechanism for each in new}
    kept = [each for each in scram_of(user) if each.mechanism not in replaced]
    foreign = [each for each in user.credentials if not isinstance(each, ScramKeys)]
    return user.but(credentials=(*new, *kept, *([] if new else foreign)))


def keys_in(upsertion: dict[str, Any]) -> ScramKeys:
    """Return the credential that a client sends. Raises RequestRefused."""
    iterations = upsertion["iterations"]
    salt, salted = bytes(upsertion["salt"]), bytes(upsertion["salted_password"])
    if not ITERATIONS_MIN <= iterations <= ITERATIONS_MAX:
        raise RequestRefused(
            ErrorCode.UNACCEPTABLE_CREDENTIAL,
            f"iterations have to be from {ITERATIONS_MIN} to {ITERATIONS_MAX}",
        )
    if not salt or not salted:
        raise RequestRefused(
            ErrorCode.UNACCEPTABLE_CREDENTIAL, "the salt or the salted password is empty"
        )
    return keys_of_salted(MECHANISMS[upsertion["mechanism"]], salted, salt, iterations)


def scram_of(user: User) -> list[ScramKeys]:
    """Return what a user can log in with by SCRAM."""
    return [each for each in user.credentials if isinstance(each, ScramKeys)]
