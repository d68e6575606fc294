"""The PROXY protocol, versions 1 and 2: a proxy says for whom it connects.

Read here, as bytes; `server/reception.py` takes them off the front of a connection, not one
more than belong to the header. A listener that expects the header takes no connection without
it: to guess would let any client lie about its address.

Source: "The PROXY protocol", HAProxy Technologies, 2020/03/05, whose sections are cited.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from isthmus.errors import Malformed, NotAuthorized
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator

Origin = tuple[str, int]  # IP address and port of the client behind the proxy
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SIGNATURE_1: Final = b"PROXY "
SIGNATURE_2: Final = b"\r\n\r\n\0\r\nQUIT\n"
LINE_BYTES_MIN: Final = len(b"PROXY UNKNOWN\r\n")
LINE_BYTES_MAX: Final = 107  # [2.1]
FIXED_BYTES: Final = 16  # of version 2
REST_BYTES_MAX: Final = 4096  # addresses of version 2, and what else a proxy adds
ADDRESS_BYTES: Final = {  # by family and transport [2.2]
    0x00: 0,  # unspecified
    0x11: 12,  # TCP over IPv4
    0x12: 12,  # UDP over IPv4
    0x21: 36,
    0x22: 36,
    0x31: 216,  # Unix
    0x32: 216,
}
LOCAL: Final = 0
PROXY: Final = 1
CRC32C: Final = 0x03  # [2.2.2]
SSL: Final = 0x20  # [2.2.6]
SSL_NAME: Final = 0x22  # in it: the common name of the client's certificate
SSL_FIXED_BYTES: Final = 5  # before the additions inside
SSL_SHOWN: Final = 0x02 | 0x04  # the client has shown a certificate, in this session at least


def bytes_missing(data: bytes) -> int:
    """Return how many more bytes surely belong to the header; 0: it is complete.

    Raises Malformed as soon as it can be none.
    """
    if SIGNATURE_2.startswith(data[: len(SIGNATURE_2)]) and data:
        if len(data) < FIXED_BYTES:
            return FIXED_BYTES - len(data)
        rest = int.from_bytes(data[14:16], "big")
        if data[12] >> 4 != 2 or rest > REST_BYTES_MAX:
            raise Malformed("a PROXY header of another version, or too long")
        return FIXED_BYTES + rest - len(data)
    if not SIGNATURE_1.startswith(data[: len(SIGNATURE_1)]):
        raise Malformed("the connection does not begin with a PROXY header")
    if data.endswith(b"\r\n"):
        return 0
    missing = max(LINE_BYTES_MIN - len(data), 1 if data.endswith(b"\r") else 2)
    if len(data) + missing > LINE_BYTES_MAX:
        raise Malformed("the line of the PROXY header is too long")
    return missing


def origin_in(header: bytes) -> Origin | None:
    """Return the client that a complete header names; None: the proxy speaks for itself.

    Raises Malformed.
    """
    return origin_in_fields(header) if header[0] == SIGNATURE_2[0] else origin_in_line(header)


def origin_in_line(line: bytes) -> Origin | None:
    """Read version 1 [2.1]: `PROXY TCP4 SOURCE DESTINATION PORT PORT`."""
    try:
        fields = line.decode("ascii")[: -len("\r\n")].split(" ")
        if fields[1] == "UNKNOWN":
            return None
        kind = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}[fields[1]]
        _, _, source, destination, *ports = fields
        kind(destination)
        source_port, _ = map(port_of, ports)
        return str(kind(source)), source_port
    except (ValueError, KeyError):  # no ASCII, no address, not as many fields
        raise Malformed("the line of the PROXY header is not as it should be") from None


def port_of(text: str) -> int:
    """Read a port; ValueError if it is none."""
    number = int(text)
    if str(number) != text or not 0 <= number <= 65_535:
        raise ValueError(text)
    return number


def origin_in_fields(header: bytes) -> Origin | None:
    """Read version 2 [2.2]."""
    command, family = header[12] & 15, header[13]
    size = ADDRESS_BYTES.get(family)
    fields = header[FIXED_BYTES:]
    if command not in {LOCAL, PROXY} or size is None:
        raise Malformed("a PROXY header with an unknown command or family")
    if command == LOCAL:  # addresses are to be ignored, and may be missing
        return None
    if len(fields) < size:
        raise Malformed("a PROXY header without the addresses it announces")
    check_additions(header, FIXED_BYTES + size)
    if family == 0x11:
        source, port = str(ipaddress.IPv4Address(fields[:4])), fields[8:10]
    elif family == 0x21:
        source, port = str(ipaddress.IPv6Address(fields[:16])), fields[32:34]
    else:
        return None
    return source, int.from_bytes(port, "big")


def user_in(header: bytes) -> str:
    """Return whom the client's certificate names, as the proxy has verified it [2.2.6].

    Empty: it has shown none. Raises NotAuthorized for one that is not verified or names nobody:
    its owner must not become anonymous. Only for a complete header that was read before.
    """
    size = ADDRESS_BYTES.get(header[13]) if header[0] == SIGNATURE_2[0] else None
    if size is None or header[12] & 15 == LOCAL:
        return ""
    for kind, begin, end in additions_in(header, FIXED_BYTES + size):
        if kind != SSL or not header[begin] & SSL_SHOWN:
            continue
        name = b""
        for inner, first, last in additions_in(header[:end], begin + SSL_FIXED_BYTES):
            if inner == SSL_NAME:
                name = header[first:last]
        is_verified = not any(header[begin + 1 : begin + SSL_FIXED_BYTES])
        try:
            user = name.decode()
        except UnicodeDecodeError:
            user = ""
        if not user or not is_verified:
            raise NotAuthorized("its certificate names no user, or the proxy does not trust it")
        return user
    return ""


def check_additions(header: bytes, start: int) -> None:
    """Check the form of what follows the addresses, and the checksum if there is one."""
    for kind, begin, end in additions_in(header, start):
        if kind == CRC32C:
            zeroed = header[:begin] + bytes(end - begin) + header[end:]
            if header[begin:end] != crc32c(zeroed).to_bytes(4, "big"):
                raise Malformed("a PROXY header whose checksum is wrong")
        elif kind == SSL:
            if end - begin < SSL_FIXED_BYTES:
                raise Malformed("a PROXY header that says too little of TLS")
            for _ in additions_in(header[:end], begin + SSL_FIXED_BYTES):
                pass


def additions_in(header: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """List what a proxy adds [2.2.2]: its kind, where it begins and ends. Raises Malformed."""
    while start < len(header):
        begin = start + 3
        end = begin + int.from_bytes(header[start + 1 : begin], "big")
        if end > len(header) or begin > len(header):
            raise Malformed("a PROXY header with an addition longer than the header")
        yield header[start], begin, end
        start = end
