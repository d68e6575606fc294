"""Where the settings come from: a TOML file, the environment, `--set`, then other flags.

Each source gives values under dotted names (`mqtt.listeners`), later sources win, and each
value remembers its origin, so an error names the line to mend and `isthmus config show` says
who decided what. Names are checked against the tree in `config.py`: an unknown one is an error
that offers the nearest known one, wherever it was written. Not here: what the settings mean
(`config.py`), and reading anything but the one file that was named.
"""

from __future__ import annotations

import difflib
import tomllib
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from isthmus.config import (
    Listeners,
    Route,
    Settings,
    check_distinct,
    check_open,
    check_route,
    parse_listener,
)
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

ENVIRONMENT_PREFIX: Final = "ISTHMUS_"
DEFAULT: Final = "default"


class Field(Struct, frozen=True):
    """One setting as it is declared in `config.py`."""

    name: str  # dotted: storage.local.directory
    kind: Any
    meta: Meta
    default: Any  # NODEFAULT where a value is needed


class Value(Struct, frozen=True):
    """What a source says about one setting."""

    raw: Any
    origin: str  # file:line, the name of a variable, or the flag
    places: Mapping[tuple[str | int, ...], str] = {}  # for routes: the origin of each part


class Configuration(Struct, frozen=True):
    """The settings in force, and for each name who decided."""

    settings: Settings
    origins: dict[str, str]


class Sources(Struct, frozen=True, kw_only=True):
    """All that has a say; `read` may be called again when the file has changed."""

    file: Path | None = None
    environ: Mapping[str, str] = {}
    assignments: Sequence[str] = ()  # "section.key=value", from --set
    flags: Mapping[str, tuple[str, Any]] = {}  # name -> (flag as typed, value)

    def read(self) -> Configuration:
        """Read and check everything. Raises ConfigError with one sentence."""
        values: dict[str, Value] = {}
        if self.file is not None:
            values.update(from_file(self.file))
        values.update(from_environment(self.environ))
        values.update(from_assignments(self.assignments))
        values.update({name: Value(raw, flag) for name, (flag, raw) in self.flags.items()})
        return assemble(values)


# --- the tree, seen as a list of names --------------------------------------------------------


def fields_of(kind: type[Struct], prefix: str = "") -> Iterator[Field]:
    """List the settings below one section, in the order in which they are declared."""
    hints = get_type_hints(kind, include_extras=True)
    for info in msgspec.structs.fields(kind):
        hint = hints[info.name]
        if get_origin(hint) is Union:  # with None, where a value is not needed
            hint = get_args(hint)[0]
        if isinstance(hint, type) and issubclass(hint, Struct):
            yield from fields_of(hint, f"{prefix}{info.name}.")
        elif get_origin(hint) is Annotated:
            plain, meta = get_args(hint)
            yield Field(f"{prefix}{info.name}", plain, meta, info.default)
        elif info.name != "routes":
            yield Field(f"{prefix}{info.name}", hint, Meta(), info.default)


FIELDS: Final = {field.name: field for field in fields_of(Settings)}
ROUTE_FIELDS: Final = {field.name: field for field in fields_of(Route)}
SECTIONS: Final = sorted({name.rpartition(".")[0] for name in FIELDS} | {"routes"})


def described(kind: Any, meta: Meta) -> str:
    """Say what a value of this kind looks like, to end the sentence "it must be …"."""
    if kind is bool:
        return "true or false"
    if kind == Listeners:
        return 'a list of addresses, as in ["tcp://127.0.0.1:1883"]'
    if get_origin(kind) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(kind))
    if kind is str:
        return "a text in quotes" if not meta.min_length else "a text that is not empty"
    if kind is int and meta.le is None:
        return f"a whole number, {meta.ge} or more"
    return f"a whole number from {meta.ge} to {meta.le}"


def unknown(name: str, origin: str) -> ConfigError:
    """Return the error for a name that is no setting, with the nearest one that is."""
    section, _, key = name.rpartition(".")
    if section not in SECTIONS and section:
        near = difflib.get_close_matches(section, SECTIONS, 1, 0.5)
        hint = f"; the nearest is [{near[0]}]" if near else f"; there are {', '.join(SECTIONS)}"
        return ConfigError(f"{origin}: there is no section [{section}]{hint}")
    siblings = {
        each.rpartition(".")[2]: each for each in FIELDS if each.rpartition(".")[0] == section
    }
    close = difflib.get_close_matches(key, siblings, 1, 0.5)
    near = [siblings[close[0]]] if close else difflib.get_close_matches(name, FIELDS, 1, 0.7)
    hint = f"; the nearest valid name is {near[0]}" if near else ""
    return ConfigError(f"{origin}: {name} is not a setting{hint}")


# --- the file ---------------------------------------------------------------------------------


def from_file(file: Path) -> dict[str, Value]:
    """Read a TOML file into values that know their line."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"the configuration file {file} cannot be read: {reason}") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None
    lines = lines_of(text)
    places = {path: f"{file}:{line}" for path, line in lines.items()}
    values: dict[str, Value] = {}
    for name, raw in document.items():
        if name == "routes":
            inside = {path[1:]: place for path, place in places.items() if path[0] == "routes"}
            values[name] = Value(raw, places[name,], inside)
        else:
            values.update(flatten((name,), raw, places))
    return values


def flatten(
    path: tuple[str, ...], raw: Any, places: Mapping[tuple[str | int, ...], str]
) -> Iterator[tuple[str, Value]]:
    """Turn tables into dotted names, refusing those that are no setting."""
    name = ".".join(path)
    if name in FIELDS:
        yield name, Value(raw, places[path])
    elif not isinstance(raw, dict):
        if name in SECTIONS:
            raise ConfigError(
                f"{places[path]}: {name} is a section, written [{name}] on its own line"
            )
        raise unknown(name, places[path])
    elif name not in SECTIONS:
        raise unknown(f"{name}.", places[path])
    else:
        for key, value in raw.items():
            yield from flatten((*path, key), value, places)


def lines_of(text: str) -> dict[tuple[str | int, ...], int]:
    """Find the line of each table and key of a valid TOML document.

    A statement that is not finished does not parse, so lines are gathered until one does; what
    they hold is then known from tomllib itself, and TOML's grammar need not be repeated here.
    """
    places: dict[tuple[str | int, ...], int] = {}
    table: tuple[str | int, ...] = ()
    counts: dict[str, int] = {}
    statement: list[str] = []
    begin = 1
    for number, line in enumerate(text.splitlines(), 1):
        if not statement:
            begin = number
        statement.append(line)
        try:
            parsed = tomllib.loads("\n".join(statement))
        except tomllib.TOMLDecodeError:
            continue
        header = statement[0].lstrip().startswith("[")
        statement = []
        paths = list(paths_of(parsed))
        if header:
            table = paths[-1]
            if "routes" in parsed and table == ("routes", 0):
                table = ("routes", counts.setdefault("routes", 0))
                counts["routes"] += 1
            paths = [table[: length + 1] for length in range(len(table))]
        for path in paths:
            places.setdefault(path if header else (*table, *path), begin)
    return places


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """List the paths of everything inside a parsed TOML value, outer ones first."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, dict):
                yield from paths_of(inner, (*path, index))


# --- the environment and the command line -----------------------------------------------------


def from_environment(environ: Mapping[str, str]) -> dict[str, Value]:
    """Read `ISTHMUS_SECTION__KEY`; other variables that begin with ISTHMUS_ are not ours."""
    values: dict[str, Value] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
        if name in FIELDS or name == "routes":
            values[name] = Value(from_text(name, text), variable)
        elif "." in name or name.partition("_")[0] in SECTIONS:
            known = {variable_of(each): each for each in FIELDS}
            near = difflib.get_close_matches(variable, known, 1, 0.5)
            hint = f"; the nearest valid name is {near[0]}" if near else ""
            raise ConfigError(f"the environment variable {variable} is not a setting{hint}")
    return values


def variable_of(name: str) -> str:
    """Return the environment variable that sets `name`."""
    return ENVIRONMENT_PREFIX + name.upper().replace(".", "__")


def from_assignments(assignments: Sequence[str]) -> dict[str, Value]:
    """Read `section.key=value`, as `--set` gives them."""
    values: dict[str, Value] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        name = name.strip()
        if not separator:
            raise ConfigError(
                f"--set {assignment} needs a value, as in --set mqtt.packet_size_max=65536"
            )
        if name not in FIELDS and name != "routes":
            raise unknown(name, "--set")
        values[name] = Value(from_text(name, text.strip()), "--set")
    return values


def from_text(name: str, text: str) -> Any:
    """Turn the text of a variable or flag into what the file would hold for this setting.

    Texts are taken as they are, lists with commas between or in brackets (JSON or TOML), all
    else as TOML writes it. What does not parse stays a text, and fails by its type later.
    """
    field = FIELDS.get(name)
    if field is not None and (field.kind is str or get_origin(field.kind) is Literal):
        return text
    if field is not None and field.kind == Listeners and not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


# --- the tree, built and checked --------------------------------------------------------------


def assemble(values: Mapping[str, Value]) -> Configuration:
    """Check each value, fill in the defaults, check what belongs together."""
    origins = {name: values[name].origin if name in values else DEFAULT for name in FIELDS}
    origins["routes"] = values["routes"].origin if "routes" in values else DEFAULT
    settings = build(Settings, "", values)
    everything = []
    for section, part in (
        ("mqtt", settings.mqtt),
        ("kafka", settings.kafka),
        ("http", settings.http),
    ):
        try:
            check_open(section, part.listeners, allow_anonymous=part.allow_anonymous)
        except ConfigError as error:
            raise ConfigError(f"{origins[f'{section}.listeners']}: {error}") from None
        everything += part.listeners
    check_distinct(tuple(everything))
    return Configuration(settings, origins)


def build(kind: type[Any], prefix: str, values: Mapping[str, Value]) -> Any:
    """Make one section, and the sections inside it."""
    arguments: dict[str, Any] = {}
    for info, hint in zip(
        msgspec.structs.fields(kind), get_type_hints(kind).values(), strict=True
    ):
        name = f"{prefix}{info.name}"
        if name == "routes":
            arguments["routes"] = routes_from(values.get(name))
        elif name in values:
            value = values[name]
            arguments[info.name] = convert(FIELDS[name], value.raw, f"{value.origin}: {name}")
        elif name not in FIELDS:
            arguments[info.name] = build(hint, f"{name}.", values)
    return kind(**arguments)


def convert(field: Field, raw: Any, where: str) -> Any:
    """Check one value against its declaration."""
    try:
        if field.kind == Listeners:
            return tuple(map(parse_listener, msgspec.convert(raw, tuple[str, ...])))
        return msgspec.convert(raw, Annotated[field.kind, field.meta])
    except msgspec.ValidationError:
        wanted = described(field.kind, field.meta)
        raise ConfigError(f"{where} must be {wanted}, not {shown(raw)}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def routes_from(value: Value | None) -> tuple[Route, ...]:
    """Check the list of routes, each as a small section of its own."""
    if value is None:
        return ()
    if not isinstance(value.raw, list) or not all(isinstance(raw, dict) for raw in value.raw):
        raise ConfigError(
            f"{value.origin}: routes must be a list of tables, each begun by [[routes]]"
        )
    return tuple(route_from(index, raw, value) for index, raw in enumerate(value.raw))


def route_from(index: int, raw: dict[str, Any], value: Value) -> Route:
    """Check one route."""
    name = f"routes[{index}]"
    place = value.places.get((index,), value.origin)
    arguments: dict[str, Any] = {}
    for key, inner in raw.items():
        where = value.places.get((index, key), place)
        if key not in ROUTE_FIELDS:
            near = difflib.get_close_matches(key, ROUTE_FIELDS, 1, 0.5) or list(ROUTE_FIELDS)
            raise ConfigError(
                f"{where}: {name}.{key} is not a setting; the nearest valid name is {near[0]}"
            )
        arguments[key] = convert(ROUTE_FIELDS[key], inner, f"{where}: {name}.{key}")
    missing = [field.name for field in ROUTE_FIELDS.values() if field.default is NODEFAULT]
    missing = [key for key in missing if key not in arguments]
    if missing:
        raise ConfigError(f"{place}: {name} needs {' and '.join(missing)}")
    route = Route(**arguments)
    try:
        check_route(route)
    except ConfigError as error:
        raise ConfigError(f"{place}: {name}: {error}") from None
    return route


def shown(value: Any) -> str:
    """Show a raw value in an error or a listing the way TOML writes it."""
    if isinstance(value, tuple):  # only listeners are
        value = [str(listener) for listener in value]
    return msgspec.json.encode(value, enc_hook=str).decode()
