"""What an administrator sees of the log topics that a framework has made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka.admin import ConfigResource, ConfigSource, ResourceType
from tests.e2e.patience import TIMEOUT_S

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient


def settings_of(admin: AdminClient, log_topic: str) -> dict[str, str]:
    """Return the settings that a log topic has of its own."""
    resource = ConfigResource(ResourceType.TOPIC, log_topic)
    [described] = admin.describe_configs([resource]).values()
    own = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    entries = described.result(TIMEOUT_S).items()
    return {name: entry.value for name, entry in entries if entry.source == own}
