"""DescribeConfigs: every setting of a log topic, the server and a group, and its origin.

The settings of log topics are the table in storage/topic_configs.py. Those of the server are
told under the names that Apache Kafka gives them, because tools look for these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from isthmus.broker.client_metrics import SETTINGS as METRICS_SETTINGS
from isthmus.broker.group_configs import OF_GROUPS_ONLY, SHARE
from isthmus.broker.group_configs import SETTINGS as GROUP_SETTINGS
from isthmus.broker.quota_rates import SAMPLE_MS, SAMPLES
from isthmus.broker.server_configs import CONNECTIONS, EVERY, OF_LOG_TOPICS, OTHERS
from isthmus.config import KafkaSettings
from isthmus.errors import IsthmusError
from isthmus.kafka.assignors import ASSIGNORS
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.log_topics import RequestRefused, existing, refusal_of
from isthmus.server.kafka_api.loggers import levels
from isthmus.storage.names import check_log_topic
from isthmus.storage.topic_configs import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isthmus.server.kafka_api.call import Call
    from isthmus.server.kafka_shore import KafkaShore
    from isthmus.storage.topic_configs import Setting

TOPIC_RESOURCE: Final = 2
BROKER_RESOURCE: Final = 4
BROKER_LOGGER_RESOURCE: Final = 8
CLIENT_METRICS_RESOURCE: Final = 16
GROUP_RESOURCE: Final = 32

SOURCE_TOPIC: Final = 1
SOURCE_BROKER: Final = 2
SOURCE_ALL_BROKERS: Final = 3
SOURCE_SERVER: Final = 4
SOURCE_DEFAULT: Final = 5
SOURCE_LOGGER: Final = 6
SOURCE_CLIENT_METRICS: Final = 7
SOURCE_GROUP: Final = 8

KINDS: Final = {
    "unknown": 0,
    "boolean": 1,
    "string": 2,
    "int": 3,
    "short": 4,
    "long": 5,
    "double": 6,
    "list": 7,
}


# By their names: where the configuration file has them, and what they are.
CONFIGURED: Final[Mapping[str, tuple[str, str, str]]] = {
    "num.partitions": (
        *("partitions_default", "int"),
        "Partitions of a log topic created without their number.",
    ),
    "auto.create.topics.enable": (
        *("auto_create_topics", "boolean"),
        "Create a log topic when a client that asks for it allows that.",
    ),
    "socket.request.max.bytes": (
        *("request_size_max", "int"),
        "Bytes of the largest request taken.",
    ),
    "fetch.max.bytes": (
        *("fetch_bytes_max", "int"),
        "Bytes of records in one response, whatever a client asks for.",
    ),
    "offsets.retention.minutes": (
        *("offsets_retention_minutes", "int"),
        "Time that an empty group's offsets are kept.",
    ),
    "transaction.max.timeout.ms": (
        *("transaction_timeout_max_ms", "int"),
        "The longest time that a producer may ask to have for a transaction.",
    ),
    "group.initial.rebalance.delay.ms": (
        *("group_initial_rebalance_delay_ms", "int"),
        "Time that an empty group waits for more members.",
    ),
    "group.min.session.timeout.ms": (
        *("group_session_timeout_min_ms", "int"),
        "The shortest session timeout that a member may ask for.",
    ),
    "group.max.session.timeout.ms": (
        *("group_session_timeout_max_ms", "int"),
        "The longest session timeout that a member may ask for.",
    ),
    "group.consumer.session.timeout.ms": (
        *("group_consumer_session_timeout_ms", "int"),
        "Silence after which a member of the consumer protocol is put out.",
    ),
    "group.consumer.heartbeat.interval.ms": (
        *("group_consumer_heartbeat_interval_ms", "int"),
        "Time between heartbeats that members of the consumer protocol are told.",
    ),
    "group.consumer.assignment.interval.ms": (
        *("group_consumer_assignment_interval_ms", "int"),
        "Shortest time between two assignments of a group of the consumer protocol.",
    ),
    "group.consumer.migration.policy": (
        *("group_consumer_migration_policy", "string"),
        "Which way a group with members may go between the two protocols.",
    ),
    **{
        f"group.{name}": (f"group_{name.replace('.', '_')}", "int", setting.doc)
        for name, setting in GROUP_SETTINGS.items()
        if name.startswith(SHARE) and name not in OF_GROUPS_ONLY
    },
    "group.share.max.size": ("group_share_members_max", "int", "Members of one share group."),
    "group.share.max.share.sessions": (
        *("group_share_sessions_max", "int"),
        "Share sessions kept at one time.",
    ),
    "group.max.size": ("group_members_max", "int", "Members of one group."),
    "max.incremental.fetch.session.cache.slots": (
        *("fetch_sessions_max", "int"),
        "Incremental fetch sessions kept at one time.",
    ),
}
FIXED: Final[Mapping[str, tuple[str, str, str]]] = {
    "group.consumer.assignors": (",".join(ASSIGNORS), "list", "Assignors of the server."),
    "quota.window.num": (str(SAMPLES), "int", "Samples that a quota looks back over."),
    "quota.window.size.seconds": (str(SAMPLE_MS // 1000), "int", "Seconds of one of these."),
    "default.replication.factor": ("1", "int", "There is one copy of everything."),
    "offsets.topic.replication.factor": ("1", "short", "There is one copy of everything."),
    "delete.topic.enable": ("true", "boolean", "Log topics can be deleted."),
}
DEFAULTS: Final = KafkaSettings()

Synonyms: TypeAlias = tuple[tuple[str, str, int], ...]


class Config(NamedTuple):
    """One setting in force; of its `synonyms` (name, value, source) the first decides."""

    name: str
    value: str
    source: int
    kind: str
    doc: str
    synonyms: Synonyms
    is_read_only: bool = False


def effective(shore: KafkaShore, configs: Mapping[str, str]) -> list[Config]:
    """Return all settings of a log topic for which `configs` were set."""
    found = []
    for setting in SETTINGS.values():
        if setting.hidden:
            continue
        synonyms = _of_log_topics(shore, setting)
        _, value, source = synonyms[0]
        if setting.server_default is None:
            synonyms = ()
        if setting.name in configs:
            value, source = configs[setting.name], SOURCE_TOPIC
            synonyms = ((setting.name, value, source), *synonyms)
        found.append(Config(setting.name, value, source, setting.kind, setting.doc, synonyms))
    return found


def _of_log_topics(shore: KafkaShore, setting: Setting) -> Synonyms:
    """Return what holds for log topics that do not say, and what would hold without it."""
    configured = shore.server_configs.topic_defaults.get(setting.name, setting.default)
    name = setting.server_default or setting.name
    return _synonyms(shore, name, configured, setting.default)


def _synonyms(shore: KafkaShore, name: str, configured: str, default: str) -> Synonyms:
    """Return the values of a setting of the server, the one in force first."""
    kept = shore.server_configs
    of_broker, of_all = kept.of(kept.name).get(name), kept.of(EVERY).get(name)
    values = (
        (of_broker, SOURCE_BROKER),
        (of_all, SOURCE_ALL_BROKERS),
        (configured if configured != default else None, SOURCE_SERVER),
        (default, SOURCE_DEFAULT),
    )
    return tuple((name, value, source) for value, source in values if value is not None)


def server_configs(shore: KafkaShore, address: tuple[str, int]) -> list[Config]:
    """Return the settings of the server, by Kafka's names."""
    listener = f"PLAINTEXT://{address[0]}:{address[1]}"
    found = [
        _fixed("node.id", str(shore.node_id), "int", "The id of this broker; there is one."),
        _fixed("broker.id", str(shore.node_id), "int", "The same as node.id."),
        _fixed("listeners", listener, "list", "The address that this client connected to."),
        _fixed("advertised.listeners", listener, "list", "The address that clients are told."),
        _fixed("log.dirs", shore.log.directory, "list", "Where the records are kept."),
    ]
    for name, (value, kind, doc) in FIXED.items():
        found.append(_config(((name, value, SOURCE_DEFAULT),), kind, doc, fixed=True))
    for name, (attribute, kind, doc) in CONFIGURED.items():
        value, default = (
            str(getattr(settings, attribute)) for settings in (shore.settings, DEFAULTS)
        )
        if kind == "boolean":
            value, default = value.lower(), default.lower()
        found.append(_config(_synonyms(shore, name, value, default), kind, doc, fixed=True))
    for name, setting in OTHERS.items():
        configured = default = setting.default
        if name == CONNECTIONS:
            configured = str(shore.connections_max)
        values = _synonyms(shore, name, configured, default)
        found.append(_config(values, setting.kind, setting.doc))
    found += [
        _config(_of_log_topics(shore, setting), setting.kind, setting.doc)
        for setting in OF_LOG_TOPICS.values()
    ]
    return sorted(found)


def _config(synonyms: Synonyms, kind: str, doc: str, *, fixed: bool = False) -> Config:
    name, value, source = synonyms[0]
    return Config(name, value, source, kind, doc, synonyms, is_read_only=fixed)


def _fixed(name: str, value: str, kind: str, doc: str) -> Config:
    return _config(((name, value, SOURCE_SERVER),), kind, doc, fixed=True)


def all_brokers_configs(shore: KafkaShore) -> list[Config]:
    """Return what was set for all brokers at once."""
    found = []
    for name, value in sorted(shore.server_configs.of(EVERY).items()):
        setting = OF_LOG_TOPICS.get(name) or OTHERS[name]
        synonyms = ((name, value, SOURCE_ALL_BROKERS),)
        found.append(_config(synonyms, setting.kind, setting.doc))
    return found


def group_configs(shore: KafkaShore, group_id: str) -> list[Config]:
    """Return the settings of a group; those that it does not have are the server's."""
    own = shore.group_configs.of(group_id)
    found = []
    for name, setting in GROUP_SETTINGS.items():
        default = str(shore.group_configs.default_of(name))
        is_own = name in OF_GROUPS_ONLY
        value, source = own.get(name, default), SOURCE_DEFAULT if is_own else SOURCE_SERVER
        synonyms: Synonyms = ((name if is_own else f"group.{name}", default, source),)
        if name in own:
            source = SOURCE_GROUP
            synonyms = ((name, value, source), *synonyms)
        found.append(Config(name, value, source, setting.kind, setting.doc, synonyms))
    return found


def metrics_configs(shore: KafkaShore, name: str) -> list[Config]:
    """Return a subscription to metrics of clients; one that is not there has the defaults."""
    own = shore.client_metrics.of(name)
    found = []
    for setting in METRICS_SETTINGS.values():
        value, source = own.get(setting.name), SOURCE_CLIENT_METRICS
        if value is None:
            value, source = setting.default, SOURCE_DEFAULT
        synonyms = ((setting.name, value, source),) if setting.name in own else ()
        found.append(Config(setting.name, value, source, setting.kind, setting.doc, synonyms))
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
            row["configs"] = [
                _config_row(call, config)
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
        return effective(shore, existing(shore, name).configs)
    if kind == BROKER_RESOURCE:
        if name == EVERY:
            return all_brokers_configs(shore)
        check_broker(shore, name)
        return server_configs(shore, call.connection.address)
    if kind == BROKER_LOGGER_RESOURCE:
        check_broker(shore, name)
        return [
            Config(logger, level, SOURCE_LOGGER, "unknown", "", ())
            for logger, level in levels().items()
        ]
    if kind == CLIENT_METRICS_RESOURCE and name:
        return metrics_configs(shore, name)
    if kind == GROUP_RESOURCE and name:
        return group_configs(shore, name)
    raise RequestRefused(
        ErrorCode.INVALID_REQUEST, f"resources of type {kind} have no settings"
    )


def check_broker(shore: KafkaShore, name: str) -> None:
    """Raise RequestRefused where this is not the id of this broker."""
    if name != str(shore.node_id):
        raise RequestRefused(
            ErrorCode.INVALID_REQUEST, f"broker {name!r}, and there is {shore.node_id}"
        )


def _config_row(call: Call, config: Config) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": config.name,
        "value": config.value,
        "read_only": config.is_read_only,
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
