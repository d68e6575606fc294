"""How fast something may come: plain numbers, brought up to date when they are asked.

A `Bucket` holds what may come at once, a second's worth at most, and fills at its rate. Who
counts before (`take_one`) is told no; who has it already (`take`) may overdraw it, and is told
how long to wait until that is made good. So no timer runs, and nothing that came is lost.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Final

LOCAL: Final = "unix"  # the address of who comes through a file


class Bucket:
    """What may come just now, in thousandths; the rate, a second, is said each time.

    It begins full. `now_ms` is of a clock that never goes back.
    """

    __slots__ = ("_filled_ms", "_left")

    def __init__(self, rate: int, now_ms: int) -> None:
        self._left = rate * 1000
        self._filled_ms = now_ms

    def take(self, count: int, rate: int, now_ms: int) -> int:
        """Take what has come; return the milliseconds to wait before more may come."""
        self._fill(rate, now_ms)
        self._left -= count * 1000
        return max(0, -(self._left // rate))

    def take_one(self, rate: int, now_ms: int) -> bool:
        """Take one if it is there."""
        self._fill(rate, now_ms)
        if self._left < 1000:
            return False
        self._left -= 1000
        return True

    def is_full(self, rate: int, now_ms: int) -> bool:
        """Whether nothing was taken lately, so that a new one would be the same."""
        self._fill(rate, now_ms)
        return self._left == rate * 1000

    def _fill(self, rate: int, now_ms: int) -> None:
        self._left = min(self._left + (now_ms - self._filled_ms) * rate, rate * 1000)
        self._filled_ms = now_ms


class Meter:
    """Messages and bytes, each with its rate; a rate of 0 is no limit."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self, messages_rate: int, bytes_rate: int, now_ms: int) -> None:
        self._messages = Bucket(messages_rate, now_ms)
        self._bytes = Bucket(bytes_rate, now_ms)

    def take(
        self, messages: int, size: int, messages_rate: int, bytes_rate: int, now_ms: int
    ) -> int:
        """Take what has come; return the milliseconds to wait before more may come."""
        wait_ms = 0
        if messages_rate:
            wait_ms = self._messages.take(messages, messages_rate, now_ms)
        if bytes_rate:
            wait_ms = max(wait_ms, self._bytes.take(size, bytes_rate, now_ms))
        return wait_ms


def network_of(address: str) -> str:
    """Return what counts as one address.

    Of IPv6 that is the /64 network: so much a single machine is given.
    """
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))
