"""Every wire case is decoded, in one piece and byte by byte, and every packet encoded again."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from isthmus import errors
from isthmus.mqtt import packets, properties
from isthmus.mqtt.codec import Decoder, encode
from isthmus.wire.buffer import WriteBuffer

CASES: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("mqtt_cases.toml").read_text(encoding="utf-8")
)["case"]
NAMES = vars(packets) | vars(properties)  # what the packets of the cases are written with
PACKET_SIZE_MAX = 65_536

OPENING = {
    3: "10 0e 0006 'MQIsdp' 03 02 0000 0000",
    4: "10 0c 0004 'MQTT' 04 02 0000 0000",
    5: "10 0d 0004 'MQTT' 05 02 0000 00 0000",
}


def octets(text: str) -> bytes:
    """Return the bytes that a case writes as hexadecimal digits and quoted text."""
    return b"".join(
        token[1:-1].encode() if token[0] == "'" else bytes.fromhex(token)
        for token in re.findall(r"'[^']*'|\S+", text)
    )


def decoder_for(case: dict[str, Any]) -> Decoder:
    if case["from"] == "server":
        return Decoder(PACKET_SIZE_MAX, case["version"])
    decoder = Decoder(PACKET_SIZE_MAX)
    if case["version"]:
        assert len(decoder.feed(octets(OPENING[case["version"]]))) == 1
        assert decoder.go_on() == []
    return decoder


def check(case: dict[str, Any], decoder: Decoder, found: list[Any]) -> None:
    if "error" in case:
        assert found == []
        assert type(decoder.error) is getattr(errors, case["error"]), decoder.error
        assert str(decoder.error)
        assert decoder.feed(octets("c0 00")) == [], "nothing is read after an error"
    else:
        assert decoder.error is None
        assert found == [eval(case["packet"], dict(NAMES))]


def cases(keyword: str = "clause", version_min: int = 0) -> list[Any]:
    return [
        pytest.param(case, id=f"{case['clause']}: {case['name']}")
        for case in CASES
        if keyword in case and case["version"] >= version_min
    ]


@pytest.mark.parametrize("case", cases())
def test_decode_in_one_piece(case: dict[str, Any]) -> None:
    decoder = decoder_for(case)
    check(case, decoder, decoder.feed(octets(case["bytes"])))


@pytest.mark.parametrize("case", cases())
def test_decode_byte_by_byte(case: dict[str, Any]) -> None:
    decoder = decoder_for(case)
    found = [
        packet
        for byte in octets(case["bytes"])
        for packet in decoder.feed(memoryview(bytes([byte])))
    ]
    check(case, decoder, found)


@pytest.mark.parametrize("case", cases("packet"))
def test_encode(case: dict[str, Any]) -> None:
    packet = eval(case["packet"], dict(NAMES))
    out = WriteBuffer()
    encode(packet, case["version"] or packet.protocol_version, out)
    assert out.take() == octets(case.get("encodes", case["bytes"]))


@pytest.mark.parametrize("case", cases("error", version_min=3))
def test_what_came_before_an_error_is_not_lost(case: dict[str, Any]) -> None:
    decoder = decoder_for(case)
    before = "40 02 0001" + " 40 02 0002" * 3
    found = decoder.feed(octets(before) + octets(case["bytes"]))
    assert [packet.packet_id for packet in found] == [1, 2, 2, 2]
    assert type(decoder.error) is getattr(errors, case["error"])


def test_the_cases_cover_every_packet_version_and_property() -> None:
    seen = " ".join(case.get("packet", "") for case in CASES)
    named = {name for name in vars(properties) if name.isupper() and f"{name}:" in seen}
    assert {vars(properties)[name] for name in named} >= set(properties.RULES)
    assert all(f"{name.capitalize()}(" in seen for name in (*packets.NAMES[8:], "Publish"))
    assert {case["version"] for case in CASES} == {0, 3, 4, 5}
    assert all(case["clause"].startswith("MQTT") for case in CASES)
    texts = [(case["bytes"], case["version"], case["from"]) for case in CASES]
    assert len(set(texts)) == len(texts), "a case is written twice"
