"""What is counted of Kafka requests: how many of each kind, how long they took, what failed.

Once for each request, never for each record. The time of a request is from when it began, its
turn on its connection, to its answer: that of a Fetch has in it what it waited for records.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from isthmus.metrics import Histogram


class RequestCounts:
    """Totals since the start, by API key."""

    __slots__ = ("errors", "received_bytes", "seconds", "sent_bytes")

    def __init__(self) -> None:
        self.seconds: dict[int, Histogram] = {}
        self.errors: Counter[tuple[int, int]] = Counter()  # by API key and error code
        self.received_bytes = 0
        self.sent_bytes = 0

    def note(self, api_key: int, seconds: float) -> None:
        """Count a request that is answered."""
        taken = self.seconds.get(api_key)
        if taken is None:
            taken = self.seconds[api_key] = Histogram()
        taken.observe(seconds)

    def note_error(self, api_key: int, code: int) -> None:
        """Count an error that an answer says."""
        self.errors[api_key, code] += 1

    def note_errors(self, api_key: int, body: dict[str, Any]) -> None:
        """Count all that an answer says, of the request and of each of its parts."""
        code = body.get("error_code")
        if code:
            self.errors[api_key, int(code)] += 1
        for value in body.values():
            if type(value) is list and value and type(value[0]) is dict:
                for part in value:
                    self.note_errors(api_key, part)
