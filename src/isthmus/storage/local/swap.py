"""Puts a cleaned segment in the place of those it was made of, so that no crash is in between.

    B.log.cleaned  B.index.cleaned …   being made; worth nothing yet
    B-E.log.swap   B.index.cleaned …   decided: it replaces all segments from offset B to E
    B.log          B.index         …   done; the old ones are B.log.deleted for a moment

The one moment that counts is the renaming to `.swap`, once everything made is on the disk. A
start that finds no `.swap` removes what was being made; one that finds a `.swap` removes the
segments that its name tells of and finishes the renaming. Between steps that must not overtake
one another on the disk the directory is synced.

`decide` and `finish` are for another thread. `hide` is for the loop, in one step with the
replacement in memory: from then on nobody opens the old segments by their names. The new one
is kept open until `finish` has given it its own. What has failed in the middle can be called
again: `hide`, then `finish`; or `retract`, where only the decision is made.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from isthmus.storage.local.files import Files
    from isthmus.storage.local.segment import Segment

CLEANED_SUFFIX: Final = ".cleaned"
DELETED_SUFFIX: Final = ".deleted"
_ABORTED: Final = ".txnindex"
_INDEXES: Final = (".index", ".timeindex", _ABORTED)
_SWAP: Final = re.compile(r"(\d{20})-(\d{20})\.log\.swap")
_FILE: Final = re.compile(r"(\d{20})(\.log|\.index|\.timeindex|\.txnindex)")

logger = logging.getLogger(__name__)


class Swap:
    """The replacement of a group of segments by the one that was made of them."""

    __slots__ = ("_directory", "_files", "_hidden", "_made", "_old", "_path", "is_decided")

    def __init__(self, files: Files, group: Sequence[Segment], made: Segment) -> None:
        self.is_decided = False
        self._files = files
        self._made = made
        # From the end on: the file that makes a segment goes after its indexes.
        self._old = [path for each in reversed(group) for path in reversed(each.paths)]
        self._hidden: list[Path] = []
        self._directory = made.path.parent
        name = f"{made.base_offset:020d}-{group[-1].next_offset:020d}.log.swap"
        self._path = self._directory / name

    def decide(self) -> None:
        """Make all durable that was made, then decide. Raises OSError.

        After an error the old segments stand, unless `is_decided` could not be taken back.
        """
        files = self._files
        self._made.sync()
        for path in self._made.index_paths:
            # An empty one says that there is nothing to tell, not that it was lost.
            files.sync_file(path, None if files.exists(path) else b"")
        files.sync_directory(self._directory)
        files.rename(self._made.path, self._path)
        self.is_decided = True
        try:
            files.sync_directory(self._directory)
        except OSError:
            self.retract()
            raise

    def retract(self) -> None:
        """Take the decision back. Raises OSError, then it stands."""
        if self._files.exists(self._path):
            self._files.rename(self._path, self._made.path)
        self.is_decided = False

    def hide(self) -> None:
        """Take the names from the old segments. Raises OSError."""
        while self._old:  # each once: the made files get some of these names later
            path = self._old[-1]
            if self._files.exists(path):
                hidden = path.with_name(path.name + DELETED_SUFFIX)
                self._files.rename(path, hidden)
                self._hidden.append(hidden)
            self._old.pop()

    def finish(self) -> None:
        """Give the made segment its names and remove the old files. Raises OSError."""
        self._files.sync_directory(self._directory)
        _name(self._files, self._path, self._made.base_offset)
        for path in self._hidden:
            try:
                self._files.remove(path)
            except OSError as error:
                logger.warning("%s goes with the next start: %s", path, error)

    def undo(self) -> None:
        """Remove what was made, if nothing is decided."""
        if self.is_decided:
            return
        for path in (*self._made.index_paths, self._made.path):
            try:
                self._files.remove(path)
            except OSError as error:
                logger.warning("%s goes with the next start: %s", path, error)


def finish_swaps(files: Files, directory: Path) -> None:
    """Finish at the start what was decided, remove what was being made. Raises OSError.

    What is called `.deleted` goes in the background, see removals.py.
    """
    for name in files.names(directory):
        swap = _SWAP.fullmatch(name)
        if swap is not None:
            base, end = int(swap[1]), int(swap[2])
            logger.info("%s takes the place of the segments from %d to %d", name, base, end)
            files.sync_directory(directory)  # the last server may have ended before it did
            _remove_old(files, directory, base, end)
            _name(files, directory / name, base)
    for name in files.names(directory):
        if name.endswith(CLEANED_SUFFIX):
            files.remove(directory / name)


def _remove_old(files: Files, directory: Path, base: int, end: int) -> None:
    names = files.names(directory)
    for name in names:
        file = _FILE.fullmatch(name)
        if file is None or not base <= int(file[1]) < end:
            continue
        is_new = (  # already renamed when the last server ended
            int(file[1]) == base and file[2] != ".log" and name + CLEANED_SUFFIX not in names
        )
        if not is_new:
            files.remove(directory / name)
    files.sync_directory(directory)


def _name(files: Files, decided: Path, base: int) -> None:
    """Give the files of a decided segment their names, the log as the last."""
    directory = decided.parent
    for kind in _INDEXES:
        path = directory / f"{base:020d}{kind}"
        made = path.with_name(path.name + CLEANED_SUFFIX)
        if not files.exists(made):
            continue
        if kind == _ABORTED and files.size(made) == 0:
            files.remove(made)
        else:
            files.rename(made, path)
    files.sync_directory(directory)
    if files.exists(decided):
        files.rename(decided, directory / f"{base:020d}.log")
    files.sync_directory(directory)
