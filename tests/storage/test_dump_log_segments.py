"""Apache Kafka's own auditor over our files: DumpLogSegments reads every record and index.

Skipped where Java or the jars of `org.apache.kafka:kafka-tools` are missing. They are looked
for where `.ci/run` puts them, and in the directory that ISTHMUS_KAFKA_LIB names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import NOW_MS, batch_of, marker_of

from isthmus.record.compression import NAMES
from isthmus.record.markers import EndMarker, build_marker
from isthmus.storage.local.compaction import INTERVAL_MS
from isthmus.storage.local.log import LocalLog

CACHE = Path(os.environ.get("ISTHMUS_CACHE", Path.home() / ".cache" / "isthmus"))
KAFKA_LIB = Path(
    os.environ.get("ISTHMUS_KAFKA_LIB") or max(CACHE.glob("kafka-*"), default=CACHE)
)
DUMP_LOG_SEGMENTS = "org.apache.kafka.tools.DumpLogSegments"
JAVA = shutil.which("java")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(JAVA is None, reason="java is not installed"),
    pytest.mark.skipif(
        not list(KAFKA_LIB.glob("kafka-tools-*.jar")),
        reason="the jars of kafka-tools are not installed",
    ),
]


def dump(paths, *options):
    """Run DumpLogSegments and return what it prints; what it finds wrong goes to stderr."""
    command = [JAVA, "-Xmx256m", "-cp", f"{KAFKA_LIB}/*", DUMP_LOG_SEGMENTS]
    command += ["--files", ",".join(map(str, paths)), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Several segments of every kind of batch, closed once and killed once.

    In the second life all is compressed anew, by the codecs in turn.
    """
    path = tmp_path_factory.mktemp("kafka") / "data"
    configs = {"internal.segment.bytes": "8000", "index.interval.bytes": "1000"}
    runtime = SimRuntime()
    log = LocalLog(path, runtime)
    log.create("t", 1, configs)
    for life in range(2):
        partition = log.partition("t", 0)
        for number in range(60):
            if life:
                codec = NAMES[1 + number % 4]
                log.configure("t", {**configs, "compression.type": codec})
            when = NOW_MS + 1000 * (number % 7) + 10_000 * number + life
            values = [b"v" * (number * 13 % 900) for _ in range(1 + number % 3)]
            numbered = {"producer_id": 3, "epoch": life, "sequence": 0}
            batch = batch_of(
                *values,
                keys=[b"k%d" % number] * len(values),
                timestamps=[when + index for index in range(len(values))],
                compression=number % 5,
                **(numbered if number == 0 else {}),
            )
            partition.append(batch, None)
            log.flush()
            runtime.settle()
        log.close()
        if life == 0:
            (path / ".kafka_cleanshutdown").unlink()
            log = LocalLog(path, runtime)
    return path / "t-0"


def test_every_record_is_readable(directory):
    paths = sorted(directory.glob("*.log"))
    assert len(paths) > 2
    printed = dump(paths, "--deep-iteration")
    offsets = [
        int(line.split("offset: ")[1].split()[0])
        for line in printed.splitlines()
        if line.startswith("| offset:")
    ]
    assert offsets == list(range(len(offsets)))
    assert len(offsets) == 2 * 60 * 2
    assert "isvalid: true" in printed
    assert "isvalid: false" not in printed
    assert "Found" not in printed
    codecs = re.findall(r"compresscodec: (\w+)", printed)
    sent = [NAMES[number % 5] for number in range(60)]
    assert codecs == sent + [NAMES[1 + number % 4] for number in range(60)]


def test_indexes_pass_the_sanity_check(directory):
    paths = [*sorted(directory.glob("*.index")), *sorted(directory.glob("*.timeindex"))]
    printed = dump(paths, "--index-sanity-check")
    assert printed.count("passed sanity check") == len(paths)


def test_indexes_agree_with_the_log_and_a_wrong_one_would_be_found(directory):
    paths = [*sorted(directory.glob("*.index")), *sorted(directory.glob("*.timeindex"))]
    printed = dump(paths, "--verify-index-only")
    assert "mismatch" not in printed.lower(), printed
    assert "Found" not in printed, printed
    right = paths[0].read_bytes()
    try:
        paths[0].write_bytes(right[:3] + bytes((right[3] ^ 1,)) + right[4:])
        assert "Mismatches in" in dump(paths[:1], "--verify-index-only")
    finally:
        paths[0].write_bytes(right)


def test_snapshots_are_readable(directory):
    printed = dump(sorted(directory.glob("*.snapshot")))
    assert "producerId: 3 producerEpoch: 1" in printed


@pytest.fixture(scope="module")
def transactions(tmp_path_factory):
    """Transactions that end in later segments, with what the log says was aborted."""
    path = tmp_path_factory.mktemp("kafka") / "data"
    runtime = SimRuntime()
    log = LocalLog(path, runtime)
    log.create("t", 1, {"internal.segment.bytes": "2000"})
    partition = log.partition("t", 0)
    sequences = dict.fromkeys(range(1, 6), 0)
    for number in range(120):
        producer_id = number * 7 % 5 + 1
        if number % 4 == 3:
            batch = marker_of(producer_id, commits=number % 3 == 0, coordinator_epoch=number)
        else:
            sequence = sequences[producer_id]
            sequences[producer_id] += 1
            how = {"epoch": 0, "sequence": sequence, "transactional": True}
            batch = batch_of(b"v" * number, producer_id=producer_id, **how)
        partition.append(batch, None, trusted=True)
        log.flush()
        runtime.settle()
    aborted = [row[:2] for segment in partition.segments for row in segment.aborted() or ()]
    log.close()
    return path / "t-0", aborted, partition.last_stable_offset


def test_aborted_transactions_are_readable(transactions):
    directory, aborted, _ = transactions
    paths = sorted(directory.glob("*.txnindex"))
    assert len(paths) > 2
    printed = dump(paths)
    row = re.compile(
        r"producerId: (\d+) firstOffset: (\d+) lastOffset: (\d+) lastStableOff\w+: (\d+)"
    )
    rows = [tuple(map(int, numbers)) for numbers in row.findall(printed)]
    assert [(producer_id, first) for producer_id, first, _, _ in rows] == aborted
    assert all(first < last and stable <= last + 1 for _, first, last, stable in rows)
    assert "Exception" not in printed


def test_markers_and_open_transactions_are_readable(transactions):
    directory, aborted, stable = transactions
    printed = dump(sorted(directory.glob("*.log")), "--deep-iteration")
    assert printed.count("endTxnMarker: ABORT") >= len(aborted) > 10
    assert printed.count("endTxnMarker: COMMIT") == 10
    assert "isvalid: false" not in printed
    printed = dump(sorted(directory.glob("*.snapshot"))[-1:])
    starts = re.findall(r"currentTxnFirstOffset: OptionalLong\[(\d+)\]", printed)
    assert min(map(int, starts)) == stable


@pytest.fixture(scope="module")
def compacted(tmp_path_factory):
    """A log topic that was compacted twice, with all that compaction leaves behind."""
    path = tmp_path_factory.mktemp("compacted") / "data"
    configs = {
        "cleanup.policy": "compact",
        "internal.segment.bytes": "4000",
        "index.interval.bytes": "500",
        "delete.retention.ms": "60000",
        "min.cleanable.dirty.ratio": "0",
    }
    runtime = SimRuntime()
    log = LocalLog(path, runtime)
    log.create("t", 1, configs)
    partition = log.partition("t", 0)
    sequences = dict.fromkeys(range(4), 0)
    once = batch_of(b"replaced", keys=[b"k0"], producer_id=9, epoch=0, sequence=0)
    partition.append(once, None)
    for turn in range(3):
        for number in range(60):
            producer_id = number % 4
            keys = [b"k%d" % (number * delta % 17) for delta in range(3)]
            values = [None if number % 5 == delta else bytes(90) for delta in range(3)]
            batch = batch_of(
                *values,
                keys=keys,
                timestamps=[runtime.now_ms() + number * 10 + delta for delta in range(3)],
                compression=number % 5,
                producer_id=producer_id,
                epoch=0,
                sequence=sequences[producer_id],
                transactional=producer_id > 1,
            )
            sequences[producer_id] += 3
            partition.append(batch, None)
            if producer_id > 1:
                marker = EndMarker(producer_id == 2, 0)
                partition.append(
                    build_marker(producer_id, 0, marker, runtime.now_ms()), None, trusted=True
                )
            log.flush()
            runtime.settle()
        runtime.advance(INTERVAL_MS)
        runtime.set_forward(60_000 * turn)
    log.close()
    return path / "t-0"


def test_a_compacted_log_is_read_and_its_indexes_agree(compacted):
    logs = sorted(compacted.glob("*.log"))
    printed = dump(logs, "--deep-iteration")
    offsets = [
        int(line.split("offset: ")[1].split()[0])
        for line in printed.splitlines()
        if line.startswith("| offset:")
    ]
    assert offsets == sorted(set(offsets))
    assert len(offsets) < 0.7 * offsets[-1], "there are gaps"
    assert "deleteHorizonMs: OptionalLong[" in printed
    assert "count: 0 " in printed
    assert "isvalid: false" not in printed
    assert "Found" not in printed
    indexes = [*sorted(compacted.glob("*.index")), *sorted(compacted.glob("*.timeindex"))]
    checked = dump(indexes, "--index-sanity-check")
    assert checked.count("passed sanity check") == len(indexes)
    agreed = dump(indexes, "--verify-index-only")
    assert "mismatch" not in agreed.lower(), agreed
    assert "Found" not in agreed, agreed
    aborted = sorted(compacted.glob("*.txnindex"))
    assert aborted
    assert "producerId: 3" in dump(aborted)
