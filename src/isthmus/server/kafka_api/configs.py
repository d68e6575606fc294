"""DescribeConfigs: every setting of a log topic, the server and a group, and its origin.

The settings of log topics are the table in storage/topic_configs.py. Those of the server are
told under the names that Apache Kafka gives them, because tools look for these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from isthmus.broker.group_configs import SETTINGS as GROUP_SETTINGS
from isthmus.errors import IsthmusError
from isthmus.kafka.assignors import ASSIGNORS
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.log_topics import RequestRefused, existing, refusal_of
from isthmus.storage.names import check_log_topic
from isthmus.storage.topic_configs import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isthmus.server.kafka_api.call import Call
    from isthmus.server.kafka_shore import KafkaShore
    from isthmus.storage.topic_configs import Setting

TOPIC_RESOURCE: Final = 2
BROKER_RESOURCE: Final = 4
GROUP_RESOURCE: Final = 32

SOURCE_TOPIC: Final = 1
SOURCE_SERVER: Final = 4
SOURCE_DEFAULT: Final = 5
SOURCE_GROUP: Final = 8

KINDS: Final = {
    "boolean": 1,
    "string": 2,
    "int": 3,
    "short": 4,
    "long": 5,
    "double": 6,
    "list": 7,
}


Synonyms: TypeAlias = tuple[tuple[str, str, int], ...]


class Config(NamedTuple):
    """One setting in force; of its `synonyms` (name, value, source) the first decides."""

    name: str
    value: str
    source: int
    kind: str
    doc: str
    synonyms: Synonyms


def effective(configs: Mapping[str, str], defaults: Mapping[str, str]) -> list[Config]:
    """Return all settings of a log topic for which `configs` were set.

    `defaults` are those of the server, where it has its own.
    """
    found = []
    for setting in SETTINGS.values():
        if setting.hidden:
            continue
        value, source = _default(setting, defaults)
        synonyms = _default_synonyms(setting, defaults)
        if setting.name in configs:
            value, source = configs[setting.name], SOURCE_TOPIC
            synonyms = ((setting.name, value, source), *synonyms)
        found.append(Config(setting.name, value, source, setting.kind, setting.doc, synonyms))
    return found


def _default(setting: Setting, defaults: Mapping[str, str]) -> tuple[str, int]:
    """Return the value that holds for log topics that do not say, and its source."""
    default = defaults.get(setting.name, setting.default)
    return default, SOURCE_DEFAULT if default == setting.default else SOURCE_SERVER


def _default_synonyms(setting: Setting, defaults: Mapping[str, str]) -> Synonyms:
    name = setting.server_default
    if name is None:
        return ()
    value, source = _default(setting, defaults)
    if source == SOURCE_DEFAULT:
        return ((name, value, source),)
    return ((name, value, source), (name, setting.default, SOURCE_DEFAULT))


def server_configs(shore: KafkaShore, address: tuple[str, int]) -> list[Config]:
    """Return the settings of the server, by Kafka's names."""
    settings = shore.settings
    listener = f"PLAINTEXT://{address[0]}:{address[1]}"
    configured: list[tuple[str, str, str, str]] = [
        ("node.id", str(shore.node_id), "int", "The id of this broker; there is one."),
        ("broker.id", str(shore.node_id), "int", "The same as node.id."),
        ("listeners", listener, "list", "The address that this client connected to."),
        ("advertised.listeners", listener, "list", "The address that clients are told."),
        (
            "num.partitions",
            str(settings.partitions_default),
            "int",
            "Partitions of a log topic created without their number.",
        ),
        (
            "auto.create.topics.enable",
            str(settings.auto_create_topics).lower(),
            "boolean",
            "Create a log topic when a client that asks for it allows that.",
        ),
        (
            "socket.request.max.bytes",
            str(settings.request_size_max),
            "int",
            "Bytes of the largest request taken.",
        ),
        (
            "max.connections",
            str(settings.connections_max),
            "int",
            "Connections open at one time.",
        ),
        (
            "offsets.retention.minutes",
            str(settings.offsets_retention_minutes),
            "int",
            "Time that an empty group's offsets are kept.",
        ),
        (
            "group.initial.rebalance.delay.ms",
            str(settings.group_initial_rebalance_delay_ms),
            "int",
            "Time that an empty group waits for more members.",
        ),
        (
            "group.min.session.timeout.ms",
            str(settings.group_session_timeout_min_ms),
            "int",
            "The shortest session timeout that a member may ask for.",
        ),
        (
            "group.max.session.timeout.ms",
            str(settings.group_session_timeout_max_ms),
            "int",
            "The longest session timeout that a member may ask for.",
        ),
        (
            "group.consumer.session.timeout.ms",
            str(settings.group_consumer_session_timeout_ms),
            "int",
            "Silence after which a member of the consumer protocol is put out.",
        ),
        (
            "group.consumer.heartbeat.interval.ms",
            str(settings.group_consumer_heartbeat_interval_ms),
            "int",
            "Time between heartbeats that members of the consumer protocol are told.",
        ),
        (
            "group.consumer.assignment.interval.ms",
            str(settings.group_consumer_assignment_interval_ms),
            "int",
            "Shortest time between two assignments of a group of the consumer protocol.",
        ),
        (
            "group.consumer.migration.policy",
            settings.group_consumer_migration_policy,
            "string",
            "Which way a group with members may go between the two protocols.",
        ),
        ("group.consumer.assignors", ",".join(ASSIGNORS), "list", "Assignors of the server."),
        (
            "group.max.size",
            str(settings.group_members_max),
            "int",
            "Members of one group.",
        ),
        (
            "max.incremental.fetch.session.cache.slots",
            str(settings.fetch_sessions_max),
            "int",
            "Incremental fetch sessions kept at one time.",
        ),
        ("default.replication.factor", "1", "int", "There is one copy of everything."),
        ("offsets.topic.replication.factor", "1", "short", "There is one copy of everything."),
        ("delete.topic.enable", "true", "boolean", "Log topics can be deleted."),
    ]
    found = [
        Config(name, value, SOURCE_SERVER, kind, doc, ((name, value, SOURCE_SERVER),))
        for name, value, kind, doc in configured
    ]
    for setting in SETTINGS.values():
        name = setting.server_default
        if name is not None:
            value, source = _default(setting, shore.log.topic_defaults)
            synonyms = _default_synonyms(setting, shore.log.topic_defaults)
            found.append(Config(name, value, source, setting.kind, setting.doc, synonyms))
    return sorted(found)


def group_configs(shore: KafkaShore, group_id: str) -> list[Config]:
    """Return the settings of a group; those that it does not have are the server's."""
    own = shore.group_configs.of(group_id)
    found = []
    for name, setting in GROUP_SETTINGS.items():
        default = str(getattr(shore.group_configs.defaults, setting.term))
        value, source = own.get(name, default), SOURCE_SERVER
        synonyms: Synonyms = ((f"group.{name}", default, SOURCE_SERVER),)
        if name in own:
            source = SOURCE_GROUP
            synonyms = ((name, value, source), *synonyms)
        found.append(Config(name, value, source, "int", setting.doc, synonyms))
    return found


def describe_configs(call: Call) -> None:
    """Answer with all settings of each resource, or with those asked for."""
    results = []
    for resource in call.request["resources"]:
        row: dict[str, Any] = {
            "resource_type": resource["resource_type"],
            "resource_name": resource["resource_name"],
            "error_message": None,
        }
        try:
            configs = _described(call, resource["resource_type"], resource["resource_name"])
            asked = resource["configuration_keys"]
            is_read_only = resource["resource_type"] == BROKER_RESOURCE
            row["configs"] = [
                _config_row(call, config, is_read_only=is_read_only)
                for config in configs
                if not asked or config.name in asked
            ]
        except IsthmusError as error:
            row["error_code"] = refusal_of(error)
            row["error_message"] = str(error)
        results.append(row)
    call.answer({"results": results})


def _described(call: Call, kind: int, name: str) -> list[Config]:
    shore = call.shore
    if kind == TOPIC_RESOURCE:
        check_log_topic(name)
        return effective(existing(shore, name).configs, shore.log.topic_defaults)
    if kind == BROKER_RESOURCE:
        if name == "":
            return []  # what is set for all brokers at once: nothing can be
        if name != str(shore.node_id):
            raise RequestRefused(
                ErrorCode.INVALID_REQUEST, f"broker {name!r}, and there is {shore.node_id}"
            )
        return server_configs(shore, call.connection.address)
    if kind == GROUP_RESOURCE and name:
        return group_configs(shore, name)
    raise RequestRefused(
        ErrorCode.INVALID_REQUEST, f"resources of type {kind} have no settings"
    )


def _config_row(call: Call, config: Config, *, is_read_only: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": config.name,
        "value": config.value,
        "read_only": is_read_only,
        "config_source": config.source,
        "is_sensitive": False,
        "config_type": KINDS[config.kind],
        "documentation": None,
    }
    if call.request["include_synonyms"]:
        row["synonyms"] = [
            {"name": name, "value": value, "source": source}
            for name, value, source in config.synonyms
        ]
    if call.request["include_documentation"]:
        row["documentation"] = config.doc
    return row
