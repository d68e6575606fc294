"""Mosquitto's configuration, read line by line: nothing is lost of which line said it.

A line is an option and its value, with one blank between; `#` in front makes it a comment.
`listener` begins a listener and `connection` a bridge, and what follows is theirs.
`include_dir` stands for the `.conf` files of a directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from isthmus.errors import ConfigError


class Line(NamedTuple):
    """One option where it stands."""

    option: str
    value: str
    place: str  # file:number

    def __str__(self) -> str:
        """Return it as a note shows it: without what is secret."""
        secret = any(word in self.option for word in ("password", "psk", "kpass", "_opt_"))
        value = "…" if secret and not self.option.endswith("_file") else self.value
        return f"{self.option} {value}".rstrip()


class Note(NamedTuple):
    """What is said of one line: it has no equivalent, or is otherwise than it was."""

    place: str
    line: str
    why: str
    opens: bool = False  # somebody could do more than before

    def __str__(self) -> str:
        mark = "SECURITY: " if self.opens else ""
        return f"{self.place}: {self.line}\n    {mark}{self.why}"


class Section:
    """The options of the whole server or of one listener, which `first` begins."""

    def __init__(self, first: Line | None = None) -> None:
        self.first = first
        self.is_open = False  # what protects it has no equivalent
        self.lines: dict[str, Line] = {}

    def value(self, option: str, default: str = "") -> str:
        """Return what an option says."""
        line = self.lines.get(option)
        return default if line is None else line.value

    def is_true(self, option: str, *, default: bool = False) -> bool:
        """Return what an option says that is true or false."""
        line = self.lines.get(option)
        return default if line is None else flag(line.value)


def flag(value: str) -> bool:
    """Read true or false. Raises ValueError."""
    if value.lower() in ("true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def read_lines(file: Path, *, includes: bool = True) -> list[Line]:
    """Read a file, and those it includes in their places. Raises ConfigError."""
    found: list[Line] = []
    for number, text in enumerate(text_lines(file), 1):
        place = f"{file}:{number}"
        if not text or text.startswith("#"):
            continue
        option, _, value = text.partition(" ")
        line = Line(option, value.lstrip(" "), place)
        if option == "include_dir" and includes:
            found += included_lines(line)
        else:
            found.append(line)
    return found


def included_lines(line: Line) -> list[Line]:
    """Read the files of a directory, an upper case letter before its lower case one."""
    directory = Path(line.value)
    if not directory.is_dir():
        raise ConfigError(f"{line.place}: {directory} is no directory")
    files = [each for each in directory.iterdir() if each.name.endswith(".conf")]
    files.sort(key=lambda each: [(letter.lower(), letter) for letter in each.name])
    return [each for file in files for each in read_lines(file, includes=False)]


def text_lines(file: Path) -> list[str]:
    """Return a file's lines without the blanks at their ends. Raises ConfigError."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{file} cannot be read: {reason}") from None
    return [line.rstrip() for line in text.split("\n")]
