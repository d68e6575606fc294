"""Settings of single groups, for what the server has settings for all groups [KIP-848].

They are set through IncrementalAlterConfigs with the resource type GROUP, and kept in a
compacted log topic: the key is the group's id, the value its settings as JSON. A change is
answered when it is durable, and holds from the next heartbeat of a member on. Names and limits
are Apache Kafka's; a limit that the server's own setting is beyond gives way to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.broker.kept_configs import KeptConfigs
from isthmus.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.broker.appends import Appends
    from isthmus.kafka.consumer_types import Terms
    from isthmus.kafka.errors import ErrorCode
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

CONFIGS_LOG_TOPIC: Final = "__isthmus_groups"


class GroupSetting(NamedTuple):
    """One setting of a group: which of its terms it is, and what it may be."""

    term: str
    least: int
    most: int
    doc: str


SETTINGS: Final[Mapping[str, GroupSetting]] = {
    "consumer.session.timeout.ms": GroupSetting(
        "session_timeout_ms", 45_000, 60_000, "Silence after which a member is put out."
    ),
    "consumer.heartbeat.interval.ms": GroupSetting(
        "heartbeat_interval_ms", 5_000, 15_000, "Time between heartbeats that members are told."
    ),
    "consumer.assignment.interval.ms": GroupSetting(
        "assignment_interval_ms", 0, 15_000, "Shortest time between two assignments."
    ),
}


class GroupConfigs:
    """What was set for groups, by their ids."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        appends: Appends,
        defaults: Terms,
    ) -> None:
        """Read back what was set; `defaults` hold for what was not."""
        self.defaults = defaults
        self._terms: dict[str, Terms] = {}
        self._kept = KeptConfigs(
            *(runtime, log, appends, CONFIGS_LOG_TOPIC), check=self.check, put=self._put
        )

    @property
    def group_ids(self) -> list[str]:
        """Return the groups that have settings of their own."""
        return self._kept.names

    def of(self, group_id: str) -> Mapping[str, str]:
        """Return what was set for a group."""
        return self._kept.of(group_id)

    def terms(self, group_id: str) -> Terms:
        """Return what holds for a group."""
        return self._terms.get(group_id, self.defaults)

    def check(self, configs: Mapping[str, str]) -> None:
        """Raise ConfigInvalid where a group cannot have these settings."""
        for name, value in configs.items():
            setting = SETTINGS.get(name)
            if setting is None:
                raise ConfigInvalid(f"{name} is no setting of a group")
            default: int = getattr(self.defaults, setting.term)
            least, most = min(setting.least, default), max(setting.most, default)
            if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
                raise ConfigInvalid(f"{name} is {value!r}, not from {least} to {most}")
        wanted = self._terms_of(configs)
        if wanted.heartbeat_interval_ms >= wanted.session_timeout_ms:
            raise ConfigInvalid("a session has to be longer than the time between heartbeats")

    def set(
        self, group_id: str, configs: Mapping[str, str], done: Callable[[ErrorCode], object]
    ) -> None:
        """Replace the settings of a group, checked before; `done` when that is durable."""
        self._kept.set(group_id, configs, done)

    def _put(self, group_id: str, configs: Mapping[str, str]) -> None:
        if configs:
            self._terms[group_id] = self._terms_of(configs)
        else:
            self._terms.pop(group_id, None)

    def _terms_of(self, configs: Mapping[str, str]) -> Terms:
        own = {SETTINGS[name].term: int(value) for name, value in configs.items()}
        return self.defaults._replace(**own)
