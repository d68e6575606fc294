"""Settings of single groups, many in place of the server's for all [KIP-848, KIP-932].

They are set through IncrementalAlterConfigs with the resource type GROUP, and kept in a
compacted log topic: the key is the group's id, the value its settings as JSON. A change is
answered when it is durable, and holds from the next heartbeat of a member on. Names and limits
are Apache Kafka's; a limit that the server's own setting is beyond gives way to it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from isthmus.broker.kept_configs import KeptConfigs
from isthmus.errors import ConfigInvalid
from isthmus.kafka.consumer_types import Terms
from isthmus.kafka.share_partition import ShareLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.broker.appends import Appends
    from isthmus.kafka.errors import ErrorCode
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

CONFIGS_LOG_TOPIC: Final = "__isthmus_groups"


class Reset(NamedTuple):
    """Where a share group begins with a partition that it has never read."""

    is_latest: bool = True
    back_ms: int | None = None  # by time: so long ago


class ShareTerms(NamedTuple):
    """What holds for a share group."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000
    assignment_interval_ms: int = 0
    record_lock_duration_ms: int = 30_000
    delivery_count_limit: int = 5
    partition_max_record_locks: int = 2_000
    auto_offset_reset: str = "latest"
    isolation_level: str = "read_uncommitted"
    renew_acknowledge_enable: str = "true"

    @property
    def members(self) -> Terms:
        """What holds for its members."""
        return Terms(*self[:3])

    @property
    def limits(self) -> ShareLimits:
        """What holds for its partitions."""
        return ShareLimits(
            self.delivery_count_limit,
            self.partition_max_record_locks,
            self.record_lock_duration_ms,
        )

    @property
    def reset(self) -> Reset:
        """Where it begins."""
        return _reset(self.auto_offset_reset)

    @property
    def is_committed_only(self) -> bool:
        """Whether it reads only what is decided."""
        return self.isolation_level == "read_committed"


DURATION: Final = re.compile(
    r"P(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,9}))?S)?)?"
)


def _reset(text: str) -> Reset:
    """Read `share.auto.offset.reset`. Raises ConfigInvalid."""
    if text in ("latest", "earliest"):
        return Reset(is_latest=text == "latest")
    strategy, _, duration = text.partition(":")
    found = DURATION.fullmatch(duration.upper())
    if strategy != "by_duration" or found is None or not any(found.groups()):
        raise ConfigInvalid(f"share.auto.offset.reset is {text!r}")
    days, hours, minutes, seconds = (int(each or 0) for each in found.groups()[:4])
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    fraction = (found[5] or "").ljust(3, "0")[:3]
    return Reset(is_latest=False, back_ms=whole * 1_000 + int(fraction))


class GroupSetting(NamedTuple):
    """One setting of a group: which of its terms it is, and what it may be.

    `choices` are those of one that is no number; with none any text that can be read will do.
    """

    term: str
    least: int
    most: int
    doc: str
    kind: str = "int"
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: str, default: object) -> None:
        """Raise ConfigInvalid where a group cannot have this value."""
        if self.kind == "int":
            assert isinstance(default, int)
            least, most = min(self.least, default), max(self.most, default)
            if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
                raise ConfigInvalid(f"{name} is {value!r}, not from {least} to {most}")
        elif self.choices and value.lower() not in self.choices:
            raise ConfigInvalid(f"{name} is {value!r}, none of {', '.join(self.choices)}")
        elif not self.choices:
            _reset(value)


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
    "share.session.timeout.ms": GroupSetting(
        "session_timeout_ms", 45_000, 60_000, "Silence after which a member is put out."
    ),
    "share.heartbeat.interval.ms": GroupSetting(
        "heartbeat_interval_ms", 5_000, 15_000, "Time between heartbeats that members are told."
    ),
    "share.assignment.interval.ms": GroupSetting(
        "assignment_interval_ms", 0, 15_000, "Shortest time between two assignments."
    ),
    "share.record.lock.duration.ms": GroupSetting(
        "record_lock_duration_ms", 15_000, 60_000, "Time that a member has for a record."
    ),
    "share.delivery.count.limit": GroupSetting(
        "delivery_count_limit", 2, 10, "Times that a record is given to somebody at most."
    ),
    "share.partition.max.record.locks": GroupSetting(
        "partition_max_record_locks", 100, 4_000, "Records of a partition in work at one time."
    ),
    "share.auto.offset.reset": GroupSetting(
        *("auto_offset_reset", 0, 0),
        "Where a partition begins: latest, earliest, by_duration:PnDTnHnMn.nS.",
        "string",
    ),
    "share.isolation.level": GroupSetting(
        *("isolation_level", 0, 0),
        "Whether records of transactions wait for their end.",
        "string",
        ("read_uncommitted", "read_committed"),
    ),
    "share.renew.acknowledge.enable": GroupSetting(
        *("renew_acknowledge_enable", 0, 0),
        "Whether a member may ask for more time for a record.",
        "boolean",
        ("true", "false"),
    ),
}
SHARE: Final = "share."
# Those that the server has no setting of its own for.
OF_GROUPS_ONLY: Final = {name for name, setting in SETTINGS.items() if setting.kind != "int"}


class GroupConfigs:
    """What was set for groups, by their ids."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        appends: Appends,
        defaults: Terms,
        share_defaults: ShareTerms,
    ) -> None:
        """Read back what was set; `defaults` hold for what was not."""
        self._defaults = defaults
        self._share_defaults = share_defaults
        self._terms: dict[str, Terms] = {}
        self._share_terms: dict[str, ShareTerms] = {}
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
        return self._terms.get(group_id, self._defaults)

    def share(self, group_id: str) -> ShareTerms:
        """Return what holds for a share group."""
        return self._share_terms.get(group_id, self._share_defaults)

    def default_of(self, name: str) -> object:
        """Return what holds for groups for which this setting was not set."""
        terms = self._share_defaults if name.startswith(SHARE) else self._defaults
        value: object = getattr(terms, SETTINGS[name].term)
        return value

    def check(self, configs: Mapping[str, str]) -> None:
        """Raise ConfigInvalid where a group cannot have these settings."""
        for name, value in configs.items():
            setting = SETTINGS.get(name)
            if setting is None:
                raise ConfigInvalid(f"{name} is no setting of a group")
            setting.check(name, value, self.default_of(name))
        wanted = (self._terms_of(configs), self._share_terms_of(configs))
        if any(each.heartbeat_interval_ms >= each.session_timeout_ms for each in wanted):
            raise ConfigInvalid("a session has to be longer than the time between heartbeats")

    def set(
        self, group_id: str, configs: Mapping[str, str], done: Callable[[ErrorCode], object]
    ) -> None:
        """Replace the settings of a group, checked before; `done` when that is durable."""
        self._kept.set(group_id, configs, done)

    def _put(self, group_id: str, configs: Mapping[str, str]) -> None:
        if configs:
            self._terms[group_id] = self._terms_of(configs)
            self._share_terms[group_id] = self._share_terms_of(configs)
        else:
            self._terms.pop(group_id, None)
            self._share_terms.pop(group_id, None)

    def _terms_of(self, configs: Mapping[str, str]) -> Terms:
        own = {
            SETTINGS[name].term: int(value)
            for name, value in configs.items()
            if not name.startswith(SHARE)
        }
        return self._defaults._replace(**own)

    def _share_terms_of(self, configs: Mapping[str, str]) -> ShareTerms:
        own: dict[str, Any] = {
            SETTINGS[name].term: int(value) if SETTINGS[name].kind == "int" else value.lower()
            for name, value in configs.items()
            if name.startswith(SHARE)
        }
        return self._share_defaults._replace(**own)
