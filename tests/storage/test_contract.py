"""The contract of storage/log.py, run on every engine there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.storage.contract import LogContract
from tests.storage.disk import SimDisk

from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.memory import MemoryLog


class TestMemoryLog(LogContract):
    def make_log(self, runtime):
        return MemoryLog(runtime)


class TestLocalLog(LogContract):
    settings = LocalSettings()

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path / "data"

    def make_log(self, runtime):
        return LocalLog(self.directory, runtime, settings=self.settings)


class TestLocalLogWithoutMemory(TestLocalLog):
    """The same, every read from the files, and hardly a file open."""

    settings = LocalSettings(tail_bytes_max=0, open_segments_max=1)


class TestLocalLogWritten(TestLocalLog):
    """The same with the weaker durability."""

    settings = LocalSettings(durability="written")


class TestLocalLogOnAColdDisk(TestLocalLog):
    """The same where the kernel never has anything in memory, and hardly a file is open."""

    settings = LocalSettings(tail_bytes_max=0, open_segments_max=1)

    def make_log(self, runtime):
        disk = SimDisk()
        disk.is_cold = True
        return LocalLog(Path("/disk/data"), runtime, disk, self.settings)
