"""What all clients of a load have done together. Compiled with the types in `totals.pxd`."""

from __future__ import annotations


class Totals:
    """Counts of messages, from the first one on.

    `expected` is deliveries: one for each subscriber, or group of them, that is to have a
    message. `delivered` counts each of those once; what comes again is `doubled`. `strange` is
    packets that belong to nothing that was asked, `foreign` messages that others published.
    """

    __slots__ = (
        "acknowledged",
        "corrupted",
        "delivered",
        "doubled",
        "expected",
        "foreign",
        "published",
        "refused",
        "strange",
    )

    def __init__(self) -> None:
        self.published = 0
        self.acknowledged = 0
        self.refused = 0
        self.expected = 0
        self.delivered = 0
        self.doubled = 0
        self.corrupted = 0
        self.foreign = 0
        self.strange = 0
