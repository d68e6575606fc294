"""Transactions against a plain model: two producers with one id, timeouts, restarts.

The model knows who took over last, and a list of what is open; whoever is not the one may do
nothing, and what readers of committed records see is what was committed, in that order.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.server.transaction_room import Client, TransactionRoom

from isthmus.kafka.errors import ErrorCode

OK = ErrorCode.NONE
TIMEOUT_MS = 10_000
CLIENTS = st.sampled_from([0, 1])
MOSTLY = st.sampled_from([True, True, True, True, False])
PARTITIONS = st.sampled_from([0, 1])
LOST = {
    ErrorCode.PRODUCER_FENCED,
    ErrorCode.INVALID_PRODUCER_EPOCH,
    ErrorCode.INVALID_PRODUCER_ID_MAPPING,
    ErrorCode.INVALID_TXN_STATE,
}


class Transactions(RuleBasedStateMachine):
    """One transactional id, two who use it."""

    @initialize(kinds=st.lists(st.booleans(), min_size=2, max_size=2))
    def begin(self, kinds: list[bool]) -> None:
        self.room = TransactionRoom()
        self.clients = [Client(self.room, bumps=bumps) for bumps in kinds]
        self.owner: Client | None = None
        self.is_open = False
        self.open: tuple[list[bytes], list[bytes]] = ([], [])
        self.open_offset: int | None = None
        self.committed: tuple[list[bytes], list[bytes]] = ([], [])
        self.offset = -1
        self.number = 0
        self.open_ms = 0

    @rule(which=CLIENTS)
    def take_over(self, which: int) -> None:
        self.owner = self.clients[which]
        assert self.owner.init(timeout_ms=TIMEOUT_MS) is OK
        self._drop()

    def _client(self, *, owns: bool) -> Client:
        """Return the one that took over last, or the other one."""
        if self.owner is None and owns:
            self.take_over(0)
        return self.clients[(self.clients[0] is self.owner) != owns]

    @rule(owns=MOSTLY, index=PARTITIONS)
    def send(self, index: int, *, owns: bool) -> None:
        self.number += 1
        value = b"%d" % self.number
        client = self._client(owns=owns)
        if self._counts(client, client.send(value, index)):
            self.open[index].append(value)

    @rule(owns=MOSTLY)
    def commit_offset(self, *, owns: bool) -> None:
        self.number += 1
        client = self._client(owns=owns)
        if self._counts(client, client.commit_offset(self.number)):
            self.open_offset = self.number

    def _counts(self, client: Client, code: ErrorCode | None) -> bool:
        """Whether a write counts; it does for the owner only."""
        if client is not self.owner:
            assert code in LOST
            return False
        assert code is OK
        self.is_open = True
        return True

    @rule(owns=MOSTLY, commits=st.booleans())
    def end(self, *, owns: bool, commits: bool) -> None:
        client = self._client(owns=owns)
        if client is not self.owner:
            # A newer client whose transaction was aborted for it may hear so, and nothing else.
            code = client.end(commits=commits)
            if code is OK:
                assert client.bumps
                assert not commits
                self.owner = client
            else:
                assert code in LOST
            return
        code = client.end(commits=commits)
        if not self.is_open:
            assert code in (OK, ErrorCode.INVALID_TXN_STATE)
            return
        assert code is OK
        if commits:
            for there, new in zip(self.committed, self.open, strict=True):
                there.extend(new)
            self.offset = self.offset if self.open_offset is None else self.open_offset
        self._drop()

    @rule(milliseconds=st.sampled_from([1, 2_000, 12_000]))
    def wait(self, milliseconds: int) -> None:
        self.room.runtime.advance(milliseconds)
        if not self.is_open:
            return
        self.open_ms += milliseconds
        if self.open_ms > TIMEOUT_MS + 1_500:
            self.owner = None  # fenced
            self._drop()
        elif self.open_ms > TIMEOUT_MS - 1_500:
            self.room.runtime.advance(TIMEOUT_MS)
            self.owner = None
            self._drop()

    @rule()
    def restart(self) -> None:
        self.room.restart()

    def _drop(self) -> None:
        self.is_open = False
        self.open = ([], [])
        self.open_offset = None
        self.open_ms = 0

    @invariant()
    def readers_see_what_was_committed(self) -> None:
        if not hasattr(self, "room"):
            return
        self.room.runtime.settle()
        for index in (0, 1):
            assert self.room.decided(index) == self.committed[index]
            assert self.room.is_open(index) == bool(self.open[index])
        unstable = (-1, ErrorCode.UNSTABLE_OFFSET_COMMIT)
        pending = self.open_offset is not None
        assert self.room.committed() == (unstable if pending else (self.offset, OK))


TestTransactions = Transactions.TestCase
TestTransactions.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
