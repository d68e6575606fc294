"""What is answered about log topics and the server: made, changed, described, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.kafka.api import ApiKey

if TYPE_CHECKING:
    from tests.e2e.answers.conversation import Conversation

NOBODY = b"?" * 16


class LogTopics:
    """The ways to ask."""

    def __init__(self, conversation: Conversation) -> None:
        self.c = conversation

    def create(self, what: str, *names: str, version: int = 7, **of: Any) -> dict[str, Any]:
        only_checks = of.pop("validate_only", False)
        row = {"num_partitions": 1, "replication_factor": 1, **of}
        topics = [{"name": name, **row} for name in names]
        body = {"topics": topics, "timeout_ms": 30_000, "validate_only": only_checks}
        return self.c.ask(f"create v{version}: {what}", ApiKey.CREATE_TOPICS, version, body)

    def delete(self, what: str, *names: str | bytes, version: int = 6) -> None:
        body: dict[str, Any] = {"topic_names": [*names], "timeout_ms": 30_000}
        if version >= 6:
            rows = [
                {"topic_id": name, "name": None}
                if isinstance(name, bytes)
                else {"name": name, "topic_id": bytes(16)}
                for name in names
            ]
            body = {"topics": rows, "timeout_ms": 30_000}
        self.c.ask(f"delete v{version}: {what}", ApiKey.DELETE_TOPICS, version, body)

    def grow(self, what: str, name: str, count: int, **of: Any) -> None:
        rows = [{"name": name, "count": count, "assignments": of.pop("assignments", None)}]
        body = {"topics": rows * of.pop("times", 1), "timeout_ms": 30_000, **of}
        self.c.ask(f"grow: {what}", ApiKey.CREATE_PARTITIONS, 3, body)

    def metadata(self, what: str, *names: str, version: int = 12, **of: Any) -> None:
        body = {"topics": [{"name": name} for name in names], **of}
        if version >= 4:
            body = {"allow_auto_topic_creation": False, **body}
        answer = self.c.ask_aside(ApiKey.METADATA, version, body)
        self.c.keep(f"metadata v{version}: {what}", answer["topics"])

    def partitions(self, what: str, *names: str, **of: Any) -> None:
        body = {"topics": [{"name": name} for name in names], **of}
        self.c.ask(f"partitions: {what}", ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, body)


def play(c: Conversation) -> None:
    """Have the conversation."""
    topics = LogTopics(c)
    c.wait_for_group(c.name("g"))  # they are kept in a log topic, which is asked about
    make(topics)
    describe(topics)
    grow(topics)
    move(topics)
    delete(topics)
    describe_the_server(c)


def make(t: LogTopics) -> None:
    for version in range(2, 8):
        name = t.c.name(f"v{version}-")
        t.create("a new one", name, version=version)
        t.create("the same again", name, version=version)
    made = t.create("with settings", t.c.name("set"), configs=[named("retention.ms", "60000")])
    t.c.know("set", made["topics"][0]["topic_id"])
    t.create("as many as usual", t.c.name("usual"), num_partitions=-1, replication_factor=-1)
    t.create("only checked", t.c.name("checked"), validate_only=True)
    t.create("one that is there, only checked", t.c.name("set"), validate_only=True)
    t.create("twice in a request", *[t.c.name("twice")] * 2)
    t.create("nothing")
    for what, name in {
        "empty": "",
        "a dot": ".",
        "two dots": "..",
        "a blank": "a b",
        "a slash": "a/b",
        "letters of others": "тема",
        "too long": "x" * 250,
        "of the server's own": "__consumer_offsets",
        "of the cluster's own": "__cluster_metadata",
    }.items():
        t.create(f"a name: {what}", name)
    t.create("a dot in it", t.c.name("a.b"))
    t.create("the same with an underscore", t.c.name("a_b"))
    t.create("no partitions", t.c.name("none"), num_partitions=0)
    t.create("partitions below -1", t.c.name("none"), num_partitions=-2)
    t.create("no replicas", t.c.name("none"), replication_factor=0)
    t.create("three replicas", t.c.name("none"), replication_factor=3)
    t.create("replicas below -1", t.c.name("none"), replication_factor=-2)
    for what, rows in {
        "on this broker": [placed(0, 1), placed(1, 1)],
        "on another": [placed(0, 7)],
        "on this one twice": [placed(0, 1, 1)],
        "on none": [placed(0)],
        "not from 0": [placed(1, 1)],
        "one twice": [placed(0, 1), placed(0, 1)],
        "not all alike": [placed(0, 1), placed(1, 1, 2)],
    }.items():
        of = {"num_partitions": -1, "replication_factor": -1, "assignments": rows}
        t.create(f"placed {what}", t.c.name(f"placed-{len(rows)}-"), **of)
    rows = [placed(0, 1)]
    t.create("placed and counted", t.c.name("none"), num_partitions=2, assignments=rows)
    for what, (name, value) in {
        "that there is not": ("no.such.setting", "1"),
        "that is no number": ("retention.ms", "soon"),
        "below what it may be": ("retention.ms", "-2"),
        "that is one of some": ("cleanup.policy", "burn"),
        "without value": ("retention.ms", None),
        "compact and delete": ("cleanup.policy", "compact,delete"),
        "a codec": ("compression.type", "rar"),
        "more replicas in sync than there are": ("min.insync.replicas", "5"),
    }.items():
        configs = [named(name, value)]
        t.create(f"a setting {what}", t.c.name(f"s{len(what)}-"), configs=configs)


def named(name: str, value: str | None) -> dict[str, Any]:
    return {"name": name, "value": value}


def placed(index: int, *brokers: int) -> dict[str, Any]:
    return {"partition_index": index, "broker_ids": [*brokers]}


def describe(t: LogTopics) -> None:
    c = t.c
    c.create("m", 2)
    mine = c.name("m")
    for version in range(14):
        t.metadata("one", mine, version=version)
        if version >= 4:  # before, whoever asks for one makes it
            t.metadata("one that there is not", c.name("absent"), version=version)
            t.metadata("a name that none can have", "a b", version=version)
        if version >= 1:
            t.metadata("none", version=version)
        if version >= 10:
            ids = [{"topic_id": c.ids["m"], "name": None}, {"topic_id": NOBODY, "name": None}]
            t.metadata("by id", version=version, topics=ids)
    t.metadata("with what one may do", mine, include_topic_authorized_operations=True)
    t.metadata("twice", mine, mine)
    t.metadata("made by asking", c.name("by-asking"), allow_auto_topic_creation=True)
    t.metadata("a name not to be made", "a b", version=9, allow_auto_topic_creation=True)
    limited = {"response_partition_limit": 1}
    t.partitions("one", mine)
    t.partitions("one that there is not", c.name("absent"))
    t.partitions("a name that none can have", "a b")
    t.partitions("some of it", mine, **limited)
    cursor = {"topic_name": mine, "partition_index": 1}
    t.partitions("the rest", mine, cursor=cursor, **limited)
    t.partitions("behind the end", mine, cursor={**cursor, "partition_index": 9})
    t.partitions("below zero", mine, cursor={**cursor, "partition_index": -1})
    t.partitions("from one that is not asked for", c.name("set"), cursor=cursor)
    t.partitions("no room", mine, response_partition_limit=0)


def grow(t: LogTopics) -> None:
    name = t.c.name("m")
    t.grow("to as many", name, 2)
    t.grow("to fewer", name, 1)
    t.grow("to none", name, 0)
    t.grow("only checked", name, 9, validate_only=True)
    t.grow("to three", name, 3)
    t.grow("twice in a request", name, 4, times=2)
    t.grow("one that there is not", t.c.name("absent"), 4)
    t.grow("a name that none can have", "a b", 4)
    t.grow("placed", name, 4, assignments=[{"broker_ids": [1]}])
    t.grow("placed on another", name, 5, assignments=[{"broker_ids": [7]}])
    t.grow("placed, but not all", name, 6, assignments=[{"broker_ids": [1]}])
    t.grow("placed on none", name, 5, assignments=[{"broker_ids": []}])


def move(t: LogTopics) -> None:
    """Ask for what one node can only say no to."""
    c, name = t.c, t.c.name("m")
    for kind in (0, 1, 2):
        topics = [{"topic": name, "partitions": [0, 9]}, {"topic": "absent", "partitions": [0]}]
        body = {"election_type": kind, "topic_partitions": topics, "timeout_ms": 30_000}
        c.ask(f"elect: kind {kind}", ApiKey.ELECT_LEADERS, 2, body)
    for what, replicas in {"here": [1], "to another": [7], "off": None, "nowhere": []}.items():
        rows = [{"partition_index": index, "replicas": replicas} for index in (0, 9)]
        topics = [{"name": name, "partitions": rows}]
        body = {"topics": topics, "timeout_ms": 30_000}
        c.ask(f"move: {what}", ApiKey.ALTER_PARTITION_REASSIGNMENTS, 0, body)
    asked = [{"name": name, "partition_indexes": [0]}]
    for what, topics in {"one": asked, "all": None}.items():
        body = {"topics": topics, "timeout_ms": 30_000}
        c.ask(f"moves: {what}", ApiKey.LIST_PARTITION_REASSIGNMENTS, 0, body)


def delete(t: LogTopics) -> None:
    c = t.c
    for version in range(1, 6):
        name = c.name(f"v{version + 1}-")
        t.delete("one", name, version=version)
        t.delete("it again", name, version=version)
    t.delete("one by id", c.ids["set"])
    t.delete("it again by id", c.ids["set"])
    t.delete("one by name", c.name("usual"))
    t.delete("an id that there is not", NOBODY)
    t.delete("a name that none can have", "a b")
    t.delete("twice in a request", *[c.name("v7-")] * 2)
    t.delete("nothing")


def describe_the_server(c: Conversation) -> None:
    for version in range(5):
        said = {"client_software_name": "a", "client_software_version": "1"}
        answer = c.ask_aside(ApiKey.API_VERSIONS, version, said if version >= 3 else {})
        c.keep(f"api versions v{version}", {"error_code": answer["error_code"]})
    for name in ("", "-a", "a b"):
        said = {"client_software_name": name, "client_software_version": "1"}
        c.ask(f"api versions of {name!r}", ApiKey.API_VERSIONS, 3, said)
    for version in range(3):
        body = {"include_cluster_authorized_operations": True}
        answer = c.ask_aside(ApiKey.DESCRIBE_CLUSTER, version, body)
        brokers = [{**one, "port": 0} for one in answer["brokers"]]
        c.keep(f"cluster v{version}", {**answer, "cluster_id": "", "brokers": brokers})
    for kind in (0, 1, 2, 3):
        body = {"endpoint_type": kind}
        answer = c.ask_aside(ApiKey.DESCRIBE_CLUSTER, 2, body)
        c.keep(f"cluster, of endpoints {kind}", answer["error_code"])
    wanted = [{"topic": c.name("m"), "partitions": [0, 9]}, {"topic": "no", "partitions": [0]}]
    for version in range(1, 6):
        answer = c.ask_aside(ApiKey.DESCRIBE_LOG_DIRS, version, {"topics": wanted})
        (directory,) = answer["results"]
        c.keep(f"log directories v{version}", [answer["error_code"], directory["topics"]])
    for version in range(1, 7):
        keys = {"coordinator_keys": [c.name("g")]} if version >= 4 else {"key": c.name("g")}
        body = {**keys, "key_type": 9}
        c.ask(f"coordinator of no kind v{version}", ApiKey.FIND_COORDINATOR, version, body)
