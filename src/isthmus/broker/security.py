"""Who there is, and who may do what: what both shores and the administrators work on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from isthmus.broker.access import Access
from isthmus.broker.delegation import DelegationTerms, DelegationTokens
from isthmus.broker.kept_rules import KeptRules
from isthmus.broker.scram import ITERATIONS_MIN
from isthmus.broker.users import Users

if TYPE_CHECKING:
    from isthmus.broker.appends import Appends
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log


class Security(NamedTuple):
    """The users, the rules in force, those that change while one runs, the users' tokens."""

    users: Users
    access: Access
    kept: KeptRules
    delegation: DelegationTokens


def open_security(
    runtime: Runtime,
    log: Log,
    appends: Appends,
    access: Access | None = None,
    iterations: int = ITERATIONS_MIN,
    delegation: DelegationTerms = DelegationTerms(),  # noqa: B008  # never changed
) -> Security:
    """Read the users, the rules that are kept and the delegation tokens. Raises StorageError.

    `access` has the rules that are configured; None: there are none.
    """
    access = access or Access(default=None)
    users = Users(runtime, log, appends, iterations)
    kept = KeptRules(runtime, log, appends, access)
    return Security(users, access, kept, DelegationTokens(runtime, log, appends, delegation))
