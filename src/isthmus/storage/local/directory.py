"""The data directory as a whole: is it ours, is it free, whose is it?

An empty or missing directory is made ready; one that holds anything else is refused before a
byte is written. `LOCK` is held as long as the log is open, so two servers never share one
directory; `meta.properties` says, in Kafka's own form, to which cluster the data belongs.
"""

from __future__ import annotations

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
            raise ConfigError(
                f"the data directory {self.path} cannot be used ({error.strerror or error}): "
                "give another with --data, or mend its permissions"
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
        names = self._files.names(self.path)
        if CATALOG_FILE not in names:  # made by this start, or by one that got no further
            self._files.sync_directory(self.path.parent)
        foreign = [name for name in names if name not in _BEFORE_READY]
        if foreign and not {CATALOG_FILE, META_PROPERTIES_FILE} <= set(names):
            raise ConfigError(
                f"{self.path} is not empty and is no Isthmus data directory (it holds "
                f"{foreign[0]}): give an empty or a new one with --data"
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
            properties = parse_properties(data)
        if not properties.get("cluster.id"):
            raise ConfigError(f"{path} names no cluster.id: put back a copy of this file")
        self.cluster_id = properties["cluster.id"]
        if properties.get("node.id") != str(node_id):
            raise ConfigError(
                f"{self.path} belongs to node {properties.get('node.id')}, "
                f"this is node {node_id}"
            )
