"""`isthmus acls`: the rules of access in force, what they mean for somebody, and other ones.

Rules are added to the file that `access.rules_file` names and taken out of it; a server that
runs takes up what has changed when it looks next.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isthmus.broker.access_rules import (
    LOG_OPERATIONS,
    LOG_PREFIX,
    OPERATIONS,
    parse_rule,
    parse_rules,
)
from isthmus.broker.identity import NOBODY, Principal
from isthmus.cli.options import source_options, sources_from
from isthmus.cli.text_files import replace_file, text_in
from isthmus.errors import ConfigError, TopicInvalid
from isthmus.topics.filter import check_topic_filter, check_topic_name, parse_shared

if TYPE_CHECKING:
    from isthmus.broker.access import Access
    from isthmus.broker.users import User
    from isthmus.config import Settings

DENIED = 1  # exit status


@click.group()
def acls() -> None:
    """See and say who may do what."""


@acls.command("list")
@source_options
def list_rules(**options: Any) -> None:
    """Print the rules in force, each with where it is written.

    Takes the options of `serve` and prints what `serve` would run with.
    """
    access = access_of(sources_from(**options).read().settings)
    for rule in access.rules:
        click.echo(str(rule))
    click.echo(f"default: {'allow' if access.default else 'deny'}")


@acls.command()
@click.argument("user")
@click.argument("operation", type=click.Choice(OPERATIONS))
@click.argument("resource")
@click.option("--client-id", default="client", help="The client id, for rules with %c.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    help="A group of the user, instead of those in the users file; may be repeated.",
)
@source_options
def test(
    user: str,
    operation: str,
    resource: str,
    client_id: str,
    groups: tuple[str, ...],
    **options: Any,
) -> None:
    """Say whether USER may do OPERATION with RESOURCE, and which rule decides.

    USER is - for somebody without a name. RESOURCE is a topic name to publish, a topic filter
    to subscribe, log:NAME to read and write. The exit status is 1 where it is denied.
    """
    checked = resource_of(operation, resource)
    settings = sources_from(**options).read().settings
    access = access_of(settings)
    if not groups:
        groups = groups_in_file(settings.authentication.users_file, user)
    who = Principal("" if user == "-" else user, client_id, NOBODY, groups=frozenset(groups))
    verdict = access.allows(who, operation, checked)
    word = "allowed" if verdict else "denied"
    if verdict.rule is not None:
        click.echo(f"{word} by {verdict.rule}")
    else:
        click.echo(f"{word} by default: no rule speaks of it")
    sys.exit(0 if verdict else DENIED)


@acls.command()
@click.argument("rules", nargs=-1, required=True)
@source_options
def add(rules: tuple[str, ...], **options: Any) -> None:
    """Add RULES to the rules file, each one word to the shell.

    For example: isthmus acls add "allow user:ann publish factory/#" --config isthmus.toml
    """
    file, lines = rules_file_in(options)
    present = {rule.meaning for rule in parse_rules("\n".join(lines), str(file))}
    for text in rules:
        rule = parse_rule(text, "the rule")
        if rule.meaning not in present:
            present.add(rule.meaning)
            lines.append(rule.text)
    write_rules(file, lines)


@acls.command()
@click.argument("rules", nargs=-1, required=True)
@source_options
def remove(rules: tuple[str, ...], **options: Any) -> None:
    """Take RULES out of the rules file, each one word to the shell."""
    file, lines = rules_file_in(options)
    for text in rules:
        meaning = parse_rule(text, "the rule").meaning
        kept = [
            line
            for line in lines
            if meaning not in [one.meaning for one in parse_rules(line, "")]
        ]
        if len(kept) == len(lines):
            raise click.ClickException(f"{file} has no rule {text}")
        lines = kept
    write_rules(file, lines)


def rules_file_in(options: dict[str, Any]) -> tuple[Path, list[str]]:
    """Return the rules file and its lines. Raises ConfigError."""
    settings = sources_from(**options).read().settings.access
    if not settings.rules_file:
        raise ConfigError("access.rules_file names no file that rules could be written to")
    file = Path(settings.rules_file)
    text = text_in(file)
    parse_rules(text, str(file))  # a file that the server would not take is to be mended first
    return file, text.rstrip("\n").split("\n") if text else []


def write_rules(file: Path, lines: list[str]) -> None:
    """Write the rules file anew. Raises ConfigError."""
    replace_file(file, "".join(f"{line}\n" for line in lines))


def access_of(settings: Settings) -> Access:
    """Return the rules that `serve` would have. Raises ConfigError."""
    from isthmus.server.rules import ConfiguredRules

    return ConfiguredRules(settings.access).access


def groups_in_file(users_file: str, user: str) -> tuple[str, ...]:
    """Return the groups of a user of the file. Raises ConfigError."""
    from isthmus.broker.users import parse_users
    from isthmus.server.renewal import WatchedFile

    users: dict[str, User] = {}
    if users_file:
        WatchedFile("authentication.users_file", users_file, parse_users).serve(users.update)
    return tuple(users[user].groups) if user in users else ()


def resource_of(operation: str, text: str) -> str:
    """Return a resource as rules are asked about it."""
    if operation in LOG_OPERATIONS:
        return text.removeprefix(LOG_PREFIX)
    try:
        if operation == "publish":
            check_topic_name(text)
            return text
        check_topic_filter(text)
    except TopicInvalid as error:
        raise click.UsageError(str(error)) from None
    return parse_shared(text)[1]
