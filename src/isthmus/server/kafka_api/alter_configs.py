"""IncrementalAlterConfigs, AlterConfigs: log topics, groups and the server are set in use.

Each resource of a request succeeds or fails alone, and a resource as a whole: of its settings
either all are in force afterwards or none. Of the server's settings those can be changed that
are in broker/server_configs.py, and the levels of its loggers; the others stand in its
configuration file, and are refused as those that Apache Kafka cannot change while it runs.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from isthmus.broker import client_metrics
from isthmus.broker.server_configs import EVERY, KERBEROS, OF_LOG_TOPICS
from isthmus.broker.server_configs import check as check_server_configs
from isthmus.errors import ConfigInvalid, IsthmusError
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.configs import (
    BROKER_LOGGER_RESOURCE,
    BROKER_RESOURCE,
    CLIENT_METRICS_RESOURCE,
    GROUP_RESOURCE,
    TOPIC_RESOURCE,
    check_broker,
)
from isthmus.server.kafka_api.log_topics import RequestRefused, changeable, refusal_of
from isthmus.server.kafka_api.loggers import alter_levels
from isthmus.storage.names import check_log_topic
from isthmus.storage.topic_configs import SETTINGS, check_configs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.server.kafka_api.call import Call
    from isthmus.server.kafka_shore import KafkaShore

    Change: TypeAlias = Callable[
        [KafkaShore, Mapping[str, str], list[dict[str, Any]]], dict[str, str]
    ]


class Operation(IntEnum):
    """What IncrementalAlterConfigs does with a setting [KIP-339]."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


def incremental_alter_configs(call: Call) -> None:
    """Change the settings that are named and leave the others [KIP-339]."""
    _alter(call, _incremented)


def alter_configs(call: Call) -> None:
    """Replace all settings: what is not named has its default again [KIP-133]."""
    _alter(call, _replaced)


def _alter(call: Call, change: Change) -> None:
    request = call.request
    times = Counter(
        (one["resource_type"], one["resource_name"]) for one in request["resources"]
    )
    rows: list[dict[str, Any]] = []
    waiting = 1  # for settings of groups that are not durable yet, and for the end of this

    def answered() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            call.answer({"responses": rows})

    for resource in request["resources"]:
        kind, name = resource["resource_type"], resource["resource_name"]
        row: dict[str, Any] = {
            "resource_type": kind,
            "resource_name": name,
            "error_message": None,
        }
        try:
            if times[kind, name] > 1:
                raise RequestRefused(ErrorCode.INVALID_REQUEST, f"{name} is named twice")
            _check_once(resource["configs"])
            if kind == TOPIC_RESOURCE:
                _alter_log_topic(call, name, resource["configs"], change)
            elif kind in KEPT:
                wanted_of, keeper = KEPT[kind]
                wanted = wanted_of(call, name, resource["configs"], change)
                if wanted is not None:
                    waiting += 1
                    getattr(call.shore, keeper).set(name, wanted, partial(_kept, row, answered))
            elif kind == BROKER_LOGGER_RESOURCE and change is _incremented:
                check_broker(call.shore, name)
                alter_levels(resource["configs"], is_dry=request["validate_only"])
            else:
                raise RequestRefused(
                    ErrorCode.INVALID_REQUEST, f"resources of type {kind} have no settings"
                )
        except IsthmusError as error:
            row["error_code"] = refusal_of(error)
            row["error_message"] = str(error)
        rows.append(row)
    answered()


def _kept(row: dict[str, Any], answered: Callable[[], None], code: ErrorCode) -> None:
    row["error_code"] = code
    answered()


def _check_once(configs: list[dict[str, Any]]) -> None:
    times = Counter(config["name"] for config in configs)
    twice = [name for name, count in times.items() if count > 1]
    if twice:
        raise RequestRefused(ErrorCode.INVALID_REQUEST, f"named twice: {', '.join(twice)}")
    for config in configs:
        if config["value"] is None and config.get("config_operation") != Operation.DELETE:
            raise RequestRefused(ErrorCode.INVALID_REQUEST, f"{config['name']} has no value")


def _alter_log_topic(
    call: Call, name: str, configs: list[dict[str, Any]], change: Change
) -> None:
    shore = call.shore
    if not name:
        raise RequestRefused(ErrorCode.INVALID_REQUEST, "log topics have no common settings")
    check_log_topic(name)
    before = changeable(shore, name).configs
    wanted = change(shore, before, configs)
    check_configs(wanted)
    if not call.request["validate_only"] and wanted != dict(before):
        shore.log.configure(name, wanted)


def _wanted_of_group(
    call: Call, group_id: str, configs: list[dict[str, Any]], change: Change
) -> dict[str, str] | None:
    """Return the settings that a group is to have, None where nothing is to be changed."""
    if not group_id:
        raise RequestRefused(ErrorCode.INVALID_REQUEST, "groups have no common settings")
    groups = call.shore.group_configs
    wanted = change(call.shore, groups.of(group_id), configs)
    groups.check(wanted)
    return None if call.request["validate_only"] or wanted == groups.of(group_id) else wanted


def _wanted_of_broker(
    call: Call, name: str, configs: list[dict[str, Any]], change: Change
) -> dict[str, str] | None:
    """Return what is to be set for this broker, or all; None: nothing is to be changed.

    What was never set may be taken back: kafka-reassign-partitions does that with throttles.
    """
    shore = call.shore
    if name != EVERY:
        check_broker(shore, name)
    before = shore.server_configs.of(name)
    wanted = change(shore, before, configs)
    try:
        check_server_configs(wanted)
    except ConfigInvalid as error:
        raise RequestRefused(ErrorCode.INVALID_REQUEST, str(error)) from None
    if name == EVERY and any(each.startswith(KERBEROS) for each in wanted):
        raise RequestRefused(ErrorCode.INVALID_REQUEST, f"{KERBEROS}* is set for one broker")
    return None if call.request["validate_only"] or wanted == before else wanted


def _wanted_of_metrics(
    call: Call, name: str, configs: list[dict[str, Any]], change: Change
) -> dict[str, str] | None:
    """Return what a subscription to metrics is to be, None where nothing is to be changed."""
    if not name:
        raise RequestRefused(ErrorCode.INVALID_REQUEST, "a subscription has a name")
    before = call.shore.client_metrics.of(name)
    wanted = change(call.shore, before, configs)
    unknown = wanted.keys() - client_metrics.SETTINGS
    if unknown:
        text = f"a subscription to metrics has no {', '.join(sorted(unknown))}"
        raise RequestRefused(ErrorCode.INVALID_REQUEST, text)
    client_metrics.check(wanted)
    interval_ms = wanted.get(client_metrics.INTERVAL)
    if interval_ms is not None and int(interval_ms) not in client_metrics.INTERVAL_MS:
        text = f"{client_metrics.INTERVAL} is from 100 to 3600000"
        raise RequestRefused(ErrorCode.INVALID_REQUEST, text)
    return None if call.request["validate_only"] or wanted == before else wanted


# By type of resource: what is to be set, and who of the shore keeps it.
KEPT: Final = {
    GROUP_RESOURCE: (_wanted_of_group, "group_configs"),
    BROKER_RESOURCE: (_wanted_of_broker, "server_configs"),
    CLIENT_METRICS_RESOURCE: (_wanted_of_metrics, "client_metrics"),
}


def _replaced(
    _shore: KafkaShore, _before: Mapping[str, str], configs: list[dict[str, Any]]
) -> dict[str, str]:
    return {config["name"]: config["value"].strip() for config in configs}


def _incremented(
    shore: KafkaShore, before: Mapping[str, str], configs: list[dict[str, Any]]
) -> dict[str, str]:
    wanted = dict(before)
    for config in configs:
        name, value = config["name"], config["value"]
        operation = config["config_operation"]
        if operation == Operation.SET:
            wanted[name] = value.strip()
        elif operation == Operation.DELETE:
            wanted.pop(name, None)
        elif operation in (Operation.APPEND, Operation.SUBTRACT):
            items = _items(shore, wanted, name)
            named = [item.strip() for item in value.split(",")]
            if operation == Operation.APPEND:
                items += [item for item in named if item not in items]
            else:
                items = [item for item in items if item not in named]
            wanted[name] = ",".join(items)
        else:
            raise RequestRefused(
                ErrorCode.INVALID_REQUEST, f"{name}: operation {operation} is none"
            )
    return wanted


def _items(shore: KafkaShore, configs: Mapping[str, str], name: str) -> list[str]:
    """Return the items of a list that hold now; raise ConfigInvalid where it is no list."""
    setting = SETTINGS.get(name) or OF_LOG_TOPICS.get(name)
    if setting is None or setting.kind != "list":
        raise ConfigInvalid(f"{name} is no list: nothing can be appended or subtracted")
    default = shore.log.topic_defaults.get(setting.name, setting.default)
    return [item.strip() for item in configs.get(name, default).split(",") if item.strip()]
