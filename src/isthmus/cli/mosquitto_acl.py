"""Mosquitto's ACL file as rules of access.

There, `topic` lines are of the user named above them, or, above all users, of clients without a
name; `pattern` lines are of everybody, with `%u` and `%c` in them. `read` is to receive,
`write` to publish. What no line speaks of is denied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.broker.access_rules import PUBLISH, SUBSCRIBE, parse_rule, quoted
from isthmus.cli.mosquitto_conf import Note
from isthmus.errors import ConfigError
from isthmus.topics.filter import filter_intersection

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OPERATIONS: Final = {
    "read": (SUBSCRIBE,),
    "write": (PUBLISH,),
    "readwrite": (PUBLISH, SUBSCRIBE),
    "deny": (PUBLISH, SUBSCRIBE),
}
RECEIVES: Final = ("read", "readwrite")
NO_SYS: Final = "deny all subscribe $SYS/#"  # Isthmus would show it to who has logged in


class Granted(NamedTuple):
    """One line of the file."""

    line: str
    place: str
    who: str
    access: str
    resource: str  # as rules write it
    is_pattern: bool

    @property
    def rule(self) -> str:
        """Return it as a rule."""
        verb = "deny" if self.access == "deny" else "allow"
        operations = ",".join(OPERATIONS[self.access])
        return f"{verb} {quoted(self.who)} {operations} {quoted(self.resource)}"

    def meets(self, other: Granted) -> bool:
        """Whether both may speak of the same topic name."""
        return filter_intersection(self._widest, other._widest) is not None

    @property
    def _widest(self) -> str:
        levels = self.resource.split("/")
        return "/".join("+" if "%" in level else level for level in levels)


def rules_of(
    lines: Iterable[str], file: str, free: Sequence[str] = ()
) -> tuple[list[str], list[Note]]:
    """Return the lines of a rules file, and notes on what is otherwise than it was.

    `free` are the names of listeners that the file does not concern: there all is allowed.
    """
    notes: list[Note] = []
    granted: list[Granted] = []
    who = "anonymous"
    for number, line in enumerate(lines, 1):
        word, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        place = f"{file}:{number}"
        try:
            if word == "user" and rest:
                who = f"user:{rest.lstrip()}"
            else:
                granted.append(granted_by(word, rest.lstrip(), who, line, place))
        except ConfigError as error:
            notes.append(Note(place, line, str(error), opens=True))
    notes += [
        Note(one.place, one.line, f"denies, as a rule, what {other.place} allows: {other.line}")
        for one in granted
        for other in granted
        if one.is_pattern and one.access == "deny"
        if not other.is_pattern and other.access != "deny" and one.meets(other)
    ]
    rules = [one.rule for one in granted]
    for who in (quoted(f"listener:{name}") for name in free):
        rules += [f"allow {who} publish,subscribe #", f"allow {who} subscribe $SYS/#"]
    if not free and not any(
        one.resource.startswith("$SYS/") and one.access in RECEIVES for one in granted
    ):
        rules.append(NO_SYS)
    return rules, notes


def granted_by(word: str, rest: str, who: str, line: str, place: str) -> Granted:
    """Read what one line grants or denies. Raises ConfigError where it is no such line."""
    if word not in ("topic", "pattern") or not rest:
        raise ConfigError("is no line of an ACL file")
    access, blank, topic_filter = rest.partition(" ")
    if not blank:
        access, topic_filter = "readwrite", rest
    if access not in OPERATIONS:
        raise ConfigError(f"{access!r} is none of {', '.join(OPERATIONS)}")
    if "*" in who:
        raise ConfigError("a rule would take * in the user's name for any characters")
    is_pattern = word == "pattern"
    resource = topic_filter.lstrip(" ").replace("%", "%%")
    if is_pattern:
        resource = resource.replace("%%u", "%u").replace("%%c", "%c")
    found = Granted(line, place, "all" if is_pattern else who, access, resource, is_pattern)
    parse_rule(found.rule, "the topic")
    return found
