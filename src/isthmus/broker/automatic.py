"""Subscriptions that every new session begins with, by configuration: `devices/%c/commands`.

Each is added right after CONNACK, as if the client had sent a SUBSCRIBE, by the same checks;
what these refuse, the client goes without. It stays known as automatic, by an option of ours,
until the client subscribes to the same filter itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.broker.subscriptions import AUTOMATIC
from isthmus.errors import ConfigError, TopicInvalid
from isthmus.topics.filter import SHARED_PREFIX, check_topic_filter

if TYPE_CHECKING:
    from isthmus.broker.identity import Principal


class AutomaticSubscription:
    """One subscription, whose topic filter may have the client's names in it."""

    __slots__ = ("_template", "options")

    def __init__(
        self,
        topic_filter: str,
        *,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retained: bool = True,
    ) -> None:
        """Raise ConfigError where it is none that a client could ask for."""
        try:
            check_topic_filter(topic_filter)
        except TopicInvalid as error:
            raise ConfigError(f"mqtt.auto_subscribe: {error}") from None
        if no_local and topic_filter.startswith(SHARED_PREFIX):  # [MQTT-3.8.3-4]
            raise ConfigError(f"mqtt.auto_subscribe: no_local is not for {topic_filter}")
        self._template = topic_filter
        retain_handling = 0 if retained else 2
        self.options = (
            AUTOMATIC | retain_handling << 4 | retain_as_published << 3 | no_local << 2 | qos
        )

    def topic_filter_for(self, principal: Principal) -> str | None:
        """Return the filter for a client; None: its name is no part of one level."""
        return principal.filled(self._template)
