"""The APIs: keys and versions are those of Apache Kafka 4.3, and headers follow from them."""

from __future__ import annotations

import pytest

from isthmus.kafka import api
from isthmus.kafka.api import ApiKey

# As Apache Kafka 4.3 offers them; written down apart from the table it is compared with.
KAFKA_4_3 = """
0 Produce 3-13; 1 Fetch 4-18; 2 ListOffsets 1-11; 3 Metadata 0-13; 8 OffsetCommit 2-10
9 OffsetFetch 1-10; 10 FindCoordinator 0-6; 11 JoinGroup 0-9; 12 Heartbeat 0-4
13 LeaveGroup 0-5; 14 SyncGroup 0-5; 15 DescribeGroups 0-6; 16 ListGroups 0-5
17 SaslHandshake 0-1; 18 ApiVersions 0-4; 19 CreateTopics 2-7; 20 DeleteTopics 1-6
21 DeleteRecords 0-2; 22 InitProducerId 0-5; 23 OffsetForLeaderEpoch 2-4
24 AddPartitionsToTxn 0-5; 25 AddOffsetsToTxn 0-4; 26 EndTxn 0-5
27 WriteTxnMarkers 1-2; 28 TxnOffsetCommit 0-5
29 DescribeAcls 1-3; 30 CreateAcls 1-3; 31 DeleteAcls 1-3; 32 DescribeConfigs 1-4
33 AlterConfigs 0-2; 34 AlterReplicaLogDirs 1-2; 35 DescribeLogDirs 1-5
36 SaslAuthenticate 0-2; 37 CreatePartitions 0-3; 38 CreateDelegationToken 1-3
39 RenewDelegationToken 1-2; 40 ExpireDelegationToken 1-2; 41 DescribeDelegationToken 1-3
42 DeleteGroups 0-2; 43 ElectLeaders 0-2; 44 IncrementalAlterConfigs 0-1
45 AlterPartitionReassignments 0-1; 46 ListPartitionReassignments 0-0; 47 OffsetDelete 0-0
48 DescribeClientQuotas 0-1; 49 AlterClientQuotas 0-1; 50 DescribeUserScramCredentials 0-0
51 AlterUserScramCredentials 0-0; 55 DescribeQuorum 0-2; 57 UpdateFeatures 0-2
60 DescribeCluster 0-2; 61 DescribeProducers 0-0; 65 DescribeTransactions 0-0
66 ListTransactions 0-2; 68 ConsumerGroupHeartbeat 0-1; 69 ConsumerGroupDescribe 0-1
71 GetTelemetrySubscriptions 0-0; 72 PushTelemetry 0-0; 74 ListConfigResources 0-1
75 DescribeTopicPartitions 0-0; 76 ShareGroupHeartbeat 1-1; 77 ShareGroupDescribe 1-1
78 ShareFetch 1-2; 79 ShareAcknowledge 1-2; 88 StreamsGroupHeartbeat 0-0
89 StreamsGroupDescribe 0-0; 90 DescribeShareGroupOffsets 0-1; 91 AlterShareGroupOffsets 0-0
92 DeleteShareGroupOffsets 0-0
"""


def test_the_versions_are_those_of_kafka() -> None:
    ours = [
        f"{key} {one.name} {one.versions.first}-{one.versions.last}"
        for key, one in api.apis().items()
    ]
    assert ours == KAFKA_4_3.strip().replace("\n", "; ").split("; ")


def test_each_api_key_has_its_api() -> None:
    assert {key.value for key in ApiKey} == set(api.apis())
    for key in ApiKey:
        assert key.name.replace("_", "").lower() == api.apis()[key].name.lower()


def test_an_unstable_version_is_not_offered() -> None:
    assert api.apis()[ApiKey.INIT_PRODUCER_ID].versions == (0, 5)


def test_produce_is_advertised_from_zero_but_not_spoken() -> None:
    rows = api.advertised({ApiKey.FETCH, ApiKey.PRODUCE})
    assert rows == [
        {"api_key": 0, "min_version": 0, "max_version": 13},
        {"api_key": 1, "min_version": 4, "max_version": 18},
    ]
    assert api.request_header_version(ApiKey.PRODUCE, 2) is None


@pytest.mark.parametrize(
    ("api_key", "version", "request_header", "response_header"),
    [
        (ApiKey.PRODUCE, 8, 1, 0),
        (ApiKey.PRODUCE, 9, 2, 1),
        (ApiKey.API_VERSIONS, 2, 1, 0),
        (ApiKey.API_VERSIONS, 3, 2, 0),  # its response never has tagged fields in the header
        (ApiKey.SASL_HANDSHAKE, 1, 1, 0),
        (ApiKey.OFFSET_DELETE, 0, 1, 0),
        (ApiKey.CONSUMER_GROUP_HEARTBEAT, 0, 2, 1),
    ],
)
def test_headers_follow_from_the_version(
    api_key: int, version: int, request_header: int, response_header: int
) -> None:
    assert api.request_header_version(api_key, version) == request_header
    assert api.response_header_version(api_key, version) == response_header


@pytest.mark.parametrize(("api_key", "version"), [(4, 0), (1, 3), (1, 19), (1, -1), (-1, 0)])
def test_what_is_not_spoken_has_no_header(api_key: int, version: int) -> None:
    assert api.request_header_version(api_key, version) is None
