"""Regular expressions that clients send, in RE2's dialect as Kafka takes them (ADR 29).

RE2 never backtracks: an expression costs time in proportion to what it is tried on, and no more
memory than it is given here.
"""

from __future__ import annotations

from typing import Any, Final

from isthmus.errors import Refused

COMPILED_BYTES_MAX: Final = 1 << 20


class ExpressionInvalid(Refused):
    """What a client sent is no regular expression, or one too large."""


def compiled(pattern: str) -> Any:
    """Return a compiled expression, with RE2's `fullmatch`. Raises ExpressionInvalid."""
    import re2  # most servers never see one

    options = re2.Options()
    options.log_errors = False
    options.max_mem = COMPILED_BYTES_MAX
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        text = error.args[0].decode(errors="replace") if error.args else ""
        raise ExpressionInvalid(f"{pattern!r} is no regular expression: {text}") from None
