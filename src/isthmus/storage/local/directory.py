"""The data directory as a whole: is it ours, is it free, whose is it?

An empty or missing directory is made ready; one that holds anything else is refused before a
byte is written. `LOCK` is held as long as the log is open, so two servers never share one
directory; `meta.properties` says, in Kafka's own form, to which cluster the data belongs.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from isthmus.errors import ConfigError
from isthmus.storage.local.catalog import CATALOG_FILE
from isthmus.storage.local.checkpoints import (
    META_PROPERTIES_FILE,
    format_properties,
    id_text,
    parse_properties,
)

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.runtime import Runtime
    from isthmus.storage.local.files import Files

LOCK_FILE: Final = "LOCK"
_LOCK_OF_KAFKA: Final = ".lock"
_ADVICE: Final = {  # by what the operating system says
    errno.ENOENT: "make the directory above it, or give another with --data",
    errno.ENOTDIR: "there is a file in its place; give another with --data",
    errno.EEXIST: "there is something else in its place; give another with --data",
    errno.EACCES: "mend its permissions, or give another with --data",
    errno.EPERM: "mend its permissions, or give another with --data",
    errno.EROFS: "mount it for writing, or give another with --data",
    errno.ENOSPC: "make room, or give another with --data",
    errno.EDQUOT: "make room, or give another with --data",
}
_BEFORE_READY: Final = frozenset(
    name + suffix
    for name in (LOCK_FILE, CATALOG_FILE, META_PROPERTIES_FILE)
    for suffix in ("", ".tmp")
)


class DataDirectory:
    """The open, locked data directory."""

    __slots__ = ("_files", "_lock", "cluster_id", "path")

    def __init__(self, files: Files, path: Path) -> None:
        self.path = path
        self.cluster_id = ""
        self._files = files
        self._lock = -1

    def open(self, runtime: Runtime, node_id: int) -> None:
        """Lock the directory, making it ready if it is new. Raises ConfigError."""
        try:
            self._make()
            self.lock()
            self._identify(runtime, node_id)
        except OSError as error:
            self.close()
            why = error.strerror or error
            advice = _ADVICE.get(error.errno or 0, "give another with --data")
            raise ConfigError(
                f"the data directory {self.path} cannot be used ({why}): {advice}"
            ) from error
        except ConfigError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the directory."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            self._files.close(lock)

    def _make(self) -> None:
        if not self._files.exists(self.path):
            self._files.make_directory(self.path)
        names = set(self._files.names(self.path))
        if CATALOG_FILE not in names:  # made by this start, or by one that got no further
            self._files.sync_directory(self.path.parent)
        foreign = names - _BEFORE_READY
        lacking = {CATALOG_FILE, META_PROPERTIES_FILE} - names
        if not foreign or not lacking:
            return
        if _LOCK_OF_KAFKA in names and META_PROPERTIES_FILE in names:
            raise ConfigError(
                f"{self.path} belongs to Apache Kafka: give an empty or a new one with --data"
            )
        if LOCK_FILE in names and len(lacking) == 1:
            raise ConfigError(
                f"{self.path} lacks {lacking.pop()}: put back a copy of this file, or let "
                "`isthmus log repair` make it from what is there"
            )
        raise ConfigError(
            f"{self.path} is not empty and is no Isthmus data directory (it holds "
            f"{min(foreign)}): give an empty or a new one with --data"
        )

    def lock(self) -> None:
        """Take the directory for this process. Raises OSError, ConfigError."""
        path = self.path / LOCK_FILE
        self._lock = self._files.open(path, create=True)
        if not self._files.lock(self._lock):
            holder = self._files.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            raise ConfigError(
                f"{self.path} is in use by process {holder or '(unknown)'}: "
                "stop that server, or give another directory with --data"
            )
        self._files.truncate(self._lock, 0)
        self._files.write(self._lock, [f"{self._files.process_id()}\n".encode()], 0)

    def _identify(self, runtime: Runtime, node_id: int) -> None:
        path = self.path / META_PROPERTIES_FILE
        data = self._files.read_file(path)
        if data is None:
            properties = {
                "version": "1",
                "cluster.id": id_text(runtime.random_bytes(16)),
                "node.id": str(node_id),
                "directory.id": id_text(runtime.random_bytes(16)),
            }
            self._files.replace(path, format_properties(properties))
        else:
            try:
                properties = parse_properties(data)
            except ValueError:
                properties = {}
        if not properties.get("cluster.id"):
            raise ConfigError(
                f"{path} names no cluster.id: put back a copy of this file, or let "
                "`isthmus log repair` give the directory a new one"
            )
        self.cluster_id = properties["cluster.id"]
        if properties.get("node.id") != str(node_id):
            raise ConfigError(
                f"{self.path} belongs to node {properties.get('node.id')}, "
                f"this is node {node_id}"
            )
