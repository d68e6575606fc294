"""What publishes numbers in the background while a test kills the server: the shared half.

A publisher works on a thread of its own from the moment it is made until it is told to stop,
and then has to get everything acknowledged that it sent. Not here: what it sends, and how.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Final

from tests.e2e.patience import TIMEOUT_S

QUICK: Final = {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 50}
"""Settings of a librdkafka client that is back soon after the server is."""


class Publisher(ABC):
    """A thread that does `_publish`; a subclass begins it with what it needs already set."""

    def __init__(self) -> None:
        self.count = 0
        """How many numbers the server has taken over."""
        self.failures: list[object] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def has_more_than(self, before: int) -> bool:
        return self.count > before

    def stop(self) -> None:
        """End after everything on its way is acknowledged."""
        self._stopping.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        assert not self.failures, self.failures[:3]

    def _run(self) -> None:
        try:
            self._publish()
        except Exception as error:
            self.failures.append(error)

    @abstractmethod
    def _publish(self) -> None:
        """Publish until `_stopping` is set and all is acknowledged; failures are noted."""
