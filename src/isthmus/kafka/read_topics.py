"""What the members of a group read, and what is there of it.

Members name log topics, or a pattern, of whose log topics each reads those that it may know of;
log topics come, grow and go. A digest of what is there tells whether that has changed since the
group last looked, over a restart, too.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from isthmus.kafka.consumer_types import sees_all

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from isthmus.kafka.assignors import TopicPlace
    from isthmus.kafka.consumer_types import ConsumerMember, Subscription, Topics


class ReadTopics:
    """The log topics of one group."""

    def __init__(self, topics: Topics) -> None:
        self.matched: dict[str, frozenset[str]] = {}  # regular expression → log topics
        self.digest = 0  # of what was found; 0: nothing was ever looked up
        self._topics = topics
        self._names: frozenset[str] | None = None  # all that is read; None: look again
        # Those there are, with id and partitions; None: not looked up since the start.
        self._found: dict[str, tuple[bytes, int]] | None = None

    def forget(self) -> None:
        """Somebody reads other things now."""
        self._names = None

    def look(self, members: Collection[ConsumerMember]) -> tuple[bool, list[str]]:
        """Look up what is read now.

        Return whether that is not what it was, and the patterns of which other log topics are
        read. Raises HeartbeatRefused for a pattern that is none; who looked it up before is
        safe.
        """
        patterns = {one.subscription.pattern for one in members} - {""}
        others = [
            one
            for one in members
            if (one.subscription.pattern or one.matched) and self._matches_others(one)
        ]
        changed = []
        if others or patterns != self.matched.keys():
            matched: dict[str, frozenset[str]] = dict.fromkeys(patterns, frozenset())
            for one in members:
                if one.subscription.pattern:
                    matched[one.subscription.pattern] |= one.matched
            both = matched.keys() | self.matched.keys()
            changed = [each for each in both if matched.get(each) != self.matched.get(each)]
            self.matched = matched
            self.forget()
        is_other = self._find(one.subscription for one in members)
        return is_other or bool(others), changed

    def _matches_others(self, member: ConsumerMember) -> bool:
        """Look up what a member reads by its pattern; say whether that is not what it was."""
        pattern, sees = member.subscription.pattern, member.sees
        names = self._topics.matching(pattern) if pattern else frozenset()
        if member.looked is not None and member.looked[0] is names and member.looked[1] == sees:
            return False
        before, member.looked = member.matched, (names, sees)
        if sees is None:
            member.matched = names & self.matched.get(pattern, names)
        else:
            member.matched = names if sees is sees_all else frozenset(filter(sees, names))
        return member.matched != before

    def _find(self, subscriptions: Iterable[Subscription]) -> bool:
        places = {name: self._topics.find(name) for name in sorted(self.names(subscriptions))}
        found = {name: place for name, place in places.items() if place is not None}
        if found == self._found:
            return False
        self._found = found
        digest = _digest(found)
        is_other, self.digest = digest != self.digest, digest
        return is_other

    def names(self, subscriptions: Iterable[Subscription]) -> frozenset[str]:
        """Return all log topics that are read, there or not."""
        if self._names is None:
            named = [one.topic_names for one in subscriptions]
            self._names = frozenset().union(*named, *self.matched.values())
        return self._names

    def ids(self, member: ConsumerMember) -> frozenset[bytes]:
        """Return the log topics that a member reads, and that are there."""
        names = member.subscription.topic_names | member.matched
        found = self._found or {}
        return frozenset(found[name][0] for name in names if name in found)

    def partitions(self) -> dict[bytes, int]:
        """Return how many partitions each has, by id."""
        return dict((self._found or {}).values())

    def by_name(
        self, subscriptions: Iterable[Subscription], places: Iterable[TopicPlace]
    ) -> dict[str, list[int]]:
        """Return partitions by the names of their log topics, of those that are read."""
        found = {name: self._topics.find(name) for name in self.names(subscriptions)}
        names = {place[0]: name for name, place in found.items() if place is not None}
        rows: dict[str, list[int]] = {}
        for topic_id, index in sorted(places):
            if topic_id in names:
                rows.setdefault(names[topic_id], []).append(index)
        return rows

    def places(self, names: Mapping[str, Iterable[int]]) -> frozenset[TopicPlace]:
        """Return partitions by the ids of their log topics, of those that are there."""
        found = {name: self._topics.find(name) for name in names}
        return frozenset(
            (place[0], index)
            for name, place in found.items()
            if place is not None
            for index in names[name]
        )


def _digest(found: Mapping[str, tuple[bytes, int]]) -> int:
    """Return a number for log topics, their ids and sizes; never 0."""
    digest = blake2b(digest_size=8)
    for name, (topic_id, partitions) in found.items():
        digest.update(b"%b\0%b%d\n" % (name.encode(), topic_id, partitions))
    return int.from_bytes(digest.digest(), "big", signed=True) or 1
