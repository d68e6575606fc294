"""Writes docs/reference/ from the code: settings, errors, metrics, Kafka requests, clauses.

    tools/generate_docs_tables.py           write what has changed
    tools/generate_docs_tables.py --check   write nothing; status 1 where something would change

The tables are what the code says: names, ranges, defaults and the line below each field in
`config.py`; the two code tables of the error tree; the table of handlers; the tables of MQTT's
statements and their tests. `tests/test_tidy.py` holds that the pages are up to date.
"""

from __future__ import annotations

import ast
import inspect
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import NODEFAULT, Struct

from isthmus import config, config_listeners, errors
from isthmus.app_metrics import METRICS
from isthmus.config_sources import (
    FIELDS,
    described,
    fields_in,
    is_section,
    shown,
    table_of,
    variable_of,
)
from isthmus.kafka.api import ApiKey, advertised
from isthmus.kafka.errors import code_of
from isthmus.mqtt.reasons import name_of, reason_of
from isthmus.server.kafka_api.table import HANDLERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.config_sources import Field

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
CONFORMANCE = ROOT / "tests" / "conformance"
NOTE = "<!-- Made by tools/generate_docs_tables.py; do not edit. -->\n"
QUORUM = "of the quorum of controllers, which one node without metadata log has not"
NOT_SERVED: dict[tuple[int, ...], str] = {
    (55, 80, 81): QUORUM,
    (64,): "this broker cannot be forgotten while it answers",
    (83, 84, 85, 86, 87): "between brokers: the state of share groups is kept where it is used",
    (88, 89): "groups of Kafka Streams with assignment by the broker are not served yet;"
    " Kafka Streams uses consumer groups by default",
}
UNKNOWN_NAMES = {  # of requests that no client sends
    64: "UNREGISTER_BROKER",
    80: "ADD_RAFT_VOTER",
    81: "REMOVE_RAFT_VOTER",
    83: "INITIALIZE_SHARE_GROUP_STATE",
    84: "READ_SHARE_GROUP_STATE",
    85: "WRITE_SHARE_GROUP_STATE",
    86: "DELETE_SHARE_GROUP_STATE",
    87: "READ_SHARE_GROUP_STATE_SUMMARY",
}
SECTION_CLASSES: dict[str, type[Any]] = {
    "mqtt": config.MqttSettings,
    "mqtt.listeners": config_listeners.MqttListenerSettings,
    "mqtt.auto_subscribe": config.AutoSubscription,
    "mqtt.rewrite": config.Rewriting,
    "kafka": config.KafkaSettings,
    "kafka.listeners": config_listeners.KafkaListenerSettings,
    "http": config.HttpSettings,
    "http.listeners": config_listeners.HttpListenerSettings,
    "tls": config.TlsSettings,
    "tls.certificates": config_listeners.ServerCertificate,
    "authentication": config.AuthenticationSettings,
    "authentication.jwt": config.JwtSettings,
    "authentication.http": config.HookSettings,
    "authentication.delegation_tokens": config.DelegationTokenSettings,
    "access": config.AccessSettings,
    "storage": config.StorageSettings,
    "storage.local": config.LocalStorageSettings,
    "log": config.LogSettings,
    "routes": config.Route,
}


def field_lines(kind: type[Any]) -> dict[str, str]:
    """Return the line below each field of a section, as it stands in the source."""
    lines: dict[str, str] = {}
    for each in kind.__mro__:
        if issubclass(each, Struct) and each.__module__.startswith("isthmus."):
            lines |= own_lines(each)
    return lines


def own_lines(kind: type[Any]) -> dict[str, str]:
    """Return the lines below those fields that a class declares itself."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    lines: dict[str, str] = {}
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    lines[statement.target.id] = text
    return lines


def settings_page() -> Iterator[str]:
    """Say what can be set."""
    yield "# Settings\n"
    yield NOTE
    yield (
        "One TOML file (`--config`), above it the environment, above that `--set` and the other"
        " flags.\n`isthmus config show` prints what is in force and where it comes from."
        " A size without a unit in its name is in bytes.\n"
    )
    for section, kind in SECTION_CLASSES.items():
        listed = section in FIELDS  # each table of a list is one
        yield f"## {f'[[{section}]]' if listed else f'[{section}]'}\n"
        yield f"{inspect.getdoc(kind)}\n"
        lines = field_lines(kind)
        limits = config_listeners.LIMITS.get(kind)
        above = f"as `[{section.partition('.')[0]}]`"
        inherited = dict.fromkeys(limits.__struct_fields__, above) if limits else {}
        rows = [
            setting_row(field, lines, inherited=inherited)
            for field in fields_in(kind, f"{section}.")
            if listed or not is_section(field.kind)
        ]
        yield table(("setting", "default", "what it is", "takes"), rows)
        if not listed:
            first = next(name for name in FIELDS if name.rpartition(".")[0] == section)
            yield f"By environment: `{variable_of(first)}` and so on.\n"


def setting_row(
    field: Field, lines: dict[str, str], *, inherited: dict[str, str]
) -> tuple[str, ...]:
    """Return one setting's row; a default that is None or missing shows as a dash."""
    key = field.name.rpartition(".")[2]
    default = f"`{shown(field.default)}`" if field.default != "" else "-"
    if key in inherited:
        default = inherited[key]
    elif is_section(field.kind):
        default = f"as `[{key}]`"
    elif field.default is NODEFAULT or field.default is None:
        default = "-"
    elif table_of(field.kind) is not None and field.default:
        default = f"`{shown([str(each.address) for each in field.default])}`"
    return f"`{key}`", default, lines[key], described(field)


def errors_page() -> Iterator[str]:
    """Say which code each error becomes on either side."""
    yield "# Errors\n"
    yield NOTE
    yield "What can go wrong, and the code that a client gets for it on either side.\n"
    for kind in errors.IsthmusError.__subclasses__():
        if kind is errors.ConfigError:  # before anything listens
            continue
        yield f"## {kind.__name__}\n"
        yield f"{inspect.getdoc(kind)}\n"
        rows = [error_row(each) for each in family(kind)]
        yield table(("error", "meaning", "MQTT 5 reason", "Kafka error"), rows)


def family(kind: type[errors.IsthmusError]) -> Iterator[type[errors.IsthmusError]]:
    """List the classes below `kind`, each before its own children."""
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:  # the codecs refine some for themselves
            yield child
            yield from family(child)


def error_row(kind: type[errors.IsthmusError]) -> tuple[str, ...]:
    """Return one error's row."""
    error = kind("")
    meaning = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
    code = code_of(error)
    return kind.__name__, meaning, name_of(reason_of(error)), f"{code.value} {code.name}"


def kafka_page() -> Iterator[str]:
    """Say which requests of the Kafka protocol are served."""
    yield "# Kafka requests\n"
    yield NOTE
    yield "What is advertised is exactly what is served, in the ranges of Apache Kafka 4.3.\n"
    rows = []
    for served in advertised(HANDLERS):
        key, first, last = served["api_key"], served["min_version"], served["max_version"]
        rows.append((str(key), ApiKey(key).name, f"{first} to {last}"))
    yield table(("key", "request", "versions"), rows)
    yield "\nWhat Apache Kafka 4.3 advertises beside these, and why it is not here:\n"
    reasons = {key: why for keys, why in NOT_SERVED.items() for key in keys}
    names = {**UNKNOWN_NAMES, **{int(key): key.name for key in ApiKey}}
    yield table(
        ("key", "request", "why"),
        [(str(key), names[key], reasons[key]) for key in sorted(reasons.keys() - HANDLERS)],
    )


def clauses_page() -> Iterator[str]:
    """Say which tests show each normative statement of MQTT."""
    counts = tomllib.loads((CONFORMANCE / "all_clauses.toml").read_text("utf-8"))
    shown = tomllib.loads((CONFORMANCE / "clauses.toml").read_text("utf-8"))
    yield "# Clauses of MQTT\n"
    yield NOTE
    yield (
        "Every numbered normative statement of the two specifications, with the tests that show"
        " it.\nOf one that binds clients only: what the server does with a client that breaks"
        " it.\n"
    )
    for version, title in (("mqtt5", "MQTT 5.0"), ("mqtt311", "MQTT 3.1.1")):
        sections: dict[str, list[int]] = counts[version]
        total = sum(last - first + 1 for first, last in sections.values())
        yield f"## {title}: {total} statements\n"
        rows = [
            clause_row(f"MQTT-{section}-{number}", shown[version], shown["client"][version])
            for section, (first, last) in sections.items()
            for number in range(first, last + 1)
        ]
        yield table(("statement", "shown by", "of clients: what the server does"), rows)


def clause_row(
    clause: str, of_server: dict[str, list[str]], of_clients: dict[str, dict[str, Any]]
) -> tuple[str, ...]:
    """Return one statement's row."""
    of_client = of_clients.get(clause)
    tests = of_server[clause] if of_client is None else of_client["tests"]
    names: dict[str, list[str]] = {}
    for each in tests:
        file, _, name = each.partition("::")
        case = name.partition(f"[{clause}: ")[2].removesuffix("]")  # of packets, as data
        names.setdefault(file, []).append(case or name.removeprefix("test_"))
    cells = [
        f"[{Path(file).name}](../../{file}): {', '.join(dict.fromkeys(each))}"
        for file, each in names.items()
    ]
    return clause, "<br>".join(cells), "" if of_client is None else of_client["server"]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def metrics_page() -> Iterator[str]:
    """Say what can be measured."""
    yield "# Metrics\n"
    yield NOTE
    yield (
        "What `/metrics` says, for Prometheus ([operation](../guide/operation.md#metrics)). The"
        " names begin with `isthmus_`; times are in seconds, sizes in bytes. Beside them are"
        " `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds` and"
        " what else Prometheus' library knows of a process.\n"
    )
    rows = [
        (
            f"`{each.name}`",
            each.kind,
            " ".join(f"`{label}`" for label in each.labels),
            each.help,
        )
        for each in METRICS
    ]
    yield table(("metric", "kind", "labels", "what it is"), rows)


PAGES = {
    "metrics.md": metrics_page,
    "settings.md": settings_page,
    "errors.md": errors_page,
    "kafka-requests.md": kafka_page,
    "clauses.md": clauses_page,
}


def outdated() -> dict[Path, str]:
    """Return the pages whose text is not what the code says, with the text they should have."""
    texts = {REFERENCE / name: "\n".join(page()) for name, page in PAGES.items()}
    return {
        file: text
        for file, text in texts.items()
        if not file.exists() or file.read_text("utf-8") != text
    }


def main() -> int:
    """Write the pages, or only look."""
    changed = outdated()
    for file, text in changed.items():
        if "--check" in sys.argv[1:]:
            print(f"{file.relative_to(Path.cwd())} is not what the code says: make docs")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
    return int(bool(changed) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
