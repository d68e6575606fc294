"""The list of log topics: names, ids, partitions, settings; and the epoch of this server.

One small file, replaced as a whole with every change, so that a crash leaves the old list or
the new one. The first line carries version and CRC-32C of the rest, which is JSON. Creating a
log topic writes the catalog first and makes directories after; deleting marks the log topic
first, then removes directories, then forgets it. So a crash never leaves a directory that
nobody knows, and what was deleted does not come back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import ConfigError, SyncFailed
from isthmus.storage.local.checkpoints import id_text, parse_id
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.storage.local.files import Files

CATALOG_FILE: Final = "isthmus-catalog"
_VERSION: Final = 1


class CatalogDamaged(ConfigError):
    """The catalog is not what was written; `why` is a part of a sentence."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is damaged ({why}): the log topics it lists cannot be opened; put back a "
            "copy of this file, or let `isthmus log repair` make it from the directories"
        )
        self.why = why


@dataclass(slots=True)
class CatalogTopic:
    """One log topic as the catalog knows it."""

    name: str
    topic_id: bytes
    partitions: int
    configs: dict[str, str] = field(default_factory=dict)
    deleting: bool = False


class Catalog:
    """All log topics by id, and the leader epoch that grows with every unclean start."""

    __slots__ = ("_files", "_path", "leader_epoch", "topics")

    def __init__(self, files: Files, directory: Path) -> None:
        self.leader_epoch = 0
        self.topics: dict[bytes, CatalogTopic] = {}
        self._files = files
        self._path = directory / CATALOG_FILE

    def load(self) -> bool:
        """Read the file; False where there is none.

        Raises OSError, CatalogDamaged, ConfigError for the catalog of a newer version.
        """
        data = self._files.read_file(self._path)
        if data is None:
            return False
        try:
            head, _, body = data.partition(b"\n")
            fields = head.decode("ascii", "replace").split()
            if len(fields) != 3:
                raise ValueError("its first line is not that of a catalog")
            name, version, crc = fields
            if name != CATALOG_FILE or int(crc, 16) != crc32c(body):
                raise ValueError("its first line does not fit the rest")
            if int(version) != _VERSION:
                raise ConfigError(
                    f"{self._path} has version {version}, this Isthmus knows {_VERSION}: "
                    "the data is of a newer one, which must open it"
                )
            self._parse(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            raise CatalogDamaged(self._path, str(error)) from error
        return True

    def save(self) -> None:
        """Replace the file; it is on the disk when this returns.

        Raises OSError, then the old content stands; or SyncFailed, then nobody knows.
        """
        topics = [
            {
                "name": topic.name,
                "id": id_text(topic.topic_id),
                "partitions": topic.partitions,
                "configs": topic.configs,
                "deleting": topic.deleting,
            }
            for topic in self.topics.values()
        ]
        content = {"leader_epoch": self.leader_epoch, "topics": topics}
        body = (json.dumps(content, indent=1) + "\n").encode()
        head = f"{CATALOG_FILE} {_VERSION} {crc32c(body):08x}\n".encode()
        self._files.exchange(self._path, head + body)
        try:
            self._files.sync_directory(self._path.parent)
        except OSError as error:
            raise SyncFailed(f"{self._path} was not synced: {error.strerror}") from error

    def _parse(self, content: dict[str, Any]) -> None:
        self.leader_epoch = int(content["leader_epoch"])
        for row in content["topics"]:
            topic = CatalogTopic(
                str(row["name"]),
                parse_id(row["id"]),
                int(row["partitions"]),
                {str(key): str(value) for key, value in row["configs"].items()},
                deleting=bool(row["deleting"]),
            )
            self.topics[topic.topic_id] = topic
