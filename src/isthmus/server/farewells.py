"""What a client is told before its connection ends: CONNACK or DISCONNECT, as it can take them.

A Reason String stands beside the reason where the client asked for none to be left out and has
room for it; where it has room for nothing, it is told nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from isthmus.errors import Redirected
from isthmus.mqtt.handshake import fits
from isthmus.mqtt.packets import CONNACK, DISCONNECT, VERSION_5, Connack, Disconnect
from isthmus.mqtt.properties import (
    MAXIMUM_PACKET_SIZE,
    REASON_STRING,
    REQUEST_PROBLEM_INFO,
    SERVER_REFERENCE,
)
from isthmus.mqtt.reasons import connack_code, reason_in, text_of

if TYPE_CHECKING:
    from isthmus.errors import IsthmusError
    from isthmus.mqtt.handshake import Terms
    from isthmus.mqtt.packets import Connect

Answer = TypeVar("Answer", Connack, Disconnect)


def refusal(error: IsthmusError, connect: Connect | None, version: int) -> Connack | None:
    """Return the CONNACK that refuses a CONNECT, if one can be sent.

    `version` is 0 where none is known yet; `connect` is None if it could not be read: then
    nobody knows what its client takes.
    """
    reason = reason_in(CONNACK, error)
    if not version or (version < 5 and connack_code(reason) is None):
        return None
    if version < 5 or connect is None:
        return Connack(False, reason, None)
    asked = connect.properties or {}
    return explained(
        Connack(False, reason, None),
        error,
        asked.get(MAXIMUM_PACKET_SIZE, 0),
        problem_info=asked.get(REQUEST_PROBLEM_INFO, 1) == 1,
    )


def farewell(error: IsthmusError, terms: Terms) -> Disconnect | None:
    """Return the DISCONNECT that says why, to a client of MQTT 5."""
    if terms.version < 5:
        return None
    return explained(
        Disconnect(reason_in(DISCONNECT, error), None),
        error,
        terms.packet_size_max,
        problem_info=terms.problem_info,
    )


def explained(
    packet: Answer, error: IsthmusError, packet_size_max: int, *, problem_info: bool
) -> Answer | None:
    """Return a CONNACK or DISCONNECT with as much beside its reason as its client takes.

    The Server Reference, where there is one, is worth more than the Reason String; None: not
    even the bare packet [MQTT-3.2.2-19, MQTT-3.14.2-3].
    """
    text = {REASON_STRING: text_of(error)} if problem_info else {}
    reference: dict[int, str] = {}
    if isinstance(error, Redirected) and error.reference:
        reference[SERVER_REFERENCE] = error.reference
    for properties in ({**reference, **text}, reference, None):
        packet.properties = properties
        if fits(packet, VERSION_5, packet_size_max):
            return packet
    return None
