"""Rules of who may do what, as they are written: `allow user:line-* publish "factory/%u/#"`.

    allow|deny  WHO  OPERATION[,OPERATION…]  RESOURCE

- WHO: `all`, `anonymous`, `user:NAME` (`*` stands for any characters), `group:NAME`,
  `listener:NAME` (whoever comes in there).
- OPERATION says what the resource is: `publish` and `subscribe` a topic filter, `read` and
  `write` a log topic, `log:NAME` (`*` as in users).
- In a topic filter `%u` is the user's name, `%c` the client id, `%%` a percent sign. A name
  that is no part of one level, because it has a slash or a wildcard in it, is in no topic name
  either: such a rule says nothing of that client. Nothing here is a regular expression.

A word with blanks in it stands in double quotes. In a file each line is a rule, empty, or, with
`#` in front, a comment. What rules mean together is in access.py.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from isthmus.errors import ConfigError, TopicInvalid
from isthmus.topics.filter import SHARED_PREFIX, check_topic_filter
from isthmus.topics.templates import MARK

if TYPE_CHECKING:
    from isthmus.broker.identity import Principal

PUBLISH: Final = "publish"
SUBSCRIBE: Final = "subscribe"
READ: Final = "read"
WRITE: Final = "write"
TOPIC_OPERATIONS: Final = (PUBLISH, SUBSCRIBE)
LOG_OPERATIONS: Final = (READ, WRITE)
OPERATIONS: Final = (*TOPIC_OPERATIONS, *LOG_OPERATIONS)
LOG_PREFIX: Final = "log:"

FORM: Final = "allow|deny WHO OPERATION RESOURCE"
ALL: Final = "all"
ANONYMOUS: Final = "anonymous"
USER: Final = "user"
GROUP: Final = "group"
LISTENER: Final = "listener"
NAMED: Final = (USER, GROUP, LISTENER)


class Rule:
    """One rule; `origin` is where it is written, as an error or a verdict names it."""

    __slots__ = ("allows", "operations", "origin", "resource", "text", "who", "whose")

    def __init__(
        self,
        *,
        allows: bool,
        who: str,
        whose: str,
        operations: tuple[str, ...],
        resource: str,
        text: str,
        origin: str,
    ) -> None:
        self.allows = allows
        self.who = who  # all, anonymous, user, group or listener
        self.whose = whose  # name of the user, group or listener
        self.operations = operations
        self.resource = resource  # topic filter with %u and %c, or name of the log topic
        self.text = text
        self.origin = origin

    def concerns(self, principal: Principal) -> bool:
        """Whether the rule speaks of this principal."""
        if self.who == USER:
            return principal.user != "" and glob_matches(self.whose, principal.user)
        if self.who == GROUP:
            return self.whose in principal.groups
        if self.who == LISTENER:
            return self.whose == principal.listener
        return self.who == ALL or principal.user == ""

    def resource_for(self, principal: Principal) -> str | None:
        """Return the resource with the principal's names in it; None: there is no such one."""
        return principal.filled(self.resource)

    @property
    def meaning(self) -> tuple[object, ...]:
        """What it says, the same however it is written."""
        return self.allows, self.who, self.whose, frozenset(self.operations), self.resource

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}"


def glob_matches(pattern: str, text: str) -> bool:
    """Return whether a text is as the pattern has it, where `*` is any characters or none.

    Each part between two stars is looked for once, from left to right, so it takes no longer
    than the pattern times the text.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return text == pattern
    last = parts.pop()
    if not text.startswith(first):
        return False
    place = len(first)
    for part in parts:
        found = text.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return len(text) - place >= len(last) and text.endswith(last)


# --- reading ----------------------------------------------------------------------------------


def parse_rules(text: str, file: str) -> list[Rule]:
    """Read a file with a rule in each line. Raises ConfigError, which says where: `file:3`."""
    return [
        parse_rule(line, f"{file}:{number}")
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def parse_rule(text: str, origin: str) -> Rule:
    """Read one rule. Raises ConfigError, beginning with where it is written."""
    text = text.strip()
    try:
        words = _words(text)
        if len(words) != 4:
            raise ConfigError(f"a rule has four words, {FORM}, and this has {len(words)}")
        if words[0] not in ("allow", "deny"):
            raise ConfigError(f"a rule begins with allow or deny, not with {words[0]!r}")
        who, whose = _who(words[1])
        operations = _operations(words[2])
        resource = _resource(words[3], operations)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    return Rule(
        allows=words[0] == "allow",
        who=who,
        whose=whose,
        operations=operations,
        resource=resource,
        text=text,
        origin=origin,
    )


def _words(text: str) -> list[str]:
    """Split a line at blanks that are not in double quotes."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    lexer.quotes = lexer.escapedquotes = '"'
    try:
        return list(lexer)
    except ValueError:
        raise ConfigError(
            "a quotation mark or a backslash at its end has no other half"
        ) from None


def quoted(word: str) -> str:
    """Return a word as it may stand in a rule."""
    if word and not set(word) & set(' \t\r\n"\\'):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _who(word: str) -> tuple[str, str]:
    who, separator, whose = word.partition(":")
    if (who in (ALL, ANONYMOUS) and not separator) or (who in NAMED and whose):
        return who, whose
    names = ", ".join(f"{each}:NAME" for each in NAMED)
    raise ConfigError(f"{word!r} is nobody: there are {ALL}, {ANONYMOUS}, {names}")


def _operations(word: str) -> tuple[str, ...]:
    operations = tuple(word.split(","))
    for operation in operations:
        if operation not in OPERATIONS:
            raise ConfigError(
                f"{operation!r} is no operation: there are {', '.join(OPERATIONS)}"
            )
    if len({operation in TOPIC_OPERATIONS for operation in operations}) > 1:
        raise ConfigError(f"{word} is of topic filters and of log topics: make two rules of it")
    return operations


def _resource(word: str, operations: tuple[str, ...]) -> str:
    """Return a topic filter, or the name of a log topic without `log:`."""
    if operations[0] in LOG_OPERATIONS:
        name = word.removeprefix(LOG_PREFIX)
        if name == word or not name:
            raise ConfigError(f"{operations[0]} is of log topics, as in log:temperatures")
        return name
    if word.startswith(SHARED_PREFIX):
        raise ConfigError(
            f"{word!r} is shared: write the filter behind {SHARED_PREFIX}<group>/"
        )
    try:
        check_topic_filter(word)
    except TopicInvalid as error:
        raise ConfigError(str(error)) from None
    if "%" in MARK.sub("", word):
        raise ConfigError(f"{word!r} has % without u or c: the sign itself is %%")
    return word
