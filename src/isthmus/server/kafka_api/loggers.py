"""Levels of the server's loggers, as Kafka's admin clients change them [KIP-412].

The names are those of the server's modules, and `root` for all that have no level of their
own. A level holds until the server ends. What Kafka calls FATAL and TRACE is here what Python's
logging has nearest: CRITICAL, and below DEBUG.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from isthmus.errors import ConfigInvalid
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.log_topics import RequestRefused

ROOT: Final = "root"
PACKAGE: Final = "isthmus"
TRACE: Final = 5
LEVELS: Final = {  # from the highest to the lowest
    "FATAL": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "TRACE": TRACE,
}
SET, DELETE = 0, 1


def loggers() -> dict[str, logging.Logger]:
    """Return the server's loggers by name."""
    known = logging.root.manager.loggerDict
    found = {
        name: logger
        for name, logger in sorted(known.items())
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == PACKAGE
    }
    return {ROOT: logging.root, **found}


def levels() -> dict[str, str]:
    """Return the level that holds for each logger."""
    return {name: _name_of(logger.getEffectiveLevel()) for name, logger in loggers().items()}


def _name_of(level: int) -> str:
    """Return the name of the least level that is no lower."""
    return min(
        (one for one in LEVELS if LEVELS[one] >= level), key=LEVELS.__getitem__, default="FATAL"
    )


def alter_levels(configs: list[dict[str, Any]], *, is_dry: bool) -> None:
    """Change levels, all or none. Raises RequestRefused, ConfigInvalid."""
    known = loggers()
    for one in configs:
        name, value, operation = one["name"], one["value"], one["config_operation"]
        if operation not in (SET, DELETE):
            raise RequestRefused(
                ErrorCode.INVALID_REQUEST, "a level is set, or goes; nothing is appended to it"
            )
        if name not in known:
            raise ConfigInvalid(f"there is no logger {name}")
        if operation == DELETE and name == ROOT:
            raise RequestRefused(ErrorCode.INVALID_REQUEST, "the root logger keeps its level")
        if operation == SET and value not in LEVELS:
            raise ConfigInvalid(f"{name}={value}: must be one of {', '.join(LEVELS)}")
    if is_dry:
        return
    for one in configs:
        is_set = one["config_operation"] == SET
        known[one["name"]].setLevel(LEVELS[one["value"]] if is_set else logging.NOTSET)
