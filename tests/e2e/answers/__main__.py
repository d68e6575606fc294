"""Write down what an Apache Kafka says; see `__init__.py`."""

from __future__ import annotations

import json
import sys

from tests.e2e.answers.conversation import talk
from tests.e2e.answers.conversations import CONVERSATIONS, record_of
from tests.e2e.server_process import address_of


def main() -> None:
    """Have the conversations that are named, or all."""
    server, *names = sys.argv[1:]
    for name in names or CONVERSATIONS:
        answers = talk(address_of(server), CONVERSATIONS[name])
        record_of(name).write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n")


main()
