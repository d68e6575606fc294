"""Mosquitto's own plugins, for what Isthmus does itself: the options that they stand for.

From 2.1 on the files of users and rules may be named to plugins, and what is kept in a
database, or Sparkplug, has one, too. `plugin PATH` loads and uses one; `plugin_load NAME PATH`
loads one that listeners choose later, by `plugin_use NAME`. The `plugin_opt_` lines behind
either are of that plugin. All other plugins pass as they are, and are lost.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.cli.mosquitto_conf import Line

OPTION: Final = "plugin_opt_"
OF_FILES: Final = {
    "mosquitto_password_file": "password_file",
    "mosquitto_acl_file": "acl_file",
}
"""Plugins by the one option they have, which the server has by the same name."""
OF_SERVER: Final = frozenset({"mosquitto_persist_sqlite", "mosquitto_sparkplug_aware"})
"""Plugins that are an option of the whole server, with settings that mean nothing here."""


def without_plugins(lines: Iterable[Line]) -> list[Line]:
    """Return the lines, those of plugins that are known replaced by what they stand for."""
    found: list[Line] = []
    loaded: dict[str, list[Line]] = {}
    plugin, place = "", found  # whose options follow, and where what they stand for goes
    for line in lines:
        if line.option in ("plugin", "auth_plugin", "global_plugin"):
            plugin, place = known(line.value), found
        elif line.option == "plugin_load":
            name, _, path = line.value.partition(" ")
            plugin = known(path)
            place = loaded.setdefault(name, []) if plugin else found
        elif line.option == "plugin_use" and line.value in loaded:
            found += loaded[line.value]
            continue
        elif line.option.startswith(OPTION) and plugin:
            option = line.option.removeprefix(OPTION)
            if OF_FILES.get(plugin) == option:
                place.append(line._replace(option=option))
            continue
        else:
            found.append(line)
            continue
        if plugin in OF_SERVER:
            found.append(line._replace(option=plugin))
        elif not plugin:
            found.append(line)
    return found


def known(path: str) -> str:
    """Return the name of a plugin that is known here, or nothing."""
    name = PurePath(path.strip()).stem
    return name if name in OF_FILES or name in OF_SERVER else ""
