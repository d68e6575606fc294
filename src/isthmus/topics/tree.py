"""Which subscriptions want this topic name: filters in, their values out.

Filters without a wildcard are one dictionary; only those with a wildcard form a tree of levels,
so the usual case costs one lookup. Values are opaque to the tree, hashable, neither tuples nor
dictionaries, and kept once per filter. Most filters are one client's own, and most levels of
its branch lead to one more: so a single value and a single child stand for themselves, a few
values are a tuple, and only many of either are a dictionary. The same value under two filters
that both match is found twice: overlapping subscriptions are for the caller to merge
[MQTT-3.3.4-2].

Whoever caches a result learns by `version_at` when it may be stale: whenever a filter came or
went that begins as the topic name does, in its first two levels. That is told by counters, each
for many beginnings, so it costs nothing to keep and rarely says so in vain.

The walk keeps its own stack and goes at most TOPIC_LEVELS_MAX levels deep, whatever the name;
it agrees with `filter.filter_matches`. Compiled with the types in `tree.pxd`.
"""

from __future__ import annotations

from array import array

from isthmus.errors import TopicInvalid
from isthmus.topics.filter import SHARED_PREFIX, TOPIC_LEVELS_MAX, check_topic_filter

FEW_MAX = 4  # values of a filter that are a tuple
_SLOT_BITS = 12  # of the number of counters
_SLOT_MASK = (1 << _SLOT_BITS) - 1

Values = object  # one value, or a tuple of a few, or the keys of a dictionary


class TopicNode:
    """One level of the filters with a wildcard; what is empty is None, a memory read saved."""

    __slots__ = ("children", "depth", "level", "plus", "rest", "values")

    def __init__(self, level: str, depth: int) -> None:
        self.level = level
        self.depth = depth
        self.children: TopicNode | dict[str, TopicNode] | None = None  # one, or many by level
        self.plus: TopicNode | None = None
        self.values: Values | None = None  # of the filter that ends here
        self.rest: Values | None = None  # of the filter that goes on with "#"


class TopicTree:
    """A set of (topic filter, value) pairs, asked by topic name."""

    __slots__ = ("_changes", "_count", "_everywhere", "_exact", "_root", "_wild")

    def __init__(self) -> None:
        self._everywhere = 0  # changes that concern all topic names
        # others, by the slot of what the filter begins with
        self._changes = array("Q", bytes(8 << _SLOT_BITS))
        self._count = 0
        self._wild = 0
        self._exact: dict[str, Values] = {}
        self._root = TopicNode("", 0)

    def __len__(self) -> int:
        return self._count

    def add(self, topic_filter: str, value: object) -> bool:
        """Add a pair; return False if it is there already. TopicInvalid for what is no filter.

        The prefix of a shared subscription is the caller's to take off (`filter.parse_shared`).
        """
        check_topic_filter(topic_filter)
        if topic_filter.startswith(SHARED_PREFIX):
            raise TopicInvalid(f"{topic_filter[:100]!a} still has its shared prefix")
        return self.put(topic_filter, value)

    def put(self, topic_filter: str, value: object) -> bool:
        """Add a pair whose filter was checked before; return False if it is there already."""
        if not _has_wildcard(topic_filter):
            values = self._exact.get(topic_filter)
            if _has(values, value):
                return False
            self._exact[topic_filter] = _with(values, value)
        else:
            node = self._grow(topic_filter)
            is_rest = topic_filter.endswith("#")
            values = node.rest if is_rest else node.values
            if _has(values, value):
                return False
            if is_rest:
                node.rest = _with(values, value)
            else:
                node.values = _with(values, value)
            self._wild += 1
        self._count += 1
        self._changed(topic_filter)
        return True

    def remove(self, topic_filter: str, value: object) -> bool:
        """Take a pair out, and the branch it leaves empty; return False if it is not there."""
        if _has_wildcard(topic_filter):
            removed = self._prune(topic_filter, value)
            self._wild -= removed
        else:
            values = self._exact.get(topic_filter)
            removed = _has(values, value)
            if removed:
                left = _without(values, value)
                if left is None:
                    del self._exact[topic_filter]
                else:
                    self._exact[topic_filter] = left
        if removed:
            self._count -= 1
            self._changed(topic_filter)
        return removed

    def value_of(self, topic_filter: str) -> object | None:
        """Return one of the values that a filter has; None: it has none."""
        if not _has_wildcard(topic_filter):
            values = self._exact.get(topic_filter)
        else:
            node = self._end_of(topic_filter)
            if node is None:
                return None
            values = node.rest if topic_filter.endswith("#") else node.values
        return next(iter(values)) if isinstance(values, (tuple, dict)) else values

    def outdate(self) -> None:
        """Have whoever caches a result take it for stale, for another reason than the tree."""
        self._everywhere += 1

    def version_at(self, slots: int) -> int:
        """Return a number that is another one when the result for a topic name may be.

        `slots` is what `slots_of` has for the name.
        """
        return (
            self._everywhere
            + self._changes[slots & _SLOT_MASK]
            + self._changes[slots >> _SLOT_BITS & _SLOT_MASK]
            + self._changes[slots >> 2 * _SLOT_BITS & _SLOT_MASK]
        )

    def _changed(self, topic_filter: str) -> None:
        """Count a change where all topic names are concerned that the filter matches."""
        levels = topic_filter.split("/", 2)[:2]
        if not _has_wildcard(topic_filter):
            self._changes[_slot(topic_filter, 0)] += 1
        elif _has_wildcard(levels[0]):
            self._everywhere += 1
        elif len(levels) == 1 or _has_wildcard(levels[1]):
            self._changes[_slot(levels[0], 1)] += 1
        else:
            self._changes[_slot("/".join(levels), 2)] += 1

    def match(self, topic_name: str) -> list[object]:
        """Return the values of all filters that match the topic name [MQTT-4.7.3-4]."""
        found: list[object] = []
        values = self._exact.get(topic_name)
        if values is not None:
            _gather(values, found)
        if self._wild != 0:
            # No filter is deeper than the limit, so what lies below it need not be told apart.
            levels = topic_name.split("/", TOPIC_LEVELS_MAX)
            if topic_name.startswith("$"):  # no wildcard stands for such a level [MQTT-4.7.2-1]
                self._walk(_child(self._root, levels[0]), levels, found)
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
                _gather(node.rest, found)
            following = None
            if node.depth < count:
                if node.children is not None:
                    following = _child(node, levels[node.depth])
                if following is None:
                    following = node.plus
                elif node.plus is not None:
                    pending.append(node.plus)
            elif node.values is not None:
                _gather(node.values, found)
            if following is None and pending:
                following = pending.pop()
            node = following

    def _grow(self, topic_filter: str) -> TopicNode:
        """Return the end of a filter's branch, but for a "#"; made where it is missing."""
        node = self._root
        for level in topic_filter.split("/"):
            if level == "#":
                break
            child = node.plus if level == "+" else _child(node, level)
            if child is None:
                child = TopicNode(level, node.depth + 1)
                if level == "+":
                    node.plus = child
                else:
                    _add_child(node, child)
            node = child
        return node

    def _end_of(self, topic_filter: str) -> TopicNode | None:
        """Return the end of a filter's branch, but for a "#"; None: there is none."""
        node: TopicNode | None = self._root
        for level in topic_filter.split("/"):
            if level == "#" or node is None:
                break
            node = node.plus if level == "+" else _child(node, level)
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
            node = node.plus if level == "+" else _child(node, level)
        if node is None:
            return False
        values = node.rest if levels[-1] == "#" else node.values
        if not _has(values, value):
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
        while path and _is_empty(node):
            node = path.pop()
            level = levels.pop()
            if level == "+":
                node.plus = None
            elif isinstance(node.children, TopicNode):
                node.children = None
            else:
                assert node.children is not None, "the branch came through here"
                del node.children[level]
                if not node.children:
                    node.children = None


def slots_of(topic_name: str) -> int:
    """Return which counters concern a topic name, as one number; see `TopicTree.version_at`."""
    levels = topic_name.split("/", 2)[:2]
    return (
        _slot(topic_name, 0)
        | _slot(levels[0], 1) << _SLOT_BITS
        | _slot("/".join(levels), 2) << 2 * _SLOT_BITS
    )


def _slot(beginning: str, levels: int) -> int:
    """Return the counter of a whole topic name (0 levels), or of one or two first levels."""
    return (hash(beginning) + levels) & _SLOT_MASK


def _child(node: TopicNode, level: str) -> TopicNode | None:
    """Return the node below for a level's name, which is not a wildcard."""
    children = node.children
    if isinstance(children, TopicNode):
        only = children
        return only if only.level == level else None
    return None if children is None else children.get(level)


def _add_child(node: TopicNode, child: TopicNode) -> None:
    """Put a new node below another."""
    children = node.children
    if children is None:
        node.children = child
    elif isinstance(children, TopicNode):
        node.children = {children.level: children, child.level: child}
    else:
        children[child.level] = child


def _is_empty(node: TopicNode) -> bool:
    """Tell whether no filter needs a node any more."""
    return node.values is node.rest is node.children is node.plus is None


def _gather(values: Values, found: list[object]) -> None:
    """Add values to those that were found."""
    if isinstance(values, (tuple, dict)):
        found.extend(values)
    else:
        found.append(values)


def _has(values: Values | None, value: object) -> bool:
    """Tell whether a value is among others."""
    if values is None:
        return False
    if isinstance(values, (tuple, dict)):
        return value in values
    return values == value


def _with(values: Values | None, value: object) -> Values:
    """Return values with one more, which may be the same object."""
    if values is None:
        return value
    if isinstance(values, dict):
        values[value] = None
        return values
    if not isinstance(values, tuple):
        return (values, value)
    if len(values) < FEW_MAX:
        return (*values, value)
    return dict.fromkeys((*values, value))


def _without(values: Values, value: object) -> Values | None:
    """Return values without one of them; None: none is left."""
    if isinstance(values, dict):
        del values[value]
        return values or None
    if not isinstance(values, tuple):
        return None
    left = tuple([one for one in values if one != value])
    return left if len(left) > 1 else left[0]


def _has_wildcard(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter
