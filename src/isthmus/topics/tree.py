"""Which subscriptions want this topic name: filters in, their values out.

Filters without a wildcard are one dictionary; only those with a wildcard form a tree of levels,
so the usual case costs one lookup. Values are opaque to the tree, hashable, and kept once per
filter: a few as a tuple, which is a quarter of the smallest dictionary, since most filters are
one client's own. The same value under two filters that both match is found twice: overlapping
subscriptions are for the caller to merge [MQTT-3.3.4-2].

`generation` grows with every change, so that whoever caches a result knows when it is stale.
The walk keeps its own stack and goes at most TOPIC_LEVELS_MAX levels deep, whatever the name;
it agrees with `filter.filter_matches`. Compiled with the types in `tree.pxd`.
"""

from __future__ import annotations

from typing import Any

from isthmus.errors import TopicInvalid
from isthmus.topics.filter import SHARED_PREFIX, TOPIC_LEVELS_MAX, check_topic_filter

FEW_MAX = 4  # values of a filter that are a tuple

Values = tuple[object, ...] | dict[Any, None]


class TopicNode:
    """One level of the filters with a wildcard; what is empty is None, a memory read saved."""

    __slots__ = ("children", "depth", "plus", "rest", "values")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.children: dict[str, TopicNode] | None = None
        self.plus: TopicNode | None = None
        self.values: Values | None = None  # of the filter that ends here
        self.rest: Values | None = None  # of the filter that goes on with "#"

    def child(self, level: str) -> TopicNode | None:
        """Return the node below for a level's name, which is not a wildcard."""
        return None if self.children is None else self.children.get(level)

    def is_empty(self) -> bool:
        """Tell whether no filter needs this node any more."""
        return not (self.values or self.rest or self.children or self.plus)


class TopicTree:
    """A set of (topic filter, value) pairs, asked by topic name."""

    __slots__ = ("_count", "_exact", "_root", "_wild", "generation")

    def __init__(self) -> None:
        self.generation = 0
        self._count = 0
        self._wild = 0
        self._exact: dict[str, Values] = {}
        self._root = TopicNode(0)

    def __len__(self) -> int:
        return self._count

    def add(self, topic_filter: str, value: object) -> bool:
        """Add a pair; return False if it is there already. TopicInvalid for what is no filter.

        The prefix of a shared subscription is the caller's to take off (`filter.parse_shared`).
        """
        check_topic_filter(topic_filter)
        if topic_filter.startswith(SHARED_PREFIX):
            raise TopicInvalid(f"{topic_filter[:100]!a} still has its shared prefix")
        if not _has_wildcard(topic_filter):
            values = self._exact.get(topic_filter)
            if values is not None and value in values:
                return False
            self._exact[topic_filter] = _with(values, value)
        else:
            node = self._grow(topic_filter)
            is_rest = topic_filter.endswith("#")
            values = node.rest if is_rest else node.values
            if values is not None and value in values:
                return False
            if is_rest:
                node.rest = _with(values, value)
            else:
                node.values = _with(values, value)
            self._wild += 1
        self._count += 1
        self.generation += 1
        return True

    def remove(self, topic_filter: str, value: object) -> bool:
        """Take a pair out, and the branch it leaves empty; return False if it is not there."""
        if _has_wildcard(topic_filter):
            removed = self._prune(topic_filter, value)
            self._wild -= removed
        else:
            values = self._exact.get(topic_filter)
            removed = values is not None and value in values
            if values is not None and removed:
                left = _without(values, value)
                if left is None:
                    del self._exact[topic_filter]
                else:
                    self._exact[topic_filter] = left
        if removed:
            self._count -= 1
            self.generation += 1
        return removed

    def outdate(self) -> None:
        """Have whoever caches a result take it for stale, for another reason than the tree."""
        self.generation += 1

    def match(self, topic_name: str) -> list[object]:
        """Return the values of all filters that match the topic name [MQTT-4.7.3-4]."""
        found: list[object] = []
        values = self._exact.get(topic_name)
        if values is not None:
            found.extend(values)
        if self._wild != 0:
            # No filter is deeper than the limit, so what lies below it need not be told apart.
            levels = topic_name.split("/", TOPIC_LEVELS_MAX)
            if topic_name.startswith("$"):  # no wildcard stands for such a level [MQTT-4.7.2-1]
                self._walk(self._root.child(levels[0]), levels, found)
            else:
                self._walk(self._root, levels, found)
        return found

    def _walk(self, node: TopicNode | None, levels: list[str], found: list[object]) -> None:
        """Gather the values of all branches from `node` on that the levels follow.

        The walk takes the named child and leaves the `+` beside it on a stack. A node knows its
        depth, so the stack holds nodes alone, at most one per level.
        """
        pending: list[TopicNode] = []
        count = len(levels)
        while node is not None:
            if node.rest is not None:  # "#" matches the parent as well [MQTT 5.0, 4.7.1.2]
                found.extend(node.rest)
            following = None
            if node.depth < count:
                if node.children is not None:
                    following = node.children.get(levels[node.depth])
                if following is None:
                    following = node.plus
                elif node.plus is not None:
                    pending.append(node.plus)
            elif node.values is not None:
                found.extend(node.values)
            if following is None and pending:
                following = pending.pop()
            node = following

    def _grow(self, topic_filter: str) -> TopicNode:
        """Return the end of a filter's branch, but for a "#"; made where it is missing."""
        node = self._root
        for level in topic_filter.split("/"):
            if level == "#":
                break
            if level == "+":
                if node.plus is None:
                    node.plus = TopicNode(node.depth + 1)
                node = node.plus
            else:
                if node.children is None:
                    node.children = {}
                child = node.children.get(level)
                if child is None:
                    child = node.children[level] = TopicNode(node.depth + 1)
                node = child
        return node

    def _prune(self, topic_filter: str, value: object) -> bool:
        """Take a value off a filter's branch, then everything that it leaves empty."""
        path: list[TopicNode] = []
        levels = topic_filter.split("/")
        node: TopicNode | None = self._root
        for level in levels:
            if node is None:
                return False
            path.append(node)
            if level == "#":
                break
            node = node.plus if level == "+" else node.child(level)
        if node is None:
            return False
        values = node.rest if levels[-1] == "#" else node.values
        if values is None or value not in values:
            return False
        left = _without(values, value)
        if levels[-1] == "#":
            node.rest = left
        else:
            node.values = left
        if left is None:
            self._cut(node, path, levels)
        return True

    def _cut(self, node: TopicNode, path: list[TopicNode], levels: list[str]) -> None:
        """Drop a node that has nothing left, then upwards each that has nothing left."""
        if levels[-1] == "#":
            path.pop()
            levels.pop()
        while path and node.is_empty():
            node = path.pop()
            level = levels.pop()
            if level == "+":
                node.plus = None
                continue
            assert node.children is not None, "the branch came through here"
            del node.children[level]
            if not node.children:
                node.children = None


def _with(values: Values | None, value: object) -> Values:
    """Return values with one more, which may be the same object."""
    if values is None:
        return (value,)
    if isinstance(values, tuple):
        if len(values) < FEW_MAX:
            return (*values, value)
        values = dict.fromkeys(values)
    values[value] = None
    return values


def _without(values: Values, value: object) -> Values | None:
    """Return values without one of them; None: none is left."""
    if isinstance(values, dict):
        del values[value]
        return values or None
    return tuple([one for one in values if one != value]) or None


def _has_wildcard(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter
