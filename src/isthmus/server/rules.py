"""The rules of access as they are configured: those of the settings, and those of a file.

SIGHUP has both read again, and the file is when it changes. What is wrong with one of them is a
ConfigError at the start, a log line later; then the rules of before stay in force.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from isthmus.broker.access import Access
from isthmus.broker.access_rules import parse_rule, parse_rules
from isthmus.server.renewal import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.access_rules import Rule
    from isthmus.config import AccessSettings, Settings


class ConfiguredRules:
    """All rules that are configured; `access` has them in force."""

    def __init__(self, settings: AccessSettings) -> None:
        """Read them. Raises ConfigError for what is no rule, or a file that cannot be read."""
        self.access = Access()
        self.watched: list[WatchedFile[list[Rule]]] = []
        self._settings = settings
        self._own = own_rules(settings)
        self._listed: list[Rule] = []
        if settings.rules_file:
            file = WatchedFile("access.rules_file", settings.rules_file, parse_rules)
            self.watched.append(file)
            file.serve(self._use_listed)
        else:
            self._put_in_force()

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Return what puts other settings in force, but for the name of the file.

        Raises ConfigError.
        """
        return partial(self._use_own, settings.access, own_rules(settings.access))

    def _use_own(self, settings: AccessSettings, own: list[Rule]) -> None:
        self._settings = settings
        self._own = own
        self._put_in_force()

    def _use_listed(self, listed: list[Rule]) -> None:
        self._listed = listed
        self._put_in_force()

    def _put_in_force(self) -> None:
        rules = [*self._own, *self._listed]
        default, names = self._default(), self._settings.super_users
        self.access.replace(rules, default=default, super_users=names)

    def _default(self) -> bool | None:
        """Return the verdict on what no rule speaks of; None: it depends on rules to come."""
        settings = self._settings
        if settings.default == "auto":
            return False if settings.rules or self.watched else None
        return settings.default == "allow"


def own_rules(settings: AccessSettings) -> list[Rule]:
    """Read the rules of the settings. Raises ConfigError."""
    return [
        parse_rule(text, f"access.rules[{number}]")
        for number, text in enumerate(settings.rules)
    ]
