"""Who may do what: the one place that decides it, whatever the protocol.

Whoever lets somebody do something asks `Access.allows(principal, operation, resource)`. Of the
rules (access_rules.py) that speak of the principal and match, one that denies wins, whatever
their order; else the first that allows; else it is as the default says. The order, which only
says which rule is named, is: the settings, the file of rules, what the server keeps
(kept_rules.py) by its age. A super user may do everything.

To subscribe is to receive: the rules say of each topic name whether its messages go to
somebody. So one may subscribe to a topic filter as soon as something that it matches is
allowed, gets of it what is allowed, and a deny inside an allowed wildcard holds. A filter is
refused where nothing that it matches could be received.

What Kafka's clients work on has a kind and a name, and Kafka's own meaning [KIP-11, KIP-290]:
an allowed operation implies others, one that is denied does not.

Whoever asks for the same principal again and again takes its `Rights`, until the rules change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.broker.access_rules import (
    ALL,
    ANONYMOUS,
    DESCRIBE,
    EVERY,
    GROUP,
    IMPLIED_BY,
    LISTENER,
    LOG,
    SUBSCRIBE,
    TOPIC,
    TOPIC_OPERATIONS,
    USER,
    parse_rule,
)
from isthmus.topics.filter import filter_covers, filter_intersection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from isthmus.broker.access_rules import Rule
    from isthmus.broker.identity import Principal

PARTS_MAX: Final = 64  # of a filter that are told apart
REMEMBERED_MAX: Final = 4096  # verdicts on Kafka's resources, for one principal
KEPT_FIRST: Final = 1 << 32  # number of the first rule that the server keeps
SOMETHING: Final = ""  # a name that nothing has

# How the server fares is for everybody who has logged in to see, unless a rule denies it, or
# rules say who may.
OWN_RULE: Final = parse_rule("allow user:* subscribe $SYS/#", "built in")


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

    def __init__(self, rules: Iterable[Rule] = (), *, default: bool | None = True) -> None:
        self.generation = 0
        self.is_open_for_kafka = True  # so that nobody need ask about what Kafka has
        self._followers: list[Callable[[], None]] = []
        self._kept: dict[str, int] = {}  # number of a rule, by its text
        self._number = KEPT_FIRST
        self._by_number: dict[int, Rule] = {}
        self.replace(rules, default=default)

    def replace(
        self, rules: Iterable[Rule], *, default: bool | None, super_users: Iterable[str] = ()
    ) -> None:
        """Put other rules in the place of those configured.

        `default` is the verdict on what no rule speaks of. None: everything is allowed until
        there are rules; then topic names are denied if some speak of topic names, and of what
        Kafka has, that of which some rule speaks, as Kafka has it where it allows everybody
        what no ACL is about. `super_users` may do everything.
        """
        kept = [(number, self._by_number[number]) for number in self._kept.values()]
        self._by_number = {}
        # A rule is looked for by the name that it speaks of, so that a hundred thousand users
        # with a rule each do not cost more than one.
        self._by_name: dict[tuple[str, str], dict[int, Rule]] = {}
        self._others: dict[int, Rule] = {}
        self._kinds: dict[str, dict[int, Rule]] = {}
        self._names: dict[tuple[str, str], int] = {}  # how many rules are of one name
        self._patterns: dict[str, dict[int, Rule]] = {}  # and of many, by kind
        self._showing_sys = 0
        self.default = default
        self.super_users = frozenset(super_users)
        for number, rule in [*enumerate(rules), *kept]:
            self._add(number, rule)
        self._changed()

    def keep(self, added: Iterable[Rule], removed: Iterable[Rule] = ()) -> None:
        """Put rules in force, and others out of it, that the server keeps."""
        for rule in removed:
            number = self._kept.pop(rule.text, None)
            if number is not None:
                self._remove(number, self._by_number[number])
        for rule in added:
            if rule.text not in self._kept:
                self._kept[rule.text] = self._number
                self._add(self._number, rule)
                self._number += 1
        self._changed()

    def follow(self, changed: Callable[[], None]) -> None:
        """Have a function called whenever other rules are in force."""
        self._followers.append(changed)

    @property
    def rules(self) -> list[Rule]:
        """All rules in force, in their order."""
        rules = [self._by_number[number] for number in sorted(self._by_number)]
        return rules if self._showing_sys else [*rules, OWN_RULE]

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything with topic names, so that nobody need ask."""
        return not self._kinds.get(TOPIC) and self.default is not False

    def allows(
        self, principal: Principal, operation: str, resource: str, kind: str = LOG
    ) -> Verdict:
        """Return whether a principal may do something, and why.

        `resource` is a topic name or an unshared topic filter to publish and subscribe, else
        the name of something of Kafka's, of the given kind.
        """
        return Rights(self, principal).allows(operation, resource, kind)

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
        numbers = {*self._others}
        for name in names:
            numbers.update(self._by_name.get(name, ()))
        for number in sorted(numbers):
            rule = self._by_number[number]
            if rule.concerns(principal):
                yield rule
        if not self._showing_sys and OWN_RULE.concerns(principal):
            yield OWN_RULE

    def allows_by_default(self, operation: str, kind: str, name: str) -> bool:
        """Return the verdict on what no rule speaks of that is about somebody."""
        if self.default is not None:
            return self.default
        if operation in TOPIC_OPERATIONS:
            return not self._kinds.get(TOPIC)
        patterns = self._patterns.get(kind, {}).values()
        return not (
            self._names.get((kind, name)) or any(rule.name.matches(name) for rule in patterns)
        )

    # --- inside -------------------------------------------------------------------------------

    def _changed(self) -> None:
        self.generation += 1
        kinds = [kind for kind, rules in self._kinds.items() if rules and kind != TOPIC]
        self.is_open_for_kafka = not kinds and self.default is not False
        for changed in self._followers:
            changed()

    def _add(self, number: int, rule: Rule) -> None:
        self._by_number[number] = rule
        self._bucket_of(rule)[number] = rule
        self._kinds.setdefault(rule.kind, {})[number] = rule
        self._showing_sys += _shows_sys(rule)
        literal = rule.name.literal
        if literal is None:
            self._patterns.setdefault(rule.kind, {})[number] = rule
        else:
            key = (rule.kind, literal)
            self._names[key] = self._names.get(key, 0) + 1

    def _remove(self, number: int, rule: Rule) -> None:
        del self._by_number[number]
        del self._bucket_of(rule)[number]
        del self._kinds[rule.kind][number]
        self._showing_sys -= _shows_sys(rule)
        literal = rule.name.literal
        if literal is None:
            del self._patterns[rule.kind][number]
        else:
            self._names[rule.kind, literal] -= 1
            if not self._names[rule.kind, literal]:
                del self._names[rule.kind, literal]

    def _bucket_of(self, rule: Rule) -> dict[int, Rule]:
        if rule.who in (ALL, ANONYMOUS):
            return self._others
        name: str | None = rule.whose
        if rule.who == USER:
            name = rule.whose_name.literal
        if name is None:
            return self._others
        return self._by_name.setdefault((rule.who, name), {})


class Rights:
    """What one principal may do, by the rules of one moment."""

    __slots__ = ("_access", "_default", "_is_super", "_known", "_resources", "_topics")

    def __init__(self, access: Access, principal: Principal) -> None:
        self._access = access
        self._is_super = principal.user in access.super_users and not principal.is_anonymous
        self._default = self._is_super or access.allows_by_default(SUBSCRIBE, TOPIC, "")
        self._topics: dict[str, list[tuple[str, Rule]]] = {}  # by operation, with its filter
        self._resources: dict[str, list[Rule]] = {}  # by kind
        self._known: dict[tuple[str, str, str], Verdict] = {}
        if self._is_super:
            return
        for rule in access.concerning(principal):
            if rule.kind != TOPIC:
                self._resources.setdefault(rule.kind, []).append(rule)
                continue
            topic_filter = rule.resource_for(principal)
            if topic_filter is not None:
                for operation in rule.operations:
                    self._topics.setdefault(operation, []).append((topic_filter, rule))

    def allows(self, operation: str, resource: str, kind: str = LOG) -> Verdict:
        """Return whether something is allowed, and why; see `Access.allows`."""
        if operation in TOPIC_OPERATIONS:
            return self._on_topics(operation, resource)
        key = (operation, kind, resource)
        verdict = self._known.get(key)
        if verdict is None:
            if len(self._known) >= REMEMBERED_MAX:
                self._known.clear()
            verdict = self._known[key] = self._on_resource(operation, kind, resource)
        return verdict

    def may_describe(self, log_topic: str) -> bool:
        """Whether the principal may know that a log topic is there."""
        return self.allows(DESCRIBE, log_topic).allowed

    def allows_some(self, operation: str, kind: str = LOG) -> bool:
        """Whether an operation is allowed with anything of a kind [KIP-679]."""
        if self.allows(operation, SOMETHING, kind):
            return True
        rules = [
            rule
            for rule in self._resources.get(kind, ())
            if operation in rule.operations or EVERY in rule.operations
        ]
        denied = [rule.name for rule in rules if not rule.allows]
        return any(
            not any(name.covers(rule.name) for name in denied) for rule in rules if rule.allows
        )

    def receivable(self, topic_filter: str) -> list[str]:
        """Return filters that have in them all of a filter that may be received.

        Something in them may be denied all the same. No topic name matches two of them.
        """
        if self._default:
            return [topic_filter]
        parts: list[str] = []
        for allowed, rule in self._topics.get(SUBSCRIBE, []):
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

    def _on_topics(self, operation: str, resource: str) -> Verdict:
        rules = self._topics.get(operation, [])
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

    def _on_resource(self, operation: str, kind: str, name: str) -> Verdict:
        if self._is_super:
            return Verdict(allowed=True, rule=None)
        rules = [rule for rule in self._resources.get(kind, ()) if rule.name.matches(name)]
        for rule in rules:
            if not rule.allows and (operation in rule.operations or EVERY in rule.operations):
                return Verdict(allowed=False, rule=rule)
        implying = IMPLIED_BY[operation]
        for rule in rules:
            if rule.allows and not implying.isdisjoint(rule.operations):
                return Verdict(allowed=True, rule=rule)
        default = self._access.allows_by_default(operation, kind, name)
        return Verdict(allowed=default, rule=None)


def _covering(denying: list[tuple[str, Rule]], resource: str) -> Rule | None:
    """Return the first rule that denies all of a resource."""
    return next((rule for denied, rule in denying if filter_covers(denied, resource)), None)
