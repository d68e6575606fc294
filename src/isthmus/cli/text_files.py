"""Files that people edit, which a command changes: read whole, written anew in one step."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from isthmus.errors import ConfigError

NEW_MODE: Final = 0o600


def text_in(file: Path) -> str:
    """Return what a file holds, nothing where there is none. Raises ConfigError."""
    try:
        return file.read_text("utf-8") if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None


def replace_file(file: Path, text: str) -> None:
    """Write a file anew, in one step for whoever reads it; its owner and mode stay.

    Raises ConfigError.
    """
    file = file.resolve()
    try:
        before = file.stat() if file.exists() else None
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with open(descriptor, "w", encoding="utf-8") as new:  # noqa: PTH123  # it is open
            new.write(text)
            new.flush()
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode) if before else NEW_MODE)
            if before and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fsync(descriptor)
        Path(name).replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from None
