"""What the .pxd files say of classes, and the translation to C tends to forget."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import isthmus

ROOT = Path(isthmus.__file__).parent
HAVE_GC = 1 << 14  # Py_TPFLAGS_HAVE_GC
WITHOUT_COLLECTOR = re.compile(r"@cython\.no_gc\b(?:\W*\n@.*)*\n?cdef class (\w+)")
CLASSES = [
    (path.relative_to(ROOT.parent).with_suffix(""), name)
    for path in sorted(ROOT.rglob("*.pxd"))
    for name in WITHOUT_COLLECTOR.findall(re.sub(r"  #.*", "", path.read_text()))
]


@pytest.mark.parametrize(("module", "name"), CLASSES, ids=lambda part: str(part))
def test_the_collector_does_not_know_what_holds_no_circle(module: Path, name: str) -> None:
    """Each of them would be tracked, one by one, for every message; a plain class always is."""
    found = importlib.import_module(".".join(module.parts))
    is_compiled = not str(found.__file__).endswith(".py")
    assert bool(getattr(found, name).__flags__ & HAVE_GC) is not is_compiled
