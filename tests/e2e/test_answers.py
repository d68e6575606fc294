"""What is answered to any request, compared field by field with a real Apache Kafka's answers.

Those were recorded, see `answers/`. Run with ISTHMUS_E2E_KAFKA this holds the records against
an Apache Kafka.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.e2e.answers.conversation import talk
from tests.e2e.answers.conversations import CONVERSATIONS, record_of
from tests.e2e.answers.differences import differences, intended
from tests.e2e.conftest import IS_GIVEN
from tests.e2e.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Shores

AS_KAFKA = {"kafka.replication_factor_policy": "strict"}


@pytest.fixture(scope="module")
def own_server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server"), AS_KAFKA)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_answers_are_those_of_apache_kafka(name: str, shores: Shores) -> None:
    theirs = json.loads(record_of(name).read_text())
    ours = talk(shores.kafka, CONVERSATIONS[name])
    assert ours.keys() == theirs.keys()
    meant = [] if IS_GIVEN else intended(name)
    found = differences(theirs, ours)
    assert not [one for one in found if not any(each.covers(one) for each in meant)]
    stale = [each for each in meant if not any(each.covers(one) for one in found)]
    assert not stale
