"""What is answered about groups of both protocols: members, shares, offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.kafka.api import ApiKey
from isthmus.kafka.frames import encode_prefixed

if TYPE_CHECKING:
    from tests.e2e.answers.conversation import Conversation


class Groups:
    """A group, the log topics `t` and `u` that it reads, and the ways to ask."""

    def __init__(self, conversation: Conversation) -> None:
        self.c = conversation
        self.group = conversation.name("g-")
        self.topics = {short: conversation.create(short, 4) for short in ("t", "u")}
        self.ids = conversation.ids
        for group in (self.group, f"c-{self.group}", "absent"):
            conversation.wait_for_group(group)

    def ask(
        self, what: str, api_key: int, version: int, body: dict[str, Any]
    ) -> dict[str, Any]:
        return self.c.ask(what, api_key, version, body)

    # --- the consumer protocol ----------------------------------------------------------------

    def beat(
        self, what: str, member_id: str, epoch: int, version: int = 1, **said: Any
    ) -> None:
        named = {"group_id": self.group, "member_id": member_id, "member_epoch": epoch}
        self.ask(what, ApiKey.CONSUMER_GROUP_HEARTBEAT, version, {**named, **said})

    def join(self, what: str, member_id: str, *names: str, **said: Any) -> None:
        first = {
            "rebalance_timeout_ms": 60_000,
            "subscribed_topic_names": [self.topics[name] for name in names or "t"],
            "topic_partitions": [],
        }
        self.beat(what, member_id, 0, **{**first, **said})

    def owned(self, *indexes: int) -> dict[str, Any]:
        rows = [{"topic_id": self.ids["t"], "partitions": [*indexes]}]
        return {"topic_partitions": rows if indexes else []}

    def describe(self, what: str) -> None:
        body = {"group_ids": [self.group, "absent", ""], "include_authorized_operations": True}
        self.ask(f"{what}: consumer groups", ApiKey.CONSUMER_GROUP_DESCRIBE, 1, body)
        for version in (5, 6):
            body = {"groups": [self.group], "include_authorized_operations": True}
            self.ask(f"{what}: groups v{version}", ApiKey.DESCRIBE_GROUPS, version, body)
        listed = self.c.ask_aside(ApiKey.LIST_GROUPS, 5)["groups"]
        ours = [one for one in listed if one["group_id"] == self.group]
        self.c.keep(f"{what}: list", ours)

    # --- offsets ------------------------------------------------------------------------------

    def commit(
        self, what: str, version: int, member: tuple[str, str | None, int], **of: Any
    ) -> None:
        row = {"partition_index": 0, "committed_offset": 0, "committed_metadata": "note"}
        topic = {"name": self.topics["t"], "topic_id": self.ids["t"], "partitions": [row]}
        body = {
            "group_id": self.group,
            "member_id": member[0],
            "group_instance_id": member[1],
            "generation_id_or_member_epoch": member[2],
            "topics": [topic],
            **of,
        }
        self.ask(f"commit v{version}: {what}", ApiKey.OFFSET_COMMIT, version, body)

    def fetch(self, what: str, member_id: str | None, epoch: int, **of: Any) -> None:
        topic = {
            "name": self.topics["t"],
            "topic_id": self.ids["t"],
            "partition_indexes": [0, 1],
        }
        group = {
            "group_id": self.group,
            "member_id": member_id,
            "member_epoch": epoch,
            "topics": [topic],
            **of,
        }
        for version in (9, 10):
            body = {"groups": [group]}
            self.ask(f"fetch v{version}: {what}", ApiKey.OFFSET_FETCH, version, body)

    def delete_offsets(self, what: str, name: str, **of: Any) -> None:
        rows = [{"partition_index": 0}, {"partition_index": 9}]
        topics = [{"name": self.topics.get(name, name), "partitions": rows}]
        body = {"group_id": self.group, "topics": topics, **of}
        self.ask(f"delete offsets: {what}", ApiKey.OFFSET_DELETE, 0, body)


def play(conversation: Conversation) -> None:
    """Have the conversation."""
    groups = Groups(conversation)
    say_what_may_not_be(groups)
    share_partitions(groups)
    commit_and_fetch(groups)
    leave_and_come_back(groups)
    groups.group = f"c-{groups.group}"
    be_classic(groups)


def say_what_may_not_be(c: Groups) -> None:
    c.join("no group", "m1", group_id="")
    c.join("no member", "")
    c.join("no rebalance timeout", "m1", rebalance_timeout_ms=-1)
    c.join("no partitions said", "m1", topic_partitions=None)
    c.join("partitions of before", "m1", **c.owned(0))
    c.join("no subscription", "m1", subscribed_topic_names=None)
    c.join("empty instance", "m1", instance_id="")
    c.join("empty rack", "m1", rack_id="")
    c.join("no such assignor", "m1", server_assignor="mine")
    c.join("no pattern", "m1", subscribed_topic_regex="[a")
    c.join("pattern that looks back", "m1", subscribed_topic_regex=r"(a)\1")
    c.beat("no such epoch", "m1", -3)
    c.beat("leave for a while without instance", "m1", -2)
    c.beat("go on in no group", "m1", 5)
    c.beat("leave no group", "m1", -1)


def share_partitions(c: Groups) -> None:
    c.join("first member", "m1")
    c.beat("an epoch too old", "m1", 1)
    c.join("first member again", "m1")
    c.describe("one member")
    c.join("second member", "m2")
    c.describe("reconciling")
    c.beat("told to give up", "m1", 2, **c.owned(0, 1, 2, 3))
    c.beat("not given up yet", "m1", 2)
    c.beat("others wait", "m2", 3)
    c.beat("an epoch too new", "m2", 9)
    c.beat("no such member", "m9", 3)


def commit_and_fetch(c: Groups) -> None:
    for version in (8, 9, 10):
        c.commit("anyone", version, ("", None, -1))
        c.commit("the member", version, ("m1", None, 2))
        c.commit("an old epoch", version, ("m1", None, 1))
        c.commit("a new epoch", version, ("m1", None, 3))
        c.commit("no member", version, ("m9", None, 2))
        c.commit("no group", version, ("m1", None, 2), group_id="absent")
    c.fetch("anyone", None, -1)
    c.fetch("the member", "m1", 2)
    c.fetch("an old epoch", "m1", 1)
    c.fetch("no member", "m9", 2)
    c.fetch("no group", "m1", 2, group_id="absent")
    c.delete_offsets("subscribed", "t")
    c.delete_offsets("not subscribed", "u")
    c.delete_offsets("no log topic", "absent")
    c.delete_offsets("no group", "t", group_id="absent")
    c.delete_offsets("no name", "t", group_id="")
    body = {"groups_names": [c.group, "absent", ""]}
    c.ask("delete groups", ApiKey.DELETE_GROUPS, 2, body)


def leave_and_come_back(c: Groups) -> None:
    c.beat("second leaves", "m2", -1)
    c.beat("first leaves", "m1", -1)
    c.beat("leaves twice", "m1", -1)
    c.beat("goes on after leaving", "m1", 3)
    c.describe("empty")
    here = {"instance_id": "i1"}
    c.join("static", "s1", **here)
    c.join("static again", "s1", **here)
    c.join("static, another", "s2", **here)
    c.beat("static, fenced", "s2", 6, **here)
    c.beat("static, unknown", "s1", 6, instance_id="i9")
    c.beat("static leaves", "s1", -2, **here)
    c.describe("static is away")
    c.beat("static, away", "s1", 6, **here)
    c.join("static comes back", "s2", **here)
    c.beat("static of before leaves", "s1", -1, **here)
    c.describe("static is back")
    c.beat("static leaves for good", "s2", -1, **here)
    c.delete_offsets("nobody", "t")


def be_classic(c: Groups) -> None:
    metadata = encode_prefixed("ConsumerProtocolSubscription", 1, {"topics": [c.topics["t"]]})
    protocols = [{"name": "range", "metadata": metadata}]
    first = {
        "group_id": c.group,
        "session_timeout_ms": 30_000,
        "rebalance_timeout_ms": 30_000,
        "member_id": "",
        "protocol_type": "consumer",
        "protocols": protocols,
    }

    def join(what: str, **said: Any) -> dict[str, Any]:
        return c.ask(f"classic join: {what}", ApiKey.JOIN_GROUP, 9, {**first, **said})

    join("session too short", session_timeout_ms=1)
    join("no protocols", protocols=[])
    join("no such member", member_id="x")
    member_id = join("without id")["member_id"]
    join("with id", member_id=member_id)
    join("other type", protocol_type="connect")
    join("other protocol", protocols=[{"name": "mine", "metadata": b""}])
    c.describe("classic, joined")

    def asks(generation: int, name: str = member_id, **said: Any) -> dict[str, Any]:
        return {"group_id": c.group, "generation_id": generation, "member_id": name, **said}

    protocol = {"protocol_type": "consumer", "protocol_name": "range"}
    shares = [{"member_id": member_id, "assignment": b"\1\2"}]
    for what, body in {
        "old generation": asks(0, **protocol),
        "no such member": asks(1, "x", **protocol),
        "other protocol": asks(1, protocol_type="consumer", protocol_name="mine"),
        "first": asks(1, assignments=shares, **protocol),
        "again": asks(1, **protocol),
        "no such instance": asks(1, group_instance_id="i9", **protocol),
    }.items():
        c.ask(f"classic sync: {what}", ApiKey.SYNC_GROUP, 5, body)
    c.describe("classic, stable")
    for what, body in {
        "alive": asks(1),
        "old generation": asks(0),
        "no such member": asks(1, "x"),
        "no group": asks(1, group_id="absent"),
    }.items():
        c.ask(f"classic heartbeat: {what}", ApiKey.HEARTBEAT, 4, body)
    for version in (8, 9, 10):
        c.commit("classic, anyone", version, ("", None, -1))
        c.commit("classic, the member", version, (member_id, None, 1))
        c.commit("classic, an old generation", version, (member_id, None, 0))
        c.commit("classic, no member", version, ("x", None, 1))
    c.delete_offsets("classic, subscribed", "t")
    c.delete_offsets("classic, not subscribed", "u")
    names = [{"member_id": "x"}, {"member_id": "", "group_instance_id": "i9"}]
    leaving = {"group_id": c.group, "members": [*names, {"member_id": member_id}]}
    c.ask("classic leave", ApiKey.LEAVE_GROUP, 5, leaving)
    c.ask("classic leave: no group", ApiKey.LEAVE_GROUP, 5, {**leaving, "group_id": "absent"})
    c.describe("classic, empty")
    c.ask("classic: delete", ApiKey.DELETE_GROUPS, 2, {"groups_names": [c.group]})
