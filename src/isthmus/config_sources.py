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
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import asdict

from isthmus.config import CHECKS, Settings
from isthmus.config_listeners import (
    HTTP_WAYS,
    LIMITS,
    MQTT_SCHEMES,
    PLAIN_SCHEMES,
    Address,
    Addresses,
    HttpListenerSettings,
    KafkaListenerSettings,
    ListenerSettings,
    MqttListenerSettings,
    TlsOptions,
    check_distinct,
    check_listener,
    check_names,
    check_open,
    check_ways,
    parse_address,
)
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path as FilePath

Path: TypeAlias = tuple[str | int, ...]  # of a value in a document: keys, and places in lists

Inherited: TypeAlias = "Mapping[type[Struct], dict[str, Any]]"

ENVIRONMENT_PREFIX: Final = "ISTHMUS_"
DEFAULT: Final = "default"
# By section: the tables, and what their addresses may begin with.
LISTENERS: Final[dict[str, tuple[type[ListenerSettings], tuple[str, ...]]]] = {
    "mqtt": (MqttListenerSettings, MQTT_SCHEMES),
    "kafka": (KafkaListenerSettings, PLAIN_SCHEMES),
    "http": (HttpListenerSettings, PLAIN_SCHEMES),
}
ADDRESSES: Final = 'addresses, as in ["tcp://127.0.0.1:1883"]'


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
    places: Mapping[Path, str] = {}  # of lists and tables: the origin of each part

    def part(self, key: str | int) -> Value:
        """Return what stands inside under a key, or at an index."""
        inside = {path[1:]: place for path, place in self.places.items() if path[0] == key}
        return Value(self.raw[key], inside.pop((), self.origin), inside)


class Configuration(Struct, frozen=True):
    """The settings in force, and for each name who decided."""

    settings: Settings
    origins: dict[str, str]


class Sources(Struct, frozen=True, kw_only=True):
    """All that has a say; `read` may be called again when the file has changed."""

    file: FilePath | None = None
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
    for field in fields_in(kind, prefix):
        if is_section(field.kind):
            yield from fields_of(field.kind, f"{field.name}.")
        else:
            yield field


def fields_in(kind: type[Struct], prefix: str) -> Iterator[Field]:
    """List what stands in one section, the sections inside it as they are."""
    hints = get_type_hints(kind, include_extras=True)
    for info in msgspec.structs.fields(kind):
        hint = hints[info.name]
        if get_origin(hint) in {Union, UnionType}:  # with None, where a value is not needed
            hint = get_args(hint)[0]
        plain, meta = get_args(hint) if get_origin(hint) is Annotated else (hint, Meta())
        yield Field(f"{prefix}{info.name}", plain, meta, info.default)


def is_section(kind: Any) -> bool:
    """Say whether a value of this kind is a table of settings."""
    return isinstance(kind, type) and issubclass(kind, Struct) and kind is not Address


FIELDS: Final = {field.name: field for field in fields_of(Settings)}
SECTIONS: Final = sorted({name.rpartition(".")[0] or name for name in FIELDS})


def table_of(kind: Any) -> type[Struct] | None:
    """Return what each element of a list of tables is; None: the kind is no such list."""
    element = get_args(kind)[0] if get_origin(kind) is tuple else None
    return element if is_section(element) else None


def described(field: Field) -> str:
    """Say what a value looks like, to end the sentence "it must be …"."""
    kind, meta = field.kind, field.meta
    tables = f"tables, each begun by [[{field.name}]]"
    if kind is bool:
        return "true or false"
    if kind == Addresses:
        return f"a list of {ADDRESSES}"
    if table_of(kind) in LIMITS:
        return f"a list of {ADDRESSES}, or of {tables}"
    if table_of(kind) is not None:
        return f"a list of {tables}"
    if is_section(kind):
        return "a table of settings"
    if kind == tuple[str, ...]:
        return 'a list of texts, as in ["a", "b"]'
    if kind is Address:
        return 'an address, as in "tcp://127.0.0.1:1883"'
    if get_origin(kind) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(kind))
    if kind is str and meta.description:
        return meta.description
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


def from_file(file: FilePath) -> dict[str, Value]:
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
        values.update(flatten((name,), raw, places))
    return values


def flatten(
    path: tuple[str, ...], raw: Any, places: Mapping[Path, str]
) -> Iterator[tuple[str, Value]]:
    """Turn tables into dotted names, refusing those that are no setting."""
    name = ".".join(path)
    if name in FIELDS:
        depth = len(path)
        inside = {part[depth:]: place for part, place in places.items() if part[:depth] == path}
        yield name, Value(raw, inside.pop(()), inside)
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


def lines_of(text: str) -> dict[Path, int]:
    """Find the line of each table and key of a valid TOML document.

    A statement that is not finished does not parse, so lines are gathered until one does; what
    they hold is then known from tomllib itself, and TOML's grammar need not be repeated here.
    """
    places: dict[Path, int] = {}
    table: Path = ()
    counts: dict[Path, int] = {}  # of the tables that each [[list]] has so far
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
            table = header_path(paths[-1], counts)
            paths = [table[: length + 1] for length in range(len(table))]
        for path in paths:
            places.setdefault(path if header else (*table, *path), begin)
    return places


def header_path(path: Path, counts: dict[Path, int]) -> Path:
    """Return the path of the table that a header begins, counting those of [[lists]].

    A header that leads through a list, as `[[mqtt.listeners.certificates]]` does, means the
    last table that the list has.
    """
    found: Path = ()
    for key in path:
        if isinstance(key, int):  # the header is that of a list
            counts[found] = counts.get(found, 0) + 1
            key = counts[found] - 1
        elif found in counts:
            found = (*found, counts[found] - 1)
        found = (*found, key)
    return found


def paths_of(value: Any, path: Path = ()) -> Iterator[Path]:
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
        if name in FIELDS:
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
        if name not in FIELDS:
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
    listed = field is not None and (field.kind == Addresses or table_of(field.kind) in LIMITS)
    if listed and not text.startswith("["):
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
    for name in (f"{section}.listeners" for section in LISTENERS):
        # so that these, too, are as their section has it
        usual = Value([str(listener.address) for listener in FIELDS[name].default], DEFAULT)
        values = {name: usual, **values}
    origins = {name: values[name].origin if name in values else DEFAULT for name in FIELDS}
    tls = build(TlsOptions, "tls.", values, {})
    inherited: dict[type[Struct], dict[str, Any]] = {TlsOptions: asdict(tls)}
    for section, (kind, _) in LISTENERS.items():
        limits = build(LIMITS[kind], f"{section}.", values, {})
        inherited[kind] = {**asdict(limits), "tls": tls}
    settings = build(Settings, "", values, inherited)
    asks = settings.http.allow_anonymous or settings.http.authentication != ()
    everything: list[Address] = []
    for section in LISTENERS:
        for each in getattr(settings, section).listeners:
            has = asks if section == "http" else each.allow_anonymous or each.is_authenticated
            try:
                check_open(section, each, allow_anonymous=has)
            except ConfigError as error:
                raise ConfigError(f"{origins[f'{section}.listeners']}: {error}") from None
            everything.append(each.address)
    try:
        check_ways(settings.http.authentication, HTTP_WAYS)
    except ConfigError as error:
        raise ConfigError(f"{origins['http.authentication']}: http.{error}") from None
    check_distinct(tuple(everything))
    if len(settings.kafka.advertised_listeners) > len(settings.kafka.listeners):
        raise ConfigError(
            f"{origins['kafka.advertised_listeners']}: kafka.advertised_listeners has more"
            " addresses than kafka.listeners"
        )
    check_names([*settings.mqtt.listeners, *settings.kafka.listeners, *settings.http.listeners])
    return Configuration(settings, origins)


def build(
    kind: type[Any],
    prefix: str,
    values: Mapping[str, Value],
    inherited: Inherited,
) -> Any:
    """Make one section, and the sections inside it.

    `inherited` has what the tables of a list take from elsewhere where they say nothing.
    """
    arguments: dict[str, Any] = {}
    for info, hint in zip(
        msgspec.structs.fields(kind), get_type_hints(kind).values(), strict=True
    ):
        name = f"{prefix}{info.name}"
        if name in values:
            arguments[info.name] = convert(name, FIELDS[name], values[name], inherited)
        elif name not in FIELDS:
            arguments[info.name] = build(hint, f"{name}.", values, inherited)
    return kind(**arguments)


def convert(
    name: str,
    field: Field,
    value: Value,
    inherited: Inherited,
) -> Any:
    """Check one value against its declaration; `name` is how an error calls it."""
    where = f"{value.origin}: {name}"
    kind = table_of(field.kind)
    elements = (dict, str) if kind in LIMITS else dict
    try:
        if kind is not None:
            raws = msgspec.convert(value.raw, list[Any])
            if not all(isinstance(raw, elements) for raw in raws):
                raise msgspec.ValidationError
        elif is_section(field.kind):
            msgspec.convert(value.raw, dict[str, Any])
            return table_from(name, field.name, field.kind, value, inherited)
        elif field.kind == Addresses:
            return tuple(map(parse_address, msgspec.convert(value.raw, tuple[str, ...])))
        elif field.kind is Address:
            _, schemes = LISTENERS[field.name.partition(".")[0]]
            return parse_address(msgspec.convert(value.raw, str), schemes)
        else:
            return msgspec.convert(value.raw, Annotated[field.kind, field.meta])
    except msgspec.ValidationError:
        wanted = described(field)
        raise ConfigError(f"{where} must be {wanted}, not {shown(value.raw)}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return tuple(
        table_from(f"{name}[{index}]", field.name, kind, value.part(index), inherited)
        for index in range(len(raws))
    )


def table_from(
    name: str,
    section: str,
    kind: type[Struct],
    value: Value,
    inherited: Inherited,
) -> Struct:
    """Make one table of a list, `mqtt.listeners[1]` say; a listener may be its address only."""
    if isinstance(value.raw, str):
        value = Value({"address": value.raw}, value.origin)
    declared = {
        field.name.rpartition(".")[2]: field for field in fields_in(kind, f"{section}.")
    }
    arguments = dict(inherited.get(kind, {}))
    for key in value.raw:
        inner = value.part(key)
        if key not in declared:
            near = difflib.get_close_matches(key, declared, 1, 0.5) or list(declared)
            raise ConfigError(
                f"{inner.origin}: {name}.{key} is not a setting;"
                f" the nearest valid name is {near[0]}"
            )
        arguments[key] = convert(f"{name}.{key}", declared[key], inner, inherited)
    missing = [key for key, field in declared.items() if field.default is NODEFAULT]
    missing = [key for key in missing if key not in arguments]
    if missing:
        raise ConfigError(f"{value.origin}: {name} needs {' and '.join(missing)}")
    table = kind(**arguments)
    try:
        if isinstance(table, ListenerSettings):
            check_listener(table, value.raw)
        elif kind in CHECKS:
            CHECKS[kind](table)
    except ConfigError as error:
        raise ConfigError(f"{value.origin}: {name}: {error}") from None
    return table


def shown(value: Any) -> str:
    """Show a value in an error or a listing the way TOML writes it."""
    if isinstance(value, Address):
        value = str(value)
    if isinstance(value, Struct):
        value = asdict(value)
    if isinstance(value, tuple | list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {shown(part)}" for key, part in value.items()) + " }"
    return msgspec.json.encode(value, enc_hook=str).decode()
