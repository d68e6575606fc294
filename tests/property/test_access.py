"""The decision agrees with a naive reading of the rules: every rule, every topic name."""

from __future__ import annotations

import fnmatch
from itertools import product
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from isthmus.broker.access import Access
from isthmus.broker.access_rules import parse_rule, quoted
from isthmus.broker.identity import Identity, Principal
from isthmus.topics.filter import filter_matches

HERE = Identity("127.0.0.1", 5000, "tcp")
NAMES_OF_PEOPLE = ["", "a", "ab", "$SYS", "+", "x/y", "%u", "%c"]
LEVELS = ["a", "ab", "$SYS", "%u", "%c", "other"]
NAMES = ["/".join(levels) for depth in (1, 2, 3) for levels in product(LEVELS, repeat=depth)]


class Written(NamedTuple):
    """A rule as it is made here, before it is text."""

    allows: bool
    who: str
    operations: list[str]
    levels: list[str]

    @property
    def text(self) -> str:
        verb = "allow" if self.allows else "deny"
        resource = quoted("/".join(self.levels))
        return f"{verb} {quoted(self.who)} {','.join(self.operations)} {resource}"

    def concerns(self, who: Principal) -> bool:
        kind, _, name = self.who.partition(":")
        if kind == "user":
            return who.user != "" and fnmatch.fnmatchcase(who.user, name)
        return {"all": True, "anonymous": who.user == "", "group": name in who.groups}.get(
            kind, name == who.listener
        )

    def names(self, who: Principal) -> set[str]:
        """All topic names that it speaks of; each level is compared as it is."""
        return {name for name in NAMES if self._speaks_of(name.split("/"), who)}

    def _speaks_of(self, levels: list[str], who: Principal) -> bool:
        filled = {"%u": who.user or None, "%c": who.client_id or None, "%%u": "%u"}
        if levels[0].startswith("$") and not self.levels[0].startswith("$"):
            return False
        for depth, level in enumerate(self.levels):
            if level == "#":
                return True
            if depth == len(levels):
                return False
            if level != "+" and filled.get(level, level) != levels[depth]:
                return False
        return len(self.levels) == len(levels)


RULES = st.builds(
    Written,
    st.booleans(),
    st.sampled_from(
        [
            "all",
            "anonymous",
            "user:a",
            "user:a*",
            "user:*",
            "group:g",
            "listener:tcp",
            "listener:x",
        ]
    ),
    st.sampled_from([["publish"], ["subscribe"], ["publish", "subscribe"]]),
    st.builds(
        lambda levels, end: levels + end,
        st.lists(st.sampled_from(["a", "$SYS", "+", "%u", "%c", "%%u"]), max_size=2),
        st.sampled_from([["a"], ["+"], ["#"]]),
    ),
)
PEOPLE = st.builds(
    lambda user, client_id, groups: Principal(user, client_id, HERE, groups=groups),
    st.sampled_from(NAMES_OF_PEOPLE),
    st.sampled_from(NAMES_OF_PEOPLE[1:]),
    st.frozensets(st.sampled_from(["g", "h"])),
)
OPERATIONS = st.sampled_from(["publish", "subscribe"])
OWN = Written(True, "user:*", ["subscribe"], ["$SYS", "#"])


def heard(rules: list[Written], who: Principal, operation: str) -> list[Written]:
    """The rules that count for somebody who does something."""
    shown = any(
        rule.allows and rule.levels[0] == "$SYS" and "subscribe" in rule.operations
        for rule in rules
    )
    everything = rules if shown else [*rules, OWN]
    return [rule for rule in everything if rule.concerns(who) and operation in rule.operations]


def in_force(rules: list[Written], *, default: bool) -> Access:
    parsed = [parse_rule(rule.text, str(number)) for number, rule in enumerate(rules)]
    return Access(parsed, default=default)


@given(st.lists(RULES, max_size=6), PEOPLE, OPERATIONS, st.sampled_from(NAMES), st.booleans())
def test_what_may_be_done_with_a_topic_name(
    rules: list[Written], who: Principal, operation: str, name: str, default: bool
) -> None:
    speaking = [rule for rule in heard(rules, who, operation) if name in rule.names(who)]
    deciding = [rule for rule in speaking if not rule.allows] or speaking
    verdict = in_force(rules, default=default).allows(who, operation, name)
    assert verdict.allowed == (deciding[0].allows if deciding else default)
    if verdict.rule is None:
        assert not deciding
    elif verdict.rule.origin != "built in":
        assert rules[int(verdict.rule.origin)] == deciding[0]
    rights = in_force(rules, default=default).rights_of(who)
    assert rights.allows(operation, name).allowed == verdict.allowed


FILTERS = st.builds(
    lambda levels, end: "/".join(levels + end),
    st.lists(st.sampled_from(["a", "$SYS", "+", "%u"]), max_size=2),
    st.sampled_from([["a"], ["+"], ["#"]]),
)


@given(st.lists(RULES, max_size=6), PEOPLE, FILTERS, st.booleans())
def test_which_filters_may_be_subscribed_to(
    rules: list[Written], who: Principal, topic_filter: str, default: bool
) -> None:
    """Granted is what one rule allows a part of that no rule denies all of."""
    wanted = {name for name in NAMES if filter_matches(topic_filter, name)}
    speaking = heard(rules, who, "subscribe")
    denied = [rule.names(who) for rule in speaking if not rule.allows]
    allowed = [rule.names(who) & wanted for rule in speaking if rule.allows]
    allowed += [wanted] if default else []
    # A filter can be deeper than the names here, and then nothing here is of it.
    granted = any(part and not any(part <= all_of for all_of in denied) for part in allowed)
    access = in_force(rules, default=default)
    verdict = access.allows(who, "subscribe", topic_filter)
    assert verdict.allowed == granted
    if not verdict.allowed:
        assert not any(access.allows(who, "subscribe", name) for name in wanted)


@given(st.lists(RULES, max_size=6), PEOPLE, FILTERS, st.booleans())
def test_what_may_be_received_is_in_the_parts_of_a_filter(
    rules: list[Written], who: Principal, topic_filter: str, default: bool
) -> None:
    access = in_force(rules, default=default)
    parts = access.rights_of(who).receivable(topic_filter)
    for name in NAMES:
        found = [part for part in parts if filter_matches(part, name)]
        wanted = filter_matches(topic_filter, name)
        assert len(found) <= wanted
        if wanted and access.allows(who, "subscribe", name):
            assert found
