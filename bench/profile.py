"""Where a server spends its time on one row: `perf` attached to the server while the row runs.

    python -m bench.profile qos0 --system "isthmus written" --seconds 5

Samples the processor clock, which works in virtual machines without hardware counters, and
sees everything: compiled modules, the interpreter, the C library, the kernel. Uncompiled Python
shows as the interpreter (`_PyEval_EvalFrameDefault`); what brings it there is found with
`--calls`. Names of compiled functions are written as Python's. Needs `perf` (Debian package
linux-perf) and the right to use it (root, or kernel.perf_event_paranoid <= 1).
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench import machine, report
from bench.__main__ import choose_rows
from bench.process import BenchError, fresh_directory

if TYPE_CHECKING:
    from bench.process import Server, System

SAMPLES_PER_S = 1999
OBJECTS_SHOWN = 12
SYMBOLS_SHOWN = 50
STACK_BYTES = 16_384
ATTACH_SECONDS_MAX = 20.0
SAMPLE = re.compile(r"^\s*([\d.]+)%\s+(\S+)\s+\[[.k]\]\s+(\S.*?)\s*$")
COMPILED_NAME = re.compile(r"__pyx_(?:f|pw|pf)_\w+")
COMPILED = re.compile(r"__pyx_(?:f|pw|pf)_(?=\d)")


def readable(symbol: str) -> str:
    """Return the Python name of a function that Cython compiled, other names as they are.

    Cython writes each part of the path with its length; the function's own name comes last,
    plain or after a number.
    """
    start = COMPILED.match(symbol)
    if start is None:
        return symbol
    rest, parts = symbol[start.end() :], []
    while found := re.match(r"(\d+)", rest):
        length, begin = int(found[1]), found.end()
        part, following = rest[begin : begin + length], rest[begin + length :]
        if not following.startswith("_"):
            break
        parts.append(part)
        rest = following[1:]
        if part[:1].isupper():
            break
    return ".".join([*parts, rest.lstrip("0123456789")])


class Profiled:
    """A system whose server is watched from its start to its end."""

    def __init__(self, system: System, data: Path, *, calls: bool) -> None:
        self.name = system.name
        self.warm_share = system.warm_share
        self._system = system
        self._data = data
        self._calls = calls
        self._perf: subprocess.Popen[bytes] | None = None

    def version(self) -> str:
        """Return the version of what is watched."""
        return self._system.version()

    def start(self, directory: Path) -> Server:
        """Start the server, then attach."""
        server = self._system.start(directory)
        words = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_PER_S)]
        words += ["--call-graph", f"dwarf,{STACK_BYTES}"] if self._calls else []
        words += ["-o", str(self._data), "-p", str(server.process.pid)]
        self._perf = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        return server

    def detach(self) -> None:
        """Let perf write what it has."""
        if self._perf is None:
            return
        if self._perf.poll() is None:
            self._perf.send_signal(signal.SIGINT)
        self._perf.wait(ATTACH_SECONDS_MAX)


def flat_lines(data: Path) -> list[str]:
    """Return the share of each object and of each function in its own code, largest first."""
    text = _perf_report(data, "--no-children", "-g", "none", "--sort", "dso,symbol")
    objects: dict[str, float] = {}
    functions: list[tuple[float, str, str]] = []
    for line in text.splitlines():
        found = SAMPLE.match(line.replace(" -      -", ""))
        if found is None:
            continue
        share, where, what = float(found[1]), found[2].split("/")[-1], readable(found[3])
        objects[where] = objects.get(where, 0.0) + share
        functions.append((share, where, what))
    by_share = sorted(objects.items(), key=itemgetter(1), reverse=True)
    lines = ["share of the server's CPU time, by object:"]
    lines += [f"  {share:6.2f} %  {where}" for where, share in by_share[:OBJECTS_SHOWN]]
    lines += ["", "by function, its own code:"]
    lines += [
        f"  {share:6.2f} %  {where[:28]:<28}  {what}"
        for share, where, what in functions[:SYMBOLS_SHOWN]
    ]
    return lines


def call_lines(data: Path) -> list[str]:
    """Return for each hot function the chain of its callers, as perf draws it."""
    text = _perf_report(data, "--no-children", "-g", "graph,1,callee", "--percent-limit", "1")
    return [
        COMPILED_NAME.sub(lambda found: readable(found[0]), line) for line in text.splitlines()
    ]


def _perf_report(data: Path, *options: str) -> str:
    words = ["perf", "report", "-i", str(data), "--stdio", *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"perf report failed: {done.stderr[-300:]}")
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith("#"))


@click.command()
@click.argument("row_name", metavar="ROW")
@click.option(
    "--system", "system_name", default="isthmus written", help="Which system to watch."
)
@click.option("--seconds", default=3.0, help="Seconds of load.")
@click.option("--calls", is_flag=True, help="Record stacks too (heavier) and show callers.")
@click.option(
    "--keep",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep perf's data in this file, for `perf annotate -i FILE`.",
)
def main(
    row_name: str, system_name: str, seconds: float, calls: bool, keep: Path | None
) -> None:
    """Measure ROW once with one system under perf and print where the time went."""
    if shutil.which("perf") is None:
        raise click.ClickException("perf is not installed (Debian: apt-get install linux-perf)")
    (row,) = choose_rows(row_name)
    systems = {system.name: system for system in row.systems}
    if system_name not in systems:
        raise click.BadParameter(f"{row_name} knows {', '.join(systems)}")
    machine.become_driver()
    with fresh_directory(Path(tempfile.gettempdir())) as directory:
        data = keep or directory / "perf.data"
        watched = Profiled(systems[system_name], data, calls=calls)
        try:
            found = row.measure(watched, directory, seconds)
        except BenchError as error:
            raise click.ClickException(str(error)) from error
        finally:
            watched.detach()
        click.echo(
            f"{row.key}, {system_name}: {report.figure(found.value)} {row.unit} under perf"
        )
        for line in call_lines(data) if calls else flat_lines(data):
            click.echo(line)


if __name__ == "__main__":
    main()
