"""What the fuzzing begins with: bytes that the tests know, and what it has found since.

`corpus/TARGET/` holds the latter, one file each, named for what it once did.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from tests.fuzz.kafka_strangers import valid_requests, ways_in
from tests.unit.broker.test_users import PBKDF2, SHA512
from tests.unit.broker.test_users import SCRAM as SCRAM_TEXT
from tests.unit.server.test_proxy import HEADERS
from tests.wire.test_mqtt_cases import octets

HERE: Final = Path(__file__).parent
CASES: Final[list[dict[str, Any]]] = tomllib.loads(
    (HERE.parent / "wire/mqtt_cases.toml").read_text("utf-8")
)["case"]

USERS: Final = [
    b"",
    b"# nobody\n",
    *(f"ann:{text}\n".encode() for text in (SHA512, PBKDF2, SCRAM_TEXT)),
    f"ann:{SCRAM_TEXT} {PBKDF2}:b,a\nbob:!{SHA512}\n".encode(),
    f"a\u00adnn:{SHA512}\nann:{SHA512}\n".encode(),
    b"ann:$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaA\n",
    b"ann\n",
    b"ann:secret\n",
    b"ann:$7$1$$\n",
    b"ann:$7\n",
]
SCRAM: Final = [
    b"",
    b"n,,n=user,r=abc",
    b"y,,n=user,r=abc,x=1",
    b"n,a=user,n=user,r=abc",
    b"n,,n=us=2Cer,r=abc",
    b"n,,n=us=er,r=abc",
    b"p=tls-unique,,n=user,r=abc",
    b"n,,m=1,n=user,r=abc",
    *(
        b"n,,n=user,r=abc\nc=biws,r=abc" + b"A" * 24 + b",p=" + proof
        for proof in (b"", b"AA==", b"A" * 43 + b"=", b"!")
    ),
]


def frame(data: bytes) -> bytes:
    """Return a whole binary frame, masked with zeros."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x82" + length + bytes(4) + data


def seeds(target: str) -> list[bytes]:
    """Return all that a target is known to have met."""
    found = [file.read_bytes() for file in sorted((HERE / "corpus" / target).glob("*"))]
    if target == "users_file":
        return found + USERS
    if target == "scram":
        return found + SCRAM
    if target == "proxy":
        return found + [data for data, _ in HEADERS]
    if target == "kafka":
        found += [b"\2" + data for data in valid_requests()]
        return found + [b"\3" + data for data in ways_in()]
    for case in CASES:
        data = octets(case["bytes"])
        if target == "decoder":
            found.append(bytes([max(0, case["version"] - 2)]) + data)
        elif case["from"] == "client" and len(data) < 60_000:
            first = bytes([max(0, case["version"] - 3)])
            found.append(first + data if target == "session" else b"\0" + frame(data))
    return found
