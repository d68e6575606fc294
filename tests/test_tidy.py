"""What linters do not know, held as tests: heads, sizes, floors, tables that belong together.

Each rule is one function that lists what breaks it, so a failure names every place at once. A
rule that makes the code worse is changed here, with its reason; it is not worked around.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from tools.generate_docs_tables import SECTION_CLASSES, field_lines, outdated

from isthmus import __version__, config, errors
from isthmus.config_listeners import ServerCertificate
from isthmus.kafka.errors import CODES
from isthmus.mqtt.reasons import MQTT_REASON

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "isthmus"
FOLDERS = ("src", "tests", "tools", "bench", "docs")
LINES_MAX = 600
FUNCTION_LINES_MAX = 60
TABLE_LINES_MIN = 10
LOOP_PLACES = (
    "server/",
    "admin/",
    "cli/",
    "app.py",
    "app_listeners.py",
)  # where the event loop may be seen
EVASIVE_NAMES = re.compile(r"(utils?|helpers?|common|misc|base_.*|.*_?manager)\.pyx?")
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(wo" r"rk|ho" r"me|ro" r"ot|Us" r"ers)/")


def sources(*suffixes: str) -> Iterator[Path]:
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*")):
            built = {"node_modules", "__pycache__"} & set(file.parts)
            if file.suffix in suffixes and file.is_file() and not built:
                yield file


def texts() -> Iterator[Path]:
    yield from sources(".py", ".pyx", ".pxd", ".md", ".js", ".java", ".toml", ".txt", ".json")
    yield from (file for file in ROOT.glob("*") if file.suffix in {".py", ".md", ".toml"})
    yield from (file for file in (ROOT / "Makefile", ROOT / ".ci" / "run") if file.exists())


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def listed_modules() -> list[str]:
    """Return the compiled modules, as setup.py names them."""
    tree = ast.parse((ROOT / "setup.py").read_text("utf-8"))
    lists = {
        target.id: ast.literal_eval(statement.value)
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id in {"POINTERS", "TYPED"}
    }
    return [*lists["POINTERS"], *lists["TYPED"]]


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)


# --- every file -------------------------------------------------------------------------------


def test_every_file_opens_with_its_story() -> None:
    assert [
        name_of(file)
        for file in sources(".py")
        if (text := file.read_text("utf-8")).strip() and not ast.get_docstring(ast.parse(text))
    ] == []
    assert [
        name_of(file)
        for file in sources(".pyx")  # a .pxd adds types to a story that its .py has told
        if not file.read_text("utf-8").startswith('"""')
    ] == []


def test_no_file_is_too_long() -> None:
    assert [
        f"{name_of(file)}: {lines} lines"
        for file in sources(".py", ".pyx", ".pxd")
        if (lines := len(file.read_text("utf-8").splitlines())) > LINES_MAX
    ] == []


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines; those of tables inside it are data, however many they are."""
    tables = [
        set(range(node.lineno, node.end_lineno))
        for node in ast.walk(function)
        if isinstance(node, ast.List | ast.Tuple | ast.Dict | ast.Set)
    ]
    long = set().union(*(lines for lines in tables if len(lines) >= TABLE_LINES_MIN))
    return function.end_lineno - function.lineno + 1 - len(long)


def test_no_function_is_too_long() -> None:
    assert [
        f"{name_of(file)}: {node.name} has {lines} lines"
        for file in sources(".py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := lines_of(node)) > FUNCTION_LINES_MAX
    ] == []


def test_no_file_is_named_after_nothing() -> None:
    assert [
        name_of(file) for file in sources(".py", ".pyx") if EVASIVE_NAMES.fullmatch(file.name)
    ] == []


def test_nothing_is_left_for_later_and_no_machine_shows() -> None:
    assert [
        f"{name_of(file)}:{number}: {line.strip()}"
        for file in texts()
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if UNFINISHED.search(line) or MACHINE_PATH.search(line)
    ] == []


# --- floors -----------------------------------------------------------------------------------


def test_only_the_top_floors_wait() -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert [
        f"{name_of(file)}:{node.lineno}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if not str(file.relative_to(PACKAGE)).startswith(LOOP_PLACES)
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, waiting)
    ] == []


def test_the_map_shows_every_folder() -> None:
    shown = set(
        re.findall(r"`src/isthmus/([a-z_/]+)/`", (ROOT / "ARCHITECTURE.md").read_text())
    )
    there = {
        str(folder.relative_to(PACKAGE))
        for folder in PACKAGE.rglob("*")
        if folder.is_dir() and (folder / "__init__.py").exists()
    }
    assert shown == there


# --- compiled modules -------------------------------------------------------------------------


def test_compiled_modules_have_their_types_and_their_place_in_the_list() -> None:
    listed = listed_modules()
    assert len(listed) == len(set(listed))
    with_types = {module_of(file) for file in PACKAGE.rglob("*.pxd")}
    with_pointers = {module_of(file) for file in PACKAGE.rglob("*.pyx")}
    readable = {module_of(file) for file in PACKAGE.rglob("*.py")}
    assert with_types | with_pointers <= set(listed)
    assert set(listed) <= readable
    assert with_pointers <= with_types
    assert all(name.startswith("isthmus.wire.") for name in with_pointers)


def test_what_make_says_is_what_runs() -> None:
    """ISTHMUS_COMPILED says which of the two is tried, 1 or 0; by hand it may be a mixture."""
    suffixes = {"1": {".so"}, "0": {".py"}, None: {".so", ".py"}}
    files = [importlib.import_module(name).__file__ or "" for name in listed_modules()]
    expected = suffixes[os.environ.get("ISTHMUS_COMPILED")]
    assert [file for file in files if Path(file).suffix not in expected] == []


# --- tables -----------------------------------------------------------------------------------


def leaves(kind: type[errors.IsthmusError]) -> Iterator[type[errors.IsthmusError]]:
    children = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    if not children:
        yield kind
    for child in children:
        yield from leaves(child)


def test_every_error_has_a_code_on_both_shores() -> None:
    clients_see = set(leaves(errors.IsthmusError)) - {errors.ConfigError}
    for table in (MQTT_REASON, CODES):
        assert [
            error.__name__
            for error in clients_see
            if table.keys().isdisjoint(set(error.__mro__) - {errors.IsthmusError})
        ] == []


def test_every_setting_is_documented_in_one_line() -> None:
    sections = {
        each
        for each in vars(config).values()
        if isinstance(each, type) and each.__name__.endswith("Settings")
    } - {config.Settings}
    assert sections | {
        config.AutoSubscription,
        config.Rewriting,
        config.Route,
        ServerCertificate,
    } == set(SECTION_CLASSES.values())
    for kind in SECTION_CLASSES.values():
        lines = field_lines(kind)
        plain = {
            name
            for name in kind.__struct_fields__
            if not getattr(kind, "__annotations__", {}).get(name, "").endswith("Settings")
        }
        assert plain == set(lines), kind.__name__
        assert all(line.endswith(".") and "\n" not in line for line in lines.values())


def test_the_reference_is_what_the_code_says() -> None:
    assert [name_of(file) for file in outdated()] == [], "make docs writes it"


# --- documents --------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == __version__


def test_the_changelog_keeps_its_form() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
    assert lines[0] == "# Changelog"
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    dated = re.compile(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}")
    assert [line for line in versions[1:] if not dated.fullmatch(line)] == []
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {line[4:] for line in lines if line.startswith("### ")} <= kinds


def test_links_between_documents_lead_somewhere() -> None:
    link = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
    assert [
        f"{name_of(file)}: {target}"
        for file in (*ROOT.glob("*.md"), *sources(".md"))
        for target in link.findall(file.read_text("utf-8"))
        if "://" not in target and not (file.parent / target).exists()
    ] == []
