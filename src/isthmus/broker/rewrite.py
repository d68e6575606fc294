"""Other topic names than those that clients say: `x/{a}/y` becomes `z/{a}`.

For clients that cannot be changed. The most specific rule that matches is applied, once. What a
client publishes, its will too, is published under the new name and nowhere else; what it
subscribes to is the new filter, and its messages come under their own names. A filter is
rewritten only where all that it matches would be. Nobody else's names change: not those of
records that Kafka clients write, nor of what was retained before there was a rule.

Only a topic name that is not known to lead somewhere directly is looked up here, so messages of
names without a rule cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.broker.patterns import Pattern, check_different
from isthmus.errors import TopicInvalid
from isthmus.topics.filter import check_topic_filter, parse_shared

if TYPE_CHECKING:
    from collections.abc import Iterable


KNOWN_MAX: Final = 65_536  # names at one time; then all are forgotten


class Rewriting:
    """One rule: what matches `pattern` becomes `target`."""

    __slots__ = ("of_filters", "of_names", "pattern", "target")

    def __init__(
        self, pattern: str, target: str, *, of_names: bool = True, of_filters: bool = True
    ) -> None:
        """Make a rule for what is published (`of_names`) and for what is subscribed to."""
        self.pattern = Pattern(pattern)
        self.target = Pattern(target)
        self.of_names = of_names
        self.of_filters = of_filters


class Rewritings:
    """All rules."""

    def __init__(self, rules: Iterable[Rewriting] = ()) -> None:
        """Raise ConfigError if two rules match the same names."""
        ordered = sorted(rules, key=lambda rule: rule.pattern.specificity)
        self._known: dict[bytes, bytes] = {}  # names that were rewritten before
        self._of_names = [rule for rule in ordered if rule.of_names]
        self._of_filters = [rule for rule in ordered if rule.of_filters]
        self.of_names = bool(self._of_names)  # whether any is for what is published
        for rules_of_one in (self._of_names, self._of_filters):
            check_different("rewriting", [rule.pattern for rule in rules_of_one])

    def concern(self, topic_name: bytes) -> bool:
        """Say whether clients' messages of this name are published under another one."""
        return self.topic_name(topic_name) != topic_name

    def topic_name(self, said: bytes) -> bytes:
        """Return the name that what a client publishes under `said` is published under."""
        known = self._known.get(said)
        if known is not None:
            return known
        meant = _rewritten(said.decode(), self._of_names).encode()
        if meant != said:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[said] = meant
        return meant

    def topic_filter(self, said: str) -> str:
        """Return the filter meant by one, shared or not; what is none stays as it is."""
        if not self._of_filters:
            return said
        try:
            check_topic_filter(said)
        except TopicInvalid:
            return said
        inner = parse_shared(said)[1]
        return said.removesuffix(inner) + _rewritten(inner, self._of_filters)


def _rewritten(text: str, rules: list[Rewriting]) -> str:
    levels = text.split("/")
    for rule in rules:
        captures = rule.pattern.captures(levels)
        if captures is not None:
            return rule.target.filled(captures)
    return text


NO_REWRITINGS: Final = Rewritings()
