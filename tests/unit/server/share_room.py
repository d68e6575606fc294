"""Members of a share group, and a log topic that they read, turned by hand."""

from __future__ import annotations

from typing import Any

from tests.unit.broker.kafka_room import batch_of
from tests.unit.server.kafka_peer import Peer, ShoreRoom

from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode

ACCEPT, RELEASE, REJECT, RENEW = 1, 2, 3, 4
GROUP_RESOURCE = 32


def said(first: int, last: int, *types: int) -> dict[str, Any]:
    """Return a batch of acknowledgements."""
    return {"first_offset": first, "last_offset": last, "acknowledge_types": [*types]}


class ShareRoom(ShoreRoom):
    """A shore with a log topic `t` of two partitions."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.topic_id = self.log.create("t", 2, {}).topic_id

    def write(self, *values: bytes, index: int = 0) -> None:
        """Append a batch of these values to the log topic."""
        partition = self.log.partition("t", index)
        assert partition is not None
        self.appends.append(partition, batch_of(self.runtime.now_ms(), *values), None)
        self.runtime.settle()

    def member(self, name: str = "m", group: str = "g", reset: str = "earliest") -> Member:
        """Return somebody who has joined."""
        member = Member(self.peer(), name, group)
        member.configure("share.auto.offset.reset", reset)
        assert member.beat(0, subscribed_topic_names=["t"])["error_code"] == ErrorCode.NONE
        return member


class Member:
    """One member, and its share session."""

    def __init__(self, peer: Peer, name: str, group: str) -> None:
        self.peer = peer
        self.about = {"group_id": group, "member_id": name}
        self.epoch = 0

    @property
    def room(self) -> ShareRoom:
        assert isinstance(self.peer.room, ShareRoom)
        return self.peer.room

    def configure(self, name: str, value: str) -> int:
        config = {"name": name, "config_operation": 0, "value": value}
        resource = {"resource_type": GROUP_RESOURCE, "resource_name": self.about["group_id"]}
        body = {"resources": [{**resource, "configs": [config]}]}
        (row,) = self.peer.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, body)["responses"]
        return int(row["error_code"])

    def beat(self, epoch: int, **more: Any) -> dict[str, Any]:
        body = {**self.about, "member_epoch": epoch, **more}
        return self.peer.ask(ApiKey.SHARE_GROUP_HEARTBEAT, 1, body)

    def body(self, acks: dict[int, list[Any]], **more: Any) -> dict[str, Any]:
        """Return a request of the session, naming both partitions."""
        rows = [
            {"partition_index": index, "acknowledgement_batches": acks.get(index, [])}
            for index in (0, 1)
        ]
        limits = {"min_bytes": 1, "max_records": 100, "batch_size": 100, "max_bytes": 1 << 20}
        epoch = {"share_session_epoch": self.epoch}
        topics = [{"topic_id": self.room.topic_id, "partitions": rows}]
        return {**self.about, **limits, **epoch, "topics": topics, **more}

    def ask(
        self, api_key: ApiKey, acks: dict[int, list[Any]], version: int, **more: Any
    ) -> dict[str, Any]:
        body = self.body(acks, **more)
        if api_key == ApiKey.SHARE_ACKNOWLEDGE:
            known = (*self.about, "share_session_epoch", "topics", "is_renew_ack")
            body = {name: body[name] for name in known if name in body}
        answer = self.peer.ask(api_key, version, body)
        if answer["error_code"] == ErrorCode.NONE and self.epoch >= 0:
            self.epoch += 1
        return answer

    def fetch(
        self, acks: dict[int, list[Any]] | None = None, version: int = 2, **more: Any
    ) -> Any:
        """Return the answer to a ShareFetch."""
        return self.ask(ApiKey.SHARE_FETCH, acks or {}, version, **more)

    def acquire(self, **more: Any) -> list[tuple[int, ...]]:
        """Return what a ShareFetch gives: partition, first and last offset, deliveries."""
        return acquired(self.fetch(**more))

    def say(self, *batches: dict[str, Any], version: int = 2, **more: Any) -> int:
        """Acknowledge something of the first partition; return the code."""
        answer = self.ask(ApiKey.SHARE_ACKNOWLEDGE, {0: [*batches]}, version, **more)
        assert answer["error_code"] == ErrorCode.NONE
        (row,) = answer["responses"][0]["partitions"]
        return int(row["error_code"])


def acquired(answer: dict[str, Any]) -> list[tuple[int, ...]]:
    """Return what an answer gives: partition, first and last offset, deliveries."""
    assert answer["error_code"] == ErrorCode.NONE
    return [
        (
            row["partition_index"],
            one["first_offset"],
            one["last_offset"],
            one["delivery_count"],
        )
        for topic in answer["responses"]
        for row in topic["partitions"]
        for one in row["acquired_records"]
    ]
