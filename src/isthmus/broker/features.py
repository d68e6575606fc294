"""Features that change what clients do, each at a level [KIP-584].

Whoever runs the server may lower a level and raise it again, for clients that are not ready:
without `group.version` the consumer protocol is refused, without `share.version` all of share
groups, without `transaction.version` 2 producers that ask use the older form of transactions,
which is served in any case. The levels are kept in a compacted log topic; with each change the
epoch rises, by which clients know the newer answer. `metadata.version` is Apache Kafka's of the
release whose requests are spoken here; no other is. What was never changed is at the highest
level that this server knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.broker.kept_configs import KeptConfigs
from isthmus.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.broker.appends import Appends
    from isthmus.kafka.errors import ErrorCode
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

FEATURES_LOG_TOPIC: Final = "__isthmus_features"
FINALIZED: Final = "finalized"  # the one name under which all is kept
EPOCH: Final = "epoch"

GROUP: Final = "group.version"  # the consumer protocol [KIP-848]
METADATA: Final = "metadata.version"
SHARE: Final = "share.version"  # share groups [KIP-932]
TRANSACTION: Final = "transaction.version"  # at 2 each end raises the epoch [KIP-890]


class Levels(NamedTuple):
    """The lowest and the highest level of a feature; at 0 it is off."""

    least: int
    most: int


SUPPORTED: Final[Mapping[str, Levels]] = {
    GROUP: Levels(0, 1),
    METADATA: Levels(30, 30),  # 4.3-IV0
    SHARE: Levels(0, 1),
    TRANSACTION: Levels(0, 2),
}


class Features:
    """The level of each feature."""

    def __init__(self, runtime: Runtime, log: Log, appends: Appends) -> None:
        """Read back what was changed."""
        self.epoch = 0
        self._levels = {name: levels.most for name, levels in SUPPORTED.items()}
        self._kept = KeptConfigs(
            *(runtime, log, appends, FEATURES_LOG_TOPIC), check=_check, put=self._put
        )

    @property
    def finalized(self) -> Mapping[str, int]:
        """The levels of what is on."""
        return {name: level for name, level in self._levels.items() if level}

    def level(self, name: str) -> int:
        """Return the level of a feature."""
        return self._levels[name]

    def check(self, name: str, level: int, *, is_downgrade: bool) -> None:
        """Raise ConfigInvalid where a feature cannot have this level."""
        levels = SUPPORTED.get(name)
        if levels is None:
            raise ConfigInvalid(f"there is no feature {name}")
        if not levels.least <= level <= levels.most:
            raise ConfigInvalid(f"{name} is from {levels.least} to {levels.most}, not {level}")
        now = self._levels[name]
        if (level < now and not is_downgrade) or (level > now and is_downgrade):
            raise ConfigInvalid(f"{name} is {now}: lower by a downgrade, higher by an upgrade")

    def set(self, levels: Mapping[str, int], done: Callable[[ErrorCode], object]) -> None:
        """Change levels, which were checked, all or none; `done` when that is durable."""
        wanted = {**self._levels, **levels}
        kept = {name: str(level) for name, level in wanted.items()}
        self._kept.set(FINALIZED, {**kept, EPOCH: str(self.epoch + 1)}, done)

    def _put(self, _name: str, kept: Mapping[str, str]) -> None:
        self.epoch = int(kept.get(EPOCH, 0))
        for name, (least, most) in SUPPORTED.items():
            self._levels[name] = max(least, min(int(kept.get(name, most)), most))


def _check(kept: Mapping[str, str]) -> None:
    """Raise ConfigInvalid for what are no levels."""
    if not all(value.isascii() and value.isdigit() for value in kept.values()):
        raise ConfigInvalid("a level of a feature is a number")
