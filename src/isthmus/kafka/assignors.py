"""Who works on what: the assignors of the server, by the names that clients ask for [KIP-848].

An assignor is a function of the members (what each reads, what it has by the last assignment)
and of the partitions of each log topic. Both leave nothing without a reader that somebody
subscribed to, and give nothing to two.

`uniform` gives each member the same number of partitions, give or take one, and moves as few
of them as that allows. `range` gives each member consecutive partitions of every log topic, the
same ones of each, so that what belongs together meets in one member; static members keep their
place in the row.

`simple` is that of share groups, in which a partition may have many readers: it leaves neither
a partition without a reader nor a reader without a partition [KIP-932].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TopicPlace: TypeAlias = tuple[bytes, int]  # topic id and partition


class Reader(NamedTuple):
    """What an assignor knows of a member."""

    instance_id: str | None
    topic_ids: frozenset[bytes]
    had: frozenset[TopicPlace]


Readers: TypeAlias = "Mapping[str, Reader]"  # by member id
Shares: TypeAlias = dict[str, set[TopicPlace]]


def assign_uniform(readers: Readers, partitions: Mapping[bytes, int]) -> Shares:
    """Share evenly, and keep what can be kept."""
    read = {reader.topic_ids for reader in readers.values()}
    places = [
        (topic_id, index)
        for topic_id in sorted(frozenset().union(*read))
        for index in range(partitions.get(topic_id, 0))
    ]
    shares = _kept(readers, frozenset(places))
    if len(read) == 1:
        _share_alike(shares, places)
    else:
        _share_by_subscription(readers, shares, places)
    return shares


def assign_range(readers: Readers, partitions: Mapping[bytes, int]) -> Shares:
    """Give consecutive partitions of each log topic to those who read it."""
    shares: Shares = {member_id: set() for member_id in readers}
    row = sorted(
        readers, key=lambda name: (readers[name].instance_id or name, name)
    )  # static members are known by what stays the same
    for topic_id, count in partitions.items():
        reading = [name for name in row if topic_id in readers[name].topic_ids]
        if not reading:
            continue
        quota, extra = divmod(count, len(reading))
        start = 0
        for number, name in enumerate(reading):
            end = start + quota + (number < extra)
            shares[name].update((topic_id, index) for index in range(start, end))
            start = end
    return shares


ASSIGNORS: Final[Mapping[str, Callable[[Readers, Mapping[bytes, int]], Shares]]] = {
    "uniform": assign_uniform,  # the first is the default, as in Apache Kafka
    "range": assign_range,
}
DEFAULT_ASSIGNOR: Final = next(iter(ASSIGNORS))
SIMPLE: Final = "simple"


def assign_simple(readers: Readers, partitions: Mapping[bytes, int]) -> Shares:
    """Share among many: as even as can be, and what can stay stays."""
    reading: dict[TopicPlace, list[str]] = {}
    for name in sorted(readers):
        for place in _readable(readers[name], partitions):
            reading.setdefault(place, []).append(name)
    shares: Shares = {name: set() for name in readers}
    if not reading:
        return shares
    crowd = _stay(readers, reading, shares)
    for place, names in reading.items():
        if not crowd[place]:
            shares[min(names, key=lambda name: len(shares[name]))].add(place)
            crowd[place] += 1
    for name in sorted(readers):
        own = [] if shares[name] else _readable(readers[name], partitions)
        if own:
            place = min(own, key=crowd.__getitem__)
            shares[name].add(place)
            crowd[place] += 1
    return shares


def _readable(reader: Reader, partitions: Mapping[bytes, int]) -> list[TopicPlace]:
    return [
        (topic_id, index)
        for topic_id in sorted(reader.topic_ids)
        for index in range(partitions.get(topic_id, 0))
    ]


def _stay(
    readers: Readers, reading: Mapping[TopicPlace, list[str]], shares: Shares
) -> dict[TopicPlace, int]:
    """Leave to each what it had, up to what is fair; return how many read each place."""
    places_max = -(-len(reading) // len(readers))
    readers_max = -(-len(readers) // len(reading))
    crowd = dict.fromkeys(reading, 0)
    for name in sorted(readers):
        for place in sorted(readers[name].had & reading.keys()):
            is_read = place[0] in readers[name].topic_ids
            if is_read and crowd[place] < readers_max and len(shares[name]) < places_max:
                shares[name].add(place)
                crowd[place] += 1
    return crowd


def _kept(readers: Readers, places: frozenset[TopicPlace]) -> Shares:
    """Return what each member had and may still have."""
    taken: set[TopicPlace] = set()
    shares: Shares = {}
    for name in sorted(readers):
        reader = readers[name]
        shares[name] = {
            place
            for place in reader.had & places
            if place[0] in reader.topic_ids and place not in taken
        }
        taken |= shares[name]
    return shares


def _share_alike(shares: Shares, places: list[TopicPlace]) -> None:
    """All read the same: cut what is too much, fill up what is too little."""
    quota, extra = divmod(len(places), len(shares))
    for share in shares.values():
        most = quota + (extra > 0)
        for place in sorted(share)[most:]:
            share.remove(place)
        extra -= len(share) > quota
    taken = frozenset[TopicPlace]().union(*shares.values())
    free = iter([place for place in places if place not in taken])
    for share in shares.values():
        while len(share) < quota:
            share.add(next(free))
    for share in shares.values():
        if extra and len(share) == quota:
            share.add(next(free))
            extra -= 1


def _share_by_subscription(readers: Readers, shares: Shares, places: list[TopicPlace]) -> None:
    """Give each place to the least loaded of its readers, then even out what was kept."""
    reading: dict[bytes, list[str]] = {}
    for name in sorted(readers):
        for topic_id in readers[name].topic_ids:
            reading.setdefault(topic_id, []).append(name)

    def load(name: str) -> int:
        return len(shares[name])

    taken = frozenset[TopicPlace]().union(*shares.values())
    free = [place for place in places if place not in taken]
    for place in sorted(free, key=lambda place: len(reading[place[0]])):
        shares[min(reading[place[0]], key=load)].add(place)
    moved = True
    while moved:  # each move makes the loads more alike, so it ends
        moved = False
        for name in sorted(shares, key=load, reverse=True):
            for place in sorted(shares[name]):
                least = min(reading[place[0]], key=load)
                if load(least) + 1 < load(name):
                    shares[name].remove(place)
                    shares[least].add(place)
                    moved = True
