"""Whether bytes of a file are in the kernel's memory: `cachestat`, from Linux 6.5 on."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from typing import Final

_CACHESTAT: Final = 451  # the same number on every architecture of 64 bits
_NO_SUCH_CALL: Final = frozenset((errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP))


class PageCache:
    """Asks the kernel; says no where it cannot be asked. For one thread."""

    def __init__(self) -> None:
        self._can_ask = sys.platform == "linux"
        self._call = ctypes.CDLL(None, use_errno=True).syscall if self._can_ask else None
        self._range = (ctypes.c_uint64 * 2)()  # offset and length
        # Pages that are cached, dirty, written back just now, evicted, and evicted lately.
        self._answer = (ctypes.c_uint64 * 5)()

    def holds(self, descriptor: int, size: int, position: int) -> bool:
        """Whether all of the bytes are in memory just now. Raises OSError."""
        if not self._can_ask or self._call is None or size <= 0:
            return False
        self._range[:] = [position, size]
        if self._call(_CACHESTAT, descriptor, self._range, self._answer, 0):
            number = ctypes.get_errno()
            if number not in _NO_SUCH_CALL:
                raise OSError(number, os.strerror(number))
            self._can_ask = False  # an older kernel, a sandbox, a file system of its own kind
            return False
        first, last = position // mmap.PAGESIZE, (position + size - 1) // mmap.PAGESIZE
        return bool(self._answer[0] == last - first + 1)
