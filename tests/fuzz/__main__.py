"""Fuzz one target: `python -m tests.fuzz TARGET SECONDS`, in the uncompiled code.

What is new is kept in `build/fuzz/TARGET`; bytes that raise are `TARGET-crash-…` beside it,
and end the run with a status that is not 0.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

KEPT = Path("build/fuzz")


def main() -> None:
    name, seconds = sys.argv[1], sys.argv[2]
    with atheris.instrument_imports(include=["isthmus"]):
        from tests.fuzz.targets import TARGETS, NoBugs
    from tests.fuzz.seeds import seeds

    corpus = KEPT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(data)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={seconds}",
            f"-artifact_prefix={KEPT}/{name}-",
            "-max_len=4096",
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
        ],
        TARGETS[name],
    )
    with NoBugs():
        atheris.Fuzz()


main()
