"""What is answered about share groups: members, records, what becomes of them, starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.e2e.answers.groups import Groups
from tests.e2e.patience import wait_until
from tests.unit.broker.kafka_room import batch_of

from isthmus.kafka.api import ApiKey

if TYPE_CHECKING:
    from tests.e2e.answers.conversation import Conversation

ACCEPT, RELEASE, REJECT, RENEW = 1, 2, 3, 4


def said(first: int, last: int, *types: int) -> dict[str, Any]:
    """Return a batch of acknowledgements."""
    return {"first_offset": first, "last_offset": last, "acknowledge_types": [*types]}


class Shares(Groups):
    """Says what members of a share group say."""

    session_epoch = 0

    def share_beat(self, what: str, member_id: str, epoch: int, **more: Any) -> None:
        body = {"group_id": self.group, "member_id": member_id, "member_epoch": epoch}
        self.ask(f"beat: {what}", ApiKey.SHARE_GROUP_HEARTBEAT, 1, {**body, **more})

    def come(self, member_id: str = "m1") -> None:
        """Join, and go on until all is assigned."""
        names = [self.topics["t"]]

        def is_assigned() -> bool:
            body = {"group_id": self.group, "member_id": member_id, "member_epoch": 0}
            body["subscribed_topic_names"] = names
            answer = self.c.ask_aside(ApiKey.SHARE_GROUP_HEARTBEAT, 1, body)
            rows = (answer["assignment"] or {}).get("topic_partitions", ())
            return sum(len(row["partitions"]) for row in rows) == 4

        wait_until(is_assigned, "an assignment")

    def fetch_shares(
        self, what: str, acks: dict[int, Any] | None = None, version: int = 2, **more: Any
    ) -> dict[str, Any]:
        """Ask for records of partition 0, in the session of m1."""
        rows = [
            {"partition_index": index, "acknowledgement_batches": batches}
            for index, batches in (acks or {}).items()
        ]
        body = {
            "group_id": self.group,
            "member_id": "m1",
            "share_session_epoch": self.session_epoch,
            "max_wait_ms": 100,
            "min_bytes": 1,
            "max_bytes": 1 << 20,
            "max_records": 100,
            "batch_size": 100,
            "topics": [{"topic_id": self.ids["t"], "partitions": rows}] if rows else [],
        }
        answer = self.ask(f"fetch: {what}", ApiKey.SHARE_FETCH, version, {**body, **more})
        self.session_epoch += not answer["error_code"]
        return answer

    def say(self, what: str, index: int, *batches: Any, version: int = 2, **more: Any) -> None:
        row = {"partition_index": index, "acknowledgement_batches": [*batches]}
        body = {
            "group_id": self.group,
            "member_id": "m1",
            "share_session_epoch": self.session_epoch,
            "topics": [{"topic_id": self.ids["t"], "partitions": [row]}],
        }
        answer = self.ask(f"say: {what}", ApiKey.SHARE_ACKNOWLEDGE, version, {**body, **more})
        self.session_epoch += not answer["error_code"]

    def write(self, *values: bytes) -> None:
        record = {"index": 0, "records": bytes(batch_of(1_700_000_000_000, *values).data)}
        topic = {"name": self.topics["t"], "partition_data": [record]}
        body = {"acks": -1, "timeout_ms": 30_000, "topic_data": [topic]}
        self.c.ask_aside(ApiKey.PRODUCE, 9, body)

    def look(self, what: str) -> None:
        body = {"group_ids": [self.group, self.c.name("none-"), ""]}
        self.ask(f"{what}: share groups", ApiKey.SHARE_GROUP_DESCRIBE, 1, body)
        body = {"group_ids": [self.group]}
        self.ask(f"{what}: consumer groups", ApiKey.CONSUMER_GROUP_DESCRIBE, 1, body)
        for version in (5, 6):
            body = {"groups": [self.group]}
            self.ask(f"{what}: groups v{version}", ApiKey.DESCRIBE_GROUPS, version, body)
        listed = self.c.ask_aside(ApiKey.LIST_GROUPS, 5, {"types_filter": ["Share"]})["groups"]
        ours = [one for one in listed if one["group_id"] == self.group]
        self.c.keep(f"{what}: list", ours)

    def starts(self, what: str) -> None:
        topics = [{"topic_name": self.topics["t"], "partitions": [0]}]
        topics += [{"topic_name": "absent", "partitions": [0]}]
        groups = [
            {"group_id": self.group, "topics": topics},
            {"group_id": self.c.name("none-"), "topics": None},
        ]
        for version in (0, 1):
            key = ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS
            self.ask(f"{what}: starts v{version}", key, version, {"groups": groups})

    def alter(self, what: str, start: int, **more: Any) -> None:
        rows = [{"partition_index": index, "start_offset": start} for index in (0, 9)]
        topics = [{"topic_name": n, "partitions": rows} for n in (self.topics["t"], "absent")]
        body = {"group_id": self.group, "topics": topics, **more}
        self.ask(f"alter: {what}", ApiKey.ALTER_SHARE_GROUP_OFFSETS, 0, body)

    def delete(self, what: str, **more: Any) -> None:
        topics = [{"topic_name": name} for name in (self.topics["t"], "absent")]
        body = {"group_id": self.group, "topics": topics, **more}
        self.ask(f"delete: {what}", ApiKey.DELETE_SHARE_GROUP_OFFSETS, 0, body)


def play(conversation: Conversation) -> None:
    """Have the whole conversation."""
    c = Shares(conversation)
    beat(c)
    speak_other_protocols(c)
    open_session(c)
    acknowledge(c)
    c.starts("in work")
    close(c)


def beat(c: Shares) -> None:
    names = {"subscribed_topic_names": [c.topics["t"]]}
    c.share_beat("no group", "m1", 0, group_id="", **names)
    c.share_beat("no member", "", 0, **names)
    c.share_beat("no such epoch", "m1", -2)
    c.share_beat("no subscription", "m1", 0)
    c.share_beat("nothing subscribed", "m1", 0, subscribed_topic_names=[])
    c.share_beat("empty rack", "m1", 0, rack_id="", **names)
    c.share_beat("go on in no group", "m1", 5)
    c.share_beat("leave no group", "m1", -1)
    c.come()
    c.share_beat("join again", "m1", 0, **names)
    c.share_beat("an epoch too new", "m1", 99)
    c.share_beat("no such member", "m9", 3)
    c.share_beat("no such member leaves", "m9", -1)
    c.look("one member")


def speak_other_protocols(c: Shares) -> None:
    join = {
        "group_id": c.group,
        "session_timeout_ms": 30_000,
        "rebalance_timeout_ms": 30_000,
        "protocol_type": "consumer",
        "protocols": [{"name": "range", "metadata": b""}],
    }
    c.ask("classic join", ApiKey.JOIN_GROUP, 5, join)
    asks = {"group_id": c.group, "generation_id": 1, "member_id": "m1"}
    c.ask("classic heartbeat", ApiKey.HEARTBEAT, 4, asks)
    c.ask("classic sync", ApiKey.SYNC_GROUP, 5, {**asks, "assignments": []})
    leave = {"group_id": c.group, "members": [{"member_id": "m1"}]}
    c.ask("classic leave", ApiKey.LEAVE_GROUP, 5, leave)
    c.join("consumer", "c1")
    c.commit("anyone", 9, ("", None, -1))
    c.commit("a member", 9, ("m1", None, 2))
    c.fetch("anyone", None, -1)
    c.delete_offsets("anyone", "t")


def open_session(c: Shares) -> None:
    c.fetch_shares("no group", {0: []}, group_id=None)
    c.fetch_shares("no member", {0: []}, member_id=None)
    c.fetch_shares("empty member", {0: []}, member_id="")
    c.fetch_shares("no session", {0: []}, share_session_epoch=3)
    c.fetch_shares("the end of no session", {0: []}, share_session_epoch=-1)
    c.fetch_shares("acknowledges at first", {0: [said(0, 0, ACCEPT)]})
    c.fetch_shares("first", {0: []})
    c.write(b"a", b"b", b"c")
    c.write(b"d", b"e")
    c.fetch_shares("five records")
    c.fetch_shares("no more")
    c.fetch_shares("other epoch", share_session_epoch=99)


def acknowledge(c: Shares) -> None:
    some = [said(0, 0, ACCEPT), said(1, 2, RELEASE, REJECT)]
    c.fetch_shares("with acknowledgements", {0: some})
    c.fetch_shares("past the end", {0: [said(0, 9, ACCEPT)]})
    c.fetch_shares("before the start", {0: [said(0, 0, ACCEPT)]})
    c.fetch_shares("no such type", {0: [said(3, 3, 7)]})
    c.fetch_shares("types too many", {0: [said(3, 4, 1, 1, 1)]})
    c.fetch_shares("no types", {0: [said(3, 4)]})
    c.fetch_shares("backwards", {0: [said(4, 3, 1)]})
    c.fetch_shares("said twice", {0: [said(3, 4, 1), said(4, 4, 1)]})
    c.fetch_shares("renews without saying so", {0: [said(3, 4, RENEW)]})
    c.fetch_shares("renews in version 1", {0: [said(3, 4, RENEW)]}, 1)
    renews = {"is_renew_ack": True}
    c.fetch_shares("renews and wants records", {0: [said(3, 4, RENEW)]}, **renews)
    nothing = dict.fromkeys(("max_wait_ms", "min_bytes", "max_bytes", "max_records"), 0)
    c.fetch_shares("renews", {0: [said(3, 4, RENEW)]}, **renews, **nothing)
    c.say("epoch of a first", 0, said(3, 3, ACCEPT), share_session_epoch=0)
    c.say("other epoch", 0, said(3, 3, ACCEPT), share_session_epoch=99)
    c.say("accepted", 0, said(3, 3, ACCEPT))
    c.say("nothing given out", 1, said(3, 3, ACCEPT))
    c.say("no such partition", 7, said(3, 3, ACCEPT))
    c.say("in version 1", 0, said(4, 4, RELEASE), version=1)
    c.fetch_shares("again", max_records=0)
    c.fetch_shares("given back")
    c.write(b"f", b"g", b"h")
    c.fetch_shares("exactly", max_records=2, share_acquire_mode=1)


def close(c: Shares) -> None:
    c.alter("members", 0)
    c.delete("members")
    c.ask("delete group: members", ApiKey.DELETE_GROUPS, 2, {"groups_names": [c.group]})
    c.say("the end", 0, said(5, 5, ACCEPT), share_session_epoch=-1)
    c.say("after the end", 0, said(6, 6, ACCEPT))
    c.share_beat("leaves", "m1", -1)
    c.look("empty")
    c.alter("empty", 1)
    c.starts("altered")
    c.delete("empty")
    c.delete("twice")
    c.delete("no group", group_id=c.c.name("none-"))
    c.starts("deleted")
    c.join("consumer, empty", "c1")
    c.ask("delete group", ApiKey.DELETE_GROUPS, 2, {"groups_names": [c.group]})
