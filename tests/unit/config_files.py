"""Configuration files of tests, and what is said of a mistake in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isthmus.config_sources import Sources
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def written(directory: Path, text: str) -> Path:
    file = directory / "isthmus.toml"
    file.write_text(text, "utf-8")
    return file


def mistake(**sources: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Sources(**sources).read()
    text = str(caught.value)
    assert "\n" not in text and not text.endswith(".")  # one sentence, put into a line
    return text
