"""`isthmus acls`: the rules of access in force, what they mean for somebody, and other ones.

With --http it is about a server that runs: its rules are listed, it decides, and what is added
and removed are the rules that it keeps. Without, it is about what `serve` would run with; then
rules are added to the file that `access.rules_file` names and taken out of it, and a server
that runs takes up what has changed when it looks next.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isthmus.broker.access_rules import OPERATIONS, asked_resource, parse_rule, parse_rules
from isthmus.broker.identity import Identity, Principal
from isthmus.cli.options import SOURCES, read_address, sources_from
from isthmus.cli.rest import RestShore
from isthmus.cli.text_files import replace_file, text_in
from isthmus.cli.user_stores import DirectoryStore
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.broker.access import Access
    from isthmus.broker.users import User
    from isthmus.config_listeners import Address

DENIED = 1  # exit status
server_option = click.option(
    "--http",
    metavar="HOST:PORT",
    callback=lambda context, option, text: text and read_address(context, option, text),
    help="The rules of the server that runs there.",
)


def which_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say whose rules it is about."""
    for option in (*SOURCES[5:], server_option, *reversed(SOURCES[:4])):
        command = option(command)
    return command


@click.group()
def acls() -> None:
    """See and say who may do what."""


@acls.command("list")
@which_options
def list_rules(http: Address | None, **options: Any) -> None:
    """Print the rules in force, each with where it is written.

    Takes the options of `serve` and prints what `serve` would run with; with --http, what a
    server runs with.
    """
    if http is not None:
        for row in RestShore(http).items("access", "rules"):
            click.echo(f"{row['origin']}: {row['rule']}")
        return
    access, _ = offline(options)
    for rule in access.rules:
        click.echo(str(rule))
    words = {True: "allow", False: "deny", None: "allow what no rule is about"}
    click.echo(f"default: {words[access.default]}")


@acls.command()
@click.argument("user")
@click.argument("operation", type=click.Choice(OPERATIONS))
@click.argument("resource")
@click.option("--client-id", default="client", help="The client id, for rules with %c.")
@click.option("--address", default="", help="Where the user comes from, for rules that ask.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    help="A group of the user, instead of those that it is in; may be repeated.",
)
@which_options
def test(
    user: str,
    operation: str,
    resource: str,
    client_id: str,
    address: str,
    groups: tuple[str, ...],
    http: Address | None,
    **options: Any,
) -> None:
    """Say whether USER may do OPERATION with RESOURCE, and which rule decides.

    USER is - for somebody without a name. RESOURCE is a topic name to publish, a topic filter
    to subscribe, else log:NAME, group:NAME and so on. Its groups are those of the users file or
    of the server's users. The exit status is 1 where it is denied.
    """
    kind, name = asked_resource(operation, resource)
    user = "" if user == "-" else user
    if http is not None:
        said = RestShore(http).get(
            *("access", "decision"),
            user=user,
            operation=operation,
            resource=resource,
            client_id=client_id,
            address=address or None,
            group=",".join(groups) or None,
        )
        allowed, rule = said["allowed"], said["rule"]
    else:
        access, groups_of = offline(options)
        where = Identity(address, 0, "")
        found = frozenset(groups or groups_of(user))
        who = Principal(user, client_id, where, groups=found)
        verdict = access.allows(who, operation, name, kind)
        allowed, rule = verdict.allowed, verdict.rule and str(verdict.rule)
    word = "allowed" if allowed else "denied"
    by = f"by {rule}" if rule is not None else "by default: no rule speaks of it"
    click.echo(f"{word} {by}")
    sys.exit(0 if allowed else DENIED)


@acls.command()
@click.argument("rules", nargs=-1, required=True)
@which_options
def add(rules: tuple[str, ...], http: Address | None, **options: Any) -> None:
    """Add RULES, each one word to the shell, to those of a server or to the rules file.

    For example: isthmus acls add "allow user:ann publish factory/#" --config isthmus.toml
    """
    parsed = [parse_rule(text, "the rule") for text in rules]
    if http is not None:
        rest = RestShore(http)
        for rule in parsed:
            rest.put("access", "rules", rule.canonical)
        return
    file, lines = rules_file_in(options)
    present = {rule.meaning for rule in parse_rules("\n".join(lines), str(file))}
    for rule in parsed:
        if rule.meaning not in present:
            present.add(rule.meaning)
            lines.append(rule.text)
    write_rules(file, lines)


@acls.command()
@click.argument("rules", nargs=-1, required=True)
@which_options
def remove(rules: tuple[str, ...], http: Address | None, **options: Any) -> None:
    """Take RULES, each one word to the shell, out of those of a server or the rules file."""
    parsed = [parse_rule(text, "the rule") for text in rules]
    if http is not None:
        rest = RestShore(http)
        for rule in parsed:
            rest.delete("access", "rules", rule.canonical)
        return
    file, lines = rules_file_in(options)
    for rule in parsed:
        kept = [
            line
            for line in lines
            if rule.meaning not in [one.meaning for one in parse_rules(line, "")]
        ]
        if len(kept) == len(lines):
            raise click.ClickException(f"{file} has no rule {rule.text}")
        lines = kept
    write_rules(file, lines)


def rules_file_in(options: dict[str, Any]) -> tuple[Path, list[str]]:
    """Return the rules file and its lines. Raises ConfigError."""
    settings = sources_from(http=None, **options).read().settings.access
    if not settings.rules_file:
        raise ConfigError("access.rules_file names no file that rules could be written to")
    file = Path(settings.rules_file)
    text = text_in(file)
    parse_rules(text, str(file))  # a file that the server would not take is to be mended first
    return file, text.rstrip("\n").split("\n") if text else []


def write_rules(file: Path, lines: list[str]) -> None:
    """Write the rules file anew. Raises ConfigError."""
    replace_file(file, "".join(f"{line}\n" for line in lines))


def offline(options: dict[str, Any]) -> tuple[Access, Callable[[str], Iterable[str]]]:
    """Return the rules that `serve` would have, and what says in which groups a user is.

    Raises ConfigError.
    """
    from isthmus.server.rules import ConfiguredRules

    settings = sources_from(http=None, **options).read().settings
    access = ConfiguredRules(settings.access).access
    users = users_in_file(settings.authentication.users_file)
    directory = Path(settings.storage.local.directory)
    if directory.is_dir():
        try:
            store = DirectoryStore(directory, settings.authentication.iterations)
        except ConfigError as error:  # a server has it open, say
            click.echo(f"not looked at: rules and users of the server: {error}", err=True)
        else:
            store.put_in_force(access)
            users = {**store.users(), **users}
            store.close()
    return access, lambda name: users[name].groups if name in users else ()


def users_in_file(users_file: str) -> dict[str, User]:
    """Return the users of the file. Raises ConfigError."""
    from isthmus.broker.users import parse_users
    from isthmus.server.renewal import WatchedFile

    users: dict[str, User] = {}
    if users_file:
        WatchedFile("authentication.users_file", users_file, parse_users).serve(users.update)
    return users
