"""Until when certificates and lists of revoked ones are good, as their files say.

OpenSSL refuses what is over, and every client of a CA whose list is over; it does not say so
before, nor can Python ask it. Only the dates are read here, of files that OpenSSL has taken
[RFC 5280, 4.1 and 5.1].
"""

from __future__ import annotations

import base64
import logging
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from isthmus.server.tls import Certificates

BLOCK: Final = re.compile(
    "-----BEGIN (CERTIFICATE|X509 CRL)-----([A-Za-z0-9+/=\\s]+)-----END \\1-----"
)
SEQUENCE: Final = 0x30
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
TIME_FORM: Final = "%Y%m%d%H%M%SZ"
SOON_S_MAX: Final = 14 * 86_400


logger = logging.getLogger(__name__)


class Lifetime(NamedTuple):
    """From when and until when something is good, in seconds since the epoch."""

    begin_s: int
    end_s: int

    @property
    def soon_s(self) -> int:
        """When it is about to end: a fifth of its time before that, two weeks at most."""
        return self.end_s - min((self.end_s - self.begin_s) // 5, SOON_S_MAX)


class Ends:
    """Says once of each file what is about to be over, and once that it is."""

    def __init__(self, certificates: Sequence[Certificates], now_ms: Callable[[], int]) -> None:
        """Look at those of all listeners, by the wall clock."""
        self._certificates = certificates
        self._now_ms = now_ms
        self._said: set[tuple[str, str, int, bool]] = set()
        self._look()

    async def renew(self, *, forced: bool) -> None:
        """Look again."""
        self._look()

    def _look(self) -> None:
        now_s = self._now_ms() // 1000
        for each in self._certificates:
            for setting, life in each.ends.items():
                is_over = now_s >= life.end_s
                said = (each.listener, setting, life.end_s, is_over)
                if now_s < life.soon_s or said in self._said:
                    continue
                self._said.add(said)
                logger.warning(
                    "%s of a listener %s listener=%s until=%s",
                    setting,
                    "is over" if is_over else "will soon be over",
                    each.listener,
                    datetime.fromtimestamp(life.end_s, UTC).isoformat(),
                )


def lifetimes_in(text: str) -> list[Lifetime]:
    """Return those of all certificates and lists in a PEM file; what has no end is left out."""
    found = []
    for kind, block in BLOCK.findall(text):
        times = times_in(kind, base64.b64decode(block))
        if len(times) == 2:
            found.append(Lifetime(*times))
    return found


def times_in(kind: str, data: bytes) -> list[int]:
    """Return the dates of one certificate or list: begin and end, or fewer."""
    signed = next(content for _, content in elements(next(elements(data))[1]))
    parts = list(elements(signed))
    if kind == "CERTIFICATE":  # algorithm, issuer, and then validity
        sequences = [content for tag, content in parts if tag == SEQUENCE]
        parts = list(elements(sequences[2]))
    return [
        time_in(tag, content) for tag, content in parts if tag in (UTC_TIME, GENERALIZED_TIME)
    ][:2]


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """List what stands one after the other in DER: tag and content [X.690, 8.1]."""
    position = 0
    while position < len(data):
        tag, size = data[position], data[position + 1]
        position += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[position : position + count], "big")
            position += count
        yield tag, data[position : position + size]
        position += size


def time_in(tag: int, content: bytes) -> int:
    """Read a date, in seconds since the epoch. Years of two digits are 1950 to 2049."""
    text = content.decode("ascii")
    if tag == UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    time = datetime.strptime(text, TIME_FORM).replace(tzinfo=UTC)
    return int(time.timestamp())
