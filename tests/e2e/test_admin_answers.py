"""What administrators are answered, compared field by field with a real Apache Kafka.

Those were recorded (admin_answers.py). Run with ISTHMUS_E2E_KAFKA this holds the record against
an Apache Kafka.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e.admin_answers import RECORD, play

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores


def test_administrators_are_answered_as_apache_kafka_does(shores: Shores) -> None:
    recorded: dict[str, Any] = json.loads(RECORD.read_text())
    answers = play(shores.kafka)
    assert answers.keys() == recorded.keys()
    others = {what: said for what, said in answers.items() if said != recorded[what]}
    assert others == {what: recorded[what] for what in others}
