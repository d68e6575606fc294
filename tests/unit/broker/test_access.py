"""Rules of access: how they are read, whom they concern, and which one decides."""

from __future__ import annotations

import pytest

from isthmus.broker.access import Access
from isthmus.broker.access_rules import parse_rule, parse_rules, quoted
from isthmus.broker.globs import Glob
from isthmus.broker.identity import Identity, Principal
from isthmus.errors import ConfigError

HERE = Identity("127.0.0.1", 5000, "tcp")


def somebody(user: str = "ann", client_id: str = "c1", groups: str = "") -> Principal:
    return Principal(user, client_id, HERE, groups=frozenset(groups.split()))


def access(*rules: str, default: bool = False) -> Access:
    return Access(parse_rules("\n".join(rules), "rules"), default=default)


def decided(rules: Access, who: Principal, operation: str, resource: str) -> tuple[bool, str]:
    verdict = rules.allows(who, operation, resource)
    return bool(verdict), verdict.rule.origin if verdict.rule is not None else "default"


# --- how they are written ---------------------------------------------------------------------


def test_a_file_has_a_rule_in_each_line_and_comments():
    rules = parse_rules(
        '# who measures\r\n\r\n  allow user:line-* publish,subscribe "factory/%u/#"  \r\n',
        "file",
    )
    assert [(rule.origin, rule.who, rule.whose, rule.operations) for rule in rules] == [
        ("file:3", "user", "line-*", ("publish", "subscribe"))
    ]
    assert str(rules[0]) == 'file:3: allow user:line-* publish,subscribe "factory/%u/#"'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("allow all publish", "four words"),
        ("allow all publish a b", "four words"),
        ("permit all publish a", "'permit'"),
        ("allow everybody publish a", "'everybody'"),
        ("allow user: publish a", "'user:'"),
        ("allow all:ann publish a", "'all:ann'"),
        ("allow user:ann send a", "'send' is no operation"),
        ("allow user:ann publish, a", "'' is no operation"),
        ("allow user:ann publish,read a", "two rules"),
        ("allow user:ann publish a/#/b", "misplaced wildcard"),
        ("allow user:ann publish dev%", "%%"),
        ("allow user:ann publish a/%x/b", "%%"),
        ("allow user:ann subscribe $share/g/a", "shared"),
        ("allow user:ann read temperatures", "log:temperatures"),
        ("allow user:ann read log:", "log:temperatures"),
        ('allow user:ann publish "a', "no other half"),
        ("allow user:ann publish a\\", "no other half"),
    ],
)
def test_what_is_no_rule_is_one_sentence_that_says_where(text: str, complaint: str):
    with pytest.raises(ConfigError, match=r"^file:7: ") as caught:
        parse_rule(text, "file:7")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("word", ["a", "a b", 'a"b', "a\\b", "\\", "it's", "#", "", " "])
def test_any_word_can_be_written(word: str):
    if word:
        rule = parse_rule(f"allow all publish {quoted(word)}", "here")
        assert rule.resource == word
    rule = parse_rule(f"allow {quoted(f'user:{word}x')} publish a", "here")
    assert rule.whose == f"{word}x"


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("ann", "ann", True),
        ("ann", "anna", False),
        ("*", "", True),
        ("*", "ann", True),
        ("a*", "a", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*a*b*", "xaxbx", True),
        ("*a*b*", "xbxax", False),
        ("a*bc*c", "abc", False),
        ("[a-z]+", "ann", False),
        ("a.n", "ann", False),
    ],
)
def test_a_star_is_any_characters_and_all_else_is_itself(
    pattern: str, text: str, matches: bool
):
    assert Glob.read(pattern).matches(text) is matches


# --- whom they concern ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "concerned"),
    [
        ("all", ["ann", "line-7", ""]),
        ("anonymous", [""]),
        ("user:ann", ["ann"]),
        ("user:*", ["ann", "line-7"]),
        ("user:line-*", ["line-7"]),
        ("group:staff", ["ann"]),
        ("group:*", []),
        ("listener:tcp", ["ann", "line-7", ""]),
        ("listener:tls", []),
    ],
)
def test_whom_a_rule_concerns(who: str, concerned: list[str]):
    rules = access(f"allow {who} publish a")
    people = [somebody("ann", groups="staff all"), somebody("line-7"), somebody("")]
    assert [one.user for one in people if rules.allows(one, "publish", "a")] == concerned


def test_the_names_of_whoever_asks_are_levels_of_the_topic():
    rules = access("allow all publish %u/%c/up", "allow all publish dev-%c/%%u/#")
    ann = somebody("ann", "c1")
    assert rules.allows(ann, "publish", "ann/c1/up")
    assert not rules.allows(ann, "publish", "bob/c1/up")
    assert rules.allows(ann, "publish", "dev-c1/%u/x")
    assert not rules.allows(ann, "publish", "dev-c1/ann/x")
    assert not rules.allows(somebody(""), "publish", "/c1/up")


def test_a_name_is_filled_in_once():
    rules = access("allow all publish a/%c/%u")
    assert rules.allows(somebody("%c", "%u"), "publish", "a/%u/%c")
    assert not rules.allows(somebody("%c", "%u"), "publish", "a/%c/%c")


@pytest.mark.parametrize("name", ["+", "#", "a/b", "a+", "/"])
def test_no_name_becomes_a_wildcard_or_two_levels(name: str):
    rules = access("allow all publish x/%u", "allow all publish y/%c")
    assert not rules.allows(somebody(name, "c"), "publish", "x/b")
    assert not rules.allows(somebody(name, "c"), "publish", f"x/{name}")
    assert not rules.allows(somebody("u", name), "publish", "y/b")
    assert rules.allows(somebody("u", name), "publish", "x/u")


def test_no_name_opens_what_belongs_to_the_server():
    rules = access("allow all subscribe %u/#", "allow all subscribe $SYS/%u/#")
    assert not rules.allows(somebody("$SYS2"), "subscribe", "$SYS2/x")
    assert rules.allows(somebody("$x"), "subscribe", "$SYS/$x/a")


# --- which one decides ------------------------------------------------------------------------


def test_a_rule_that_denies_wins_in_any_order():
    rules = access(
        "allow user:ann publish a/#", "deny all publish a/secret", "allow all publish a/secret"
    )
    assert decided(rules, somebody(), "publish", "a/b") == (True, "rules:1")
    assert decided(rules, somebody(), "publish", "a/secret") == (False, "rules:2")
    assert decided(rules, somebody(), "publish", "b") == (False, "default")
    assert decided(rules, somebody(), "subscribe", "a/b") == (False, "default")


def test_the_first_rule_that_allows_is_named_whatever_it_speaks_of():
    rules = access(
        "allow user:a* publish t", "allow user:ann publish t", "allow group:g publish t"
    )
    assert decided(rules, somebody("ann", groups="g"), "publish", "t") == (True, "rules:1")
    assert decided(rules, somebody("bob", groups="g"), "publish", "t") == (True, "rules:3")


def test_what_no_rule_speaks_of_is_as_the_default_says():
    rules = access("deny user:ann publish a", default=True)
    assert decided(rules, somebody(), "publish", "b") == (True, "default")
    assert decided(rules, somebody(), "publish", "a") == (False, "rules:1")


@pytest.mark.parametrize(
    ("topic_filter", "allowed"),
    [
        ("a/#", True),  # of which all but one
        ("a/+", True),
        ("#", True),
        ("+/b/c", True),
        ("a/secret", False),
        ("a/secret/#", True),  # what is below the secret
        ("b/#", False),
        ("+", True),  # "a" itself
        ("+/secret", False),
    ],
)
def test_a_filter_is_refused_where_nothing_of_it_could_be_received(
    topic_filter: str, allowed: bool
):
    rules = access("allow all subscribe a/#", "deny all subscribe +/secret")
    assert bool(rules.allows(somebody(), "subscribe", topic_filter)) is allowed


def test_how_the_server_fares_is_for_all_who_have_logged_in():
    rules = access("allow all subscribe a")
    assert decided(rules, somebody(), "subscribe", "$SYS/#") == (True, "built in")
    assert decided(rules, somebody(""), "subscribe", "$SYS/#") == (False, "default")
    assert decided(rules, somebody(), "publish", "$SYS/x") == (False, "default")
    rules = access("deny user:ann subscribe $SYS/#")
    assert decided(rules, somebody(), "subscribe", "$SYS/uptime") == (False, "rules:1")
    rules = access("allow user:bob subscribe $SYS/#")
    assert decided(rules, somebody(), "subscribe", "$SYS/uptime") == (False, "default")


def test_log_topics_have_operations_of_their_own():
    rules = access("allow group:g read log:temp*", "deny all read log:temp-secret")
    assert decided(rules, somebody(groups="g"), "read", "temps") == (True, "rules:1")
    assert decided(rules, somebody(groups="g"), "read", "temp-secret") == (False, "rules:2")
    assert decided(rules, somebody(groups="g"), "write", "temps") == (False, "default")
    assert decided(rules, somebody(), "read", "temps") == (False, "default")


def test_without_rules_nobody_need_ask():
    assert Access().is_open
    assert Access().allows(somebody(""), "publish", "a")
    assert not access("deny user:x publish a", default=True).is_open
    assert not Access(default=False).is_open


def test_other_rules_are_told_of():
    rules = access("allow all publish a")
    before, heard = rules.generation, []
    rules.follow(lambda: heard.append(rules.generation))
    assert rules.rights_of(somebody()).allows("publish", "a")
    rules.replace(parse_rules("deny all publish a", "rules"), default=True)
    assert heard == [rules.generation] != [before]
    assert not rules.rights_of(somebody()).allows("publish", "a")
