"""What an administrator asks of a broker, field by field, as Apache Kafka answers it.

    python -m tests.e2e.admin_answers HOST:PORT

asks an Apache Kafka (see apache_kafka.py) and writes its answers to `admin_answers.json`; the
test beside it asks Isthmus the same and compares. Of error messages only the code is kept; what
is unordered is sorted. Times to wait are kept in whole seconds.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from tests.e2e.kafka_asker import Asker
from tests.e2e.kafka_libraries import create_topic
from tests.e2e.patience import wait_until
from tests.e2e.server_process import address_of

from isthmus.kafka.api import ApiKey
from isthmus.record.batch import BatchBuilder

if TYPE_CHECKING:
    from tests.e2e.server_process import Address

RECORD: Final = Path(__file__).with_name("admin_answers.json")
LEFT_OUT: Final = {"throttle_time_ms", "error_message"}
EXACT, DEFAULT, ANY = 0, 1, 2
SETTLED_S: Final = 0.3  # an Apache Kafka says that a quota is set before it holds


class Conversation:
    """Asks one server, and keeps what it answers by the question's name."""

    def __init__(self, server: Address) -> None:
        self.server = server
        self.unique = uuid4().hex[:8]
        self.answers: dict[str, Any] = {}

    def ask(self, api_key: int, version: int, body: dict[str, Any]) -> dict[str, Any]:
        with closing(Asker(self.server)) as asker:
            return asker.ask(api_key, version, body)

    def note(self, what: str, answer: Any) -> None:
        assert what not in self.answers, f"{what} was asked already"
        self.answers[what] = self._comparable(answer)

    def _comparable(self, value: Any) -> Any:
        if isinstance(value, dict):
            items = value.items()
            return {name: self._comparable(one) for name, one in items if name not in LEFT_OUT}
        if isinstance(value, list):
            return sorted((self._comparable(one) for one in value), key=json.dumps)
        if isinstance(value, str):
            return value.replace(self.unique, "*")
        return value

    # --- quotas -------------------------------------------------------------------------------

    def alter(
        self, names: dict[str, str | None], limits: dict[str, float | None], **more: Any
    ) -> dict[str, Any]:
        ops = [
            {"key": key, "value": limit or 0.0, "remove": limit is None}
            for key, limit in limits.items()
        ]
        entry = {"entity": self.entity(names), "ops": ops}
        body = {"entries": [entry], "validate_only": False, **more}
        return self.ask(ApiKey.ALTER_CLIENT_QUOTAS, 1, body)

    def entity(self, names: dict[str, str | None]) -> list[dict[str, Any]]:
        return [{"entity_type": kind, "entity_name": name} for kind, name in names.items()]

    def described(
        self, *components: tuple[str, int, str | None], strict: bool = False
    ) -> dict[str, Any]:
        rows = [
            {"entity_type": kind, "match_type": match_type, "match": match}
            for kind, match_type, match in components
        ]
        body = {"components": rows, "strict": strict}
        return self.ask(ApiKey.DESCRIBE_CLIENT_QUOTAS, 1, body)

    def settle(self, names: dict[str, str | None], limits: dict[str, float | None]) -> None:
        """Set a quota, and wait until it is there."""
        assert not self.alter(names, limits)["entries"][0]["error_code"]
        asked = [
            (kind, DEFAULT if name is None else EXACT, name) for kind, name in names.items()
        ]
        left = {key: limit for key, limit in limits.items() if limit is not None}

        def holds() -> bool:
            rows = self.described(*asked, strict=True)["entries"]
            found = {one["key"]: one["value"] for row in rows for one in row["values"]}
            return found == left

        wait_until(holds, "that a quota is set")

    def limit(self, key: str, limit: float | None) -> None:
        """Limit what comes from this client, from now on."""
        self.settle({"client-id": "raw"}, {key: limit})
        time.sleep(SETTLED_S)


def play(server: Address) -> dict[str, Any]:
    """Have the whole conversation with a server, and return its answers."""
    conversation = Conversation(server)
    quotas_that_may_not_be(conversation)
    quotas_that_are_described(conversation)
    quotas_that_are_exceeded(conversation)
    settings_of_brokers(conversation)
    levels_of_loggers(conversation)
    levels_of_features(conversation)
    subscriptions_to_metrics(conversation)
    return conversation.answers


def quotas_that_may_not_be(c: Conversation) -> None:
    user, first = {"user": "x"}, {"producer_byte_rate": 1.0}
    refused: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "an unknown host": ({"ip": "10.0.0.300"}, {"connection_creation_rate": 1.0}),
        "ip and user": ({"ip": "::1", "user": "x"}, {"connection_creation_rate": 1.0}),
        "bytes of an ip": ({"ip": "::1"}, first),
        "connections of a user": (user, {"connection_creation_rate": 1.0}),
        "no entity": ({}, first),
        "an empty name": ({"user": ""}, first),
        "another type": ({"team": "x"}, first),
        "another key": (user, {"nothing": 1.0}),
        "another key removed": (user, {"nothing": None}),
        "zero": (user, {"producer_byte_rate": 0.0}),
        "below zero": (user, {"producer_byte_rate": -1.0}),
        "no end": (user, {"consumer_byte_rate": float("inf")}),
        "a fraction": (user, {"producer_byte_rate": 1.5}),
        "beyond a long": (user, {"producer_byte_rate": 1e19}),
        "beyond an int": ({"ip": "::1"}, {"connection_creation_rate": 2.0**31}),
        "partly wrong": (user, {"producer_byte_rate": 1.0, "nothing": 1.0}),
        "removed and not there": (user, {"producer_byte_rate": None}),
        "nothing": (user, {}),
    }
    for what, (names, limits) in refused.items():
        c.note(f"alter: {what}", c.alter(names, limits))
    whole = {"request_percentage": 0.5, "producer_byte_rate": 1.0000001}
    c.note("alter: validate only", c.alter(user, whole, validate_only=True))
    entry = {"entity": c.entity(user), "ops": [{"key": "nothing", "value": 1.0}]}
    c.note("alter: twice", c.alter({}, {}, entries=[entry, entry]))
    twice = {"entity": c.entity(user), "ops": [{"key": "producer_byte_rate", "value": 1.0}] * 2}
    c.note("alter: a key twice", c.alter({}, {}, entries=[twice]))
    c.note("nobody has a quota", c.described())


def quotas_that_are_described(c: Conversation) -> None:
    kept: list[tuple[dict[str, str | None], dict[str, float | None]]] = [
        ({"user": "u"}, {"producer_byte_rate": 10.0, "request_percentage": 12.5}),
        ({"user": None}, {"consumer_byte_rate": 20.0}),
        ({"user": "u", "client-id": "c"}, {"producer_byte_rate": 30.0}),
        ({"user": None, "client-id": None}, {"producer_byte_rate": 40.0}),
        ({"client-id": "c"}, {"controller_mutation_rate": 0.5}),
        ({"ip": "10.0.0.1"}, {"connection_creation_rate": 5.0}),
        ({"ip": None}, {"connection_creation_rate": 6000.0}),
    ]
    for names, limits in kept:
        c.settle(names, limits)
    filters: dict[str, tuple[tuple[str, int, str | None], ...]] = {
        "everything": (),
        "a user": (("user", EXACT, "u"),),
        "all users": (("user", DEFAULT, None),),
        "any user": (("user", ANY, None),),
        "any user and client": (("user", ANY, None), ("client-id", ANY, None)),
        "a user and any client": (("user", EXACT, "u"), ("client-id", ANY, None)),
        "all users and all clients": (("user", DEFAULT, None), ("client-id", DEFAULT, None)),
        "a client": (("client-id", EXACT, "c"),),
        "any ip": (("ip", ANY, None),),
        "nobody": (("user", EXACT, "nobody"),),
        "a type twice": (("user", ANY, None), ("user", EXACT, "u")),
        "an empty type": (("", ANY, None),),
        "another type": (("team", ANY, None),),
        "another match": (("user", 3, None),),
        "exactly nothing": (("user", EXACT, None),),
        "all with a name": (("user", DEFAULT, "u"),),
        "ip and user": (("ip", ANY, None), ("user", ANY, None)),
    }
    for what, components in filters.items():
        for strict in (False, True):
            said = c.described(*components, strict=strict)
            c.note(f"describe: {what}{', strict' if strict else ''}", said)
    for names, limits in kept:
        c.settle(names, dict.fromkeys(limits))
    c.note("nobody has one any more", c.described())


def quotas_that_are_exceeded(c: Conversation) -> None:
    """Each time by a sixth of what ten seconds give, so that a second and a half is to wait."""
    name = f"q-{c.unique}"
    create_topic(c.server, name, 1)
    builder = BatchBuilder()
    builder.append(int(time.time() * 1000), None, bytes(11_400))
    records = bytes(builder.seal().data)
    partition = {"index": 0, "records": records}
    produce = {
        "acks": -1,
        "timeout_ms": 10_000,
        "topic_data": [{"name": name, "partition_data": [partition]}],
    }
    c.limit("producer_byte_rate", 1000.0)
    for what, version in (("first", 3), ("again", 12)):
        wait_ms = c.ask(ApiKey.PRODUCE, version, produce)["throttle_time_ms"]
        said = wait_ms // 1000 if what == "first" else wait_ms > 0
        c.note(f"a Produce beyond its quota, {what}", said)
    c.limit("producer_byte_rate", None)
    wanted = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20}
    fetch = {
        "max_wait_ms": 0,
        "min_bytes": 1,
        "max_bytes": 1 << 20,
        "session_epoch": 0,
        "topics": [{"topic": name, "partitions": [wanted]}],
    }
    c.limit("consumer_byte_rate", 1000.0)
    answer = c.ask(ApiKey.FETCH, 12, fetch)
    c.note("a Fetch beyond its quota", answer)
    c.note("a Fetch beyond its quota: seconds", answer["throttle_time_ms"] // 1000)
    c.limit("consumer_byte_rate", None)
    c.limit("controller_mutation_rate", 0.05)  # so that minutes are nothing
    for what, version, dry in (
        ("more than there is", 7, False),
        ("nothing left", 7, False),
        ("nothing left, not in earnest", 7, True),
        ("nothing left, a client of before", 5, False),
    ):
        topic = {
            "name": f"{name}-{len(c.answers)}",
            "num_partitions": 9,
            "replication_factor": 1,
        }
        body = {"topics": [topic], "timeout_ms": 10_000, "validate_only": dry}
        said = c.ask(ApiKey.CREATE_TOPICS, version, body)
        code, waits = said["topics"][0]["error_code"], said["throttle_time_ms"] > 0
        c.note(f"log topics made: {what}", {"error_code": code, "waits": waits})
    body = {"topics": [{"name": name, "count": 3, "assignments": None}], "timeout_ms": 10_000}
    said = c.ask(ApiKey.CREATE_PARTITIONS, 3, body)
    c.note("partitions made: nothing left", [one["error_code"] for one in said["results"]])
    body = {"topics": [{"name": name}], "timeout_ms": 10_000}
    said = c.ask(ApiKey.DELETE_TOPICS, 6, body)
    c.note("log topics deleted: nothing left", [one["error_code"] for one in said["responses"]])
    c.limit("controller_mutation_rate", None)


# --- settings of the server -------------------------------------------------------------------

SET, DELETE, APPEND, SUBTRACT = range(4)
TOPIC, BROKER, LOGGER = 2, 4, 8


CHANGES: Final[dict[str, tuple[str, tuple[str, int, str | None]]]] = {
    "read at the start": ("1", ("num.partitions", SET, "3")),
    "read at the start, of all": ("", ("num.partitions", SET, "3")),
    "read at the start, taken back": ("1", ("num.partitions", DELETE, None)),
    "never set": ("1", ("log.roll.ms", DELETE, None)),
    "unknown, taken back": ("1", ("anything", DELETE, None)),
    "no number": ("1", ("message.max.bytes", SET, "x")),
    "too small": ("1", ("message.max.bytes", SET, "-3")),
    "nothing": ("1", ("message.max.bytes", SET, None)),
    "no list": ("", ("message.max.bytes", APPEND, "1")),
    "another broker": ("2", ("message.max.bytes", SET, "2000000")),
    "no broker": ("x", ("message.max.bytes", SET, "2000000")),
    "of one broker only": ("", ("sasl.kerberos.kinit.cmd", SET, "/bin/kinit")),
    "of Kerberos": ("1", ("sasl.kerberos.min.time.before.relogin", SET, "58000")),
    "of Kerberos, taken back": (
        *("1",),
        ("sasl.kerberos.min.time.before.relogin", DELETE, None),
    ),
    "a throttle": ("1", ("leader.replication.throttled.rate", SET, "9")),
    "a throttle, taken back": ("1", ("leader.replication.throttled.rate", DELETE, None)),
    "connections": ("1", ("max.connections", SET, "900")),
    "connections, taken back": ("1", ("max.connections", DELETE, None)),
    "of all": ("", ("message.max.bytes", SET, "2000000")),
    "of one": ("1", ("message.max.bytes", SET, "3000000")),
    "a list": ("", ("log.cleanup.policy", APPEND, "compact")),
}


def settings_of_brokers(c: Conversation) -> None:
    name = f"s-{c.unique}"
    create_topic(c.server, name, 1)
    for what, (broker, change) in CHANGES.items():
        c.note(f"broker: {what}", altered(c, BROKER, broker, change))
    keys = ["message.max.bytes", "log.cleanup.policy"]
    wait_until(
        lambda: (
            rows_of(described(c, BROKER, "1", keys))["log.cleanup.policy"]["value"]
            == "delete,compact"
        ),
        "that the last is told",
    )
    c.note("broker: described", described(c, BROKER, "1", keys))
    c.note("broker: of its log topic", described(c, TOPIC, name, ["max.message.bytes"]))
    for broker in ("", "2", "x"):
        said = described(c, BROKER, broker, keys)
        c.note(f"broker: described as {broker!r}", said)
    fixed = rows_of(described(c, BROKER, "1", ["num.partitions"]))
    c.note("broker: read only", fixed["num.partitions"]["read_only"])
    replaced = {"resource_type": BROKER, "resource_name": "1", "configs": []}
    c.note("broker: replaced", c.ask(ApiKey.ALTER_CONFIGS, 2, {"resources": [replaced]}))
    changes = [(key, DELETE, None) for key in keys]
    c.note("broker: taken back", altered(c, BROKER, "", *changes))


def levels_of_loggers(c: Conversation) -> None:
    asked: dict[str, tuple[str, tuple[str, int, str | None]]] = {
        "set": ("1", ("root", SET, "WARN")),
        "no logger": ("1", ("nothing", SET, "INFO")),
        "no level": ("1", ("root", SET, "LOUD")),
        "a small one": ("1", ("root", SET, "info")),
        "of root, taken back": ("1", ("root", DELETE, None)),
        "of no logger, taken back": ("1", ("nothing", DELETE, None)),
        "appended": ("1", ("root", APPEND, "INFO")),
        "of another broker": ("2", ("root", SET, "INFO")),
        "of no broker": ("", ("root", SET, "INFO")),
    }
    for what, (broker, change) in asked.items():
        c.note(f"level: {what}", altered(c, LOGGER, broker, change))
    c.note("level: described", described(c, LOGGER, "1", ["root"]))
    for broker in ("", "2"):
        c.note(f"level: described as {broker!r}", described(c, LOGGER, broker, ["root"]))
    config = {"name": "root", "value": "INFO"}
    replaced = {"resource_type": LOGGER, "resource_name": "1", "configs": [config]}
    c.note("level: replaced", c.ask(ApiKey.ALTER_CONFIGS, 2, {"resources": [replaced]}))
    c.note("level: as before", altered(c, LOGGER, "1", ("root", SET, "INFO")))
    c.note(
        "listed", c.ask(ApiKey.LIST_CONFIG_RESOURCES, 1, {"resource_types": [BROKER, LOGGER]})
    )


# --- features ---------------------------------------------------------------------------------

UPGRADE, SAFE, UNSAFE = 1, 2, 3
GROUP, METADATA, TRANSACTION = "group.version", "metadata.version", "transaction.version"
FEATURES: Final = (GROUP, METADATA, TRANSACTION)


def levels_of_features(c: Conversation) -> None:
    asked: dict[str, list[tuple[str, int, int]]] = {
        "as it is": [(GROUP, 1, UPGRADE)],
        "as it is, unsafe": [(GROUP, 1, UNSAFE)],
        "lower": [(GROUP, 0, SAFE)],
        "lower, unsafe": [(TRANSACTION, 1, UNSAFE)],
        "lower by an upgrade": [(GROUP, 0, UPGRADE)],
        "too high": [(GROUP, 9, UPGRADE)],
        "below zero": [(GROUP, -1, SAFE)],
        "unknown": [("nothing", 1, UPGRADE)],
        "unknown, off": [("nothing", 0, SAFE)],
        "no type": [(GROUP, 1, 0)],
        "another type": [(GROUP, 1, 9)],
        "metadata as it is": [(METADATA, 30, UPGRADE)],
        "metadata too high": [(METADATA, 31, UPGRADE)],
        "metadata lower": [(METADATA, 29, SAFE)],
        "metadata lower, unsafe": [(METADATA, 29, UNSAFE)],
        "metadata off": [(METADATA, 0, SAFE)],
        "one of two wrong": [(GROUP, 0, SAFE), ("nothing", 1, UPGRADE)],
        "twice": [(GROUP, 0, SAFE), (GROUP, 1, UPGRADE)],
        "nothing": [],
    }
    for what, updates in asked.items():
        for version in (1, 2):
            c.note(f"feature v{version}: {what}", updated(c, version, updates, dry=True))
    named = {"client_software_name": "x", "client_software_version": "1"}
    for what, level, kind in (("off", 0, SAFE), ("on again", 1, UPGRADE)):
        c.note(f"feature: {what}", updated(c, 2, [(GROUP, level, kind)]))
        if not level:
            wait_until(lambda: is_at(c, 0), "that a feature is off")
            c.note("feature: higher by a downgrade", updated(c, 2, [(GROUP, 1, SAFE)]))
            groups = {"group_ids": [c.unique]}
            said = c.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, 1, groups)
            c.note("feature: off, a group", said["groups"][0]["error_code"])
        wait_until(lambda level=level: is_at(c, level), f"that a feature is {what}")
        answer = c.ask(ApiKey.API_VERSIONS, 4, named)
        rows = [one for one in answer["finalized_features"] if one["name"] in FEATURES]
        c.note(f"feature: {what}, all", rows)
        beat = {"group_id": c.unique, "member_id": "m", "member_epoch": -3}
        c.note(f"feature: {what}, a heartbeat", c.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, beat))


def updated(
    c: Conversation, version: int, updates: list[tuple[str, int, int]], *, dry: bool = False
) -> dict[str, Any]:
    rows = [
        {"feature": name, "max_version_level": level, "upgrade_type": kind}
        for name, level, kind in updates
    ]
    body = {"timeout_ms": 10_000, "feature_updates": rows, "validate_only": dry}
    return c.ask(ApiKey.UPDATE_FEATURES, version, body)


def is_at(c: Conversation, level: int) -> bool:
    """Whether a server says, and does, that the consumer protocol is on, or off."""
    named = {"client_software_name": "x", "client_software_version": "1"}
    rows = c.ask(ApiKey.API_VERSIONS, 4, named)["finalized_features"]
    found = {one["name"]: one["max_version_level"] for one in rows}
    return found.get(GROUP, 0) == level


# --- metrics of clients -----------------------------------------------------------------------

CLIENT_METRICS = 16


def subscriptions_to_metrics(c: Conversation) -> None:
    asked: dict[str, tuple[str, int, str | None]] = {
        "some": ("metrics", SET, "org.apache, b"),
        "none": ("metrics", SET, ""),
        "nothing": ("metrics", SET, None),
        "appended": ("metrics", APPEND, "c"),
        "seldom": ("interval.ms", SET, "3600000"),
        "too seldom": ("interval.ms", SET, "3600001"),
        "too often": ("interval.ms", SET, "99"),
        "no number": ("interval.ms", SET, "x"),
        "of some": ("match", SET, "client_id=a.*,client_software_name=b"),
        "of nobody": ("match", SET, "client_id="),
        "of no kind": ("match", SET, "client=a"),
        "of no expression": ("match", SET, "client_id=["),
        "no setting": ("anything", SET, "1"),
        "no setting, taken back": ("anything", DELETE, None),
    }
    for what, change in asked.items():
        c.note(f"metrics: {what}", altered(c, CLIENT_METRICS, c.unique, change))
    c.note("metrics: no name", altered(c, CLIENT_METRICS, "", asked["some"]))

    def rows() -> dict[str, dict[str, Any]]:
        return rows_of(described(c, CLIENT_METRICS, c.unique, []))

    wait_until(lambda: rows()["match"]["value"], "that the last is told")
    c.note("metrics: described", rows())
    c.note("metrics: others described", described(c, CLIENT_METRICS, "others", []))
    c.note("metrics: none described", described(c, CLIENT_METRICS, "", []))
    for what, version, body in (("by type", 1, {"resource_types": [16]}), ("before", 0, {})):
        said = c.ask(ApiKey.LIST_CONFIG_RESOURCES, version, body)["config_resources"]
        c.note(
            f"metrics: listed {what}", [one for one in said if one["resource_name"] == c.unique]
        )
    gone = {"resource_type": CLIENT_METRICS, "resource_name": c.unique, "configs": []}
    c.note("metrics: replaced", c.ask(ApiKey.ALTER_CONFIGS, 2, {"resources": [gone]}))


def altered(
    c: Conversation, kind: int, name: str, *changes: tuple[str, int, str | None]
) -> dict[str, Any]:
    configs = [
        {"name": config, "config_operation": operation, "value": value}
        for config, operation, value in changes
    ]
    resource = {"resource_type": kind, "resource_name": name, "configs": configs}
    return c.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, {"resources": [resource]})


def described(c: Conversation, kind: int, name: str, keys: list[str]) -> dict[str, Any]:
    resource = {"resource_type": kind, "resource_name": name, "configuration_keys": keys}
    body = {"resources": [resource], "include_synonyms": True}
    answer = c.ask(ApiKey.DESCRIBE_CONFIGS, 4, body)
    for row in answer["results"][0]["configs"]:
        del row["documentation"]
    return answer


def rows_of(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (result,) = answer["results"]
    return {row["name"]: row for row in result["configs"]}


def main() -> None:
    """Record what an Apache Kafka says."""
    answers = play(address_of(sys.argv[1]))
    RECORD.write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
