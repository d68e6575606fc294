"""A program that runs beside the server: started, watched, ended and killed from the outside.

What it says, on either output, goes into one file, over all of its starts. Not here: what it
is told, and what it has to do.
"""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

from tests.e2e.patience import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Program:
    """One command line, and the process that follows it, if one runs."""

    def __init__(self, log_path: Path, command: Sequence[str]) -> None:
        self.log_path = log_path
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program; it is not waited for."""
        assert self._process is None, "the program is already running"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def is_running(self) -> bool:
        """Whether the program was started and has not ended by itself."""
        return self._process is not None and self._process.poll() is None

    def lines(self) -> list[str]:
        """Return what the program has said so far."""
        if not self.log_path.exists():
            return []
        return self.log_path.read_text(errors="replace").splitlines()

    def wait_for(self, words: str, times: int = 1) -> None:
        """Wait until the program has said something, so often; fail if it ends meanwhile."""

        def is_said() -> bool:
            assert self.is_running(), self._ending()
            return sum(words in line for line in self.lines()) >= times

        wait_until(is_said, f"that {self.log_path.stem} says {words!r}")

    def _ending(self) -> str:
        return "\n".join([f"{self.log_path.stem} ended by itself:", *self.lines()[-40:]])

    def terminate(self) -> None:
        """Ask for an orderly end, and wait for it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the program with SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the program if it runs, whatever the way; for the end of a test."""
        if self._process is not None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None, "the program is not running"
        self._process.send_signal(number)
        self._process.wait(TIMEOUT_S)
        self._process = None
