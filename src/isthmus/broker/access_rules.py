"""Rules of who may do what, as they are written: `allow user:line-* publish "factory/%u/#"`.

    allow|deny  WHO  OPERATION[,OPERATION…]  RESOURCE  [from ADDRESS]

- WHO: `all`, `anonymous`, `user:NAME` (`*` stands for any characters), `group:NAME`,
  `listener:NAME` (whoever comes in there).
- OPERATION says what the resource is: `publish` and `subscribe` a topic filter, all others
  something that Kafka's clients work on: `log:NAME` (a log topic), `group:NAME` (a consumer
  group), `transaction:NAME`, `token:NAME`, `user:NAME`, with `*` as in users, and `cluster`.
  `all` are all operations of Kafka's; those that others imply are in `IMPLIED_BY`.
- In a topic filter `%u` is the user's name, `%c` the client id, `%%` a percent sign. A name
  that is no part of one level, because it has a slash or a wildcard in it, is in no topic name
  either: such a rule says nothing of that client. Nothing here is a regular expression.
- ADDRESS is the IP address that somebody comes from.

A word with blanks in it stands in double quotes. In a file each line is a rule, empty, or, with
`#` in front, a comment. What rules mean together is in access.py.
"""

from __future__ import annotations

import ipaddress
import shlex
from typing import TYPE_CHECKING, Final

from isthmus.broker.globs import Glob
from isthmus.errors import ConfigError, TopicInvalid
from isthmus.topics.filter import (
    SHARED_PREFIX,
    check_topic_filter,
    check_topic_name,
    parse_shared,
)
from isthmus.topics.templates import MARK

if TYPE_CHECKING:
    from isthmus.broker.identity import Principal

PUBLISH: Final = "publish"
SUBSCRIBE: Final = "subscribe"
READ: Final = "read"
WRITE: Final = "write"
CREATE: Final = "create"
DELETE: Final = "delete"
ALTER: Final = "alter"
DESCRIBE: Final = "describe"
CLUSTER_ACTION: Final = "cluster-action"
DESCRIBE_CONFIGS: Final = "describe-configs"
ALTER_CONFIGS: Final = "alter-configs"
IDEMPOTENT_WRITE: Final = "idempotent-write"
CREATE_TOKENS: Final = "create-tokens"
DESCRIBE_TOKENS: Final = "describe-tokens"
TWO_PHASE_COMMIT: Final = "two-phase-commit"
EVERY: Final = "all"  # of Kafka's

TOPIC_OPERATIONS: Final = (PUBLISH, SUBSCRIBE)
KAFKA_OPERATIONS: Final = (
    *(EVERY, READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, CLUSTER_ACTION),
    *(DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE),
    *(CREATE_TOKENS, DESCRIBE_TOKENS, TWO_PHASE_COMMIT),
)
OPERATIONS: Final = (*TOPIC_OPERATIONS, *KAFKA_OPERATIONS)
IMPLIED_BY: Final = {  # [KIP-11]; a rule that denies implies nothing
    **{each: frozenset((each, EVERY)) for each in KAFKA_OPERATIONS},
    DESCRIBE: frozenset((DESCRIBE, READ, WRITE, DELETE, ALTER, EVERY)),
    DESCRIBE_CONFIGS: frozenset((DESCRIBE_CONFIGS, ALTER_CONFIGS, EVERY)),
}

TOPIC: Final = "topic"  # kinds of resources
LOG: Final = "log"
CONSUMER_GROUP: Final = "group"
CLUSTER: Final = "cluster"
TRANSACTION: Final = "transaction"
TOKEN: Final = "token"  # no secret
ACCOUNT: Final = "user"
NAMED_KINDS: Final = (LOG, CONSUMER_GROUP, TRANSACTION, TOKEN, ACCOUNT)
CLUSTER_NAME: Final = "kafka-cluster"  # the only one there is

FORM: Final = "allow|deny WHO OPERATION RESOURCE [from ADDRESS]"
FROM: Final = "from"
ALL: Final = "all"
ANONYMOUS: Final = "anonymous"
USER: Final = "user"
GROUP: Final = "group"
LISTENER: Final = "listener"
NAMED: Final = (USER, GROUP, LISTENER)


class Rule:
    """One rule; `origin` is where it is written, as an error or a verdict names it."""

    __slots__ = (
        *("address", "allows", "kind", "name", "operations", "origin", "resource"),
        *("text", "who", "whose", "whose_name"),
    )

    def __init__(
        self,
        *,
        allows: bool,
        who: str,
        whose: str,
        operations: tuple[str, ...],
        kind: str,
        resource: str,
        address: str = "",
        text: str = "",
        origin: str = "",
    ) -> None:
        """Take what was read; without `text` it is written as `canonical` has it."""
        self.allows = allows
        self.who = who  # all, anonymous, user, group or listener
        self.whose = whose  # name of the user (a pattern), group or listener
        self.whose_name = Glob.read(whose)
        self.operations = operations
        self.kind = kind
        self.resource = resource  # topic filter with %u and %c, or pattern of names
        self.name = Glob.read(resource)  # of what Kafka has
        self.address = address  # that somebody comes from; empty: any
        self.origin = origin
        self.text = text or self.canonical

    def concerns(self, principal: Principal) -> bool:
        """Whether the rule speaks of this principal."""
        if self.address and self.address != principal.address:
            return False
        if self.who == USER:
            return principal.user != "" and self.whose_name.matches(principal.user)
        if self.who == GROUP:
            return self.whose in principal.groups
        if self.who == LISTENER:
            return self.whose == principal.listener
        return self.who == ALL or principal.user == ""

    def resource_for(self, principal: Principal) -> str | None:
        """Return a topic filter with the principal's names in it; None: there is no such."""
        return principal.filled(self.resource)

    @property
    def meaning(self) -> tuple[object, ...]:
        """What it says, the same however it is written."""
        return (
            *(self.allows, self.who, self.whose, frozenset(self.operations)),
            *(self.kind, self.resource, self.address),
        )

    @property
    def canonical(self) -> str:
        """The one text of all that say the same, but for the order of operations."""
        resource = self.resource
        if self.kind != TOPIC:
            resource = CLUSTER if self.kind == CLUSTER else f"{self.kind}:{self.name.text}"
        words = [
            "allow" if self.allows else "deny",
            quoted(f"{self.who}:{self.whose}" if self.whose else self.who),
            ",".join(self.operations),
            quoted(resource),
        ]
        if self.address:
            words += [FROM, self.address]
        return " ".join(words)

    def single(self) -> list[Rule]:
        """Return the same as rules of one operation each."""
        return [
            Rule(
                allows=self.allows,
                who=self.who,
                whose=self.whose,
                operations=(operation,),
                kind=self.kind,
                resource=self.resource,
                address=self.address,
                origin=self.origin,
            )
            for operation in self.operations
        ]

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}"


def asked_resource(operation: str, text: str) -> tuple[str, str]:
    """Return the kind and the name of what is asked about, as rules write it.

    That is a topic name, a topic filter, shared or not, `log:NAME` and so on. Raises
    ConfigError.
    """
    if operation not in OPERATIONS:
        raise ConfigError(f"{operation!r} is no operation: there are {', '.join(OPERATIONS)}")
    if operation in KAFKA_OPERATIONS:
        kind, name = _resource(text, (operation,))
        return kind, Glob.read(name).literal or name
    try:
        if operation == PUBLISH:
            check_topic_name(text)
            return TOPIC, text
        check_topic_filter(text)
    except TopicInvalid as error:
        raise ConfigError(str(error)) from None
    return TOPIC, parse_shared(text)[1]


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
        address = ""
        if len(words) == 6 and words[4] == FROM:
            address = _address(words.pop())
            del words[4:]
        if len(words) != 4:
            raise ConfigError(f"a rule has four words, {FORM}, and this has {len(words)}")
        if words[0] not in ("allow", "deny"):
            raise ConfigError(f"a rule begins with allow or deny, not with {words[0]!r}")
        who, whose = _who(words[1])
        operations = _operations(words[2])
        kind, resource = _resource(words[3], operations)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    return Rule(
        allows=words[0] == "allow",
        who=who,
        whose=whose,
        operations=operations,
        kind=kind,
        resource=resource,
        address=address,
        text=text,
        origin=origin,
    )


def _address(word: str) -> str:
    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        raise ConfigError(f"{word!r} is no IP address") from None


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


def _resource(word: str, operations: tuple[str, ...]) -> tuple[str, str]:
    """Return the kind of a resource, and its topic filter or the pattern of its names."""
    if operations[0] not in TOPIC_OPERATIONS:
        if word == CLUSTER:
            return CLUSTER, CLUSTER_NAME
        kind, separator, name = word.partition(":")
        if kind not in NAMED_KINDS or not separator or not name:
            kinds = ", ".join(f"{each}:NAME" for each in NAMED_KINDS)
            raise ConfigError(
                f"{operations[0]} is of {kinds} and {CLUSTER}, as in log:temperatures,"
                f" not of {word!r}"
            )
        return kind, Glob.read(name).text
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
    return TOPIC, word
