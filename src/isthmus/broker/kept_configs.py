"""Settings that administrators give to named things while the server runs: groups, brokers.

They are kept in a compacted log topic, made with the first of them: the key is a name, the
value its settings as JSON. A change is answered, and counts, when it is durable. What the
settings mean, and which there are, is known to whoever keeps them here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from isthmus.broker.state_log import StateLog
from isthmus.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.broker.appends import Appends
    from isthmus.kafka.errors import ErrorCode
    from isthmus.record.batch import RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

    Check: TypeAlias = Callable[[Mapping[str, str]], None]  # raises ConfigInvalid
    Put: TypeAlias = Callable[[str, Mapping[str, str]], None]

logger = logging.getLogger(__name__)

COMPACTED: Final = {"cleanup.policy": "compact"}


class KeptConfigs:
    """What was set, by name."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        appends: Appends,
        log_topic: str,
        check: Check,
        put: Put = lambda *_: None,
    ) -> None:
        """Read back what was set; `put(name, configs)` is told all that holds from then on.

        What is read and does not pass `check` any more is left out, and named in the log.
        """
        self._check = check
        self._put_in_force = put
        self._log_topic = log_topic
        self._configs: dict[str, dict[str, str]] = {}
        self._kept = StateLog(runtime, log, appends, log_topic, COMPACTED, 1)
        self._kept.load(self._replay, lambda: None)

    @property
    def names(self) -> list[str]:
        """Return what has settings."""
        return sorted(self._configs)

    def of(self, name: str) -> Mapping[str, str]:
        """Return what was set."""
        return self._configs.get(name, {})

    def set(
        self, name: str, configs: Mapping[str, str], done: Callable[[ErrorCode], object]
    ) -> None:
        """Replace the settings of something, checked before; `done` when that is durable."""

        def stored(failure: ErrorCode) -> None:
            if not failure:
                self._put(name, configs)
                said = self._log_topic, name, dict(configs)
                logger.info("settings kept log_topic=%s name=%s settings=%r", *said)
            done(failure)

        value = msgspec.json.encode(configs, order="sorted") if configs else None
        self._kept.write(name, [(name.encode(), value)], stored)

    def _put(self, name: str, configs: Mapping[str, str]) -> None:
        if configs:
            self._configs[name] = dict(configs)
        else:
            self._configs.pop(name, None)
        self._put_in_force(name, configs)

    def _replay(self, _index: int, batch: RecordBatch) -> None:
        for record in batch.records():
            try:
                name = (record.key or b"").decode()
                configs = msgspec.json.decode(record.value or b"{}", type=dict[str, str])
                self._check(configs)
            except (UnicodeDecodeError, msgspec.DecodeError, ConfigInvalid) as error:
                logger.warning(
                    "settings skipped log_topic=%s offset=%d error=%s",
                    *(self._log_topic, record.offset, error),
                )
                continue
            self._put(name, configs)
