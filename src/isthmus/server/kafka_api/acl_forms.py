"""Kafka's ACLs as rules, and rules as ACLs: numbers, principals, patterns, filters.

An ACL is a rule of one operation. `User:*` is everybody, `User:ANONYMOUS` who has no name;
`Group:` and `Listener:` are ours. A rule that Kafka has no form for, because it is of topic
filters or its names have a star in the middle, is in force and not listed.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from isthmus.broker import access_rules as rules
from isthmus.broker.access_rules import Rule
from isthmus.broker.globs import Glob, escaped
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.log_topics import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY: Final = 1  # in filters; 0 is what the client does not know itself
MATCH: Final = 2  # of pattern types: whatever is about a name
LITERAL: Final = 3
PREFIXED: Final = 4
DENY: Final = 2
ALLOW: Final = 3
WILDCARD: Final = "*"
ANONYMOUS: Final = "ANONYMOUS"
USER_PREFIX: Final = "User:"

OPERATIONS: Final = {
    2: rules.EVERY,
    3: rules.READ,
    4: rules.WRITE,
    5: rules.CREATE,
    6: rules.DELETE,
    7: rules.ALTER,
    8: rules.DESCRIBE,
    9: rules.CLUSTER_ACTION,
    10: rules.DESCRIBE_CONFIGS,
    11: rules.ALTER_CONFIGS,
    12: rules.IDEMPOTENT_WRITE,
    13: rules.CREATE_TOKENS,
    14: rules.DESCRIBE_TOKENS,
    15: rules.TWO_PHASE_COMMIT,
}
KINDS: Final = {
    2: rules.LOG,
    3: rules.CONSUMER_GROUP,
    4: rules.CLUSTER,
    5: rules.TRANSACTION,
    6: rules.TOKEN,
    7: rules.ACCOUNT,
}
PRINCIPALS: Final = {"User": rules.USER, "Group": rules.GROUP, "Listener": rules.LISTENER}
OPERATION_NUMBERS: Final = {name: number for number, name in OPERATIONS.items()}
KIND_NUMBERS: Final = {name: number for number, name in KINDS.items()}
PRINCIPAL_NAMES: Final = {who: name for name, who in PRINCIPALS.items()}


class Acl(NamedTuple):
    """One ACL, as the requests have it."""

    kind: int
    name: str
    pattern: int
    principal: str
    host: str
    operation: int
    permission: int

    @property
    def resource(self) -> tuple[int, str, int]:
        """What it is about."""
        return self.kind, self.name, self.pattern


def acls_of(rule: Rule) -> Iterator[Acl]:
    """Return a rule as ACLs, one for each operation; none where Kafka has no form for it."""
    principal = principal_of(rule)
    if rule.kind == rules.TOPIC or principal is None:
        return
    literal, prefix = rule.name.literal, rule.name.prefix
    if literal is not None and literal != WILDCARD:
        name, pattern = literal, LITERAL
    elif prefix is not None:
        name, pattern = (prefix, PREFIXED) if prefix else (WILDCARD, LITERAL)
    else:
        return
    for operation in rule.operations:
        yield Acl(
            KIND_NUMBERS[rule.kind],
            name,
            pattern,
            principal,
            rule.address or WILDCARD,
            OPERATION_NUMBERS[operation],
            ALLOW if rule.allows else DENY,
        )


def principal_of(rule: Rule) -> str | None:
    """Return whom a rule is about, as Kafka says it; None: it cannot."""
    if rule.who == rules.ALL:
        return USER_PREFIX + WILDCARD
    if rule.who == rules.ANONYMOUS:
        return USER_PREFIX + ANONYMOUS
    if rule.who != rules.USER:
        return f"{PRINCIPAL_NAMES[rule.who]}:{rule.whose}"
    name = rule.whose_name.literal
    return None if name in (None, WILDCARD, ANONYMOUS) else f"{USER_PREFIX}{name}"


def rule_of(creation: dict[str, Any]) -> Rule:
    """Return the rule that a client wants. Raises RequestRefused for what is none."""
    kind = KINDS.get(creation["resource_type"])
    operation = OPERATIONS.get(creation["operation"])
    pattern, name = creation["resource_pattern_type"], creation["resource_name"]
    permission, host = creation["permission_type"], creation["host"]
    if kind is None or operation is None or permission not in (ALLOW, DENY):
        raise refused("the resource, the operation or the permission is none that can be")
    if pattern not in (LITERAL, PREFIXED):
        raise refused("the pattern is neither literal nor prefixed")
    if not name:
        raise refused("a resource has a name")
    if kind == rules.CLUSTER and (name != rules.CLUSTER_NAME or pattern != LITERAL):
        raise refused(f"the only cluster is {rules.CLUSTER_NAME}")
    if pattern == PREFIXED:
        resource = Glob((name, ""))
    else:
        resource = Glob(("", "")) if name == WILDCARD else Glob((name,))
    who, whose = named(creation["principal"])
    return Rule(
        allows=permission == ALLOW,
        who=who,
        whose=whose,
        operations=(operation,),
        kind=kind,
        resource=resource.text,
        address=address_in(host),
    )


def named(principal: str) -> tuple[str, str]:
    """Return whom a principal of Kafka's is, as rules have it. Raises RequestRefused."""
    kind, colon, name = principal.partition(":")
    if not colon or not name:
        raise refused(f"{principal[:200]!r} is no principal: it has a type, a colon and a name")
    if kind not in PRINCIPALS:
        raise refused(f"the types of principals here are {', '.join(PRINCIPALS)}")
    if kind != "User":
        return PRINCIPALS[kind], name
    if name == WILDCARD:
        return rules.ALL, ""
    return (rules.ANONYMOUS, "") if name == ANONYMOUS else (rules.USER, escaped(name))


def address_in(host: str) -> str:
    """Return the address that rules ask for; empty: any. Raises RequestRefused."""
    if host == WILDCARD:
        return ""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise refused(f"{host[:200]!r} is neither an IP address nor {WILDCARD}") from None


class AclFilter:
    """Which ACLs a client asks about."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        """Raises RequestRefused for what the client does not know itself."""
        self._kind: int = wanted["resource_type_filter"]
        self._name: str | None = wanted["resource_name_filter"]
        self._pattern: int = wanted["pattern_type_filter"]
        self._principal: str | None = wanted["principal_filter"]
        self._host: str | None = wanted["host_filter"]
        self._operation: int = wanted["operation"]
        self._permission: int = wanted["permission_type"]
        numbers = (
            (self._kind, KINDS),
            (self._pattern, (MATCH, LITERAL, PREFIXED)),
            (self._operation, OPERATIONS),
            (self._permission, (ALLOW, DENY)),
        )
        if any(number != ANY and number not in known for number, known in numbers):
            raise refused("a filter with something unknown in it")

    def matches(self, acl: Acl) -> bool:
        """Whether an ACL is asked about [KIP-290]."""
        return (
            self._kind in (ANY, acl.kind)
            and self._matches_name(acl)
            and self._principal in (None, acl.principal)
            and self._host in (None, acl.host)
            and self._operation in (ANY, acl.operation)
            and self._permission in (ANY, acl.permission)
        )

    def _matches_name(self, acl: Acl) -> bool:
        if self._pattern not in (ANY, MATCH, acl.pattern):
            return False
        name = self._name
        if name is None or name == acl.name:
            return True
        if self._pattern != MATCH:
            return False
        if acl.pattern == PREFIXED:
            return name.startswith(acl.name)
        return acl.name == WILDCARD


def refused(text: str) -> RequestRefused:
    """Return the refusal of what is no ACL."""
    return RequestRefused(ErrorCode.INVALID_REQUEST, text)
