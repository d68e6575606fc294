"""What is answered to requests of transactions, field by field, as Apache Kafka 4.3 does.

The answers below are Apache's own: with ISTHMUS_E2E_KAFKA set to one (README.md beside this
file) the same tests pass there. Requests are asked by hand, so that all versions and every
mistake can be tried; those that a busy coordinator wants to have again are asked again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.kafka_asker import Asker
from tests.e2e.kafka_libraries import create_topic
from tests.e2e.patience import TIMEOUT_S

from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.record.batch import BatchBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Shores

OK = ErrorCode.NONE
MAPPING = ErrorCode.INVALID_PRODUCER_ID_MAPPING
FENCED, OLD_EPOCH = ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_PRODUCER_EPOCH
INVALID_STATE, ABORTABLE = ErrorCode.INVALID_TXN_STATE, ErrorCode.TRANSACTION_ABORTABLE
UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
BUSY = {
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.CONCURRENT_TRANSACTIONS,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,  # of a log topic just made
}
Producer = tuple[int, int]


class Room:
    """One connection, one log topic of two partitions, one transactional id."""

    def __init__(self, shores: Shores, name: str) -> None:
        self.asker = Asker(shores.kafka)
        self.name = name
        create_topic(shores.kafka, name, 2)
        for kind in (0, 1):  # which makes what the coordinators keep their state in
            body = {"key_type": kind, "coordinator_keys": [name]}
            self.ask(ApiKey.FIND_COORDINATOR, 4, body, "coordinators", 0, "error_code")

    def ask(self, api_key: int, version: int, body: dict[str, Any], *path: Any) -> Any:
        """Ask until the server has time; return what `path` leads to in the answer."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            answer: Any = self.asker.ask(api_key, version, body)
            code = answer
            for step in path:
                code = code[step]
            if not path or code not in BUSY or time.monotonic() > end:
                return answer
            time.sleep(0.02)

    def init(
        self, expected: Producer = (-1, -1), version: int = 5, **more: Any
    ) -> tuple[int, int, int]:
        body = {"transactional_id": self.name, "transaction_timeout_ms": 60_000, **more}
        if version >= 3:
            body |= {"producer_id": expected[0], "producer_epoch": expected[1]}
        answer = self.ask(ApiKey.INIT_PRODUCER_ID, version, body, "error_code")
        return answer["error_code"], answer["producer_id"], answer["producer_epoch"]

    def begin(self) -> Producer:
        code, producer_id, epoch = self.init()
        assert code == OK
        return producer_id, epoch

    def add(
        self, producer: Producer, *places: tuple[str, int], version: int = 3, **more: Any
    ) -> dict[tuple[str, int], int]:
        rows = [{"name": name, "partitions": [index]} for name, index in places]
        own = {**self._own(producer), "topics": rows, **more}
        prefix = "v3_and_below_"
        body: dict[str, Any] = {prefix + name: value for name, value in own.items()}
        path: tuple[Any, ...] = ("results_by_topic_v3_and_below",)
        if version >= 4:
            body = {"transactions": [own]}
            path = ("results_by_transaction", 0, "topic_results")
        code = ("results_by_partition", 0, "partition_error_code")
        answer = self.ask(ApiKey.ADD_PARTITIONS_TO_TXN, version, body, *path, 0, *code)
        for step in path:
            answer = answer[step]
        return {
            (topic["name"], row["partition_index"]): row["partition_error_code"]
            for topic in answer
            for row in topic["results_by_partition"]
        }

    def _own(self, producer: Producer) -> dict[str, Any]:
        own = {"transactional_id": self.name, "producer_id": producer[0]}
        return {**own, "producer_epoch": producer[1]}

    def add_offsets(self, producer: Producer, version: int = 3) -> int:
        body = {**self._own(producer), "group_id": self.name}
        return int(
            self.ask(ApiKey.ADD_OFFSETS_TO_TXN, version, body, "error_code")["error_code"]
        )

    def commit_offset(
        self, producer: Producer, version: int, index: int = 0, **more: Any
    ) -> int:
        row = {"partition_index": index, "committed_offset": 5, "committed_metadata": "x"}
        topics = [{"name": self.name, "partitions": [row]}]
        body = {**self._own(producer), "group_id": self.name, "topics": topics, **more}
        path = ("topics", 0, "partitions", 0, "error_code")
        answer = self.ask(ApiKey.TXN_OFFSET_COMMIT, version, body, *path)
        return int(answer["topics"][0]["partitions"][0]["error_code"])

    def committed(self, *, stable: bool) -> tuple[int, int]:
        body = {
            "group_id": self.name,
            "topics": [{"name": self.name, "partition_indexes": [0]}],
            "require_stable": stable,
        }
        answer = self.ask(ApiKey.OFFSET_FETCH, 7, body, "error_code")
        row = answer["topics"][0]["partitions"][0]
        return row["committed_offset"], row["error_code"]

    def end(
        self, producer: Producer, version: int = 5, *, commits: bool
    ) -> tuple[int, int, int]:
        body = {**self._own(producer), "committed": commits}
        answer = self.ask(ApiKey.END_TXN, version, body, "error_code")
        return answer["error_code"], answer["producer_id"], answer["producer_epoch"]

    def produce(
        self, producer: Producer, version: int, sequence: int = 0, index: int = 0, **more: Any
    ) -> tuple[int, int]:
        builder = BatchBuilder()
        builder.append(int(time.time() * 1000), b"k", b"v")
        transactional = more.pop("transactional", True)
        batch = builder.seal(0, *producer, sequence, transactional=transactional)
        one = {"index": index, "records": bytes(batch.data)}
        body = {
            "acks": -1,
            "timeout_ms": 30_000,
            "transactional_id": self.name,
            "topic_data": [{"name": self.name, "partition_data": [one]}],
            **more,
        }
        path = ("responses", 0, "partition_responses", 0, "error_code")
        answer = self.ask(ApiKey.PRODUCE, version, body, *path)
        row = answer["responses"][0]["partition_responses"][0]
        return row["error_code"], row["base_offset"]


@pytest.fixture
def room(shores: Shores, unique: str) -> Iterator[Room]:
    room = Room(shores, unique)
    yield room
    room.asker.close()


def test_who_gets_which_id_and_epoch(room: Room) -> None:
    code, own, epoch = room.init(version=0)
    assert (code, epoch) == (OK, 0)
    assert room.init() == (OK, own, 1)
    assert room.init((own, 1)) == (OK, own, 2)
    assert room.init((own, 1)) == (OK, own, 2), "a retry"
    assert room.init((own, 0)) == (FENCED, -1, -1)
    assert room.init((own, 0), version=3) == (OLD_EPOCH, -1, -1)
    assert room.init((own + 1, 2)) == (FENCED, -1, -1)
    assert room.init((own, -1)) == (ErrorCode.INVALID_REQUEST, -1, -1)
    assert room.init(transactional_id="") == (ErrorCode.INVALID_REQUEST, -1, -1)
    for timeout_ms in (0, -1, 900_001):
        answer = room.init(transaction_timeout_ms=timeout_ms)
        assert answer == (ErrorCode.INVALID_TRANSACTION_TIMEOUT, -1, -1)
    code, other, epoch = room.init(transactional_id=None)
    assert (code, epoch) == (OK, 0)
    assert other != own


def test_which_partitions_are_added(room: Room) -> None:
    own = room.begin()
    name = room.name
    assert room.add(own, (name, 0), (name, 9)) == {
        (name, 0): ErrorCode.OPERATION_NOT_ATTEMPTED,
        (name, 9): UNKNOWN,
    }
    internal = ("__consumer_offsets", 0)
    assert room.add(own, internal) == {internal: ErrorCode.TOPIC_AUTHORIZATION_FAILED}
    for version in (0, 2, 3, 4, 5):
        known = FENCED if version >= 2 else OLD_EPOCH
        for epoch in (own[1] - 1, own[1] + 1):
            assert room.add((own[0], epoch), (name, 0), version=version) == {(name, 0): known}
        assert room.add((own[0] + 1, 0), (name, 0), version=version) == {(name, 0): MAPPING}
        elsewhere = room.add(own, (name, 0), version=version, transactional_id=name + "?")
        assert elsewhere == {(name, 0): MAPPING}
        assert room.add(own, (name, 0), version=version) == {(name, 0): OK}
    verified = room.add(own, (name, 0), (name, 1), version=5, verify_only=True)
    assert verified == {(name, 0): OK, (name, 1): ABORTABLE}
    assert room.add_offsets((own[0], 7)) == FENCED
    assert room.add_offsets((own[0], 7), version=1) == OLD_EPOCH
    assert room.add_offsets(own) == OK


def test_how_classic_transactions_end(room: Room) -> None:
    own = room.begin()
    for commits in (True, False):
        assert room.end(own, 4, commits=commits)[0] == INVALID_STATE, "nothing has begun"
    assert room.end((own[0] + 1, 0), 4, commits=True)[0] == MAPPING
    assert room.end((own[0], 1), 4, commits=True)[0] == FENCED
    assert room.end((own[0], 1), 1, commits=True)[0] == OLD_EPOCH
    for commits in (True, False):
        room.add(own, (room.name, 0))
        assert room.end(own, 4, commits=commits)[0] == OK
        assert room.end(own, 4, commits=commits)[0] == OK, "a retry"
        assert room.end(own, 4, commits=not commits)[0] == INVALID_STATE


def test_how_newer_transactions_end(room: Room) -> None:
    own = room.begin()
    assert room.end(own, commits=True)[0] == INVALID_STATE, "nothing has begun"
    assert room.end(own, commits=False) == (OK, own[0], 1), "that needs no beginning"
    for epoch, commits in ((1, True), (2, False)):
        own = (own[0], epoch)
        assert room.produce(own, 12)[0] == OK
        assert room.end((own[0], epoch - 1), commits=commits) == (FENCED, -1, -1)
        assert room.end(own, commits=commits) == (OK, own[0], epoch + 1)
        assert room.end(own, commits=commits) == (OK, own[0], epoch + 1), "a retry"
        assert room.end(own, commits=not commits) == (INVALID_STATE, -1, -1)
        assert room.end((own[0], epoch + 1), commits=True) == (INVALID_STATE, -1, -1)


def test_which_batches_are_taken(room: Room) -> None:
    own = room.begin()
    assert room.produce(own, 9) == (INVALID_STATE, -1), "not announced"
    assert room.produce(own, 11) == (ABORTABLE, -1)
    room.add(own, (room.name, 0))
    assert room.produce(own, 9) == (OK, 0)
    assert room.produce(own, 9) == (OK, 0), "a retry"
    assert room.produce(own, 9, 2) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert room.produce(own, 9, 1, transactional=False) == (INVALID_STATE, -1)
    assert room.produce(own, 11, index=1) == (ABORTABLE, -1)
    assert room.produce((own[0], 5), 9, index=1) == (OLD_EPOCH, -1)
    assert room.produce((own[0] + 1, 0), 9, index=1) == (MAPPING, -1)
    refused = room.produce(own, 9, 1, transactional_id=None)
    assert refused == (ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1)
    assert room.end(own, 4, commits=True)[0] == OK
    room.end(own, 4, commits=True)
    assert room.produce(own, 9, 1) == (INVALID_STATE, -1), "late"
    newer = room.begin()
    assert room.produce(newer, 12, 3, index=1) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert room.produce(newer, 12) == (OK, 2), "behind the marker"
    assert room.produce(own, 12, 1, index=1) == (OLD_EPOCH, -1)


def test_which_offsets_are_taken(room: Room) -> None:
    own = room.begin()
    assert room.commit_offset(own, 3) == INVALID_STATE, "not announced"
    assert room.commit_offset(own, 4) == ABORTABLE
    assert room.add_offsets(own) == OK
    assert room.commit_offset(own, 3, group_id="") == ErrorCode.INVALID_GROUP_ID
    assert room.commit_offset(own, 3, index=9) == UNKNOWN
    generation = {"generation_id": 3, "member_id": "m"}
    assert room.commit_offset(own, 3, **generation) == ErrorCode.ILLEGAL_GENERATION
    assert room.commit_offset((own[0], 7), 3) == OLD_EPOCH
    assert room.commit_offset((own[0] + 1, 0), 3) == MAPPING
    assert room.committed(stable=True) == (-1, OK)
    for version in (0, 2, 3, 4, 5):
        assert room.commit_offset(own, version) == OK
    assert room.committed(stable=True) == (-1, ErrorCode.UNSTABLE_OFFSET_COMMIT)
    assert room.committed(stable=False) == (-1, OK)
    assert room.end(own, 4, commits=True)[0] == OK
    room.end(own, 4, commits=True)
    assert room.committed(stable=True) == (5, OK)


def test_what_operators_are_told(room: Room) -> None:
    own = room.begin()
    assert room.produce(own, 12)[0] == OK
    names = [room.name, room.name + "?", ""]
    describe = (ApiKey.DESCRIBE_TRANSACTIONS, 0, {"transactional_ids": names})
    path = ("transaction_states", 0, "error_code")
    kept, absent, empty = room.ask(*describe, *path)["transaction_states"]
    started_ms = kept.pop("transaction_start_time_ms")
    assert abs(started_ms / 1000 - time.time()) < 3600
    assert kept == {
        "error_code": OK,
        "transactional_id": room.name,
        "transaction_state": "Ongoing",
        "transaction_timeout_ms": 60_000,
        "producer_id": own[0],
        "producer_epoch": 0,
        "topics": [{"topic": room.name, "partitions": [0]}],
    }
    nothing = {"transaction_state": "", "transaction_timeout_ms": 0, "topics": []}
    nothing |= {"transaction_start_time_ms": 0, "producer_id": 0, "producer_epoch": 0}
    not_found = ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
    assert absent == {"error_code": not_found, "transactional_id": room.name + "?", **nothing}
    invalid = ErrorCode.INVALID_REQUEST
    assert empty == {"error_code": invalid, "transactional_id": "", **nothing}
    topics = [{"name": room.name, "partition_indexes": [0, 1, 9]}]
    found = room.ask(ApiKey.DESCRIBE_PRODUCERS, 0, {"topics": topics})
    first, second, third = found["topics"][0]["partitions"]
    assert (second["error_code"], second["active_producers"]) == (OK, [])
    assert (third["error_code"], third["active_producers"]) == (UNKNOWN, [])
    (active,) = first["active_producers"]
    assert active.pop("last_timestamp") > 0
    assert active == {
        "producer_id": own[0],
        "producer_epoch": 0,
        "last_sequence": 0,
        "coordinator_epoch": -1,
        "current_txn_start_offset": 0,
    }


def test_which_transactions_are_listed(room: Room) -> None:
    own = room.begin()
    assert room.produce(own, 12)[0] == OK

    def listed(**filters: Any) -> tuple[int, list[str], list[Any]]:
        answer = room.ask(ApiKey.LIST_TRANSACTIONS, 2, filters, "error_code")
        states = [one for one in answer["transaction_states"] if one["producer_id"] == own[0]]
        return answer["error_code"], answer["unknown_state_filters"], states

    row = {"transactional_id": room.name, "producer_id": own[0], "transaction_state": "Ongoing"}
    assert listed() == (OK, [], [row])
    assert listed(state_filters=["Ongoing", "Asleep"]) == (OK, ["Asleep"], [row])
    assert listed(state_filters=["PrepareCommit", "Empty", "Dead"]) == (OK, [], [])
    assert listed(producer_id_filters=[own[0]]) == (OK, [], [row])
    assert listed(producer_id_filters=[own[0] + 1]) == (OK, [], [])
    assert listed(duration_filter=600_000) == (OK, [], [])
    assert listed(transactional_id_pattern=room.name[:3] + ".*") == (OK, [], [row])
    assert listed(transactional_id_pattern=room.name[:3]) == (OK, [], [])
    assert listed(transactional_id_pattern="") == (OK, [], [row])
    refused = listed(transactional_id_pattern="(")
    assert refused == (ErrorCode.INVALID_REGULAR_EXPRESSION, [], [])


def test_how_markers_by_hand_are_answered(room: Room) -> None:
    own = room.begin()
    assert room.produce(own, 12)[0] == OK

    def write(epoch: int, version: int = 2, index: int = 0, **more: Any) -> int:
        topics = [{"name": room.name, "partition_indexes": [index]}]
        marker = {"producer_id": own[0], "producer_epoch": epoch, "topics": topics, **more}
        answer = room.ask(ApiKey.WRITE_TXN_MARKERS, version, {"markers": [marker]})
        (written,) = answer["markers"]
        assert written["producer_id"] == own[0]
        return int(written["topics"][0]["partitions"][0]["error_code"])

    assert write(0, index=9) == UNKNOWN
    assert write(0, transaction_version=2) == OLD_EPOCH, "it has to be higher"
    assert write(0, version=1) == OK
    assert write(0, transaction_version=2) == OK, "nothing is open"
    assert write(4, transaction_version=2, coordinator_epoch=3) == OK
    assert write(3, version=1) == OLD_EPOCH
    refused = write(5, coordinator_epoch=2)
    assert refused == ErrorCode.TRANSACTION_COORDINATOR_FENCED
