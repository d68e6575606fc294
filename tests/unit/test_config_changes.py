"""Which settings need a restart, as SIGHUP names them."""

from __future__ import annotations

import pytest

from isthmus.config_changes import TAKEN, needing_restart
from isthmus.config_sources import FIELDS, Sources

TWO = "mqtt.listeners=tcp://127.0.0.1:1,tcp://127.0.0.1:2"
TLS = "mqtt.listeners=[{address='tls://127.0.0.1:1', tls={certificate='%s'}}]"


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ([], [], []),
        ([], ["mqtt.connections_max=5", "kafka.connections_max=5"], []),
        ([], ["mqtt.sessions_max=5"], ["mqtt.sessions_max"]),
        ([], ["storage.local.retention_s=5"], ["storage.local.retention_s"]),
        ([], ["mqtt.authentication=['users']", "kafka.allow_anonymous=true"], []),
        ([], ["http.authentication=['users']"], ["http.authentication"]),
        ([], ["authentication.users_file=a", "authentication.jwt.issuer=b"], []),
        (
            [],
            ["authentication.delegation_tokens.expiry_s=5"],
            ["authentication.delegation_tokens.expiry_s"],
        ),
        ([], ["mqtt.flapping_connects_max=5", "access.default=deny"], []),
        ([], [TWO], ["mqtt.listeners"]),
        (
            ["mqtt.listeners=[{address='tcp://127.0.0.1:1', connections_max=1}]"],
            ["mqtt.listeners=[{address='tcp://127.0.0.1:1', connections_max=2}]"],
            [],
        ),
        ([TLS % "a"], [TLS % "b"], []),
        ([], ["tls.user_mapping=['DEFAULT']", "tls.reload_check_s=5"], ["tls.reload_check_s"]),
        (
            ["http.listeners=[{address='tcp://127.0.0.1:1', name='a'}]"],
            ["http.listeners=[{address='tcp://127.0.0.1:1', name='b'}]"],
            ["http.listeners[0].name"],
        ),
        ([], ["log.level=debug"], ["log.level"]),
    ],
)
def test_what_is_not_taken_is_named(
    before: list[str], after: list[str], named: list[str]
) -> None:
    begun, new = (Sources(assignments=each).read().settings for each in (before, after))
    assert needing_restart(begun, new) == named


def test_what_is_taken_are_settings() -> None:
    assert set(FIELDS) >= TAKEN
