"""Transactional producers on the wire, of both kinds; a server that may end at any append."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.storage.transactions import read_transactions
from tests.unit.broker.kafka_room import TurnAppends, security_apart
from tests.unit.server.kafka_peer import Peer, ShoreRoom

from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.record.batch import BatchBuilder, RecordBatch, split_batches
from isthmus.server.kafka_listener import KafkaListener
from isthmus.server.kafka_shore import KafkaShore
from isthmus.storage.log import ISOLATION_DURABLE

if TYPE_CHECKING:
    from isthmus.storage.log import Partition, Ticket

GROUP = "g"
NO_ANSWER = None  # the server has ended


class EndingAppends(TurnAppends):
    """Appends as long as the server lives."""

    left = -1  # appends until it ends; negative: it does not
    ended = False

    def append(
        self,
        partition: Partition,
        batch: RecordBatch,
        ticket: Ticket | None,
        *,
        trusted: bool = False,
    ) -> None:
        self.ended = self.ended or self.left == 0
        self.left -= 1
        if not self.ended:
            super().append(partition, batch, ticket, trusted=trusted)


class TransactionRoom(ShoreRoom):
    """A Kafka shore with a log topic `t` of two partitions."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.log.create("t", 2, {})
        self.restart()

    def restart(self) -> None:
        """End the server in the middle of what it does, and start it on the same log."""
        self.appends.ended = True  # type: ignore[attr-defined]
        self.log.flush()  # what it has asked the system to write is written
        for waiting in (
            *(self.runtime._deferred, self.runtime._timers),
            *(self.runtime.offloaded, self.runtime.reads),
        ):
            waiting.clear()
        self.appends = EndingAppends(self.runtime, self.log)
        security = security_apart(self.runtime)
        self.shore = KafkaShore(self.runtime, self.log, self.appends, self.settings, security)
        self.listener = KafkaListener(self.shore, "kafka", self.settings)
        self.runtime.settle()

    def decided(self, index: int = 0, log_topic: str = "t") -> list[bytes]:
        """Return the values that a reader of committed records gets."""
        partition = self.log.partition(log_topic, index)
        assert partition is not None
        found = partition.read(partition.start_offset, 1 << 30, ISOLATION_DURABLE)
        batches = [batch for buffer in found.buffers for batch in split_batches(buffer)]
        aborted = read_transactions(
            {batch.base_offset: bytes(batch.data) for batch in batches}
        ).aborted_batches
        return [
            record.value or b""
            for batch in batches
            if not batch.is_control and batch.base_offset not in aborted
            for record in batch.records()
        ]

    def is_open(self, index: int = 0) -> bool:
        """Whether something is undecided in a partition."""
        partition = self.log.partition("t", index)
        assert partition is not None
        return partition.last_stable_offset < partition.end_offset

    def committed(self, *, stable: bool = True) -> tuple[int, int]:
        """Return the offset that the group has committed in `t`-0, and a code."""
        answer = self.peer().ask(
            ApiKey.OFFSET_FETCH,
            7,
            {
                "group_id": GROUP,
                "topics": [{"name": "t", "partition_indexes": [0]}],
                "require_stable": stable,
            },
        )
        row = answer["topics"][0]["partitions"][0]
        return row["committed_offset"], row["error_code"]


class Client:
    """A transactional producer; `bumps`: of the newer kind, whose epoch each end raises."""

    def __init__(self, room: TransactionRoom, name: str = "x", *, bumps: bool) -> None:
        self.room = room
        self.name = name
        self.bumps = bumps
        self.id, self.epoch = -1, -1
        self.sequences: dict[int, int] = {}
        self._peer = Peer(room)
        self._shore = room.shore

    def ask(self, api_key: int, version: int, body: dict[str, Any]) -> dict[str, Any] | None:
        """Ask on a connection to the server that runs now; None where it ends meanwhile."""
        if self._shore is not self.room.shore or self._peer.transport.closed:
            self._peer, self._shore = Peer(self.room), self.room.shore
        self._peer.feed(self._peer.frame(api_key, version, body))
        self.room.runtime.settle()
        answers = self._peer.answers()
        if not answers:
            assert self.room.appends.ended  # type: ignore[attr-defined]
            return NO_ANSWER
        return answers[0]

    @property
    def _own(self) -> dict[str, Any]:
        own = {"transactional_id": self.name, "producer_id": self.id}
        return {**own, "producer_epoch": self.epoch}

    def init(self, *, timeout_ms: int = 10_000) -> ErrorCode | None:
        """Take over; tried again while what was open is aborted."""
        body = {"transactional_id": self.name, "transaction_timeout_ms": timeout_ms}
        answer = self.ask(ApiKey.INIT_PRODUCER_ID, 5, body)
        while answer and answer["error_code"] == ErrorCode.CONCURRENT_TRANSACTIONS:
            answer = self.ask(ApiKey.INIT_PRODUCER_ID, 5, body)
        if answer is None:
            return None
        if not answer["error_code"]:
            self._become(answer)
        return ErrorCode(answer["error_code"])

    def _become(self, answer: dict[str, Any]) -> None:
        self.id, self.epoch = answer["producer_id"], answer["producer_epoch"]
        self.sequences = {}

    def add(self, *indexes: int) -> ErrorCode | None:
        """Say which partitions of `t` the transaction has; newer clients need not."""
        body = {f"v3_and_below_{name}": value for name, value in self._own.items()}
        body["v3_and_below_topics"] = [{"name": "t", "partitions": [*indexes]}]
        answer = self.ask(ApiKey.ADD_PARTITIONS_TO_TXN, 3, body)
        if answer is None:
            return None
        rows = answer["results_by_topic_v3_and_below"][0]["results_by_partition"]
        (code,) = {row["partition_error_code"] for row in rows}
        return ErrorCode(code)

    def batch(self, value: bytes, index: int = 0) -> bytes:
        """Return the next batch for a partition."""
        builder = BatchBuilder()
        builder.append(self.room.runtime.now_ms(), b"k", value)
        sequence = self.sequences.get(index, 0)
        batch = builder.seal(0, self.id, self.epoch, sequence, transactional=True)
        return bytes(batch.data)

    def send(
        self, value: bytes, index: int = 0, version: int | None = None
    ) -> ErrorCode | None:
        """Produce one record, saying before that it is coming where that has to be said."""
        if not self.bumps and version is None:
            code = self.add(index)
            if code is None or code:
                return code
        version = version or (12 if self.bumps else 11)
        one = {"index": index, "records": self.batch(value, index)}
        answer = self.ask(
            ApiKey.PRODUCE,
            version,
            {
                "acks": -1,
                "transactional_id": self.name,
                "topic_data": [{"name": "t", "partition_data": [one]}],
            },
        )
        if answer is None:
            return None
        (row,) = answer["responses"][0]["partition_responses"]
        if not row["error_code"]:
            self.sequences[index] = self.sequences.get(index, 0) + 1
        return ErrorCode(row["error_code"])

    def commit_offset(self, offset: int, **member: Any) -> ErrorCode | None:
        """Commit an offset of the group as a part of the transaction."""
        if not self.bumps:
            answer = self.ask(ApiKey.ADD_OFFSETS_TO_TXN, 3, {**self._own, "group_id": GROUP})
            if answer is None or answer["error_code"]:
                return None if answer is None else ErrorCode(answer["error_code"])
        one = {"partition_index": 0, "committed_offset": offset, "committed_metadata": "note"}
        body = {
            **self._own,
            "group_id": GROUP,
            "topics": [{"name": "t", "partitions": [one]}],
            **member,
        }
        answer = self.ask(ApiKey.TXN_OFFSET_COMMIT, 5 if self.bumps else 3, body)
        if answer is None:
            return None
        return ErrorCode(answer["topics"][0]["partitions"][0]["error_code"])

    def end(self, *, commits: bool) -> ErrorCode | None:
        """Commit or abort."""
        body = {**self._own, "committed": commits}
        answer = self.ask(ApiKey.END_TXN, 5 if self.bumps else 4, body)
        if answer is None:
            return None
        if self.bumps and not answer["error_code"]:
            self._become(answer)
        return ErrorCode(answer["error_code"])
