"""Who may do what: the one place that decides it, whatever the protocol.

Whoever lets somebody do something asks `Access.allows(principal, operation, resource)`. Of the
rules (access_rules.py) that speak of the principal and match, one that denies wins, whatever
their order; else the first that allows; else it is as the default says.

To subscribe is to receive: the rules say of each topic name whether its messages go to
somebody. So one may subscribe to a topic filter as soon as something that it matches is
allowed, gets of it what is allowed, and a deny inside an allowed wildcard holds. A filter is
refused where nothing that it matches could be received.

Whoever asks for the same principal again and again takes its `Rights`, until the rules change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.broker.access_rules import (
    ALL,
    ANONYMOUS,
    GROUP,
    LISTENER,
    LOG_OPERATIONS,
    SUBSCRIBE,
    USER,
    glob_matches,
    parse_rule,
)
from isthmus.topics.filter import filter_covers, filter_intersection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from isthmus.broker.access_rules import Rule
    from isthmus.broker.identity import Principal

PARTS_MAX: Final = 64  # of a filter that are told apart

# How the server fares is for everybody who has logged in to see, unless a rule denies it, or
# rules say who may.
OWN_RULES: Final = (parse_rule("allow user:* subscribe $SYS/#", "built in"),)


def _shows_sys(rule: Rule) -> bool:
    is_own = rule.resource.split("/", 1)[0] == "$SYS"
    return is_own and rule.allows and SUBSCRIBE in rule.operations


class Verdict:
    """Whether something is allowed, and the rule that decided it; None: the default did."""

    __slots__ = ("allowed", "rule")

    def __init__(self, *, allowed: bool, rule: Rule | None) -> None:
        self.allowed = allowed
        self.rule = rule

    def __bool__(self) -> bool:
        return self.allowed


class Access:
    """The rules in force."""

    def __init__(self, rules: Iterable[Rule] = (), *, default: bool = True) -> None:
        self.generation = 0
        self._followers: list[Callable[[], None]] = []
        self.replace(rules, default=default)

    def replace(self, rules: Iterable[Rule], *, default: bool) -> None:
        """Put other rules in force; what was remembered of those before is stale.

        `default` is the verdict on what no rule speaks of.
        """
        rules = tuple(rules)
        self.rules = rules if any(map(_shows_sys, rules)) else (*rules, *OWN_RULES)
        self._is_ruled = bool(rules)
        self.default = default
        self.generation += 1
        # A rule is looked for by the name that it speaks of, so that a hundred thousand users
        # with a rule each do not cost more than one.
        self._by_name: dict[tuple[str, str], list[int]] = {}
        self._others: list[int] = []
        for number, rule in enumerate(self.rules):
            if rule.who in (ALL, ANONYMOUS) or (rule.who == USER and "*" in rule.whose):
                self._others.append(number)
            else:
                self._by_name.setdefault((rule.who, rule.whose), []).append(number)

        for changed in self._followers:
            changed()

    def follow(self, changed: Callable[[], None]) -> None:
        """Have a function called whenever other rules are in force."""
        self._followers.append(changed)

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything, so that nobody need ask."""
        return self.default and not self._is_ruled

    def allows(self, principal: Principal, operation: str, resource: str) -> Verdict:
        """Return whether a principal may do something, and why.

        `resource` is a topic name or an unshared topic filter, or the name of a log topic, as
        the operation has it.
        """
        return Rights(self, principal).allows(operation, resource)

    def rights_of(self, principal: Principal) -> Rights:
        """Return what answers for one principal, until `generation` is another."""
        return Rights(self, principal)

    def concerning(self, principal: Principal) -> Iterator[Rule]:
        """Return the rules that speak of a principal, in their order."""
        names = [
            (LISTENER, principal.listener),
            *((GROUP, group) for group in principal.groups),
        ]
        if principal.user:
            names.append((USER, principal.user))
        numbers = [number for number in self._others if self.rules[number].concerns(principal)]
        for name in names:
            numbers += self._by_name.get(name, ())
        return (self.rules[number] for number in sorted(numbers))


class Rights:
    """What one principal may do, by the rules of one moment."""

    __slots__ = ("_default", "_rules")

    def __init__(self, access: Access, principal: Principal) -> None:
        self._default = access.default
        self._rules: dict[str, list[tuple[str, Rule]]] = {}  # by operation, with its resource
        for rule in access.concerning(principal):
            resource = rule.resource_for(principal)
            if resource is not None:
                for operation in rule.operations:
                    self._rules.setdefault(operation, []).append((resource, rule))

    def allows(self, operation: str, resource: str) -> Verdict:
        """Return whether something is allowed, and why; see `Access.allows`."""
        rules = self._rules.get(operation, [])
        if operation in LOG_OPERATIONS:
            rules = [(resource, rule) for glob, rule in rules if glob_matches(glob, resource)]
        denying = [(denied, rule) for denied, rule in rules if not rule.allows]
        deciding = _covering(denying, resource)
        if deciding is not None:
            return Verdict(allowed=False, rule=deciding)
        allowing: list[tuple[str | None, Rule | None]] = [
            (filter_intersection(allowed, resource), rule)
            for allowed, rule in rules
            if rule.allows
        ]
        if self._default:
            allowing.append((resource, None))
        for common, rule in allowing:
            if common is not None:
                denied_by = _covering(denying, common)
                if denied_by is None:
                    return Verdict(allowed=True, rule=rule)
                deciding = deciding or denied_by
        return Verdict(allowed=False, rule=deciding)

    def receivable(self, topic_filter: str) -> list[str]:
        """Return filters that have in them all of a filter that may be received.

        Something in them may be denied all the same. No topic name matches two of them.
        """
        if self._default:
            return [topic_filter]
        parts: list[str] = []
        for allowed, rule in self._rules.get(SUBSCRIBE, []):
            common = filter_intersection(allowed, topic_filter) if rule.allows else None
            if common is None or any(filter_covers(part, common) for part in parts):
                continue
            parts = [part for part in parts if not filter_covers(common, part)]
            if len(parts) == PARTS_MAX or any(
                filter_intersection(common, one) for one in parts
            ):
                return [topic_filter]
            parts.append(common)
        return parts


def _covering(denying: list[tuple[str, Rule]], resource: str) -> Rule | None:
    """Return the first rule that denies all of a resource."""
    return next((rule for denied, rule in denying if filter_covers(denied, resource)), None)
