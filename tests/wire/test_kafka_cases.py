"""Every wire case is answered the same in one piece and byte by byte."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.kafka_peer import ShoreRoom

CASES: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("kafka_cases.toml").read_text(encoding="utf-8")
)["case"]


def octets(text: str) -> bytes:
    """Return the bytes that a case writes as hexadecimal digits and quoted text."""
    return b"".join(
        token[1:-1].encode() if token[0] == "'" else bytes.fromhex(token)
        for token in re.findall(r"'[^']*'|\S+", text)
    )


@pytest.mark.parametrize("chunk", [1 << 20, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['clause']}: {case['name']}")
def test_wire_case(case: dict[str, Any], chunk: int, caplog: pytest.LogCaptureFixture) -> None:
    room = ShoreRoom()
    room.log.create("t", 1, {})
    peer = room.peer(local=("127.0.0.1", 9092))
    if "raw" in case:
        data = octets(case["raw"])
    else:
        request = octets(case["bytes"])
        data = len(request).to_bytes(4, "big") + request
    peer.feed(data, chunk=chunk)
    room.runtime.settle()
    if "error" in case:
        assert peer.transport.closed
        assert peer.transport.sent == b""
        assert f"reason={case['error']}: " in caplog.text
    else:
        assert not peer.transport.closed
        assert caplog.text == ""
        answer = octets(case["answer"])
        assert peer.transport.sent[4 : 4 + len(answer)].hex(" ") == answer.hex(" ")
        assert int.from_bytes(peer.transport.sent[:4], "big") == len(peer.transport.sent) - 4


def test_no_case_is_told_twice() -> None:
    names = [(case["clause"], case["name"]) for case in CASES]
    assert len(set(names)) == len(names)
