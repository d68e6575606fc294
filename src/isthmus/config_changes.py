"""Which settings have changed that a server takes only when it starts.

For SIGHUP, so that nobody believes in a change that is not there. What is taken while the
server runs stands in `TAKEN`; whoever gives a part of it new settings adds their names.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from isthmus.config_listeners import (
    LIMITS,
    HttpLimits,
    KafkaLimits,
    MqttLimits,
    TlsOptions,
)
from isthmus.config_sources import FIELDS, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.config import Settings

TAKEN: Final = frozenset(
    (
        *("access.default", "access.rules"),
        *(f"mqtt.flapping_{what}" for what in ("connects_max", "window_s", "ban_s")),
        *(f"mqtt.authentication_{what}" for what in ("failures_max", "window_s", "ban_s")),
        *(
            f"{section}.{key}"
            for section, kind in (
                ("mqtt", MqttLimits),
                ("kafka", KafkaLimits),
                ("http", HttpLimits),
            )
            for key in kind.__struct_fields__
        ),
        *(f"tls.{key}" for key in TlsOptions.__struct_fields__),
        *(
            name
            for name in FIELDS
            if name.startswith("authentication.")
            and not name.startswith("authentication.delegation_tokens.")
        ),
    )
)
"""What a running server takes, of a listener's table, too."""


def needing_restart(begun: Settings, new: Settings) -> list[str]:
    """Return the names of those that differ and are not taken."""
    found: dict[str, None] = {}
    for name in FIELDS:
        before, after = (value_of(settings, name) for settings in (begun, new))
        if before == after or name in TAKEN:
            continue
        if table_of(FIELDS[name].kind) in LIMITS and len(before) == len(after):
            found |= dict.fromkeys(of_listeners(name, before, after, found))
        else:
            found[name] = None
    return list(found)


def of_listeners(
    name: str, before: tuple[Any, ...], after: tuple[Any, ...], known: dict[str, None]
) -> Iterator[str]:
    """List what differs in the tables of listeners, but for what their section says."""
    section = name.partition(".")[0]
    for number, pair in enumerate(zip(before, after, strict=True)):
        for key in pair[0].__struct_fields__:
            one, other = (getattr(listener, key) for listener in pair)
            above = f"{section}.{key}"
            is_taken = key == "tls" or above in TAKEN
            if one != other and not is_taken and above not in known:
                yield f"{name}[{number}].{key}"


def value_of(settings: Settings, name: str) -> Any:
    """Return the value of a setting by its dotted name."""
    return reduce(getattr, name.split("."), settings)
