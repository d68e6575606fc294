"""A disk in memory that forgets what was not synced, tears writes and fails on demand.

It is a `Files`, so the local engine runs on it unchanged. `kill` is the end of a process:
every call that returned has happened. `cut_power` is worse, and takes every liberty that a file
system has: of a file, each page or sector is as it was after any of the writes since the last
sync, the length is any that it had since, and where the length ran ahead of the data there are
zeros or garbage; of the names in a directory, any of the changes since the last sync happened.
Only a rename is whole or not at all. Both give back a disk with nothing open. A sync that fails
loses what it should have stored, and the next one says that all is well, as Linux does.

With a `Journal` every change is recorded, in order, and a `Replay` makes the disk of any
earlier moment, to be killed or cut there.
"""

from __future__ import annotations

import copy
import errno
import itertools
import os
import random
from typing import TYPE_CHECKING, Any

from isthmus.storage.local.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECTOR = 512
PAGE = 4096

_numbers = itertools.count()


class File:
    """An inode: its bytes now, its bytes at the last sync, and what happened since."""

    def __init__(self, data: bytes = b"") -> None:
        self.number = next(_numbers)
        self.data = bytearray(data)
        self.durable = bytes(data)
        self.pending: list[tuple[int, bytes | None]] = []  # (position, bytes), or (size, None)
        self.modified_ms = 1_700_000_000_000  # a test may set it

    def write(self, position: int, data: bytes) -> None:
        if len(self.data) < position:
            _resize(self.data, position)
        self.data[position : position + len(data)] = data
        self.pending.append((position, data))

    def resize(self, size: int) -> None:
        _resize(self.data, size)
        self.pending.append((size, None))

    def sync(self) -> None:
        image = bytearray(self.durable)
        for position, data in self.pending:
            if data is None:
                _resize(image, position)
                continue
            if len(image) < position:
                _resize(image, position)
            image[position : position + len(data)] = data
        self.durable = bytes(image)
        self.pending.clear()

    def fail_sync(self, forgets: bool) -> None:
        """What was not on the disk never will be, unless it is written again.

        The next sync succeeds. `forgets`: reads show it, too; else they show what was written.
        """
        self.pending.clear()
        if forgets:
            self.data = bytearray(self.durable)

    def after_power_cut(self, chance: random.Random) -> File:
        if not self.pending:
            return File(self.durable)
        sizes = [len(self.durable)]
        for position, data in self.pending:
            end = position if data is None else max(sizes[-1], position + len(data))
            sizes.append(end)
        ahead = max(sizes) - len(self.durable)
        filler = chance.randbytes(ahead) if chance.random() < 0.1 else bytes(ahead)
        image = bytearray(self.durable + filler)
        unit = chance.choice((SECTOR, PAGE))
        lost_per_write = chance.choice((0.0, 0.1, 0.5, 1.0))
        stopped: set[int] = set()  # units that no later write reached
        for position, data in self.pending:
            if data is None:
                data = bytes(len(image) - position)
            for start in range(position - position % unit, position + len(data), unit):
                if start in stopped or chance.random() < lost_per_write:
                    stopped.add(start)
                    continue
                first, last = max(start, position), min(start + unit, position + len(data))
                image[first:last] = data[first - position : last - position]
        size = chance.choice((sizes[0], sizes[-1], sizes[-1], chance.choice(sizes)))
        return File(bytes(image[:size]))


class Directory:
    """Names now, names at the last sync, and the changes since, each of one name or two."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.names: dict[str, File | Directory] = {}
        self.durable: dict[str, File | Directory] = {}
        self.pending: list[dict[str, File | Directory | None]] = []

    def change(self, changes: dict[str, File | Directory | None]) -> None:
        _rename(self.names, changes)
        self.pending.append(changes)

    def sync(self) -> None:
        self.durable = dict(self.names)
        self.pending.clear()

    def after_power_cut(self, chance: random.Random, seen: dict[int, Any]) -> Directory:
        names = dict(self.durable)
        kept = self.pending[: chance.randint(0, len(self.pending))]
        if chance.random() < 0.5:  # in any order, as a journal of metadata would not do it
            kept = [changes for changes in self.pending if chance.random() < 0.5]
        for changes in kept:
            _rename(names, changes)
        survivor = Directory()
        for name, node in names.items():
            if node.number not in seen:
                seen[node.number] = (
                    node.after_power_cut(chance)
                    if isinstance(node, File)
                    else node.after_power_cut(chance, seen)
                )
            survivor.names[name] = seen[node.number]
        survivor.sync()
        return survivor


class Journal:
    """Every change of a disk since the recording began, with remarks of the test between."""

    def __init__(self, root: Directory) -> None:
        self.base = copy.deepcopy(root)
        self.entries: list[tuple[File | Directory | None, str, tuple[Any, ...]]] = []

    def note(self, node: File | Directory, change: str, arguments: tuple[Any, ...]) -> None:
        self.entries.append((node, change, arguments))

    def remark(self, remark: Any) -> None:
        self.entries.append((None, "", (remark,)))

    def replay(self) -> Replay:
        return Replay(self)


class Replay:
    """A second disk, on which a journal happens again, one change at a time."""

    def __init__(self, journal: Journal) -> None:
        self.root = copy.deepcopy(journal.base)
        self._twins: dict[int, File | Directory] = {}
        self._learn(self.root)

    def apply(self, node: File | Directory, change: str, arguments: tuple[Any, ...]) -> None:
        if change == "change":
            names = {
                name: None if node is None else self._twin(node)
                for name, node in arguments[0].items()
            }
            arguments = (names,)
        getattr(self._twin(node), change)(*arguments)

    def kill(self) -> SimDisk:
        return SimDisk(copy.deepcopy(self.root))

    def cut_power(self, seed: int) -> SimDisk:
        return SimDisk(self.root.after_power_cut(random.Random(seed), {}))

    def twin_in(self, root: Directory, number: int) -> File | Directory | None:
        """Return the inode of a copy of this disk that has the number of a recorded one."""
        wanted = self._twins.get(number)
        return None if wanted is None else _nodes(root).get(wanted.number)

    def _learn(self, node: File | Directory) -> None:
        self._twins[node.number] = node
        if isinstance(node, Directory):
            for child in (*node.names.values(), *node.durable.values()):
                if child.number not in self._twins:
                    self._learn(child)

    def _twin(self, node: File | Directory) -> File | Directory:
        return self._twins.setdefault(node.number, type(node)())


class SimDisk(Files):
    """See the head of this file; `calls` counts, `fail_at` makes the n-th call fail."""

    def __init__(self, root: Directory | None = None) -> None:
        if root is None:
            root = Directory()
            root.change({"disk": Directory()})
            root.sync()
        self.root = root
        self.calls = 0
        self.log: list[str] = []
        self.fail_at = 0  # number of the first call that fails
        self.fail_count = 1  # how many calls fail from there on
        self.fail_with = errno.EIO
        self.fail_only: tuple[str, ...] = ()  # only calls of these names count
        self.short = False  # a failing write writes half before it fails
        self.sync_fails = False
        self.forgets = False  # what a failed sync has lost is not to be read either
        self.is_cold = False  # nothing is in memory, every read has to wait
        self.room: int | None = None  # bytes that can still be written
        self.journal: Journal | None = None
        self.before_call: Callable[[], None] | None = None
        self._open: dict[int, File] = {}
        self._direct: set[int] = set()  # take whole pages only
        self._locked: set[int] = set()
        self._next = 3

    # --- what a test does ---------------------------------------------------------------------

    def kill(self) -> SimDisk:
        """End the process: a new disk object on the same bytes, with the same journal."""
        after = SimDisk(self.root)
        after.journal, self.journal = self.journal, None
        return after

    def cut_power(self, seed: int) -> SimDisk:
        return SimDisk(self.root.after_power_cut(random.Random(seed), {}))

    def copy(self) -> SimDisk:
        return SimDisk(copy.deepcopy(self.root))

    def record(self) -> Journal:
        self.journal = Journal(self.root)
        return self.journal

    def file(self, path: Path) -> File:
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
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
            self._do(parent, "change", {path.name: node})
        self._next += 1
        self._open[self._next] = node
        return self._next

    def open_direct(self, path):
        descriptor = self.open(path)
        self._direct.add(descriptor)
        return descriptor

    def close(self, descriptor):
        self._direct.discard(descriptor)
        self._locked.discard(id(self._open.pop(descriptor)))

    def duplicate(self, descriptor):
        self._count("duplicate", descriptor)
        self._next += 1
        self._open[self._next] = self._open[descriptor]
        return self._next

    def size(self, path):
        self._count("size", path)
        return len(self.file(path).data)

    def modified_ms(self, path):
        self._count("modified_ms", path)
        return self.file(path).modified_ms

    def pread(self, descriptor, size, position):
        self._count("pread", descriptor)
        return bytes(self._open[descriptor].data[position : position + size])

    def preadv_cached(self, descriptor, buffer, position):
        data = b"" if self.is_cold else self.pread(descriptor, len(buffer), position)
        buffer[: len(data)] = data
        return len(data)

    def is_cached(self, descriptor, size, position):
        assert descriptor in self._open
        return not self.is_cold

    def will_need(self, descriptor, position, size):
        assert descriptor in self._open

    def pwritev(self, descriptor, buffers, position):
        data = b"".join(buffers)
        if descriptor in self._direct and (position % PAGE or len(data) % PAGE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        try:
            self._count("pwritev", descriptor)
            if self.room is not None and len(data) > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            half = data[: len(data) // 2]
            if self.short and half:
                self._do(self._open[descriptor], "write", position, half)
                self.fail_at = self.calls + 1  # and now the call that finishes the write
                return len(half)
            raise
        if self.room is not None:
            self.room -= len(data)
        self._do(self._open[descriptor], "write", position, data)
        return len(data)

    def truncate(self, descriptor, size):
        self._count("truncate", descriptor)
        self._do(self._open[descriptor], "resize", size)

    def fdatasync(self, descriptor):
        try:
            if self.sync_fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self._count("fdatasync", descriptor)
        except OSError:
            self._do(self._open[descriptor], "fail_sync", self.forgets)
            raise
        self._do(self._open[descriptor], "sync")

    def exists(self, path):
        self._count("exists", path)
        return self._find(path) is not None

    def names(self, directory):
        self._count("names", directory)
        return sorted(self._directory(directory).names)

    def make_directory(self, path):
        self._count("make_directory", path)
        if path.name not in self._parent(path).names:
            self._do(self._parent(path), "change", {path.name: Directory()})

    def rename(self, path, target):
        self._count("rename", path)
        assert path.parent == target.parent, "one directory, one change"
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self._do(self._parent(path), "change", {path.name: None, target.name: node})

    def remove(self, path):
        self._count("remove", path)
        if path.name in self._parent(path).names:
            self._do(self._parent(path), "change", {path.name: None})

    def remove_directory(self, path):
        self._count("remove_directory", path)
        assert not self._directory(path).names
        self._do(self._parent(path), "change", {path.name: None})

    def sync_directory(self, path):
        self._count("sync_directory", path)
        self._do(self._directory(path), "sync")

    def settle_all(self, stretches, directories):
        for path, position in stretches:
            self.write_again(path, position)
        for path in directories:
            self.sync_directory(path)

    def lock(self, descriptor):
        self._count("lock", descriptor)
        inode = id(self._open[descriptor])
        if inode in self._locked:
            return False
        self._locked.add(inode)
        return True

    def open_read(self, path):
        return self.open(path)

    def is_locked(self, path):
        return id(self._find(path)) in self._locked

    def volume(self, path):
        self._count("volume", path)
        return 1 << 40, 1 << 40 if self.room is None else self.room

    # ------------------------------------------------------------------------------------------

    def _count(self, name, what):
        if self.before_call is not None:
            self.before_call()
        if self.fail_only and name not in self.fail_only:
            return
        self.calls += 1
        self.log.append(f"{name} {what}")
        if self.fail_at and self.fail_at <= self.calls < self.fail_at + self.fail_count:
            raise OSError(self.fail_with, os.strerror(self.fail_with))

    def _do(self, node: File | Directory, change: str, *arguments: Any) -> None:
        getattr(node, change)(*arguments)
        if self.journal is not None:
            self.journal.note(node, change, arguments)

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


def _nodes(node: File | Directory) -> dict[int, File | Directory]:
    """Return every inode by its number."""
    found = {node.number: node}
    if isinstance(node, Directory):
        for child in node.names.values():
            found |= _nodes(child)
    return found


def _resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


def _rename(
    names: dict[str, File | Directory], changes: dict[str, File | Directory | None]
) -> None:
    for name, node in changes.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node
