"""`isthmus log` on what a real server leaves: killed, spoilt, verified, repaired, read again.

Apache Kafka's own DumpLogSegments has the last word on what a repair leaves, where it is there.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.kafka_commands import JavaConsole, java_command
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.server_process import ServerProcess, run_isthmus, text_of

from isthmus.storage.local.checkpoints import parse_partition_metadata
from isthmus.storage.local.journal_format import parse_header, parse_rounds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORDS = 400
BATCHES = 8  # as many commands produce them, so as many batches at least
SMALL_SEGMENTS = "internal.segment.bytes=6000"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    server.start()
    yield server
    server.stop()


def isthmus(*words: str, stdin: bytes = b"") -> str:
    done = run_isthmus(*words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fill(server: ServerProcess) -> None:
    """Produce numbered records over the Kafka protocol, in several segments."""
    kafka = ("--kafka", text_of(server.kafka))
    isthmus("topics", "create", *kafka, "-p", "1", "-c", SMALL_SEGMENTS, "t")
    each = RECORDS // BATCHES
    for first in range(0, RECORDS, each):
        lines = b"".join(
            b"%05d" % number + b"x" * 40 + b"\n" for number in range(first, first + each)
        )
        isthmus("produce", *kafka, "-t", "t", stdin=lines)


def consumed(server: ServerProcess) -> dict[int, int]:
    """Return what a stock consumer reads: the number that each offset says."""
    lines = isthmus(
        "consume", "--kafka", text_of(server.kafka), "-t", "t", "-b", "-e", "--json"
    )
    records = [json.loads(line) for line in lines.splitlines()]
    return {record["offset"]: int(record["value"][:5]) for record in records}


def verified(server: ServerProcess) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit status of `log verify` and all damage that it tells of."""
    done = run_isthmus("log", "verify", "--data", str(server.data), "--json")
    assert done.returncode in (0, 1), done.stderr
    findings = [
        finding for line in done.stdout.splitlines() for finding in json.loads(line)["findings"]
    ]
    return done.returncode, [finding for finding in findings if finding["is_damage"]]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x04
    path.write_bytes(data)


def test_a_killed_server_is_verified_spoilt_repaired_and_read_again(
    server: ServerProcess,
) -> None:
    fill(server)
    assert consumed(server) == {number: number for number in range(RECORDS)}
    assert verified(server) == (0, []), "while it runs"
    server.kill()
    assert verified(server) == (0, []), "a crash is no damage"

    segments = sorted((server.data / "t-0").glob("*.log"))
    assert len(segments) > 3
    flip(segments[1], 100)
    flip(segments[2], segments[2].stat().st_size - 1)
    with segments[-1].open("ab") as file:
        file.write(b"half a batch")
    status, damage = verified(server)
    assert status == 1
    assert [finding["file"] for finding in damage] == [
        f"t-0/{segment.name}" for segment in segments[1:3]
    ]
    assert damage[0]["position"] <= 100 < damage[0]["end"]
    lost = {
        offset
        for finding in damage
        for offset in range(finding["offset"], finding["next_offset"])
    }

    data = ("--data", str(server.data))
    assert run_isthmus("log", "repair", *data).returncode == 1, "nothing without --yes"
    assert verified(server) == (1, damage)
    assert "kept in" in isthmus("log", "repair", *data, "--yes")
    assert verified(server) == (0, [])
    server.start()
    assert consumed(server) == {
        number: number for number in range(RECORDS) if number not in lost
    }
    kafka = ("--kafka", text_of(server.kafka))
    isthmus("produce", *kafka, "-t", "t", "-m", f"{RECORDS:05d}")
    assert consumed(server)[RECORDS] == RECORDS, "no offset is used again"
    assert server.terminate() == 0
    check_with_kafka(sorted((server.data / "t-0").glob("*.log")))


def test_what_only_the_journal_has_is_no_damage(server: ServerProcess) -> None:
    """SIGKILL; then what the journal has is in no segment, as a power cut may have it."""
    kafka = ("--kafka", text_of(server.kafka))
    isthmus("topics", "create", *kafka, "-p", "8", "t")
    lines = b"".join(b"%d\t%05d\n" % (number, number) for number in range(RECORDS))
    isthmus("produce", *kafka, "-t", "t", "-K", "\t", stdin=lines)
    server.kill()
    lost = [lose(server.data, file.read_bytes()) for file in server.data.glob("journal/*.wal")]
    assert sum(lost) > 0
    segments = sorted(server.data.glob("t-*/*.log"))
    assert len(segments) == 8
    before = [segment.read_bytes() for segment in segments]
    assert verified(server) == (0, [])
    data = ("--data", str(server.data))
    assert "there is nothing to repair" in isthmus("log", "repair", *data)
    assert [segment.read_bytes() for segment in segments] == before, "looking changes nothing"
    server.start()
    read = isthmus("consume", *kafka, "-t", "t", "-b", "-e", "--json")
    values = {json.loads(line)["value"] for line in read.splitlines()}
    assert values == {f"{number:05d}" for number in range(RECORDS)}


def lose(data: Path, journal: bytes) -> int:
    """Take from the segments what a file of the journal has; return how many bytes it was."""
    lost = 0
    directories = {}
    for file in data.glob("*/partition.metadata"):
        partition = int(file.parent.name.rpartition("-")[2])
        directories[parse_partition_metadata(file.read_bytes()), partition] = file.parent
    header = parse_header(journal)
    for found in parse_rounds(memoryview(journal), header.seed) if header else ():
        for entry, _ in found.entries:
            directory = directories[entry.topic_id, entry.partition]
            with (directory / f"{entry.base_offset:020d}.log").open("r+b") as segment:
                segment.seek(entry.position)
                segment.write(bytes(entry.size))
            lost += entry.size
    return lost


def check_with_kafka(segments: list[Path]) -> None:
    """Let DumpLogSegments read every record and index, where Java is there."""
    if JavaConsole().missing():
        return
    tool = java_command("org.apache.kafka.tools.DumpLogSegments")
    indexed = [path for path in segments if path.with_suffix(".index").exists()]
    assert indexed
    for option, suffix, paths in (
        ("--deep-iteration", ".log", segments),
        ("--verify-index-only", ".index", indexed),
        ("--verify-index-only", ".timeindex", indexed),
    ):
        names = ",".join(str(path.with_suffix(suffix)) for path in paths)
        command = [*tool, "--files", names, option]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        said = done.stdout + done.stderr
        assert "isvalid: false" not in said and "Found" not in said, said[-2000:]
        assert "mismatch" not in said.lower(), said[-2000:]


def test_a_server_without_its_catalog_starts_again_after_a_repair(
    server: ServerProcess,
) -> None:
    fill(server)
    assert server.terminate() == 0
    (server.data / "isthmus-catalog").unlink()
    status, damage = verified(server)
    assert (status, [finding["kind"] for finding in damage]) == (1, ["catalog"])
    isthmus("log", "repair", "--yes", "--data", str(server.data))
    server.start()
    assert consumed(server) == {number: number for number in range(RECORDS)}
    shown = json.loads(
        isthmus("topics", "show", "--kafka", text_of(server.kafka), "--json", "t")
    )
    assert shown["configs"] == {"retention.ms": "-1"}


def test_dump_reads_while_the_server_writes(server: ServerProcess) -> None:
    fill(server)
    data = ("--data", str(server.data))
    lines = isthmus("log", "dump", "t", "--records", "--json", "--offset", "350", *data)
    records = [json.loads(line) for line in lines.splitlines()]
    assert [record["offset"] for record in records] == list(range(350, RECORDS))
    kafka = ("--kafka", text_of(server.kafka), "-t", "t", "-g", "readers", "-b", "-n", "7")
    isthmus("consume", *kafka)
    deadline = time.monotonic() + TIMEOUT_S
    says: list[dict[str, Any]] = []
    while not any(each.get("offset") == 7 for each in says):
        assert time.monotonic() < deadline, says
        lines = isthmus("log", "dump", "__consumer_offsets", "--records", "--json", *data)
        says = [json.loads(line)["says"] for line in lines.splitlines()]
    assert {each["group_id"] for each in says} == {"readers"}


def test_topics_are_listed_with_sizes_offsets_and_retention(server: ServerProcess) -> None:
    fill(server)
    kafka = ("--kafka", text_of(server.kafka))
    rows = [json.loads(line) for line in isthmus("topics", *kafka, "--json").splitlines()]
    (row,) = [row for row in rows if row["log_topic"] == "t"]
    files = sorted((server.data / "t-0").glob("*.log"))
    assert row["bytes"] == sum(path.stat().st_size for path in files)
    assert (row["offsets"], row["records"]) == ([[0, RECORDS]], RECORDS)
    assert 0 < row["oldest_ms"] <= row["newest_ms"]
    assert (row["retention_ms"], row["cleanup_policy"]) == (604_800_000, "delete")
    text = isthmus("topics", *kafka)
    assert "0 to 399" in text and " 7 d " in text and " KiB " in text


def test_kafka_log_dirs_reads_the_sizes(server: ServerProcess) -> None:
    missing = JavaConsole().missing()
    if missing:
        pytest.skip(missing)
    fill(server)
    tool = java_command("org.apache.kafka.tools.LogDirsCommand")
    tool += ["--bootstrap-server", text_of(server.kafka), "--describe", "--topic-list", "t"]
    done = subprocess.run(tool, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    (broker,) = json.loads(done.stdout.splitlines()[-1])["brokers"]
    (directory,) = broker["logDirs"]
    (partition,) = directory["partitions"]
    assert (directory["logDir"], directory["error"]) == (str(server.data), None)
    assert (partition["partition"], partition["offsetLag"]) == ("t-0", 0)
    assert partition["size"] > 0
