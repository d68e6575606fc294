"""Which metrics clients should be asked for, as an administrator has written it down [KIP-714].

Kept and told, and nothing more: nobody is asked, just as by an Apache Kafka that has no plug-in
for what would come. So what is set up for one can be set up here, and is there when it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.broker.expressions import ExpressionInvalid, compiled
from isthmus.errors import ConfigInvalid
from isthmus.storage.topic_configs import Setting

if TYPE_CHECKING:
    from collections.abc import Mapping

METRICS_LOG_TOPIC: Final = "__isthmus_client_metrics"
INTERVAL, MATCH, METRICS = "interval.ms", "match", "metrics"
INTERVAL_MS: Final = range(100, 3_600_001)
SETTINGS: Final = {
    setting.name: setting
    for setting in (
        Setting(INTERVAL, "int", "300000", "Time between two times that a client tells."),
        Setting(MATCH, "list", "", "Whom it is about: what clients are, with expressions."),
        Setting(METRICS, "list", "", "Beginnings of the names of metrics; `*` is all."),
    )
}
MATCHED: Final = frozenset(
    f"client_{what}"
    for what in (
        *("instance_id", "id", "software_name", "software_version"),
        *("source_address", "source_port"),
    )
)


def check(configs: Mapping[str, str]) -> None:
    """Raise ConfigInvalid for what is no setting, or has no such value."""
    for name, text in configs.items():
        if name not in SETTINGS:
            raise ConfigInvalid(f"a subscription to metrics has no setting {name}")
        SETTINGS[name].parse(text)
    for pattern in filter(None, configs.get(MATCH, "").split(",")):
        key, _, expression = pattern.strip().partition("=")
        if key not in MATCHED or not expression:
            raise ConfigInvalid(f"{MATCH}: {pattern} is none of {', '.join(sorted(MATCHED))}")
        try:
            compiled(expression)
        except ExpressionInvalid as error:
            raise ConfigInvalid(f"{MATCH}: {error}") from None
