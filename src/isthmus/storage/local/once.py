"""Work for another thread that runs once, or not at all: whoever comes first decides.

The loop hands such work to a thread and may later need it out of the way, at a close or after a
failure. It cannot take work back from a thread, but it can be there first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from threading import Lock
from typing import Any


class Once(ABC):
    """Runs once, whoever comes first: the other thread, or a close in a hurry."""

    __slots__ = ("_lock", "_over")

    def __init__(self) -> None:
        self._lock = Lock()
        self._over = False

    def run(self) -> Any:
        """Do it; None where it was done before or called off."""
        with self._lock:
            if self._over:
                return None
            self._over = True
            return self._do()

    def call_off(self) -> None:
        """Let it not begin any more; where it has begun, wait for its end."""
        with self._lock:
            self._over = True

    @abstractmethod
    def _do(self) -> Any:
        """Do the work."""
