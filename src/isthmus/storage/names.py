"""Names of log topics: what Kafka allows, because the name becomes a directory.

The same rules as in Apache Kafka (`Topic.validate`), so that a partition's directory can be
carried to one. MQTT's topic names have other rules and live in topics/.
"""

from __future__ import annotations

import re
from typing import Final

from isthmus.errors import TopicInvalid

LOG_TOPIC_BYTES_MAX: Final = 249
_LOG_TOPIC = re.compile(r"[a-zA-Z0-9._-]+")


def check_log_topic(name: str) -> None:
    """Raise TopicInvalid unless `name` may name a log topic."""
    if not name or len(name) > LOG_TOPIC_BYTES_MAX:
        raise TopicInvalid(f"a log topic's name has 1 to {LOG_TOPIC_BYTES_MAX} characters")
    if name in (".", ".."):
        raise TopicInvalid(f"{name!r} cannot name a log topic")
    if _LOG_TOPIC.fullmatch(name) is None:
        raise TopicInvalid(
            f"{name!r} cannot name a log topic: letters, digits, '.', '_' and '-' are allowed"
        )
