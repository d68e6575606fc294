"""What stands in the way of a load, in one sentence for whoever started it."""

from __future__ import annotations


class LoadError(Exception):
    """A plan that cannot be, or a server with which no measurement can begin."""
