"""When indexes are written and synced: with a sweep, for the segments where anything is new."""

from __future__ import annotations

import pytest
from tests.storage.test_recovery import SMALL, Server, numbers

A_MINUTE = 60_000


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "data").create(SMALL)
    server.fill(60)
    server.runtime.advance(A_MINUTE)
    assert len(server.partition.segments) > 10
    yield server
    server.close()


def test_a_sweep_does_not_go_over_segments_that_nothing_happened_to(server):
    segments = server.partition.segments
    assert not segments.changed, "what a sweep goes over"
    server.fill(1)
    assert set(segments.changed) <= set(list(segments)[-2:])
    server.runtime.advance(A_MINUTE)
    assert not segments.has_unsynced_indexes
    assert not segments.changed


def test_an_index_that_a_reader_has_built_again_is_saved_with_the_next_sweep(server):
    path = server.oldest(".index")
    right = path.read_bytes()
    assert right
    server.close()
    path.write_bytes(bytes(len(right) - 3))
    server.start()
    assert numbers(server) == list(range(60))
    oldest = next(iter(server.partition.segments))
    assert oldest in server.partition.segments.changed
    server.fill(1)
    server.runtime.advance(A_MINUTE)
    assert oldest not in server.partition.segments.changed
    assert path.read_bytes() == right


def test_what_could_not_be_synced_is_handed_over_again(server):
    segments = server.partition.segments
    server.fill(5)
    taken = segments.save_indexes()
    assert taken
    assert not segments.has_unsynced_indexes
    segments.take_back_indexes(taken)
    assert segments.has_unsynced_indexes
    assert set(segments.save_indexes()) == set(taken)
