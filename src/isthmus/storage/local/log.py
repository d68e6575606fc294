"""The local engine: all log topics of one server, in one directory of files.

    DIR/meta.properties  LOCK  isthmus-catalog  recovery-point-offset-checkpoint
    DIR/journal/0.wal ...
    DIR/<log topic>-<partition>/00000000000000000000.log  .index  .timeindex
                                leader-epoch-checkpoint  partition.metadata  <offset>.snapshot

Everything but the catalog and the journal is Apache Kafka's own layout and format. Opening
means: lock, read the catalog, remove the mark of a clean end; where there is none replay the
journal (replay.py); load each partition (recovery.py). Closing is the other way round. In
between, `flush` once per turn writes what was appended, sync.py makes it durable, and sweep.py
bounds what a restart would have to check.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from isthmus.errors import (
    ConfigError,
    ConfigInvalid,
    LogClosed,
    QuotaExceeded,
    StorageError,
    SyncFailed,
    TopicExists,
    TopicUnknown,
)
from isthmus.storage.local.catalog import Catalog, CatalogTopic
from isthmus.storage.local.checkpoints import (
    CLEAN_SHUTDOWN,
    CLEAN_SHUTDOWN_FILE,
    PARTITION_METADATA_FILE,
    format_partition_metadata,
    id_text,
    parse_partition_metadata,
)
from isthmus.storage.local.compaction import INTERVAL_MS as COMPACTION_MS
from isthmus.storage.local.compaction import Compactor
from isthmus.storage.local.directory import DataDirectory
from isthmus.storage.local.expiry import INTERVAL_MS as EXPIRY_MS
from isthmus.storage.local.expiry import expire_producers
from isthmus.storage.local.files import Files, storage_error
from isthmus.storage.local.partition import LocalPartition
from isthmus.storage.local.recovery import load_partition
from isthmus.storage.local.replay import Replay, Target
from isthmus.storage.local.retention import Retention
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.local.shared import Shared
from isthmus.storage.measures import LogMeasures
from isthmus.storage.names import LOG_TOPIC_BYTES_MAX, check_log_topic
from isthmus.storage.topic_configs import TopicConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from isthmus.runtime import Runtime

_DELETED: Final = "-delete"  # ends the name of a directory that is being removed, as in Kafka
_STRAY: Final = "-stray"  # one that belongs to a log topic nobody knows

logger = logging.getLogger(__name__)


class LocalTopic:
    """A log topic and its partitions."""

    __slots__ = ("config", "entry", "partitions")

    def __init__(self, entry: CatalogTopic, config: TopicConfig) -> None:
        self.entry = entry
        self.config = config
        self.partitions: list[LocalPartition] = []

    @property
    def name(self) -> str:
        """The name of the log topic."""
        return self.entry.name

    @property
    def topic_id(self) -> bytes:
        """16 bytes, never reused."""
        return self.entry.topic_id

    @property
    def configs(self) -> Mapping[str, str]:
        """The settings that were set."""
        return self.entry.configs


class LocalLog:
    """All log topics of one server; constructing it opens the directory.

    Raises ConfigError where the directory cannot be used, StorageError where a file cannot.
    """

    def __init__(
        self,
        directory: Path,
        runtime: Runtime,
        files: Files | None = None,
        settings: LocalSettings | None = None,
    ) -> None:
        self._files = files or Files()
        self._runtime = runtime
        self._settings = settings or LocalSettings()
        self.topic_defaults: Mapping[str, str] = self._settings.topic_defaults
        self._shared = Shared(runtime, self._files, self._settings, directory)
        self._topics: dict[str, LocalTopic] = {}
        self._catalog = Catalog(self._files, directory)
        self._directory = DataDirectory(self._files, directory)
        self._directory.open(runtime, self._settings.node_id)
        self._unsynced: list[tuple[Path, int]] = []  # found when the log is opened
        self._unsynced_directories: list[Path] = []
        self._closed = False
        try:
            self._open()
        except OSError as error:
            self._abandon()
            raise storage_error(error, f"{directory} was not opened") from error
        except ConfigError:
            self._abandon()
            raise
        self._compactor = Compactor(self._shared)
        housekeeping = self._shared.housekeeping
        housekeeping.add(
            "retention", Retention(self._shared).run, self._settings.retention_check_ms
        )
        housekeeping.add("compaction", self._compactor.run, COMPACTION_MS)
        housekeeping.add("expiry", partial(expire_producers, self._shared), EXPIRY_MS)
        housekeeping.start()

    @property
    def cluster_id(self) -> str:
        """The cluster that the data belongs to, as 22 characters."""
        return self._directory.cluster_id

    @property
    def directory(self) -> str:
        """Absolute path of the data directory."""
        return str(self._directory.path.absolute())

    @property
    def error(self) -> StorageError | None:
        """Why no records are accepted any more."""
        return self._shared.error

    @property
    def trouble(self) -> StorageError | None:
        """Why records are refused just now, for good or for a while."""
        return self.error or self._shared.trouble.error

    @property
    def topics(self) -> Mapping[str, LocalTopic]:
        """Log topics by name."""
        return self._topics

    def partition(self, name: str, index: int) -> LocalPartition | None:
        """Return one partition, or None where it is not known."""
        topic = self._topics.get(name)
        if topic is None or not 0 <= index < len(topic.partitions):
            return None
        return topic.partitions[index]

    def volume(self) -> tuple[int, int]:
        """Return (total, usable) bytes of the file system. Raises StorageError."""
        try:
            return self._files.volume(self._directory.path)
        except OSError as error:
            raise storage_error(error, f"the room of {self._directory.path}") from error

    def measures(self) -> LogMeasures:
        """Return what was counted so far."""
        shared = self._shared
        return LogMeasures(
            written_bytes=shared.written_bytes,
            journal_bytes=shared.journal.written_bytes,
            syncs=shared.syncer.seconds,
            failed_syncs=shared.syncer.failures,
            refused_writes=shared.trouble.refused_writes,
            disk_reads=shared.loaded.reads,
            disk_read_bytes=shared.loaded.read_bytes,
            compactions=self._compactor.compactions,
            compaction_read_bytes=self._compactor.read_bytes,
            compaction_kept_bytes=self._compactor.kept_bytes,
            unchecked_bytes=shared.sweeper.unchecked_bytes,
        )

    def flush(self) -> None:
        """Write what was appended since the last call and begin to sync it."""
        touched, self._shared.touched = self._shared.touched[::-1], []
        try:
            while touched:
                touched.pop().commit()
        finally:
            self._shared.touched += touched  # a bug in one ticket must not stop the others
            self._shared.syncer.start()
            self._shared.sweeper.start()

    # --- log topics ---------------------------------------------------------------------------

    def create(self, name: str, partitions: int, configs: Mapping[str, str]) -> LocalTopic:
        """Create a log topic; it is on the disk when this returns."""
        self._check_open()
        check_log_topic(name)
        if name in self._topics:
            raise TopicExists(f"log topic {name} exists")
        if partitions < 1:
            raise ConfigInvalid(f"a log topic has at least one partition, not {partitions}")
        self._check_room(partitions)
        config = TopicConfig(configs, self.topic_defaults)
        entry = CatalogTopic(name, self._new_id(), partitions, dict(configs))
        topic = LocalTopic(entry, config)
        self._catalog.topics[entry.topic_id] = entry
        try:
            self._save_catalog()
            try:
                self._claim_directories(topic, is_new=True)
                self._load_partitions(topic, {}, clean=True)
            except OSError:
                self._forget(entry)
                raise
        except OSError as error:
            self._catalog.topics.pop(entry.topic_id, None)
            raise self._refusal(error, f"log topic {name} was not created") from error
        self._topics[name] = topic
        return topic

    def add_partitions(self, name: str, count: int) -> None:
        """Grow a log topic to `count` partitions."""
        topic = self._topic(name)
        before = topic.entry.partitions
        if count <= before:
            raise ConfigInvalid(f"{name} has {before} partitions, {count} asked")
        self._check_room(count - before)
        topic.entry.partitions = count
        try:
            self._save_catalog()
            try:
                self._claim_directories(topic, is_new=True)
                self._load_partitions(topic, {}, clean=True)
            except OSError:
                topic.entry.partitions = len(topic.partitions)
                self._correct_catalog(topic.entry)
                raise
        except OSError as error:
            topic.entry.partitions = len(topic.partitions)
            raise self._refusal(error, f"{name} was not given more partitions") from error

    def configure(self, name: str, configs: Mapping[str, str]) -> None:
        """Replace the settings of a log topic."""
        topic = self._topic(name)
        config = TopicConfig(configs, self.topic_defaults)
        before = topic.entry.configs
        topic.entry.configs = dict(configs)
        try:
            self._save_catalog()
        except OSError as error:
            topic.entry.configs = before
            raise self._refusal(error, f"the settings of {name} were not kept") from error
        topic.config = config
        for partition in topic.partitions:
            partition.configure(config)

    def set_topic_defaults(self, defaults: Mapping[str, str]) -> None:
        """Give other defaults to all log topics; whoever sets them keeps them."""
        self.topic_defaults = dict(defaults)
        for topic in self._topics.values():
            topic.config = TopicConfig(topic.entry.configs, self.topic_defaults)
            for partition in topic.partitions:
                partition.configure(topic.config)

    def delete(self, name: str) -> None:
        """Delete a log topic; its files go in the background."""
        topic = self._topic(name)
        entry = topic.entry
        entry.deleting = True
        try:
            self._save_catalog()
        except OSError as error:
            entry.deleting = False
            raise self._refusal(error, f"log topic {name} was not deleted") from error
        del self._topics[name]
        gone = TopicUnknown(f"log topic {name} was deleted")
        for partition in topic.partitions:
            self._shared.partitions.pop(partition, None)
            self._compactor.abandon(partition)
            self._shared.recovery_points.forget(partition)
            partition.close(gone)
        aside = []
        for index in range(entry.partitions):
            path = self._path(name, index)
            try:
                aside.append(self._set_aside(path, _DELETED))
            except OSError as error:
                logger.warning("%s was not set aside: %s", path, error)
        self._sync_names()  # before a log topic of this name can come, or a file can go
        self._shared.removals.remove_directories(aside, lambda: self._forget(entry))

    def _set_aside(self, path: Path, suffix: str) -> Path:
        """Give a directory a name that no partition has, so that its name is free.

        It is fine if it is gone. Raises OSError.
        """
        mark = f".{self._runtime.random_bytes(16).hex()}{suffix}"
        target = path.with_name(path.name[: 255 - len(mark)] + mark)
        with suppress(FileNotFoundError):
            self._files.rename(path, target)
        return target

    def _sync_names(self) -> None:
        """Return once the names in the data directory are on the disk. Raises SyncFailed."""
        try:
            self._files.sync_directory(self._directory.path)
        except OSError as error:
            failure = SyncFailed(
                f"{self._directory.path} was not synced: {error.strerror or error}"
            )
            self._shared.fail(failure)
            raise failure from error

    def _forget(self, entry: CatalogTopic) -> None:
        """Take a log topic out of the catalog, at the next start if it cannot be now."""
        entry.deleting = True
        del self._catalog.topics[entry.topic_id]
        self._correct_catalog(entry)

    def _correct_catalog(self, entry: CatalogTopic) -> None:
        """Write that something did not come about, or is over."""
        try:
            self._save_catalog()
        except (OSError, SyncFailed) as error:
            logger.warning("%s stays as it was in the catalog: %s", entry.name, error)

    def _save_catalog(self) -> None:
        """Keep the catalog. Raises OSError; or SyncFailed, and that is the end of writing."""
        try:
            self._catalog.save()
        except SyncFailed as error:
            self._shared.fail(error)
            raise

    def _refusal(self, error: OSError, what: str) -> StorageError:
        """Return what is raised where the catalog could not be written."""
        return self._shared.trouble.found(error, what)

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosed("the log is closed")
        if self.error is not None:
            raise self.error.with_traceback(None)

    def _check_room(self, more: int) -> None:
        limit = self._settings.partitions_max
        if len(self._shared.partitions) + more > limit:
            raise QuotaExceeded(f"the limit of {limit} partitions is reached")

    def _topic(self, name: str) -> LocalTopic:
        self._check_open()
        topic = self._topics.get(name)
        if topic is None:
            raise TopicUnknown(f"no log topic {name}")
        return topic

    def _new_id(self) -> bytes:
        """Return an id that was never used; none that begins with `-`, as Kafka wishes."""
        while True:
            topic_id = self._runtime.random_bytes(16)
            if topic_id not in self._catalog.topics and not id_text(topic_id).startswith("-"):
                return topic_id

    # --- opening and closing ------------------------------------------------------------------

    def _open(self) -> None:
        """Load everything that the directory holds. Raises OSError, ConfigError."""
        path = self._directory.path
        known = self._catalog.load()
        mark = path / CLEAN_SHUTDOWN_FILE
        starts = self._shared.start_offsets.load()
        clean = not known or self._files.exists(mark)
        if not known:
            self._catalog.save()
        elif clean:
            self._files.remove(mark)
            self._files.sync_directory(path)
        else:
            logger.warning("%s was not closed: what was written last is checked", path)
            self._catalog.leader_epoch += 1
            self._catalog.save()
        self._shared.recovery_points.load()
        self._finish_deletions()
        journal = self._shared.journal.load()
        for entry in self._catalog.topics.values():
            try:
                config = TopicConfig(entry.configs, self.topic_defaults)
            except ConfigInvalid as error:
                raise ConfigError(
                    f"log topic {entry.name} cannot be opened: {error}"
                ) from error
            self._topics[entry.name] = topic = LocalTopic(entry, config)
            self._claim_directories(topic, is_new=False)
        if not clean:
            Replay(self._files, self._targets()).run(journal)
        for topic in self._topics.values():
            self._load_partitions(topic, starts, clean=clean)
        self._sync_found()
        for partition in self._shared.partitions:
            self._shared.removals.take_out(partition)
        if not clean:
            # All that was found is on the disk. So say, or an old recovery point might be
            # beyond what was lost, and old copies be taken for what is written from here on.
            self._shared.recovery_points.write(self._shared.recovery_points.copy())
            self._shared.journal.invalidate()

    def _targets(self) -> dict[tuple[bytes, int], Target]:
        """Return the partitions that copies in the journal may belong to."""
        return {
            (entry.topic_id, index): Target(
                self._path(entry.name, index),
                self._shared.recovery_points.found(entry.topic_id, index),
            )
            for entry in self._catalog.topics.values()
            for index in range(entry.partitions)
        }

    def _finish_deletions(self) -> None:
        """Remove what the last server did not come to remove. Raises OSError."""
        entries = self._catalog.topics.values()
        deleting = [entry for entry in entries if entry.deleting]
        living = {entry.name for entry in entries if not entry.deleting}
        for entry in deleting:
            for index in range(entry.partitions):
                path = self._path(entry.name, index)
                owner = self._owner(path)
                if owner == entry.topic_id or (owner is None and entry.name not in living):
                    self._set_aside(path, _DELETED)
            del self._catalog.topics[entry.topic_id]
        if deleting:
            self._files.sync_directory(self._directory.path)  # before files in it go
        for name in self._files.names(self._directory.path):
            if name.endswith(_DELETED):
                self._files.remove_tree(self._directory.path / name)
        if deleting:
            self._catalog.save()

    def _load_partitions(
        self, topic: LocalTopic, starts: Mapping[tuple[bytes, int], int], *, clean: bool
    ) -> None:
        """Load the partitions that the catalog has and `topic` lacks. Raises OSError."""
        entry, points = topic.entry, self._shared.recovery_points
        for index in range(len(topic.partitions), entry.partitions):
            path = self._path(entry.name, index)
            saved = points.found(entry.topic_id, index)
            loaded = load_partition(
                self._shared,
                path,
                topic.config,
                leader_epoch=self._catalog.leader_epoch,
                synced_offset=saved,
                start_offset=starts.get((entry.topic_id, index), 0),
                clean=clean,
            )
            self._unsynced += loaded.unsynced
            self._unsynced_directories += loaded.unsynced_directories
            # After an unclean end the file is written before anything is accepted.
            loaded.recovery_point = loaded.end_offset
            if clean:
                loaded.recovery_point = min(saved, loaded.end_offset)
            partition = LocalPartition(
                self._shared, entry.name, entry.topic_id, index, topic.config, loaded
            )
            topic.partitions.append(partition)
            self._shared.partitions[partition] = None
            points.add(partition)
            self._shared.removals.remove_files(loaded.leftovers, 0)

    def _sync_found(self) -> None:
        """Sync what was found and may not be on the disk. Raises OSError."""
        stretches, self._unsynced = self._unsynced, []
        directories, self._unsynced_directories = self._unsynced_directories, []
        if stretches or directories:
            self._files.settle_all(stretches, directories)

    def _claim_directories(self, topic: LocalTopic, *, is_new: bool) -> None:
        """Make sure of the directories of partitions to be loaded. Raises OSError."""
        for index in range(len(topic.partitions), topic.entry.partitions):
            self._claim(self._path(topic.name, index), topic.topic_id, is_new=is_new)

    def _claim(self, path: Path, topic_id: bytes, *, is_new: bool) -> None:
        """Make sure of a partition's directory. Raises OSError.

        One that does not say whose it is has lost that in a power cut, and is taken for the
        partition's, unless that is new.
        """
        if self._files.exists(path):
            owner = self._owner(path)
            if owner == topic_id:
                return
            if is_new or owner is not None:
                stray = self._set_aside(path, _STRAY)
                logger.warning("%s belongs to no log topic known: now %s", path, stray.name)
        self._files.make_directory(path)
        self._files.write_file(
            path / PARTITION_METADATA_FILE, format_partition_metadata(topic_id), sync=False
        )

    def _owner(self, path: Path) -> bytes | None:
        """Return the id of the log topic that a directory belongs to, None where unsaid."""
        try:
            data = self._files.read_file(path / PARTITION_METADATA_FILE)
            return None if data is None else parse_partition_metadata(data)
        except ValueError:
            return None

    def _path(self, name: str, index: int) -> Path:
        assert len(name) <= LOG_TOPIC_BYTES_MAX
        return self._directory.path / f"{name}-{index}"

    def _abandon(self) -> None:
        """Opening failed: let go of everything."""
        for partition in self._shared.partitions:
            partition.close(LogClosed("the log was not opened"))
        self._shared.sweeper.stop()
        self._directory.close()

    def close(self) -> None:
        """Make all durable, write the mark of a clean end, let go of the directory."""
        if self._closed:
            return
        self._shared.housekeeping.close()
        self._compactor.close()
        self.flush()
        self._closed = True
        self._shared.mender.close()
        partitions = list(self._shared.partitions)
        self._shared.syncer.finish()
        for partition in partitions:
            partition.ask_last_sweep()
        self._shared.sweeper.finish()
        self._shared.trouble.close()
        self._shared.start_offsets.fail(self.error or LogClosed("the log is closed"))
        clean = self.error is None and all(partition.is_settled for partition in partitions)
        for partition in partitions:
            partition.close(self.error or LogClosed("the log is closed"))
        self._mark_end(clean=clean)
        self._directory.close()

    def _mark_end(self, *, clean: bool) -> None:
        mark = self._directory.path / CLEAN_SHUTDOWN_FILE
        try:
            self._shared.journal.close(clean=clean)
            if clean:
                self._files.replace(mark, CLEAN_SHUTDOWN)
        except OSError as error:
            logger.warning("the next start will check everything: %s", error)
