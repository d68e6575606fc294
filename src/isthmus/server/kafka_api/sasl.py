"""SaslHandshake and SaslAuthenticate: the wire form of logging in.

What there is to decide is in server/kafka_login.py. Who is not let in hears of it a little
later, so that guessing takes time, and loses its connection; whoever asks where nothing of SASL
has a place is told that, and stays what it is.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from isthmus.errors import ServerBusy
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call
    from isthmus.server.kafka_login import Said

logger = logging.getLogger(__name__)

OUT_OF_PLACE: Final = "SASL has no place here now"


def sasl_handshake(call: Call) -> None:
    """Begin the mechanism that a client names, if it is offered [KIP-43]."""
    login = call.connection.login
    if login is None:
        call.answer({"error_code": ErrorCode.ILLEGAL_SASL_STATE})
        return
    mechanism = call.request["mechanism"]
    code = login.handshake(mechanism, call.version)
    call.answer({"error_code": code, "mechanisms": [*login.mechanisms]})
    if code is ErrorCode.UNSUPPORTED_SASL_MECHANISM:
        call.connection.drop(f"the SASL mechanism {mechanism[:64]!r} is not offered")


def sasl_authenticate(call: Call) -> None:
    """Take a message of the mechanism [KIP-152]."""
    login = call.connection.login
    if login is None or not login.is_talking:
        call.answer({"error_code": ErrorCode.ILLEGAL_SASL_STATE, "error_message": OUT_OF_PLACE})
        return
    data = bytes(call.request["auth_bytes"])
    login.step(data, call.client_id or "", partial(_said, call))


def sasl_token(call: Call, data: bytes) -> None:
    """Take a message of the mechanism that comes bare; it is answered likewise."""
    login = call.connection.login
    assert login is not None, "only a login makes messages bare"
    login.step(data, "", partial(_said, call, is_raw=True))


def _said(call: Call, said: Said, *, is_raw: bool = False) -> None:
    connection = call.connection
    if said.error is not None:
        if isinstance(said.error, ServerBusy):
            connection.drop(str(said.error))  # it comes again; told more, it would not
            return
        assert connection.login is not None
        delay_ms = connection.login.failure_delay_ms
        call.shore.runtime.later(delay_ms, partial(_refuse, call, said.error, is_raw=is_raw))
        return
    if said.is_over:
        connection.logged_in()
    if is_raw:
        call.answer_parts([len(said.data).to_bytes(4, "big") + said.data])
    else:
        told = {"auth_bytes": said.data, "session_lifetime_ms": said.lifetime_ms}
        call.answer({"error_message": None, **told})


def _refuse(call: Call, why: Exception, *, is_raw: bool) -> None:
    """Tell a client that it is not let in, and end its connection."""
    connection, login = call.connection, call.connection.login
    if call.is_abandoned or login is None:
        return
    if not is_raw:
        call.answer(
            {
                "error_code": ErrorCode.SASL_AUTHENTICATION_FAILED,
                "error_message": "Authentication failed: invalid credentials with SASL"
                f" mechanism {login.asked}",
            }
        )
    identity = connection.identity
    call.shore.lines.warning(
        logger,
        (identity.address, "authentication"),
        "authentication failed peer=%s listener=%s mechanism=%s reason=%s",
        identity,
        identity.listener,
        login.asked,
        why,
    )
    connection.drop()
