"""Each wire case that a client sends, over TCP: what it is told, and whether it is closed.

The table is `tests/wire/mqtt_cases.toml`, of which the decoder's tests know the rest. All cases
share one server, and a client that watches it: nobody else notices any of them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conformance.raw_client import Answer, RawClient
from tests.e2e.raw_mqtt import CONNACK, DISCONNECT, PINGREQ, PINGRESP, packet
from tests.wire.test_mqtt_cases import octets

if TYPE_CHECKING:
    from collections.abc import Callable

    Dial = Callable[..., RawClient]

CASES: list[dict[str, Any]] = [
    case
    for case in tomllib.loads(
        (Path(__file__).parent.parent / "wire/mqtt_cases.toml").read_text("utf-8")
    )["case"]
    if case["from"] == "client"
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['clause']}: {case['name']}")
def test_a_case_is_answered_as_it_says(
    case: dict[str, Any], dial: Dial, bystander: RawClient, unique: str
) -> None:
    version = case["version"]
    client = dial(version or 5)
    if version:
        client.open(unique)
    client.send(octets(case["bytes"]), packet(PINGREQ))
    told, closed = None, False
    while True:
        one = client.receive()
        closed = one is None
        if closed or (isinstance(one, Answer) and one.kind == PINGRESP):
            break
        if isinstance(one, Answer) and one.kind in (CONNACK, DISCONNECT) and one.reason:
            told = one.reason
    wanted = (case.get("reason"), "error" in case or "reason" in case or "closes" in case)
    assert (told, closed) == wanted
    bystander.settled()
