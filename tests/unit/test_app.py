"""What the server asks of the system it runs on."""

from __future__ import annotations

import resource

import pytest

from isthmus.app import raise_file_limit, segments_open_max


@pytest.fixture
def _limits_as_before():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("_limits_as_before")
def test_as_many_files_may_be_open_as_the_system_allows():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    raise_file_limit()
    soft, still_hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 256
    assert still_hard == hard


@pytest.mark.usefixtures("_limits_as_before")
def test_segments_leave_most_of_the_files_to_sockets():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    assert segments_open_max() == 64
