"""The PROXY header: who is named, in whatever pieces it comes, and what is no header."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import Malformed, NotAuthorized
from isthmus.server.proxy import SIGNATURE_2, bytes_missing, origin_in, user_in
from isthmus.wire.crc32c import crc32c

TCP4 = bytes([192, 0, 2, 7, 10, 0, 0, 1]) + (51000).to_bytes(2) + (1883).to_bytes(2)
TCP6 = ipaddress.ip_address("2001:db8::7").packed * 2 + (51000).to_bytes(2) + bytes(2)


def header(family: int, rest: bytes, command: int = 1, version: int = 2) -> bytes:
    return SIGNATURE_2 + bytes([version << 4 | command, family]) + len(rest).to_bytes(2) + rest


def addition(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2) + value


def with_checksum(family: int, rest: bytes) -> bytes:
    empty = header(family, rest + addition(3, bytes(4)))
    return empty[:-4] + crc32c(empty).to_bytes(4)


HEADERS: list[tuple[bytes, Any]] = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 51000 1883\r\n", ("192.0.2.7", 51000)),
    (b"PROXY TCP6 2001:db8::7 ::1 51000 0\r\n", ("2001:db8::7", 51000)),
    (b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n", ...),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN " + b"ffff:" * 16 + b" 65535\r\n", None),
    (header(0x11, TCP4), ("192.0.2.7", 51000)),
    (header(0x21, TCP6), ("2001:db8::7", 51000)),
    (header(0x11, TCP4 + addition(5, b"id") + addition(4, b"")), ("192.0.2.7", 51000)),
    (with_checksum(0x11, TCP4), ("192.0.2.7", 51000)),
    (with_checksum(0x21, TCP6 + addition(1, b"mqtt")), ("2001:db8::7", 51000)),
    (
        header(0x11, TCP4 + addition(0x20, b"\x03" + bytes(4) + addition(0x22, b"x"))),
        ("192.0.2.7", 51000),
    ),
    (header(0x12, TCP4), None),
    (header(0x31, bytes(216)), None),
    (header(0x00, b""), None),
    (header(0x00, b"", command=0), None),
    (header(0x11, TCP4, command=0), None),
    (header(0x21, b"", command=0), None),
]
whole = st.sampled_from([data for data, _ in HEADERS])


@pytest.mark.parametrize(("data", "origin"), HEADERS)
def test_a_header_names_the_client(data: bytes, origin: Any) -> None:
    assert bytes_missing(data) == 0
    found = origin_in(data)
    assert found == (("ffff:" * 7 + "ffff", 65535) if origin is ... else origin)


@given(whole, st.data())
def test_in_whatever_pieces_it_comes_not_one_byte_more_is_asked_for(
    data: bytes, draw: st.DataObject
) -> None:
    came, behind = b"", data + b"\x10\x0c"  # the CONNECT stands right behind it
    while missing := bytes_missing(came):
        assert len(came) + missing <= len(data)
        count = draw.draw(st.integers(1, missing))
        came += behind[len(came) : len(came) + count]
    assert came == data


def tls(client: int, verify: int, *inside: bytes) -> bytes:
    """Return what a proxy says of the TLS that it has ended."""
    return addition(0x20, bytes([client]) + verify.to_bytes(4) + b"".join(inside))


NAMED = addition(0x21, b"TLSv1.3") + addition(0x22, "press-7 é".encode())


@pytest.mark.parametrize(
    ("data", "user"),
    [
        (header(0x11, TCP4 + tls(0x07, 0, NAMED)), "press-7 é"),
        (header(0x21, TCP6 + addition(5, b"id") + tls(0x05, 0, NAMED)), "press-7 é"),
        (header(0x31, bytes(216) + tls(0x03, 0, NAMED)), "press-7 é"),
        (header(0x11, TCP4 + tls(0x01, 0, NAMED)), ""),  # no certificate was shown
        (header(0x11, TCP4 + tls(0x00, 1)), ""),
        (header(0x11, TCP4), ""),
        (header(0x11, TCP4 + tls(0x07, 0, NAMED), command=0), ""),  # the proxy itself
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 51000 1883\r\n", ""),
    ],
)
def test_a_proxy_says_whom_a_certificate_names(data: bytes, user: str) -> None:
    origin_in(data)
    assert user_in(data) == user


@pytest.mark.parametrize(
    "about",
    [
        tls(0x07, 19, NAMED),  # self-signed
        tls(0x03, 0),
        tls(0x03, 0, addition(0x22, b"")),
        tls(0x03, 0, addition(0x22, b"\xff")),
    ],
)
def test_a_certificate_that_names_nobody_makes_nobody_anonymous(about: bytes) -> None:
    data = header(0x11, TCP4 + about)
    origin_in(data)
    with pytest.raises(NotAuthorized):
        user_in(data)


LIES = [
    b"GET / HTTP/1.1\r\n",
    b"\x10\x0c\x00\x04MQTT",
    b"PROXY\r\n",
    b"proxy TCP4 192.0.2.7 10.0.0.1 51000 1883\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 51000\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 51000 1883 1\r\n",
    b"PROXY TCP4 192.0.2.7  10.0.0.1 51000 1883\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 51000 1883\r\n",
    b"PROXY TCP6 192.0.2.7 10.0.0.1 51000 1883\r\n",
    b"PROXY TCP4 192.0.2.07 10.0.0.1 51000 1883\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.256 51000 1883\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 1883\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 +5 1883\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 51000 01883\r\n",
    b"PROXY TCP5 192.0.2.7 10.0.0.1 51000 1883\r\n",
    b"PROXY TCP4 192.0.2.\xb2 10.0.0.1 51000 1883\r\n",
    b"PROXY UNKNOWN" + b"x" * 100 + b"\r\n",
    header(0x11, TCP4, version=1),
    header(0x11, TCP4, command=2),
    header(0x13, TCP4),
    header(0x41, TCP4),
    header(0x11, TCP4[:-1]),
    header(0x21, TCP6[:-1]),
    header(0x11, TCP4 + b"\x04\x00"),
    header(0x11, TCP4 + b"\x04\x00\x02x"),
    header(0x11, TCP4 + addition(4, bytes(4097))),
    with_checksum(0x11, TCP4)[:-1] + b"\x00",
    header(0x11, TCP4 + addition(0x20, b"\x07\0\0\0")),
    header(0x11, TCP4 + tls(0x07, 0, b"\x22\0\x02x")),
    header(0x11, TCP4 + tls(0x07, 0, b"\x22\0") + addition(4, b"")),
    header(0x11, TCP4 + addition(3, b"123")),
]


@pytest.mark.parametrize("data", LIES)
def test_a_header_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        for count in range(len(data) + 1):
            bytes_missing(data[:count])
        origin_in(data)


@given(whole, st.data())
def test_a_header_with_one_bit_turned_is_read_or_refused(
    data: bytes, draw: st.DataObject
) -> None:
    changed = bytearray(data)
    changed[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        if bytes_missing(bytes(changed)) == 0:
            origin_in(bytes(changed))
            user_in(bytes(changed))
    except (Malformed, NotAuthorized):
        pass
