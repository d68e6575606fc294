"""A disk in memory that forgets what was not synced, tears writes and fails on demand.

It is a `Files`, so the local engine runs on it unchanged. `kill` is the end of a process:
every call that returned has happened. `cut_power` is worse: of the calls since the last sync
of a file, any may have reached the disk, whole, in part or not at all, in any order; of the
changes of names since the last sync of a directory, a prefix has. Both give back a disk with
nothing open.
"""

from __future__ import annotations

import copy
import errno
import os
import random
from typing import TYPE_CHECKING

from isthmus.storage.local.files import Files

if TYPE_CHECKING:
    from pathlib import Path

SECTOR = 512
VOLUME_BYTES = 1 << 40


class File:
    """An inode: its bytes now, its bytes at the last sync, and what happened since."""

    def __init__(self, durable: bytes = b"") -> None:
        self.data = bytearray(durable)
        self.durable = durable
        self.pending: list[tuple[int, bytes | None]] = []  # (position, bytes), or (size, None)

    def sync(self) -> None:
        self.durable = bytes(self.data)
        self.pending.clear()

    def after_power_cut(self, chance: random.Random) -> File:
        data = bytearray(self.durable)
        for position, written in self.pending:
            fate = chance.randrange(4)
            if written is None:
                if fate:
                    _resize(data, position)
                continue
            kept = _tear(written, chance) if fate == 1 else written
            if fate == 0:
                kept = b""
            if fate == 2 or position + len(written) > len(data):
                _resize(data, max(len(data), position + len(kept)))
            data[position : position + len(kept)] = kept
        return File(bytes(data))


class Directory:
    """Names now, names at the last sync, and the changes since."""

    def __init__(self) -> None:
        self.names: dict[str, File | Directory] = {}
        self.durable: dict[str, File | Directory] = {}
        self.pending: list[tuple[str, File | Directory | None]] = []

    def set(self, name: str, node: File | Directory | None) -> None:
        if node is None:
            del self.names[name]
        else:
            self.names[name] = node
        self.pending.append((name, node))

    def sync(self) -> None:
        self.durable = dict(self.names)
        self.pending.clear()

    def after_power_cut(self, chance: random.Random, seen: dict) -> Directory:
        names = dict(self.durable)
        for name, node in self.pending[: chance.randint(0, len(self.pending))]:
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node
        survivor = Directory()
        for name, node in names.items():
            if id(node) not in seen:
                seen[id(node)] = (
                    node.after_power_cut(chance)
                    if isinstance(node, File)
                    else node.after_power_cut(chance, seen)
                )
            survivor.names[name] = seen[id(node)]
        survivor.sync()
        return survivor


class SimDisk(Files):
    """See the head of this file; `calls` counts, `fail_at` makes the n-th call fail."""

    def __init__(self, root: Directory | None = None) -> None:
        if root is None:
            root = Directory()
            root.set("disk", Directory())
            root.sync()
        self.root = root
        self.calls = 0
        self.log: list[str] = []
        self.fail_at = 0  # number of the first call that fails
        self.fail_count = 1  # how many calls fail from there on
        self.fail_with = errno.EIO
        self.fail_only = ""  # only calls of this name count
        self.short = False  # a failing write writes half before it fails
        self.sync_fails = False
        self.room: int | None = None  # bytes that can still be written
        self._open: dict[int, File] = {}
        self._locked: set[int] = set()
        self._next = 3

    # --- what a test does ---------------------------------------------------------------------

    def kill(self) -> SimDisk:
        return SimDisk(self.root)

    def cut_power(self, seed: int) -> SimDisk:
        return SimDisk(self.root.after_power_cut(random.Random(seed), {}))

    def copy(self) -> SimDisk:
        return copy.deepcopy(SimDisk(self.root))

    def file(self, path: Path) -> File:
        node = self._find(path)
        assert isinstance(node, File), path
        return node

    @property
    def open_count(self) -> int:
        return len(self._open)

    # --- Files --------------------------------------------------------------------------------

    def open(self, path, *, create=False):
        self._count("open", path)
        parent = self._parent(path)
        node = parent.names.get(path.name)
        if node is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            node = File()
            parent.set(path.name, node)
        self._next += 1
        self._open[self._next] = node
        return self._next

    def close(self, descriptor):
        self._locked.discard(id(self._open.pop(descriptor)))

    def size(self, path):
        self._count("size", path)
        return len(self.file(path).data)

    def pread(self, descriptor, size, position):
        self._count("pread", descriptor)
        return bytes(self._open[descriptor].data[position : position + size])

    def pwritev(self, descriptor, buffers, position):
        data = b"".join(buffers)
        try:
            self._count("pwritev", descriptor)
            if self.room is not None and len(data) > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            half = data[: len(data) // 2]
            if self.short and half:
                self._write(descriptor, half, position)
                self.fail_at = self.calls + 1  # and now the call that finishes the write
                return len(half)
            raise
        self._write(descriptor, data, position)
        return len(data)

    def truncate(self, descriptor, size):
        self._count("truncate", descriptor)
        file = self._open[descriptor]
        _resize(file.data, size)
        file.pending.append((size, None))

    def fdatasync(self, descriptor):
        if self.sync_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._count("fdatasync", descriptor)
        self._open[descriptor].sync()

    def exists(self, path):
        self._count("exists", path)
        return self._find(path) is not None

    def names(self, directory):
        self._count("names", directory)
        return sorted(self._directory(directory).names)

    def make_directory(self, path):
        self._count("make_directory", path)
        if path.name not in self._parent(path).names:
            self._parent(path).set(path.name, Directory())

    def rename(self, path, target):
        self._count("rename", path)
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self._parent(path).set(path.name, None)
        self._parent(target).set(target.name, node)

    def remove(self, path):
        self._count("remove", path)
        if path.name in self._parent(path).names:
            self._parent(path).set(path.name, None)

    def remove_directory(self, path):
        self._count("remove_directory", path)
        assert not self._directory(path).names
        self._parent(path).set(path.name, None)

    def sync_directory(self, path):
        self._count("sync_directory", path)
        self._directory(path).sync()

    def lock(self, descriptor):
        self._count("lock", descriptor)
        inode = id(self._open[descriptor])
        if inode in self._locked:
            return False
        self._locked.add(inode)
        return True

    def volume(self, path):
        self._count("volume", path)
        return VOLUME_BYTES, VOLUME_BYTES if self.room is None else self.room

    # ------------------------------------------------------------------------------------------

    def _count(self, name, what):
        if self.fail_only and name != self.fail_only:
            return
        self.calls += 1
        self.log.append(f"{name} {what}")
        if self.fail_at and self.fail_at <= self.calls < self.fail_at + self.fail_count:
            raise OSError(self.fail_with, os.strerror(self.fail_with))

    def _write(self, descriptor, data, position):
        file = self._open[descriptor]
        if self.room is not None:
            self.room -= len(data)
        if len(file.data) < position:
            _resize(file.data, position)
        file.data[position : position + len(data)] = data
        file.pending.append((position, data))

    def _find(self, path: Path):
        node = self.root
        for part in path.parts[1:]:
            if not isinstance(node, Directory):
                return None
            node = node.names.get(part)
        return node

    def _directory(self, path: Path) -> Directory:
        node = self._find(path)
        if not isinstance(node, Directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return node

    def _parent(self, path: Path) -> Directory:
        return self._directory(path.parent)


def _resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


def _tear(data: bytes, chance: random.Random) -> bytes:
    """Keep some sectors of a write; the others read as zeros."""
    kept = bytearray()
    for start in range(0, len(data), SECTOR):
        sector = data[start : start + SECTOR]
        kept += sector if chance.randrange(2) else bytes(len(sector))
    return bytes(kept)
