"""Which topic names does this topic filter want: names in, those that match out.

The tree of `tree.py` turned around, for what is asked when somebody subscribes: there are many
names and one filter. A filter costs the branches it walks, not the names there are, so that ten
thousand devices can subscribe to their own names among a million. It agrees with
`filter.filter_matches`.
"""

from __future__ import annotations


class NameNode:
    """One level of the names; `name` is the whole name that ends here, if one does."""

    __slots__ = ("children", "name")

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.children: dict[str, NameNode] | None = None

    def is_empty(self) -> bool:
        """Tell whether no name needs this node any more."""
        return self.name is None and not self.children

    def below(self, *, hidden: bool) -> list[NameNode]:
        """Return the nodes below, with `hidden` less what begins with $ [MQTT-4.7.2-1]."""
        if self.children is None:
            return []
        if not hidden:
            return list(self.children.values())
        return [node for level, node in self.children.items() if not level.startswith("$")]


class TopicNames:
    """A set of topic names, encoded as they are on the wire, asked by topic filter."""

    def __init__(self) -> None:
        self._root = NameNode()

    def add(self, name: bytes) -> None:
        """Add a valid topic name, if it is not there already."""
        node = self._root
        for level in name.decode().split("/"):
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = NameNode()
            node = child
        node.name = name

    def remove(self, name: bytes) -> None:
        """Take a name out, if it is there, and the branch that it leaves empty."""
        path: list[tuple[NameNode, str]] = []
        node = self._root
        for level in name.decode().split("/"):
            child = None if node.children is None else node.children.get(level)
            if child is None:
                return
            path.append((node, level))
            node = child
        node.name = None
        for parent, level in reversed(path):
            if not node.is_empty():
                break
            assert parent.children is not None, "the branch came through here"
            del parent.children[level]
            node = parent

    def match(self, topic_filter: str) -> list[bytes]:
        """Return the names that a valid, unshared topic filter matches."""
        wanted = topic_filter.split("/")
        found: list[bytes] = []
        pending = [(self._root, 0)]
        while pending:
            node, depth = pending.pop()
            level = wanted[depth] if depth < len(wanted) else ""
            if depth == len(wanted):
                if node.name is not None:
                    found.append(node.name)
            elif level == "#":  # matches the parent as well [MQTT 5.0, 4.7.1.2]
                _gather(node, found, hidden=depth == 0)
            elif level == "+":
                pending += [(child, depth + 1) for child in node.below(hidden=depth == 0)]
            elif node.children is not None and level in node.children:
                pending.append((node.children[level], depth + 1))
        return found


def _gather(node: NameNode, found: list[bytes], *, hidden: bool) -> None:
    """Add the names that end at a node or below it."""
    if node.name is not None:
        found.append(node.name)
    pending = node.below(hidden=hidden)
    while pending:
        node = pending.pop()
        if node.name is not None:
            found.append(node.name)
        if node.children is not None:
            pending.extend(node.children.values())
