"""`isthmus log`: what is printed, which status it ends with, and what is left alone."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from tests.storage.batches import Answer, batch_of
from tests.unit.broker.test_users import SHA512
from tests.unit.storage.data_rooms import DataRoom, flip, tree_of

from isthmus.broker.session_records import (
    GroupState,
    QueuePart,
    SubscriptionTerms,
    encode,
    filter_key,
    queue_key,
)
from isthmus.broker.session_records import group_key as share_key
from isthmus.cli.log_decoders import decoded
from isthmus.cli.main import main
from isthmus.kafka.consumer_records import row_key, row_value
from isthmus.kafka.consumer_types import (
    Begun,
    Holding,
    HoldingRow,
    InitializedRow,
    MemberState,
    PatternRow,
    Subscription,
    SubscriptionRow,
)
from isthmus.kafka.group_records import (
    CommittedOffset,
    OffsetKey,
    group_key,
    offset_key,
    offset_value,
)
from isthmus.kafka.share_partition import RecordState, StateBatch
from isthmus.kafka.share_records import (
    ShareKey,
    ShareSnapshot,
    ShareUpdate,
    snapshot_key,
    snapshot_value,
    update_key,
    update_value,
)
from isthmus.record.markers import EndMarker, build_marker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def room(tmp_path: Path) -> DataRoom:
    return DataRoom(tmp_path / "data").close()


def run(*words: str, room: DataRoom | None = None) -> Result:
    data = [] if room is None else ["--data", str(room.path)]
    return CliRunner().invoke(main, ["log", *words, *data], catch_exceptions=False)


def rows(*words: str, room: DataRoom | None = None) -> list[dict[str, Any]]:
    done = run(*words, "--json", room=room)
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- verify and repair ------------------------------------------------------------------------


def test_a_sound_log(room: DataRoom) -> None:
    done = run("verify", room=room)
    assert done.exit_code == 0
    assert "closed in good order" in done.stdout
    assert "t-0: ok, offsets 0 to 19, 20 records" in done.stdout
    assert done.stdout.endswith("all 1 partitions are well\n")


def test_damage_is_told_with_its_place_its_meaning_and_what_to_do(room: DataRoom) -> None:
    path = room.segments[1]
    flip(path, 5)
    done = run("verify", "t", room=room)
    assert done.exit_code == 1
    base = int(path.stem)
    assert f"damage: t-0/{path.name}, bytes 0 to " in done.stdout
    assert f"offset {base} lost" in done.stdout
    assert "it means: " in done.stdout and "isthmus log repair" in done.stdout
    done = run("verify", "--json", room=room)
    assert done.exit_code == 1
    directory, partition = map(json.loads, done.stdout.splitlines())
    assert (directory["state"], directory["findings"]) == ("closed in good order", [])
    (finding,) = partition["findings"]
    assert (finding["kind"], finding["position"], finding["offset"]) == ("lost", 0, base)
    assert finding["advice"] and finding["means"] and finding["is_damage"]


@pytest.mark.parametrize("command", ["verify", "repair", "dump"])
def test_what_cannot_be_looked_at_is_one_sentence_and_status_2(
    command: str, tmp_path: Path, room: DataRoom
) -> None:
    for words in (
        [command, "--data", str(tmp_path / "nowhere")],
        [command, "--data", str(tmp_path)],
        [command, "--data", str(room.path), "unknown"],
    ):
        done = run(*words)
        assert done.exit_code == 2 and not done.stdout
        assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_a_disk_that_cannot_be_read(room: DataRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("isthmus.storage.local.files.Files.pread", broken)
    done = run("verify", room=room)
    assert done.exit_code == 2
    assert "Input/output error" in done.stderr


def test_without_yes_nothing_is_repaired(room: DataRoom) -> None:
    flip(room.segments[1], 5)
    before = tree_of(room.path)
    done = run("repair", room=room)
    assert done.exit_code == 1
    assert "to be cut out" in done.stdout and "--yes" in done.stdout
    assert tree_of(room.path) == before
    done = run("repair", "--yes", room=room)
    assert done.exit_code == 0
    assert f"kept in {room.path / 'set-aside'}" in done.stdout
    assert run("verify", room=room).exit_code == 0
    assert run("repair", "--yes", room=room).stdout == "there was nothing to repair\n"
    assert run("repair", room=room).exit_code == 0


def test_only_what_is_named_is_repaired(room: DataRoom) -> None:
    room.open().log.create("u", 1, {})
    room.close()
    shutil.copy(room.segments[0], room.path / "u-0")
    flip(room.segments[1], 5)
    flip(room.path / "u-0" / room.segments[0].name, 5)
    assert run("repair", "--yes", "t-0", room=room).exit_code == 0
    assert run("verify", "t", room=room).exit_code == 0
    assert run("verify", "u", room=room).exit_code == 1


def test_a_log_in_use_is_read_but_not_repaired(room: DataRoom) -> None:
    room.open()
    done = run("verify", room=room)
    assert done.exit_code == 0 and "in use by a server" in done.stdout
    for words in (["repair"], ["repair", "--yes"]):
        done = run(*words, room=room)
        assert done.exit_code == 2
        assert done.stderr == f"Error: {room.path} is in use: stop the server, then repair\n"
    room.close()


# --- dump -------------------------------------------------------------------------------------


def test_batches_and_records_from_an_offset_on(room: DataRoom) -> None:
    batches = rows("dump", "t-0", "--offset", "7", "--count", "3", room=room)
    assert [(row["offset"], row["records"], row["codec"]) for row in batches] == [
        (7, 1, "none"),
        (8, 1, "none"),
        (9, 1, "none"),
    ]
    assert batches[0]["producer"] == "7/0@7"
    records = rows("dump", "t", "--records", "--offset", "18", room=room)
    assert [(row["offset"], row["value"][:4]) for row in records] == [
        (18, "0018"),
        (19, "0019"),
    ]
    text = run("dump", "t", "--records", "--count", "1", room=room).stdout
    assert text.startswith("offset  time") and "\\x00" in text and "\0" not in text


def test_damage_is_a_row_of_its_own(room: DataRoom) -> None:
    path = room.segments[1]
    flip(path, 5)
    with room.segments[-1].open("ab") as file:
        file.write(b"torn")
    damaged = [row for row in rows("dump", "t", room=room) if "what" in row]
    assert [row["file"] for row in damaged] == [path.name, room.segments[-1].name]
    assert f"from offset {int(path.stem)} on" in damaged[0]["what"]


def test_what_the_server_is_writing(room: DataRoom) -> None:
    room.open()
    with room.segments[-1].open("ab") as file:
        file.write(b"half")
    assert rows("dump", "t", room=room)[-1]["what"] == "being written"
    room.close()


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (".index", {"last_offset": 12, "position": 348}),
        (".timeindex", {"offset": 12, "timestamp_ms": 1_700_000_000_012}),
        (".snapshot", {"producer_id": 7, "epoch": 0, "last_sequence": 19}),
        ("leader-epoch-checkpoint", {"leader_epoch": 0, "start_offset": 0}),
        ("partition.metadata", {"topic_id": None}),
        ("../isthmus-catalog", {"leader_epoch": 0}),
        ("../recovery-point-offset-checkpoint", {"log_topic": "t", "recovery_point": 20}),
        ("../meta.properties", {"node.id": "1"}),
        ("../.kafka_cleanshutdown", {"closed": '{"version":0,"brokerEpoch":-1}'}),
    ],
)
def test_every_file_of_the_layout(room: DataRoom, name: str, row: dict[str, Any]) -> None:
    file = room.directory / name
    if name.startswith(".") and "/" not in name:
        found = sorted(room.directory.glob(f"*{name}"))
        file = found[2] if len(found) > 2 else found[-1]
    first = rows("dump", str(file))[0]
    assert row.items() <= {**first, **{key: None for key in row if row[key] is None}}.items()
    assert first.keys() >= row.keys()
    assert run("dump", str(file)).exit_code == 0


def test_the_journal(room: DataRoom) -> None:
    room.open()
    for name in "abc":  # as many as make a round use it
        partition = room.log.create(name, 1, {}).partitions[0]
        partition.append(batch_of(b"one", b"two"), Answer())
    room.log.flush()
    room.runtime.settle()
    room.crash()
    header, *copies = rows("dump", str(room.path / "journal" / "0.wal"))
    assert header == {"sequence": 1, "oldest_needed": 1}
    ids = {row["topic_id"] for row in copies}
    assert len(copies) == len(ids) == 3
    assert {(row["file"], row["end_offset"], row["is_whole"]) for row in copies} == {
        (f"{0:020d}.log", 2, True)
    }


def test_files_that_are_none_of_ours_or_spoilt(room: DataRoom) -> None:
    snapshot = max(room.directory.glob("*.snapshot"))
    flip(snapshot, 9)
    for file in (snapshot, room.path / "LOCK", room.path / "nothing"):
        done = run("dump", str(file))
        assert done.exit_code == 2, file
        assert done.stderr.count("\n") == 1


def test_the_directory_as_a_whole(room: DataRoom) -> None:
    *_, topic, partition = rows("dump", room=room)
    assert (topic["log_topic"], topic["partitions"]) == ("t", 1)
    assert (partition["segments"], partition["recovery_point"]) == (len(room.segments), 20)


# --- the server's own records -----------------------------------------------------------------


def said(log_topic: str, key: bytes, value: bytes | None) -> Any:
    batch = batch_of(value, keys=[key])
    (record,) = batch.records()
    return decoded(log_topic, batch, record)


def test_records_of_the_server_are_decoded() -> None:
    groups, sessions = "__consumer_offsets", "__mqtt_sessions"
    committed = CommittedOffset(5, 0, "m", 1, bytes(16))
    says = said(groups, offset_key(OffsetKey("g", "t", 3)), offset_value(committed))
    assert (says["group_id"], says["log_topic"], says["partition"]) == ("g", "t", 3)
    assert (says["offset"], says["metadata"]) == (5, "m")
    assert said(groups, group_key("g"), None) == {"group_id": "g", "removed": True}
    terms = encode(SubscriptionTerms(1, 2, 9))
    assert said(sessions, filter_key(b"c", b"a/+"), terms) == {
        "client_id": "c",
        "topic_filter": "a/+",
        "options": 2,
        "identifier": 9,
        "ungreeted": False,
    }
    assert said(sessions, b"c", None) == {"client_id": "c", "removed": True}
    state, part = GroupState(1, 3, 5, [], []), QueuePart(1, [], [])
    share = share_key("g", "a/+")
    about = {"group": "g", "topic_filter": "a/+"}
    assert said(sessions, share, encode(state)).items() >= {**about, "popped": 3}.items()
    assert (
        said(sessions, queue_key(share, 3), encode(part)).items()
        >= {
            **about,
            "queue_from": "3",
        }.items()
    )
    assert said(sessions, share, None) == {**about, "removed": True}
    assert said("__mqtt_retained", b"a/b", b"xy") == {"topic_name": "a/b", "retained_bytes": 2}
    assert said("__users", b"ann", f"!{SHA512}:b,a".encode()) == {
        "user": "ann",
        "groups": ["a", "b"],
        "enabled": False,
    }
    assert said("__users", b"ann", None) == {"user": "ann", "removed": True}
    assert said("__users", b"\0secret", b"xy") == {"secret": True}
    assert said("mine", b"a/b", b"xy") is None


def test_settings_of_groups_are_decoded() -> None:
    told = said("__isthmus_groups", b"g", b'{"consumer.session.timeout.ms": "50000"}')
    assert told == {"group_id": "g", "settings": {"consumer.session.timeout.ms": "50000"}}
    assert said("__isthmus_groups", b"g", None) == {"group_id": "g", "removed": True}
    assert "undecodable" in said("__isthmus_groups", b"g", b"?")


def test_rows_of_consumer_groups_are_decoded() -> None:
    held = Holding(3, 2, MemberState.UNREVOKED, {(b"t" * 16, 1): 3}, {})
    subscribed = Subscription(None, None, "c", "/h", 60_000, frozenset("ba"), "", None)
    rows = (HoldingRow("m1", held), SubscriptionRow("m1", subscribed), PatternRow("x", None))
    told = [said("__consumer_offsets", row_key("g", row), row_value(row, 0)) for row in rows]
    assert [one["row"] for one in told] == ["HoldingRow", "SubscriptionRow", "PatternRow"]
    assert {one["group_id"] for one in told} == {"g"}
    assert told[0]["holding"]["assigned"] == {"dHR0dHR0dHR0dHR0dHR0dA:1": 3}
    assert told[1]["subscription"]["topic_names"] == ["a", "b"]
    assert told[2]["topic_names"] is None
    assert json.dumps(told)


def test_what_share_groups_keep_is_decoded() -> None:
    row = InitializedRow({b"t" * 16: Begun("a", frozenset({1, 0}))})
    told = said("__consumer_offsets", row_key("g", row, "share"), row_value(row, 0, "share"))
    begun = {"name": "a", "partitions": [0, 1]}
    assert told["topics"] == {"dHR0dHR0dHR0dHR0dHR0dA": begun}
    key = ShareKey("g", b"t" * 16, 2)
    batch = StateBatch(5, 6, RecordState.ACKNOWLEDGED, 1)
    value = snapshot_value(ShareSnapshot(1, 0, 0, 4, 2, 7, [batch]), 8)
    told = said("__share_group_state", snapshot_key(key), value)
    assert (told["row"], told["start_offset"], told["partition"]) == ("ShareSnapshot", 4, 2)
    assert told["batches"] == [
        {"first": 5, "last": 6, "state": "acknowledged", "deliveries": 1}
    ]
    assert said("__share_group_state", snapshot_key(key), None)["removed"]
    value = update_value(ShareUpdate(1, 0, 4, 2, [batch]))
    assert said("__share_group_state", update_key(key), value)["row"] == "ShareUpdate"
    assert json.dumps(told)


@pytest.mark.parametrize(
    ("log_topic", "key", "value"),
    [
        ("__share_group_state", b"\0\2", b""),
        ("__consumer_offsets", b"", b""),
        ("__consumer_offsets", b"\0\1", b"x"),
        ("__consumer_offsets", b"\0\7", b"x"),
        ("__mqtt_sessions", b"c", b"\xff"),
        ("__mqtt_sessions", b"c\0zz", b"x"),
        ("__mqtt_sessions", b"\xff\0f", b"x"),
        ("__mqtt_sessions", b"\0gname\0t", b"x"),
        ("__mqtt_sessions", b"\0gname", b"x"),
        ("__mqtt_retained", b"\xff", b"x"),
        ("__users", b"ann", b"$9$"),
        ("__users", b"ann", b"\xff"),
    ],
)
def test_what_cannot_be_decoded_stops_nothing(log_topic: str, key: bytes, value: bytes) -> None:
    assert "undecodable" in said(log_topic, key, value)


def test_the_end_of_a_transaction() -> None:
    batch = build_marker(7, 0, EndMarker(commits=False, coordinator_epoch=3), 1)
    (record,) = batch.records()
    assert decoded("t", batch, record) == {"marker": "abort", "coordinator_epoch": 3}
