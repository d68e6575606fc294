"""The rules of access that the server keeps, in the `__access` log topic.

An administrator adds and removes them while the server runs, over REST or by Kafka's admin API;
they count together with those that are configured (access.py). Each is kept as rules of one
operation: its text is the key of a compacted record, the value says who added it, and when. A
change counts when it is durable, for everybody who is connected too, and the log names who made
it. Not here: what rules mean, nor who may change them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from isthmus.broker.access_rules import parse_rule
from isthmus.broker.appends import append_own, counting
from isthmus.broker.destinations import ensure_own
from isthmus.broker.recent_records import readable_records
from isthmus.errors import ConfigError, QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from isthmus.broker.access import Access
    from isthmus.broker.access_rules import Rule
    from isthmus.broker.appends import Appends, Done
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

logger = logging.getLogger(__name__)

ACCESS_LOG_TOPIC: Final = "__access"
ACCESS_CONFIGS: Final = {"cleanup.policy": "compact", "segment.bytes": "16777216"}
KEPT_MAX: Final = 100_000
ORIGIN: Final = "kept"
FORM: Final = 1


class Added(msgspec.Struct, array_like=True, frozen=True):
    """The value of a record: who added the rule, and when."""

    form: int
    by: str
    at_ms: int


def read_added(value: bytes) -> Added | None:
    """Read a record's value; None: it is of another form."""
    try:
        added = msgspec.msgpack.decode(value, type=Added)
    except msgspec.MsgspecError:
        return None
    return added if added.form == FORM else None


class Kept(NamedTuple):
    """A rule, and who added it when, by the wall clock."""

    rule: Rule
    by: str
    at_ms: int


class KeptRules:
    """All rules that the server keeps."""

    def __init__(self, runtime: Runtime, log: Log, appends: Appends, access: Access) -> None:
        """Read the log topic, and put its rules in force. Raises StorageError."""
        self._runtime = runtime
        self._appends = appends
        self._access = access
        self._partition = ensure_own(log, ACCESS_LOG_TOPIC, ACCESS_CONFIGS).partitions[0]
        self._kept: dict[str, Kept] = {}  # by text, the oldest first
        for batch in self._partition.batches(self._partition.start_offset):
            for record in readable_records(batch):
                self._read((record.key or b"").decode(), record.value)
        if self._kept:
            access.keep(kept.rule for kept in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Kept]:
        """Go through the rules, the oldest first."""
        return iter([*self._kept.values()])

    def has(self, rule: Rule) -> bool:
        """Whether a rule of one operation is kept."""
        return rule.text in self._kept

    def add(self, rules: Iterable[Rule], by: str, done: Done) -> None:
        """Keep rules, all or none; `done` when they count, or with why they do not.

        Those that are kept already stay as they are. `by` is who wants it. Raises
        QuotaExceeded.
        """
        ones = {one.text: one for rule in rules for one in rule.single()}
        new = [one for text, one in ones.items() if text not in self._kept]
        if len(self._kept) + len(new) > KEPT_MAX:
            raise QuotaExceeded(f"{KEPT_MAX} rules are kept, and there is no room for more")
        at_ms = self._runtime.now_ms()
        value = msgspec.msgpack.encode(Added(FORM, by, at_ms))

        def stored() -> None:
            for rule in new:
                rule.origin = ORIGIN
                self._kept.setdefault(rule.text, Kept(rule, by, at_ms))
                logger.info("access rule added by=%s rule=%r", by, rule.text)
            self._access.keep(new)

        self._write([(rule.text.encode(), value) for rule in new], stored, done)

    def remove(self, rules: Iterable[Rule], by: str, done: Done) -> None:
        """Keep rules no longer, all or none; those that are not kept are left out."""
        texts = dict.fromkeys(one.text for rule in rules for one in rule.single())
        gone = [self._kept[text].rule for text in texts if text in self._kept]

        def stored() -> None:
            for rule in gone:
                self._kept.pop(rule.text, None)
                logger.info("access rule removed by=%s rule=%r", by, rule.text)
            self._access.keep((), gone)

        self._write([(rule.text.encode(), None) for rule in gone], stored, done)

    def _read(self, text: str, value: bytes | None) -> None:
        self._kept.pop(text, None)
        if value is None:
            return
        added = read_added(value) or Added(FORM, "", 0)
        try:
            self._kept[text] = Kept(parse_rule(text, ORIGIN), added.by, added.at_ms)
        except ConfigError as error:  # of another version
            logger.error("access rule not readable rule=%r reason=%s", text, error)

    def _write(
        self, rows: list[tuple[bytes, bytes | None]], stored: Callable[[], None], done: Done
    ) -> None:
        if not rows:
            done(None)
            return
        counts = counting(stored, done)
        append_own(self._appends, self._partition, self._runtime.now_ms(), rows, counts)
