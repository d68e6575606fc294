"""Kafka's APIs: their keys, and the versions that Apache Kafka 4.3 offers.

The ranges come from the schema table, so they are exactly Kafka's. What of it *this* server
offers is decided by whoever answers: `advertised` turns the keys of those APIs into the rows of
an ApiVersions response. There Produce starts at 0, as it does in Kafka, although versions below
3 are not spoken: older librdkafka would otherwise do without compression (KAFKA-18659).
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.kafka import schema

if TYPE_CHECKING:
    from collections.abc import Iterable


class ApiKey(IntEnum):
    """The number that leads a request."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    WRITE_TXN_MARKERS = 27
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_ACLS = 29
    CREATE_ACLS = 30
    DELETE_ACLS = 31
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    ALTER_REPLICA_LOG_DIRS = 34
    DESCRIBE_LOG_DIRS = 35
    SASL_AUTHENTICATE = 36
    CREATE_PARTITIONS = 37
    CREATE_DELEGATION_TOKEN = 38
    RENEW_DELEGATION_TOKEN = 39
    EXPIRE_DELEGATION_TOKEN = 40
    DESCRIBE_DELEGATION_TOKEN = 41
    DELETE_GROUPS = 42
    ELECT_LEADERS = 43
    INCREMENTAL_ALTER_CONFIGS = 44
    ALTER_PARTITION_REASSIGNMENTS = 45
    LIST_PARTITION_REASSIGNMENTS = 46
    OFFSET_DELETE = 47
    DESCRIBE_CLIENT_QUOTAS = 48
    ALTER_CLIENT_QUOTAS = 49
    DESCRIBE_USER_SCRAM_CREDENTIALS = 50
    ALTER_USER_SCRAM_CREDENTIALS = 51
    DESCRIBE_QUORUM = 55
    UPDATE_FEATURES = 57
    DESCRIBE_CLUSTER = 60
    DESCRIBE_PRODUCERS = 61
    DESCRIBE_TRANSACTIONS = 65
    LIST_TRANSACTIONS = 66
    CONSUMER_GROUP_HEARTBEAT = 68
    CONSUMER_GROUP_DESCRIBE = 69
    GET_TELEMETRY_SUBSCRIPTIONS = 71
    PUSH_TELEMETRY = 72
    LIST_CONFIG_RESOURCES = 74
    DESCRIBE_TOPIC_PARTITIONS = 75
    SHARE_GROUP_HEARTBEAT = 76
    SHARE_GROUP_DESCRIBE = 77
    SHARE_FETCH = 78
    SHARE_ACKNOWLEDGE = 79
    STREAMS_GROUP_HEARTBEAT = 88
    STREAMS_GROUP_DESCRIBE = 89
    DESCRIBE_SHARE_GROUP_OFFSETS = 90
    ALTER_SHARE_GROUP_OFFSETS = 91
    DELETE_SHARE_GROUP_OFFSETS = 92


PRODUCE_ADVERTISED_FIRST: Final = 0
_API_VERSIONS: Final = int(ApiKey.API_VERSIONS)  # a plain int compares faster


class Api(NamedTuple):
    """One API: its name ("ListOffsets"), the versions spoken, the first flexible one."""

    name: str
    versions: schema.Span
    flexible_first: int


@cache
def apis() -> dict[int, Api]:
    """Return every API that a client of Kafka 4.3 may use, by its key."""
    found = (schema.heading(name) for name in schema.names() if name.endswith("Request"))
    return {
        one.key: Api(one.name.removesuffix("Request"), one.versions, one.flexible_first)
        for one in found
        if one.key is not None
    }


def advertised(served: Iterable[int]) -> list[dict[str, int]]:
    """Return the `api_keys` of an ApiVersions response for the APIs that are answered."""
    rows = []
    for api_key in sorted(served):
        first, last = apis()[api_key].versions
        if api_key == ApiKey.PRODUCE:
            first = PRODUCE_ADVERTISED_FIRST
        rows.append({"api_key": int(api_key), "min_version": first, "max_version": last})
    return rows


@cache
def request_name(api_key: int) -> str:
    """Return the name of a request in the schema table; KeyError for an unknown key."""
    return f"{apis()[api_key].name}Request"


@cache
def response_name(api_key: int) -> str:
    """Return the name of a response in the schema table; KeyError for an unknown key."""
    return f"{apis()[api_key].name}Response"


def request_header_version(api_key: int, version: int) -> int | None:
    """Return 2 where the request is flexible, else 1 (KIP-482); None where it is not spoken."""
    return _request_headers().get((api_key, version))


def response_header_version(api_key: int, version: int) -> int:
    """Return 1 where the response is flexible, else 0; KeyError for an unknown key.

    Always 0 for ApiVersions: the client cannot yet know what the server speaks (KIP-511).
    """
    if api_key == _API_VERSIONS:
        return 0
    return 1 if version >= apis()[api_key].flexible_first else 0


@cache
def _request_headers() -> dict[tuple[int, int], int]:
    return {
        (api_key, version): 2 if version >= api.flexible_first else 1
        for api_key, api in apis().items()
        for version in range(api.versions.first, api.versions.last + 1)
    }
