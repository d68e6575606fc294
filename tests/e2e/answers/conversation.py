"""One conversation: questions with names, and answers in a form that can be compared.

What differs from run to run is replaced: names and ids of log topics, ids that servers make up,
their address and their clock. Of error messages only the code beside them is kept, sentences
are each server's own; and what is unordered is sorted.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from tests.e2e.kafka_asker import Asker
from tests.e2e.patience import wait_until

from isthmus.kafka.api import ApiKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.server_process import Address

LEFT_OUT: Final = {
    *("throttle_time_ms", "error_message"),
    *("batch_index_error_message", "acknowledge_error_message"),
}
NO_ID: Final = bytes(16)
NUMBERED: Final = ("producer_id", "session_id")  # by the server, from wherever it is
MEMBERS: Final = ("raw-", "i1-")  # ids that the server makes of client and instance ids
DAY_MS: Final = 86_400_000
CLOSED: Final = {"closed": True}


class Conversation:
    """Asks one server, and keeps what it answers by the question's name."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self._asker = Asker(server)
        self._unique = uuid4().hex
        self._shown: dict[bytes | str, str] = {}  # what to replace, and by what
        self._numbers: dict[str, dict[int, int]] = {}  # of fields that the server numbers
        self.answers: dict[str, Any] = {}
        self.ids: dict[str, bytes] = {}

    def close(self) -> None:
        self._asker.close()

    def name(self, short: str) -> str:
        """Return a name that nobody else uses; its answers show it as `short*`."""
        return f"{short}{self._unique}"

    def is_ours(self, name: str) -> bool:
        """Whether a name was made by `name`."""
        return name.endswith(self._unique)

    def hide(self, value: bytes | str, shown: str) -> None:
        """Have a value that the server has made up shown by another name."""
        self._shown[value] = shown

    def ask(
        self, what: str, api_key: int, version: int, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ask something that is to be compared; the end of the connection is an answer, too."""
        try:
            answer = self.ask_aside(api_key, version, body)
        except OSError:
            self._asker.close()
            self._asker = Asker(self._server)
            answer = CLOSED
        self.keep(what, answer)
        return answer

    def ask_aside(
        self, api_key: int, version: int, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ask something that is not compared."""
        return self._asker.ask(api_key, version, body or {})

    def keep(self, what: str, answer: Any) -> None:
        """Keep an answer, or a part of one, to be compared."""
        assert what not in self.answers, f"{what} was asked already"
        self.answers[what] = self._comparable(answer)

    def create(self, short: str, partitions: int = 1, **configs: str) -> str:
        """Make a log topic, wait until it is served, and return its whole name."""
        name = self.name(short)
        rows = [{"name": one.replace("_", "."), "value": configs[one]} for one in configs]
        topic = {"name": name, "num_partitions": partitions, "replication_factor": 1}
        body = {"topics": [{**topic, "configs": rows}], "timeout_ms": 60_000}
        (said,) = self.ask_aside(ApiKey.CREATE_TOPICS, 7, body)["topics"]
        assert said["error_code"] == 0, said
        self.know(short, said["topic_id"])
        for index in range(partitions):
            wait_until(lambda at=index: self._leads(name, at), f"{name} is served")
        return name

    def know(self, short: str, topic_id: bytes) -> None:
        """Remember the id of a log topic."""
        self.ids[short] = topic_id
        self.hide(topic_id, f"id of {short}")

    def _leads(self, name: str, index: int) -> bool:
        row = {"partition_index": index, "timestamp": -1}
        body = {"replica_id": -1, "topics": [{"name": name, "partitions": [row]}]}
        (topic,) = self.ask_aside(ApiKey.LIST_OFFSETS, 4, body)["topics"]
        return bool(topic["partitions"][0]["error_code"] == 0)

    def wait_for_group(self, name: str) -> None:
        """Wait until there is somebody who serves a group."""
        wanted = {"key_type": 0, "coordinator_keys": [name]}

        def is_served() -> bool:
            self.ask_aside(ApiKey.FIND_COORDINATOR, 4, wanted)
            (said,) = self.ask_aside(ApiKey.DESCRIBE_GROUPS, 5, {"groups": [name]})["groups"]
            return bool(said["error_code"] == 0)

        wait_until(is_served, f"{name} is served")

    def _field(self, name: str, value: Any) -> Any:
        if name in NUMBERED and value > 0:
            numbers = self._numbers.setdefault(name, {})
            return f"{name} {numbers.setdefault(value, len(numbers) + 1)}"
        if name == "topic_id" and value != NO_ID:
            return self._shown.get(value, "an id")
        return self._comparable(value)

    def _comparable(self, value: Any) -> Any:
        if isinstance(value, dict):
            items = value.items()
            return {name: self._field(name, one) for name, one in items if name not in LEFT_OUT}
        if isinstance(value, list):
            return sorted((self._comparable(one) for one in value), key=_text)
        if isinstance(value, bytes | str) and value in self._shown:
            return self._shown[value]
        if isinstance(value, int) and abs(value - time.time() * 1000) < DAY_MS:
            return "now"
        if isinstance(value, bytes | memoryview):
            data = bytes(value)
            return (
                "no id"
                if data == NO_ID
                else data.hex().replace(self._unique.encode().hex(), "*")
            )
        if isinstance(value, str):
            made = [start for start in MEMBERS if value.startswith(start)]
            return made[0] + "*" if made else value.replace(self._unique, "*")
        return value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def talk(server: Address, play: Callable[[Conversation], None]) -> dict[str, Any]:
    """Have a whole conversation with a server, and return its answers."""
    with closing(Conversation(server)) as conversation:
        play(conversation)
        return conversation.answers
