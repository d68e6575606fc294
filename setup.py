"""The list of compiled modules; everything else about the project is in pyproject.toml.

A compiled module is ordinary Python with a `.pxd` beside it that adds C types (docs/adr/0007).
`wire/` is the exception: there the `.pyx` holds the pointers and its `.py` twin is the readable
specification. Where an extension module is present, Python imports it before the `.py`.

ISTHMUS_SKIP_COMPILE=1 builds nothing: the same code runs uncompiled, much slower.
ISTHMUS_COMPILE_ONLY="isthmus.wire.buffer,isthmus.record.batch" compiles just these.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup

POINTERS = ["isthmus.wire.buffer", "isthmus.wire.crc32c", "isthmus.wire.records"]
TYPED = [
    "isthmus.record.batch",
    "isthmus.record.walk",
    "isthmus.topics.names",
    "isthmus.topics.tree",
    "isthmus.mqtt.packets",
    "isthmus.mqtt.properties",
    "isthmus.mqtt.codec",
    "isthmus.mqtt.delivery",
    "isthmus.mqtt.traffic",
    "isthmus.mqtt.incoming",
    "isthmus.mqtt.outgoing",
    "isthmus.mqtt.session",
    "isthmus.kafka.codec",
    "isthmus.kafka.parts",
    "isthmus.kafka.produce",
    "isthmus.kafka.fetch",
    "isthmus.storage.local.tail",
    "isthmus.storage.local.chunks",
    "isthmus.storage.local.open_segments",
    "isthmus.storage.local.segment",
    "isthmus.storage.local.segments",
    "isthmus.storage.local.gathering",
    "isthmus.storage.local.sync",
    "isthmus.storage.validation",
    "isthmus.storage.local.partition",
    "isthmus.broker.subscriptions",
    "isthmus.broker.permits",
    "isthmus.broker.retained",
    "isthmus.broker.publishing",
    "isthmus.broker.destinations",
    "isthmus.broker.catching_up",
    "isthmus.broker.shared",
    "isthmus.broker.shared_strategies",
    "isthmus.broker.broker",
    "isthmus.server.kafka_api.call",
    "isthmus.server.kafka_api.produce",
    "isthmus.server.websocket_frames",
    "isthmus.load.latencies",
    "isthmus.load.tally",
    "isthmus.load.totals",
    "isthmus.load.frames",
    "isthmus.load.publisher",
    "isthmus.load.subscriber",
    "isthmus.load.web_frames",
]
DIRECTIVES = {"language_level": 3, "annotation_typing": False}
FLAGS = [] if sys.platform == "win32" else ["-O2", "-Wno-unused-function"]


OF_CLASSES = ("freelist", "no_gc")  # what a .pxd may say of a class


def keep_what_is_said_of_classes() -> None:
    """Have Cython obey `@cython.no_gc` and `@cython.freelist` of a .pxd.

    It reads them, and forgets them when it comes to the class in the .py, where we cannot
    write them: that is plain Python (docs/adr/0007). tests/unit/test_compiled.py looks at it.
    """
    from Cython.Compiler.Nodes import CClassDefNode

    analyse = CClassDefNode.analyse_declarations

    def analyse_and_keep(self: Any, env: Any) -> None:
        declared = env.lookup_here(self.class_name)
        scope = getattr(declared and declared.type, "scope", None)
        said = dict(scope.directives) if scope else {}
        analyse(self, env)
        if self.scope and not self.in_pxd:
            kept = {name: said[name] for name in OF_CLASSES if name in said}
            self.scope.directives = {**self.scope.directives, **kept}

    CClassDefNode.analyse_declarations = analyse_and_keep


def compiled() -> list[Extension]:
    """Return the extension modules, translated to C; stop with a sentence where that fails."""
    if os.environ.get("ISTHMUS_SKIP_COMPILE") == "1":
        return []
    only = os.environ.get("ISTHMUS_COMPILE_ONLY", "")
    chosen = set(only.split(",")) if only else {*POINTERS, *TYPED}

    from Cython.Build import cythonize
    from Cython.Compiler.Errors import CompileError

    keep_what_is_said_of_classes()
    extensions = [
        Extension(
            name,
            [str(Path("src", *name.split(".")).with_suffix(suffix))],
            extra_compile_args=FLAGS,
        )
        for names, suffix in ((POINTERS, ".pyx"), (TYPED, ".py"))
        for name in names
        if name in chosen
    ]
    try:
        return cythonize(
            extensions,
            compiler_directives=DIRECTIVES,
            include_path=["src"],
            build_dir="build/cython",
        )
    except CompileError as error:
        sys.exit(f"isthmus: a module did not translate to C, so nothing was built: {error}")


setup(ext_modules=compiled())
