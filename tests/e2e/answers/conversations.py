"""All conversations, by name, and where Apache Kafka's part in them is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.e2e.answers import groups, log_topics, records, settings, shares

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.answers.conversation import Conversation

CONVERSATIONS: Final[dict[str, Callable[[Conversation], None]]] = {
    "records": records.play,
    "groups": groups.play,
    "shares": shares.play,
    "log_topics": log_topics.play,
    "settings": settings.play,
}


def record_of(name: str) -> Path:
    """Return the file with the answers of Apache Kafka."""
    return Path(__file__).with_name(f"{name}.json")
