"""The way "users": whoever knows the password of one of the server's users is that user.

By user name and password, or by SCRAM, where the password is not sent; by SCRAM, too, whoever
has a delegation token is the user that it speaks for (delegation.py). Checking a password is
slow on purpose and happens on threads of its own. Once it was right, a keyed hash of it stays
in memory with the user, so that thousands who come back at once cost one such check each and
not more; the key is this process's.

Nobody learns from answers or their time which users there are: for one who is not there the
same work is done for another.
"""

from __future__ import annotations

import hmac
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from isthmus.broker.authentication import Found, Shown
from isthmus.broker.delegation import DELEGATION
from isthmus.broker.scram import HASHES, NONCE_BYTES, Exchange, prepared, read_first
from isthmus.broker.users import User, credentials_of
from isthmus.errors import BadCredentials, NotAuthorized, ServerBusy

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.authentication import Answer, Request, Verdict
    from isthmus.broker.credentials import Credential
    from isthmus.broker.delegation import DelegationToken, DelegationTokens
    from isthmus.broker.scram import First, ScramKeys
    from isthmus.broker.users import Users
    from isthmus.errors import IsthmusError
    from isthmus.runtime import Crew

logger = logging.getLogger(__name__)

USERS: Final = "users"
PROOF_KEY_BYTES: Final = 32


class UsersWay:
    """Users and their passwords."""

    name = USERS

    def __init__(self, users: Users, tokens: DelegationTokens, crew: Crew) -> None:
        self._users = users
        self._crew = crew
        self._proof_key = users.random_bytes(PROOF_KEY_BYTES)
        self.methods = {
            mechanism: partial(ScramConversation, users, tokens, crew, mechanism)
            for mechanism in HASHES
        }

    def judge(self, request: Request, answer: Callable[[Verdict], object]) -> None:
        """Say whether somebody knows the password of the user that it names."""
        if request.user_name is None:
            answer(None)
            return
        password = request.password or b""
        name = prepared(request.user_name)
        user = self._users.find(name)
        if user is not None and self._is_proven(user, password):
            answer(Found(user.name, user.groups))
            return
        whose = user or self._users.decoy(name)
        if whose is None:  # there are no users
            answer(None)
            return
        work = partial(whose.credentials[0].matches, password)
        done = partial(self._checked, user, request, answer)
        if not self._crew.offload(work, done):
            answer(ServerBusy("too many passwords are being checked; try again"))

    def _checked(
        self,
        user: User | None,
        request: Request,
        answer: Callable[[Verdict], object],
        is_right: bool | None,
        error: BaseException | None,
    ) -> None:
        if user is None:
            answer(None)
        elif error is not None:
            logger.error(
                "password not checked user=%s error=%s", user.name, type(error).__name__
            )
            answer(ServerBusy("the password cannot be checked just now"))
        elif not is_right or not user.is_enabled or self._users.find(user.name) is not user:
            answer(BadCredentials("the user name or the password is wrong"))
        else:
            password = request.password or b""
            user.proof = self._proof_of(password)
            if user.is_foreign and not self._users.is_listed(user.name):
                self._keep_as_ours(user, password)
            answer(Found(user.name, user.groups))

    def _is_proven(self, user: User, password: bytes) -> bool:
        return user.is_enabled and hmac.compare_digest(self._proof_of(password), user.proof)

    def _proof_of(self, password: bytes) -> bytes:
        return hmac.digest(self._proof_key, password, "sha256")

    def _keep_as_ours(self, user: User, password: bytes) -> None:
        """Keep a password that is known now so that SCRAM can be had with it, too."""
        users = self._users
        work = partial(credentials_of, password, users.iterations, users.random_bytes)
        self._crew.offload(work, partial(self._keep, user))

    def _keep(
        self,
        user: User,
        credentials: tuple[Credential, ...] | None,
        error: BaseException | None,
    ) -> None:
        if credentials is None or self._users.find(user.name) is not user:
            return  # another time, or it has another password by now
        ours = User(user.name, credentials, user.groups)
        ours.proof = user.proof
        self._users.put(ours, partial(_kept, user.name), same_password=True)


def _kept(name: str, error: IsthmusError | None) -> None:
    if error is not None:
        logger.warning("credentials not stored user=%s error=%s", name, error)


class ScramConversation:
    """One client that shows by SCRAM to be a user, or to have a token of one."""

    def __init__(
        self,
        users: Users,
        tokens: DelegationTokens,
        crew: Crew,
        mechanism: str,
        request: Request,
    ) -> None:
        self._users = users
        self._tokens = tokens
        self._crew = crew
        self._mechanism = mechanism
        self._user: User | None = None
        self._token: DelegationToken | None = None
        self._has_begun = False
        self._exchange = Exchange(self._keys_of, users.random_bytes(NONCE_BYTES))

    def step(self, data: bytes, answer: Callable[[Answer], object]) -> None:
        """Take a message of the client."""
        try:
            if not self._has_begun:
                self._has_begun = True
                token = self._new_token(read_first(data))
                if token is not None:
                    self._make_keys(token, data, answer)
                    return
            said = self._exchange.step(data)
        except NotAuthorized as error:
            answer(error)
            return
        answer(self._verdict(said) if self._exchange.is_done else said)

    def _verdict(self, said: bytes) -> Answer:
        """Return who has shown what it was asked for, if that still holds."""
        if self._token is not None:
            token = self._tokens.find(self._token.id)
            owner = self._users.find(self._token.owner)
            if token is None or (owner is not None and not owner.is_enabled):
                return NotAuthorized("the token has ended, or its owner was disabled")
            groups = owner.groups if owner is not None else frozenset()
            return Shown(Found(token.owner, groups, token.expires_ms, DELEGATION), said)
        if self._user is None or self._users.find(self._user.name) is not self._user:
            return NotAuthorized("the user was changed meanwhile")
        return Shown(Found(self._user.name, self._user.groups), said)

    def _new_token(self, first: First) -> DelegationToken | None:
        """Return the token that a client names, if nobody has logged in by it before."""
        token = self._tokens.find(first.user) if first.by_token else None
        if token is None or self._tokens.keys(self._mechanism, token) is not None:
            return None
        return token

    def _make_keys(
        self, token: DelegationToken, data: bytes, answer: Callable[[Answer], object]
    ) -> None:
        def made(keys: ScramKeys | None, error: BaseException | None) -> None:
            if keys is None:
                logger.error("token not checked token=%s error=%r", token.id, error)
                answer(ServerBusy("the token cannot be checked just now"))
                return
            self._tokens.note_keys(token, keys)
            self.step(data, answer)

        work = partial(self._tokens.make_keys, self._mechanism, token)
        if not self._crew.offload(work, made):
            answer(ServerBusy("too many passwords are being checked; try again"))

    def _keys_of(self, name: str, by_token: bool) -> tuple[ScramKeys, bool]:
        if by_token:
            token = self._token = self._tokens.find(name)
            known = self._tokens.keys(self._mechanism, token) if token is not None else None
            return known or self._tokens.decoy_keys(self._mechanism, name), known is not None
        user = self._users.find(name)
        keys = user.keys(self._mechanism) if user is not None else None
        if keys is None:
            return self._users.decoy_keys(self._mechanism, name), False
        self._user = user
        return keys, user is not None and user.is_enabled
