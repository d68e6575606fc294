"""Topic names and filters with a client's names in them: `devices/%c/commands`.

`%c` is the client id, `%u` the name of the user, `%%` a percent sign. A name is put in as it is
and not looked at again, and it is one level or a part of one: what holds a slash or a wildcard
is in no topic name that was meant.
"""

from __future__ import annotations

import re
from typing import Final

MARK: Final = re.compile("%[uc%]")


def filled(template: str, *, user: str, client_id: str) -> str | None:
    """Return the template with the names in it.

    None where one that it asks for is empty or is no part of one level, or where a name would
    make the result one of the server's own, which begin with `$`.
    """
    names = {"%u": user, "%c": client_id, "%%": "%"}
    for mark in set(MARK.findall(template)):
        if not names[mark] or set(names[mark]) & set("+#/"):
            return None
    result = MARK.sub(lambda mark: names[mark[0]], template)
    if result.startswith("$") and not template.startswith("$"):
        return None
    return result
