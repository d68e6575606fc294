"""Which topic names does this topic filter want: a map from names, asked by filter.

The tree of `tree.py` turned around, for what is asked when somebody subscribes: there are many
names and one filter. A filter costs the branches it walks, not the names there are, so that ten
thousand devices can subscribe to their own names among a million. It agrees with
`filter.filter_matches`.

A million can match as well, so the answer is a `Walk`, which gives them a few at a time and
stays valid while names come and go: it holds one place per level, whatever it has still to
give. A name that is there from its beginning to its end is given once; one that comes or goes
meanwhile, or goes and comes back, may be given or not. Compiled, see `names.pxd`.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final

_SPARE_MAX: Final = 16  # nodes that are gone and stand in the order of a small branch
_SLASH: Final = 0x2F
_NOTHING: Final = -1  # in place of where the rest of a name begins: it is at its end


class NameNode:
    """One level of the names; `value` is of the name that ends here, if one does.

    Where one name goes on alone, its other levels are no nodes but the node's `tail`, and its
    value is here: most names have a level of their own, and all below it costs a few bytes.
    """

    __slots__ = ("branch", "number", "tail", "value")

    number: int  # grows along the order of its branch
    tail: bytes | None  # only where there is a value and no branch
    value: Any
    branch: Branch | None

    def ends(self, name: bytes, start: int) -> bool:
        """Whether a name whose rest begins at `start` is the one that ends here."""
        tail = self.tail
        if tail is None:
            return start == _NOTHING
        return start >= 0 and len(name) - start == len(tail) and name.endswith(tail)

    def unfold(self) -> None:
        """Make a node of the first level of the tail, because another name comes this way."""
        tail = self.tail
        assert tail is not None, "asked before"
        end = _end_of_level(tail, 0)
        self.branch = Branch()
        child = self.branch.add(tail[:end], _rest_of(tail, end))
        child.value, self.value = self.value, None
        self.tail = None


class Branch:
    """The nodes below one node, by level; their order is that in which they came.

    The order keeps nodes that are gone, which are empty, until they are more than the others.
    """

    __slots__ = ("_number", "nodes", "order", "renewals")

    def __init__(self) -> None:
        self.nodes: dict[bytes, NameNode] = {}
        self.order: list[NameNode] = []
        self.renewals = 0  # how often the order was made anew
        self._number = 0  # of the next node

    def add(self, level: bytes, tail: bytes | None) -> NameNode:
        """Return a new node."""
        node = self.nodes[level] = _node(self._number, tail)
        self._number += 1
        self.order.append(node)
        return node

    def remove(self, level: bytes) -> None:
        """Take out a node that is empty."""
        del self.nodes[level]
        if len(self.order) > 2 * len(self.nodes) + _SPARE_MAX:
            self.order = list(self.nodes.values())
            self.renewals += 1


class TopicNames:
    """A map from topic names, encoded as they are on the wire, to values that are not None."""

    def __init__(self) -> None:
        self._count = 0
        # Names that begin with $ stand apart, no wildcard leads to them [MQTT-4.7.2-1].
        self._root = _node(0, None)
        self._own = _node(0, None)

    def __len__(self) -> int:
        return self._count

    def set(self, name: bytes, value: Any) -> Any:
        """Add a valid topic name, or give it another value; return the one before, or None."""
        node = self._root_of(name)
        start = 0
        while not node.ends(name, start):
            if node.tail is not None:
                node.unfold()
                continue
            end = _end_of_level(name, start)
            level = name[start:end]
            branch = node.branch
            if branch is None:
                branch = node.branch = Branch()
            child = branch.nodes.get(level)
            if child is None:
                child = branch.add(level, _rest_of(name, end))
            node = child
            start = end + 1 if end < len(name) else _NOTHING
        before, node.value = node.value, value
        self._count += before is None
        return before

    def get(self, name: bytes) -> Any:
        """Return the value of a name, None where it is not there."""
        node = self._root_of(name)
        start = 0
        while not node.ends(name, start):
            if start < 0 or node.branch is None:
                return None
            end = _end_of_level(name, start)
            child = node.branch.nodes.get(name[start:end])
            if child is None:
                return None
            node = child
            start = end + 1 if end < len(name) else _NOTHING
        return node.value

    def remove(self, name: bytes) -> Any:
        """Take a name out, and the branches that it leaves empty; return its value, or None."""
        path: list[tuple[NameNode, NameNode, bytes]] = []
        node = self._root_of(name)
        start = 0
        while not node.ends(name, start):
            if start < 0 or node.branch is None:
                return None
            end = _end_of_level(name, start)
            level = name[start:end]
            child = node.branch.nodes.get(level)
            if child is None:
                return None
            path.append((node, child, level))
            node = child
            start = end + 1 if end < len(name) else _NOTHING
        before = node.value
        if before is None:
            return None
        self._count -= 1
        node.value = node.tail = None
        for parent, node, level in reversed(path):
            if node.value is not None or node.branch is not None:
                break
            assert parent.branch is not None, "the name came through here"
            parent.branch.remove(level)
            if not parent.branch.nodes:
                parent.branch = None
        return before

    def walk(self, topic_filter: str) -> Walk:
        """Return the values of the names that a valid, unshared topic filter matches."""
        wanted = topic_filter.encode()
        return Walk(self._root_of(wanted), wanted.split(b"/"))

    def _root_of(self, name: bytes) -> NameNode:
        return self._own if name.startswith(b"$") else self._root


class Walk:
    """What a topic filter finds, a few at a time."""

    __slots__ = ("_places", "_wanted")

    def __init__(self, root: NameNode, wanted: list[bytes]) -> None:
        self._wanted = wanted
        top: Branch = Branch()
        top.order.append(root)
        self._places = [_Place(top, 0)]

    @property
    def is_done(self) -> bool:
        """Whether it has given everything."""
        return not self._places

    def take(self, count_max: int, steps_max: int) -> list[Any]:
        """Return the next values: at most `count_max`, found in at most `steps_max` steps.

        A step looks at one node. Few or none may be found, and yet the walk is not done.
        """
        found: list[Any] = []
        places = self._places
        for _ in range(steps_max):
            if not places or len(found) >= count_max:
                break
            place = places[-1]
            node = place.next()
            if node is None:
                places.pop()
            else:
                self._visit(node, place.depth, found)
        return found

    def _visit(self, node: NameNode, depth: int, found: list[Any]) -> None:
        """Follow the wanted levels from `depth` on as far as they lead to one node."""
        wanted = self._wanted
        while node.tail is None and depth < len(wanted):
            level = wanted[depth]
            if level == b"#":  # matches the parent as well [MQTT 5.0, 4.7.1.2]
                if node.branch is not None:
                    self._places.append(_Place(node.branch, depth))
                break
            if node.branch is None:
                return
            if level == b"+":
                self._places.append(_Place(node.branch, depth + 1))
                return
            child = node.branch.nodes.get(level)
            if child is None:
                return
            node = child
            depth += 1
        else:
            if node.tail is not None and not _matches(wanted[depth:], node.tail.split(b"/")):
                return
        if node.value is not None:
            found.append(node.value)


def _node(number: int, tail: bytes | None) -> NameNode:
    node = NameNode.__new__(NameNode)  # compiled, this is several times as fast as a call
    node.number = number
    node.tail = tail
    node.value = None
    node.branch = None
    return node


def _end_of_level(name: bytes, start: int) -> int:
    """Return where the level ends that begins at `start`: at a slash, or with the name."""
    size = len(name)
    while start < size and name[start] != _SLASH:
        start += 1
    return start


def _rest_of(name: bytes, end: int) -> bytes | None:
    """Return what follows a level that ends at `end`, if anything does."""
    return name[end + 1 :] if end < len(name) else None


def _matches(wanted: list[bytes], levels: list[bytes]) -> bool:
    """Whether the rest of a filter matches the rest of a name."""
    for place, level in enumerate(wanted):
        if level == b"#":
            return True
        if place == len(levels) or level not in (b"+", levels[place]):
            return False
    return len(wanted) == len(levels)


class _Place:
    """Where a walk stands in one branch; `depth`: of the wanted level that comes below."""

    __slots__ = ("_branch", "_index", "_number", "_renewals", "depth")

    def __init__(self, branch: Branch, depth: int) -> None:
        self._branch = branch
        self._renewals = self._branch.renewals
        self._index = 0
        self._number = -1  # of the node that was given last
        self.depth = depth

    def next(self) -> NameNode | None:
        """Return the next node of the branch, None after the last one."""
        branch = self._branch
        if self._renewals != branch.renewals:
            self._renewals = branch.renewals
            self._index = bisect_right(branch.order, self._number, key=_number_of)
        if self._index >= len(branch.order):
            return None
        node = branch.order[self._index]
        self._index += 1
        self._number = node.number
        return node


def _number_of(node: NameNode) -> int:
    return node.number
