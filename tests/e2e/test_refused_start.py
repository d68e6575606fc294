"""A start that cannot be: one sentence, what and how to mend it, status 2, no trace."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from tests.e2e.raw_mqtt import PUBACK, publish, raw_session
from tests.e2e.server_process import (
    ServerProcess,
    run_isthmus,
    text_of,
    tree_of,
)

if TYPE_CHECKING:
    from pathlib import Path

ANY_PORTS = ("--mqtt", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0")


def refusal(directory: Path, *arguments: str, words: tuple[str, ...]) -> str:
    """Start a server that has to refuse and leave the directory as it was; return its line."""
    before = tree_of(directory)
    ended = run_isthmus("serve", *arguments, directory=directory)
    assert ended.returncode == 2, (ended.returncode, ended.stderr)
    assert ended.stdout == ""
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]
    assert tree_of(directory) == before
    return lines[0]


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("mqtt.listenerz=[]", ("mqtt.listenerz", "mqtt.listeners")),
        ("storag.engine=local", ("storag", "storage")),
        ("mqtt.packet_size_max=huge", ("mqtt.packet_size_max", "huge")),
        ("mqtt.packet_size_max=1", ("mqtt.packet_size_max",)),
        ("storage.local.durability=sync", ("storage.local.durability", "synced")),
        ("nonsense", ("nonsense",)),
    ],
)
def test_a_wrong_setting(assignment: str, words: tuple[str, ...], tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    refusal(tmp_path, *ANY_PORTS, "--data", data, "--set", assignment, words=words)


def test_an_unknown_key_in_the_file_is_named_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "isthmus.toml"
    config.write_text('[mqtt]\nlisteners = ["tcp://127.0.0.1:0"]\n\npaket_size_max = 2048\n')
    arguments = ("--config", str(config), "--data", str(tmp_path / "data"))
    words = ("paket_size_max", "packet_size_max", "isthmus.toml", "4")
    refusal(tmp_path, *arguments, words=words)


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    config = tmp_path / "isthmus.toml"
    config.write_text("[mqtt\n")
    arguments = ("--config", str(config), "--data", str(tmp_path / "data"))
    refusal(tmp_path, *arguments, words=("isthmus.toml",))


def test_a_public_address_without_authentication(tmp_path: Path) -> None:
    arguments = ("--mqtt", "0.0.0.0:0", "--data", str(tmp_path / "data"))
    refusal(tmp_path, *arguments, words=("0.0.0.0", "allow_anonymous"))


@pytest.mark.parametrize("shore", ["mqtt", "kafka", "http"])
def test_a_port_in_use(shore: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = text_of(taken.getsockname())
        ports = [
            address
            if argument == "127.0.0.1:0" and ANY_PORTS[at - 1] == f"--{shore}"
            else argument
            for at, argument in enumerate(ANY_PORTS)
        ]
        refusal(tmp_path, *ports, "--data", str(tmp_path / "data"), words=(address,))


def test_a_data_directory_that_another_process_holds(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "first")
    server.start()
    try:
        with raw_session(server.mqtt, "writer") as client:
            client.send(publish("t", b"v", qos=1, packet_id=1))
            client.expect(PUBACK)  # so that the server has nothing to write any more
            words = (str(server.data), str(server.pid))
            refusal(tmp_path, *ANY_PORTS, "--data", str(server.data), words=words)
    finally:
        assert server.terminate() == 0


def test_a_data_directory_written_by_something_else(tmp_path: Path) -> None:
    foreign = tmp_path / "holiday"
    foreign.mkdir()
    (foreign / "beach.jpg").write_bytes(b"\xff\xd8")
    refusal(tmp_path, *ANY_PORTS, "--data", str(foreign), words=(str(foreign),))


def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("not a directory")
    refusal(tmp_path, *ANY_PORTS, "--data", str(path), words=(str(path),))


def test_a_lock_does_not_outlive_a_killed_server(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    server.kill()
    server.start()
    assert server.terminate() == 0


# --- a directory that cannot be opened --------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that was closed in good order."""
    server = ServerProcess(tmp_path)
    server.start()
    assert server.terminate() == 0
    (tmp_path / "server.log").unlink()
    (server.data / "LOCK").write_text("")
    return server.data


def spoil(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("isthmus-catalog", None, ("lacks isthmus-catalog", "isthmus log repair")),
        ("isthmus-catalog", b"spoilt", ("isthmus-catalog is damaged", "isthmus log repair")),
        ("isthmus-catalog", b"isthmus-catalog 2 00000000\n", ("version 2", "newer")),
        ("meta.properties", None, ("lacks meta.properties", "isthmus log repair")),
        ("meta.properties", b"\xff\xfe", ("meta.properties", "isthmus log repair")),
        ("meta.properties", b"cluster.id=x\nnode.id=7\n", ("belongs to node 7",)),
    ],
)
def test_a_data_directory_that_was_spoilt(
    data: Path, file: str, content: bytes | None, words: tuple[str, ...]
) -> None:
    spoil(data / file, content)
    before = {name: place for name, place in tree_of(data).items() if name != "LOCK"}
    ended = run_isthmus("serve", *ANY_PORTS, "--data", str(data))
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    for word in words:
        assert word in line
    assert {name: place for name, place in tree_of(data).items() if name != "LOCK"} == before


def test_a_data_directory_of_apache_kafka(tmp_path: Path) -> None:
    kafka = tmp_path / "kafka"
    (kafka / "t-0").mkdir(parents=True)
    (kafka / ".lock").touch()
    (kafka / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=1\n")
    refusal(tmp_path, *ANY_PORTS, "--data", str(kafka), words=("Apache Kafka", str(kafka)))


def test_a_data_directory_whose_parent_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    refusal(tmp_path, *ANY_PORTS, "--data", str(path), words=(str(path), "directory above"))


def test_a_file_that_cannot_be_read_at_the_start(data: Path) -> None:
    (data / "isthmus-catalog").unlink()
    (data / "isthmus-catalog").mkdir()
    ended = run_isthmus("serve", *ANY_PORTS, "--data", str(data))
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.strip().splitlines()
    assert str(data) in line and "Is a directory" in line
