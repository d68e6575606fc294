"""The rows of a crowd of Kafka clients: what many log topics, connections and groups cost.

A thousand log topics of ten partitions, a thousand connections, five hundred consumer groups of
two members each (the classic protocol, as most clients speak it). What stays resident with all
of them there, and how long it takes the groups to be at work again when the second member of
each has come at the same moment: all members join, the leaders assign, all get their share.
The members are sockets and bytes; nothing of them is measured but that they wait.
"""

from __future__ import annotations

import socket
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.apache_kafka import ApacheKafka
from bench.mqtt_client import read_exactly
from bench.process import BenchError, running
from bench.rows import Measurement, Row
from bench.systems import Isthmus
from isthmus.kafka.api import ApiKey
from isthmus.kafka.frames import decode_response, encode_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.process import Address, Server, System

PATIENCE_SECONDS = 120.0
SETTLE_SECONDS = 2.0
NOTICE_SECONDS = 0.001  # between two heartbeats
SECONDS_WHOLE = 1.0  # a shorter measurement is made with a smaller crowd
PARTITIONS = 10
CREATED_AT_ONCE = 50
SESSION_TIMEOUT_MS = 300_000
VERSIONS = {
    ApiKey.METADATA: 9,
    ApiKey.CREATE_TOPICS: 5,
    ApiKey.FIND_COORDINATOR: 2,
    ApiKey.JOIN_GROUP: 3,  # the last that lets a member in at its first request
    ApiKey.SYNC_GROUP: 3,
    ApiKey.HEARTBEAT: 3,
    ApiKey.DESCRIBE_GROUPS: 5,
}


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many there are."""

    log_topics: int = 1_000
    groups: int = 500


WHOLE, SMALL = Crowd(), Crowd(20, 20)


class Caller:
    """One connection: `send` a request, and `receive` its answer."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address, PATIENCE_SECONDS)
        self._asked = 0

    def send(self, api_key: int, body: dict[str, Any]) -> None:
        self._asked = api_key
        version = VERSIONS[ApiKey(api_key)]
        self._socket.sendall(encode_request(api_key, version, 0, "bench", body))

    def receive(self) -> dict[str, Any]:
        size = int.from_bytes(read_exactly(self._socket, 4), "big")
        answer = read_exactly(self._socket, size)
        return decode_response(self._asked, VERSIONS[ApiKey(self._asked)], answer)

    def ask(self, api_key: int, body: dict[str, Any]) -> dict[str, Any]:
        self.send(api_key, body)
        return self.receive()

    def close(self) -> None:
        self._socket.close()


class Member:
    """One member of a group, on a connection of its own."""

    def __init__(self, address: Address, group: str) -> None:
        self.caller = Caller(address)
        self._group = group
        self._id = ""
        self._generation = -1

    def join(self) -> None:
        body = {
            "group_id": self._group,
            "session_timeout_ms": SESSION_TIMEOUT_MS,
            "rebalance_timeout_ms": SESSION_TIMEOUT_MS,
            "member_id": self._id,
            "protocol_type": "consumer",
            "protocols": [{"name": "range", "metadata": b"\0\1\0\0\0\0\0\0\0\0"}],
        }
        self.caller.send(ApiKey.JOIN_GROUP, body)

    def joined(self) -> None:
        """Read the answer to `join`, and ask for the share that follows."""
        said = _checked(self.caller.receive())
        self._id, self._generation = said["member_id"], said["generation_id"]
        shares = [
            {"member_id": one["member_id"], "assignment": bytes(100)} for one in said["members"]
        ]
        body = {
            "group_id": self._group,
            "generation_id": self._generation,
            "member_id": self._id,
            "assignments": shares,
        }
        self.caller.send(ApiKey.SYNC_GROUP, body)

    def notice(self) -> None:
        """Send heartbeats until the group tells that it waits for its members."""
        body = {
            "group_id": self._group,
            "generation_id": self._generation,
            "member_id": self._id,
        }
        while not self.caller.ask(ApiKey.HEARTBEAT, body)["error_code"]:
            time.sleep(NOTICE_SECONDS)

    def synced(self) -> None:
        """Read the share."""
        if len(_checked(self.caller.receive())["assignment"]) != 100:
            raise BenchError("a member has another share than the leader said")

    def close(self) -> None:
        self.caller.close()


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if answer["error_code"]:
        raise BenchError(f"a group answered with error {answer['error_code']}")
    return answer


def create_log_topics(address: Address, count: int) -> None:
    """Make so many log topics, and wait until all partitions have leaders."""
    with closing(Caller(address)) as caller:
        row = {"num_partitions": PARTITIONS, "replication_factor": 1}
        for first in range(0, count, CREATED_AT_ONCE):
            numbers = range(first, min(count, first + CREATED_AT_ONCE))
            topics = [{"name": f"crowd-{number}", **row} for number in numbers]
            body = {"topics": topics, "timeout_ms": 60_000}
            for said in caller.ask(ApiKey.CREATE_TOPICS, body)["topics"]:
                if said["error_code"]:
                    raise BenchError(f"a log topic was not made: error {said['error_code']}")
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while time.perf_counter() < deadline:
            found = caller.ask(ApiKey.METADATA, {"topics": None})["topics"]
            made = [one for one in found if one["name"].startswith("crowd-")]
            rows = [row for one in made for row in one["partitions"]]
            if len(rows) == count * PARTITIONS and all(row["leader_id"] >= 0 for row in rows):
                return
            time.sleep(0.1)
    raise BenchError("not all partitions have leaders")


def wait_for_groups(address: Address, names: list[str]) -> None:
    """Return once each group has somebody who serves it."""
    with closing(Caller(address)) as caller:
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while time.perf_counter() < deadline:
            caller.ask(ApiKey.FIND_COORDINATOR, {"key": names[0], "key_type": 0})
            found = caller.ask(ApiKey.DESCRIBE_GROUPS, {"groups": names})["groups"]
            if not any(one["error_code"] for one in found):
                return
            time.sleep(0.1)
    raise BenchError("groups are not served")


def share(members: list[Member]) -> None:
    """Have members whose requests to join are on their way get their shares."""
    for member in members:
        member.joined()
    for member in members:
        member.synced()


@contextmanager
def gathered(server: Server, crowd: Crowd) -> Iterator[float]:
    """Have the crowd there; give the seconds of the rebalance of all groups."""
    address = server.kafka_address()
    create_log_topics(address, crowd.log_topics)
    names = [f"crowd-{number}" for number in range(crowd.groups)]
    wait_for_groups(address, names)
    first = [Member(address, name) for name in names]
    second = [Member(address, name) for name in names]
    try:
        for member in first:
            member.join()
        share(first)
        begin = time.perf_counter()
        for member in second:
            member.join()
        for member in first:
            member.notice()
            member.join()
        share(first + second)
        yield time.perf_counter() - begin
    finally:
        for member in first + second:
            member.close()


def crowd_for(seconds: float) -> Crowd:
    """Return how many are to come."""
    return WHOLE if seconds >= SECONDS_WHOLE else SMALL


def measure_memory(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the resident MiB with the whole crowd there."""
    with (
        running(system, directory) as server,
        gathered(server, crowd_for(seconds)) as rebalance_s,
    ):
        time.sleep(min(seconds, SETTLE_SECONDS))
        mib = server.rss_bytes() / 2**20
        return Measurement(mib, details={"rebalance_ms": rebalance_s * 1000})


def measure_rebalance(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the milliseconds until the last member of all groups has its share again."""
    crowd = crowd_for(seconds)
    with running(system, directory) as server, gathered(server, crowd) as rebalance_s:
        mib = server.rss_bytes() / 2**20
        return Measurement(rebalance_s * 1000, details={"resident_mib": mib})


def crowd_rows() -> list[Row]:
    """Return the rows."""
    systems: list[System] = [Isthmus("written"), Isthmus("synced"), ApacheKafka()]
    there = "1,000 log topics x 10, 1,000 connections, 500 groups"
    return [
        Row(
            "kafka-crowd",
            f"Kafka: memory with {there}",
            "MiB",
            systems[1:],
            measure_memory,
            ApacheKafka.name,
            more_is_better=False,
        ),
        Row(
            "kafka-rebalance",
            f"Kafka: all groups at work again, {there}",
            "ms",
            systems,
            measure_rebalance,
            ApacheKafka.name,
            more_is_better=False,
        ),
    ]
