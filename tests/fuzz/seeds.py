"""What the fuzzing begins with: bytes that the tests know, and what it has found since.

`corpus/TARGET/` holds the latter, one file each, named for what it once did.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from tests.unit.server.test_proxy import HEADERS
from tests.wire.test_mqtt_cases import octets

HERE: Final = Path(__file__).parent
CASES: Final[list[dict[str, Any]]] = tomllib.loads(
    (HERE.parent / "wire/mqtt_cases.toml").read_text("utf-8")
)["case"]


def frame(data: bytes) -> bytes:
    """Return a whole binary frame, masked with zeros."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x82" + length + bytes(4) + data


def seeds(target: str) -> list[bytes]:
    """Return all that a target is known to have met."""
    found = [file.read_bytes() for file in sorted((HERE / "corpus" / target).glob("*"))]
    if target == "proxy":
        return found + [data for data, _ in HEADERS]
    for case in CASES:
        data = octets(case["bytes"])
        if target == "decoder":
            found.append(bytes([max(0, case["version"] - 2)]) + data)
        elif case["from"] == "client" and len(data) < 60_000:
            first = bytes([max(0, case["version"] - 3)])
            found.append(first + data if target == "session" else b"\0" + frame(data))
    return found
