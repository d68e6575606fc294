"""Writes past the page cache: what they leave, also where there is no such way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.storage.disk import SimDisk

from isthmus.storage.local.direct_file import ALIGNMENT, STAGE_BYTES, DirectFile
from isthmus.storage.local.files import Files

SIZE = 4 * STAGE_BYTES


class NoDirect(Files):
    """A file system without O_DIRECT, found out when opening (`at` 0) or at the n-th write."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.direct: set[int] = set()

    def open_direct(self, path: Path) -> int:
        if not self.at:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        descriptor = self.open(path)
        self.direct.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        self.direct.discard(descriptor)
        super().close(descriptor)

    def pwritev(self, descriptor, buffers, position):
        if descriptor in self.direct:
            self.at -= 1
            if not self.at:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return super().pwritev(descriptor, buffers, position)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"x" * SIZE)
    return path


@pytest.mark.parametrize("files", [Files(), NoDirect(0), NoDirect(1), NoDirect(2)])
@pytest.mark.parametrize("size", [1, ALIGNMENT, ALIGNMENT + 1, STAGE_BYTES + 10])
def test_what_is_written_is_there_and_the_rest_of_its_last_page_is_zero(
    path: Path, files: Files, size: int
) -> None:
    path.read_bytes()  # into the page cache, which must not go on showing it
    file = DirectFile(files, path)
    data = os.urandom(size)
    cut = size // 3
    file.write([data[:cut], memoryview(data)[cut:]], ALIGNMENT)
    file.write([b"again"], 0)
    file.sync()
    file.close()
    end = -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT
    expected = b"again".ljust(ALIGNMENT, b"\0") + data
    assert path.read_bytes() == expected.ljust(end, b"\0") + b"x" * (SIZE - end)


def test_other_errors_are_the_callers() -> None:
    disk = SimDisk()
    path = Path("/disk/file")
    disk.close(disk.open(path, create=True))
    file = DirectFile(disk, path)
    disk.room = 0
    with pytest.raises(OSError, match="No space left"):
        file.write([b"x"], 0)
    disk.room = None
    file.write([b"y"], 0)
    file.sync()
    file.close()
    assert disk.cut_power(1).file(path).data[:2] == b"y\0"
    assert disk.open_count == 0
    with pytest.raises(FileNotFoundError):
        DirectFile(disk, path.with_name("other"))


def test_a_write_that_ends_within_a_page_goes_on_through_the_page_cache() -> None:
    disk = SimDisk()
    path = Path("/disk/file")
    disk.close(disk.open(path, create=True))
    file = DirectFile(disk, path)
    disk.short, disk.fail_only, disk.fail_at = True, ("pwritev",), disk.calls + 1
    with pytest.raises(OSError, match="Input/output"):
        file.write([b"y" * (ALIGNMENT // 2)], 0)
    disk.fail_at = 0
    file.write([b"z"], 0)
    assert disk.file(path).data[:2] == b"z\0"
