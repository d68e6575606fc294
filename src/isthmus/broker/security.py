"""Who there is, and who may do what: what both shores and the administrators work on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from isthmus.broker.access import Access
from isthmus.broker.kept_rules import KeptRules
from isthmus.broker.scram import ITERATIONS_MIN
from isthmus.broker.users import Users

if TYPE_CHECKING:
    from isthmus.broker.appends import Appends
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log


class Security(NamedTuple):
    """The users, the rules in force, and those of the rules that change while one runs."""

    users: Users
    access: Access
    kept: KeptRules


def open_security(
    runtime: Runtime,
    log: Log,
    appends: Appends,
    access: Access | None = None,
    iterations: int = ITERATIONS_MIN,
) -> Security:
    """Read the users and the rules that are kept. Raises StorageError.

    `access` has the rules that are configured; None: there are none.
    """
    access = access or Access(default=None)
    users = Users(runtime, log, appends, iterations)
    return Security(users, access, KeptRules(runtime, log, appends, access))
