"""Settings of the server that change while it runs, by Apache Kafka's names for them [KIP-226].

An administrator sets them for all brokers (kept under the name `EVERY`) or for this one, which
comes first; what is set for neither is as the server was configured. There are three kinds:
defaults of log topics, which hold at once for all that do not say otherwise; limits of the
server; and those of what one node without Kerberos has not: they are checked, kept and shown,
so that tools that set them (kafka-reassign-partitions its throttles) go on working.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.broker.kept_configs import KeptConfigs
from isthmus.errors import ConfigInvalid
from isthmus.storage.topic_configs import INT_MAX, LONG_MAX, SETTINGS, Setting, check_configs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.broker.appends import Appends
    from isthmus.kafka.errors import ErrorCode
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

SERVER_LOG_TOPIC: Final = "__isthmus_brokers"
EVERY: Final = ""
CONNECTIONS: Final = "max.connections"
KERBEROS: Final = "sasl.kerberos."  # for single brokers only, as in Kafka

OF_LOG_TOPICS: Final[Mapping[str, Setting]] = {
    setting.server_default: setting
    for setting in SETTINGS.values()
    if setting.server_default is not None
}
NO_COPIES: Final = "There is one copy of everything, and nothing that this would slow down."
NO_KERBEROS: Final = "Nobody logs in by Kerberos here."
OTHERS: Final[Mapping[str, Setting]] = {
    setting.name: setting
    for setting in (
        Setting(CONNECTIONS, "int", str(INT_MAX), "Connections open at one time.", low=0),
        Setting("leader.replication.throttled.rate", "long", str(LONG_MAX), NO_COPIES, low=0),
        Setting("follower.replication.throttled.rate", "long", str(LONG_MAX), NO_COPIES, low=0),
        Setting(
            "replica.alter.log.dirs.io.max.bytes.per.second",
            *("long", str(LONG_MAX), NO_COPIES),
            low=0,
        ),
        Setting("num.replica.fetchers", "int", "1", NO_COPIES, low=1),
        Setting("sasl.kerberos.kinit.cmd", "string", "/usr/bin/kinit", NO_KERBEROS),
        Setting("sasl.kerberos.min.time.before.relogin", "long", "60000", NO_KERBEROS),
        Setting("sasl.kerberos.ticket.renew.jitter", "double", "0.05", NO_KERBEROS),
        Setting("sasl.kerberos.ticket.renew.window.factor", "double", "0.8", NO_KERBEROS),
    )
}


class ServerConfigs:
    """What was set for all brokers, and for this one."""

    def __init__(self, runtime: Runtime, log: Log, appends: Appends, node_id: int) -> None:
        """Read back what was set, and put it in force."""
        self.name = str(node_id)
        self.topic_defaults = dict(log.topic_defaults)  # as the server is configured
        self._log = log
        self._follow: Callable[[], object] = lambda: None
        self._set: dict[str, Mapping[str, str]] = {}
        self._kept = KeptConfigs(
            *(runtime, log, appends, SERVER_LOG_TOPIC), check=check, put=self._put
        )

    def follow(self, changed: Callable[[], object]) -> None:
        """Have a call now, and each time that something is set."""
        self._follow = changed
        changed()

    @property
    def connections_max(self) -> int | None:
        """How many connections may be open; None: as configured."""
        found = self.in_force(CONNECTIONS)
        return None if found is None else int(found)

    def of(self, name: str) -> Mapping[str, str]:
        """Return what was set for all brokers, or for this one."""
        return self._set.get(name, {})

    def in_force(self, name: str) -> str | None:
        """Return what a setting was set to; None: it was not."""
        return self.of(self.name).get(name, self.of(EVERY).get(name))

    def set(
        self, name: str, configs: Mapping[str, str], done: Callable[[ErrorCode], object]
    ) -> None:
        """Replace what was set under a name, checked before; `done` when that is durable."""
        self._kept.set(name, configs, done)

    def _put(self, name: str, configs: Mapping[str, str]) -> None:
        self._set[name] = configs
        found = {of.name: self.in_force(each) for each, of in OF_LOG_TOPICS.items()}
        changed = {each: value for each, value in found.items() if value is not None}
        self._log.set_topic_defaults({**self.topic_defaults, **changed})
        self._follow()


def check(configs: Mapping[str, str]) -> None:
    """Raise ConfigInvalid where these cannot be set while the server runs."""
    fixed = [name for name in configs if name not in OF_LOG_TOPICS and name not in OTHERS]
    if fixed:
        raise ConfigInvalid(f"not to be changed while the server runs: {', '.join(fixed)}")
    check_configs(
        {OF_LOG_TOPICS[name].name: configs[name] for name in configs if name in OF_LOG_TOPICS}
    )
    for name, value in configs.items():
        if name in OTHERS:
            OTHERS[name].parse(value)
