"""When indexes are written and synced: with a sweep, for the segments where anything is new."""

from __future__ import annotations

import pytest
from tests.storage.test_recovery import SMALL, Server, numbers

from isthmus.storage.local.segment import Segment

A_MINUTE = 60_000


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "data").create(SMALL)
    server.fill(60)
    server.runtime.advance(A_MINUTE)
    assert len(server.partition.segments) > 10
    yield server
    server.close()


@pytest.fixture
def saved(monkeypatch):
    """The segments that were asked to save their indexes."""
    asked = []
    save = Segment.save_indexes

    def save_and_note(segment, **how):
        asked.append(segment)
        save(segment, **how)

    monkeypatch.setattr(Segment, "save_indexes", save_and_note)
    return asked


def test_a_sweep_does_not_go_over_segments_that_nothing_happened_to(server, saved):
    server.runtime.advance(A_MINUTE)
    assert not saved
    server.fill(1)
    server.runtime.advance(A_MINUTE)
    assert set(saved) <= set(list(server.partition.segments)[-2:])
    assert not server.partition.segments.has_unsynced_indexes
    assert not server.partition.segments.changed


def test_an_index_that_a_reader_has_built_again_is_saved_with_the_next_sweep(server, saved):
    path = server.oldest(".index")
    right = path.read_bytes()
    assert right
    server.close()
    path.write_bytes(bytes(len(right) - 3))
    server.start()
    saved.clear()
    assert numbers(server) == list(range(60))
    oldest = next(iter(server.partition.segments))
    assert oldest in server.partition.segments.changed
    server.fill(1)
    server.runtime.advance(A_MINUTE)
    assert oldest in saved
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
