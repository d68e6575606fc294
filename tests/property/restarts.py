"""What becomes of a server under its clients, for machines with a `Shore` and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from tests.storage.batches import compact_in_memory

from isthmus.broker.session_log import SESSIONS_LOG_TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable


class Restarts(RuleBasedStateMachine):
    """Crashes, orderly ends and compactions of where sessions are."""

    shore: Any
    # The machine's own: goes on with what the first argument returns, after each device has
    # read so many of the packets that were on its way.
    restart: Callable[[Callable[[], Any], int], None]

    @rule(reading=st.sampled_from([0, 1, 9]))
    def crash(self, reading: int) -> None:
        """The clients may still read what was on its way to them."""
        self.restart(self.shore.crash, reading)

    @rule(reading=st.sampled_from([0, 9]))
    def end(self, reading: int) -> None:
        self.restart(self.shore.end, reading)

    def lose_links(self, devices: Any, again: Any, reading: int) -> list[Any]:
        """Do what any restart does; return the devices that were connected."""
        connected = [device for device in devices if device.link is not None]
        self.shore = again()
        for device in connected:
            packets = device.arrived()[:reading]
            device.link = None
            device.take(packets)  # its answers go nowhere
        return connected

    @rule(divisor=st.sampled_from([1, 2, 3]))
    def compact(self, divisor: int) -> None:
        """What was replaced goes, tombstones too, in the older part of where sessions are."""
        partition = self.shore.log.topics[SESSIONS_LOG_TOPIC].partitions[0]
        for _ in range(2):  # tombstones go the second time
            compact_in_memory(partition, partition.end_offset // divisor)
