"""DescribeCluster and ListConfigResources: what there is to administer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.configs import (
    BROKER_LOGGER_RESOURCE,
    BROKER_RESOURCE,
    CLIENT_METRICS_RESOURCE,
    GROUP_RESOURCE,
    TOPIC_RESOURCE,
)
from isthmus.server.kafka_api.log_topics import CLUSTER_OPERATIONS

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call

BROKERS: Final = 1
CONTROLLERS: Final = 2

RESOURCES: Final = (
    TOPIC_RESOURCE,
    BROKER_RESOURCE,
    BROKER_LOGGER_RESOURCE,
    CLIENT_METRICS_RESOURCE,
    GROUP_RESOURCE,
)


def describe_cluster(call: Call) -> None:
    """Answer with this broker, which is the controller too [KIP-700]."""
    request, shore = call.request, call.shore
    endpoint = request["endpoint_type"]
    if endpoint != BROKERS:  # [KIP-919]
        is_controller = endpoint == CONTROLLERS
        call.answer(
            {
                "error_code": ErrorCode.MISMATCHED_ENDPOINT_TYPE
                if is_controller
                else ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
                "error_message": f"brokers answer here, not endpoints of type {endpoint}",
                "cluster_id": "",
            }
        )
        return
    host, port = call.connection.address
    answer: dict[str, Any] = {
        "cluster_id": shore.log.cluster_id,
        "controller_id": shore.node_id,
        "brokers": [{"broker_id": shore.node_id, "host": host, "port": port}],
    }
    if request["include_cluster_authorized_operations"]:
        answer["cluster_authorized_operations"] = CLUSTER_OPERATIONS
    call.answer(answer)


def list_config_resources(call: Call) -> None:
    """Answer with what has settings; version 0 asks for subscriptions to metrics [KIP-1142]."""
    shore = call.shore
    asked = (CLIENT_METRICS_RESOURCE,)
    if call.version > 0:
        asked = tuple(call.request["resource_types"]) or RESOURCES
    if not set(asked) <= set(RESOURCES):
        call.answer({"error_code": ErrorCode.UNSUPPORTED_VERSION})
        return
    broker = [str(shore.node_id)]
    names = {
        TOPIC_RESOURCE: sorted(shore.log.topics),
        BROKER_RESOURCE: broker,
        BROKER_LOGGER_RESOURCE: broker,
        CLIENT_METRICS_RESOURCE: shore.client_metrics.names,
        GROUP_RESOURCE: shore.group_configs.group_ids,
    }
    call.answer(
        {
            "config_resources": [
                {"resource_name": name, "resource_type": kind}
                for kind in RESOURCES
                if kind in asked
                for name in names.get(kind, ())
            ]
        }
    )
