"""Mosquitto's configuration becomes one of Isthmus: settings, users, rules, and what is lost.

Three files come of it: `isthmus.toml`, `users` (the password file, as it is) and `rules`. Each
line that has no equivalent is named. What cannot be closed as it was is not opened: a listener
whose protection has no equivalent is left out.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from isthmus.broker.users import parse_user
from isthmus.cli.mosquitto_acl import rules_of
from isthmus.cli.mosquitto_conf import Line, Note, Section, flag, read_lines, text_lines
from isthmus.cli.mosquitto_options import (
    NEVER_S,
    PLUGIN,
    Lost,
    Scope,
    Taken,
    Usual,
    fate_of,
    whole,
)
from isthmus.cli.mosquitto_plugins import without_plugins
from isthmus.config_listeners import WEB_SCHEMES
from isthmus.config_sources import Sources, shown
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

TOML, USERS, RULES = "isthmus.toml", "users", "rules"
PORT: Final = "1883"
TLS_MIN: Final = {"tlsv1.3": "1.3", "tlsv1.2": "1.2"}
ANY_ADDRESS: Final = {"ipv4": ("0.0.0.0",), "ipv6": ("::",), "": ("0.0.0.0", "::")}


class Imported(NamedTuple):
    """What comes of a configuration: texts of files by their names, and what is to be said."""

    files: dict[str, str]
    notes: list[Note]


class NotOpened(Exception):
    """A listener cannot be as it was; the text says why."""


class Importer:
    """Reads the lines in their order, then puts together what belongs together."""

    def __init__(self, lines: Iterable[Line], out: Path, *, has_ipv6: bool) -> None:
        """Take the lines of a configuration whose files are to be written into `out`."""
        self._out = out
        self._has_ipv6 = has_ipv6
        self._notes: list[Note] = []
        self._mqtt: dict[str, Any] = {"session_expiry_max_s": NEVER_S}  # unless a line says so
        self._has_plugin = False
        self._is_anybodys = True  # nothing says where to listen
        self._is_local = False  # nothing says anything of a listener
        self._listeners: list[Section] = []
        self._gather(lines)

    # --- line by line -------------------------------------------------------------------------

    def _gather(self, lines: Iterable[Line]) -> None:
        server, default = Section(), Section()
        listener = default
        per_listener = False
        for line in without_plugins(lines):
            scope, fate = fate_of(line.option)
            if line.option == "per_listener_settings":
                per_listener = flag(line.value)
            elif line.option == "listener":
                listener = Section(line)
                self._listeners.append(listener)
            elif isinstance(fate, Lost) or (
                isinstance(fate, Usual) and fate.value not in (None, line.value)
            ):
                self._lose(line, fate.why, opens=fate.opens)
                listener.is_open |= fate.opens and scope is Scope.LISTENER
                self._has_plugin |= fate is PLUGIN
            elif isinstance(fate, Taken) and scope is Scope.SERVER:
                self._take(line, fate, self._mqtt)
            elif line.option == "listener_allow_anonymous":
                listener.lines["allow_anonymous"] = line
            elif line.option == "websockets_origin" and line.option in listener.lines:
                before = listener.lines[line.option]
                listener.lines[line.option] = before._replace(
                    value=f"{before.value} {line.value}"
                )
            elif scope is Scope.LISTENER or (scope is Scope.SECURITY and per_listener):
                listener.lines[line.option] = line
            else:
                server.lines[line.option] = line
            self._is_anybodys &= line.option not in ("listener", "port", "bind_address")
        # Of itself Mosquitto listens to this machine only; an option of a listener opens it.
        begun = {one for one in default.lines if fate_of(one)[0] is Scope.LISTENER}
        begun -= {"max_topic_alias", "max_topic_alias_broker"}
        self._is_local = not begun and not self._listeners
        if begun or self._is_local:
            self._listeners.insert(0, default)
        for each in self._listeners:
            each.lines = server.lines | each.lines

    def _take(self, line: Line, fate: Taken, settings: dict[str, Any]) -> None:
        try:
            settings |= dict.fromkeys(fate.keys, fate.read(line.value))
        except ValueError as error:
            raise ConfigError(f"{line.place}: {line}: {error}") from None

    def _lose(self, line: Line, why: str, *, opens: bool = False) -> None:
        self._notes.append(Note(line.place, str(line), why, opens))

    # --- together -----------------------------------------------------------------------------

    def result(self) -> Imported:
        """Return the files and the notes. Raises ConfigError."""
        acl, passwords = self._one_of_all("acl_file"), self._one_of_all("password_file")
        tables: list[dict[str, Any]] = []
        free: list[str] = []  # names of listeners to which the ACL file does not apply
        for number, listener in enumerate(self._listeners, 1):
            try:
                found = self._tables(listener)
            except (NotOpened, ValueError) as error:
                line = listener.first or Line("listener", PORT, "the listener that is none's")
                self._lose(line, f"{error}; it is left out", opens=True)
                continue
            if acl is not None and "acl_file" not in listener.lines:
                for table in found:
                    table["name"] = f"mosquitto-{number}-{len(free)}"
                    free.append(table["name"])
            tables += found
        files = {TOML: self._toml(tables, acl, passwords)}
        if acl is not None:
            files[RULES] = self._rules(acl, free)
        if passwords is not None:
            files[USERS] = self._users(passwords)
        return Imported(files, self._notes)

    def _one_of_all(self, option: str) -> Line | None:
        """Return the file that all listeners have; one that has another is not opened."""
        found: Line | None = None
        for listener in self._listeners:
            line = listener.lines.get(option)
            if line is not None and found is not None and line.value != found.value:
                listener.is_open = True
                self._lose(line, f"{option}: there is one for all, {found.value}", opens=True)
            found = found or line
        return found

    def _tables(self, listener: Section) -> list[dict[str, Any]]:
        """Return the listeners of ours for one of Mosquitto's, by address.

        Raises NotOpened, ValueError.
        """
        if listener.is_open:
            raise NotOpened("its protection has no equivalent")
        table: dict[str, Any] = {
            "allow_anonymous": listener.is_true("allow_anonymous", default=self._is_anybodys),
            "authentication": self._ways(listener),
        }
        for line in listener.lines.values():
            _, fate = fate_of(line.option)
            if isinstance(fate, Taken):
                self._take(line, fate, table)
        tls = tls_of(listener)
        version = listener.value("tls_version")
        if tls and version not in ("", *TLS_MIN):
            self._lose(listener.lines["tls_version"], "the oldest version spoken is 1.2")
        scheme = scheme_of(listener, is_encrypted=bool(tls))
        if scheme not in WEB_SCHEMES:
            table.pop("origins", None)
        extra = {"tls": tls} if tls else {}
        return [
            {"address": address, **table, **extra}
            for address in self._addresses(listener, scheme)
        ]

    def _addresses(self, listener: Section, scheme: str) -> list[str]:
        first = listener.first
        port, _, host = (
            listener.value("port", PORT) if first is None else first.value
        ).partition(" ")
        host = host.strip() or listener.value("bind_address")
        if port == "0" and host:
            return [f"unix://{host}"]
        if not 0 < whole(port) < 65_536:
            raise ValueError(f"{port} is no port")
        if self._is_local:
            hosts: tuple[str, ...] = ("127.0.0.1", "::1")
        else:
            domain = listener.value("socket_domain")
            if domain not in ANY_ADDRESS:
                raise ValueError(f"socket_domain {domain} is neither ipv4 nor ipv6")
            hosts = (host,) if host else ANY_ADDRESS[domain]
        if len(hosts) > 1 and not self._has_ipv6:
            hosts = hosts[:1]
        written = [f"[{each}]" if ":" in each else each for each in hosts]
        return [f"{scheme}://{each}:{port}" for each in written]

    def _ways(self, listener: Section) -> list[str]:
        """Return how it is found out who a client is."""
        if names_its_users(listener):
            return ["certificate"]
        if "password_file" in listener.lines:
            return ["users"]
        if listener.is_true("allow_anonymous", default=self._is_anybodys):
            return []
        if not self._has_plugin:
            line = listener.first or Line("listener", PORT, "mosquitto.conf")
            self._lose(line, "nobody could come in, and nobody can before there are users")
        return ["users"]

    # --- the files ----------------------------------------------------------------------------

    def _toml(
        self, tables: list[dict[str, Any]], acl: Line | None, passwords: Line | None
    ) -> str:
        lines = ["# What mosquitto.conf says, as Isthmus has it.", "", "[mqtt]"]
        lines += [f"{key} = {shown(value)}" for key, value in self._mqtt.items()]
        if not tables:
            lines.append("listeners = []")
        for table in tables:
            lines += ["", "[[mqtt.listeners]]"]
            lines += [f"{key} = {shown(value)}" for key, value in table.items()]
        if passwords is not None:
            lines += ["", "[authentication]", f"users_file = {shown(str(self._out / USERS))}"]
        if acl is not None:
            lines += ["", "[access]", f"rules_file = {shown(str(self._out / RULES))}"]
        elif self._has_plugin:
            lines += ["", "[access]", 'default = "deny"']
        return "\n".join(lines) + "\n"

    def _rules(self, acl: Line, free: list[str]) -> str:
        rules, notes = rules_of(text_lines(Path(acl.value)), acl.value, free)
        self._notes += notes
        return "\n".join([f"# What {acl.value} says, as Isthmus has it.", *rules]) + "\n"

    def _users(self, passwords: Line) -> str:
        """Return the password file; a line that is none of a user is named and left out."""
        kept: dict[str, str] = {}
        for number, line in enumerate(text_lines(Path(passwords.value)), 1):
            name, _, credential = line.partition(":")
            if not line or line.startswith("#"):
                continue
            try:
                parse_user(name, credential)
            except ConfigError as error:
                place = f"{passwords.value}:{number}"
                self._notes.append(Note(place, name, f"cannot log in: {error}"))
            else:
                kept[name] = line
        return "".join(f"{line}\n" for line in kept.values())


def import_mosquitto(file: Path, out: Path) -> Imported:
    """Read a configuration and write what comes of it into a directory. Raises ConfigError."""
    if any((out / name).exists() for name in (TOML, USERS, RULES)):
        raise ConfigError(f"there is a configuration in {out} already: choose another --out")
    try:
        imported = Importer(read_lines(file), out.resolve(), has_ipv6=has_ipv6()).result()
        out.mkdir(parents=True, exist_ok=True)
        for name, text in imported.files.items():
            (out / name).touch(0o600 if name == USERS else 0o644)
            (out / name).write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from None
    Sources(file=out / TOML).read()  # a value that is beyond its limits here
    return imported


def has_ipv6() -> bool:
    """Whether this machine has IPv6, where Mosquitto listens then, too."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


# --- one listener -----------------------------------------------------------------------------


def names_its_users(listener: Section) -> bool:
    """Whether certificates or keys of clients say who they are."""
    options = ("use_identity_as_username", "use_subject_as_username")
    return any(listener.is_true(option) for option in options)


def scheme_of(listener: Section, *, is_encrypted: bool) -> str:
    """Return what an address begins with. Raises NotOpened."""
    protocol = listener.value("protocol", "mqtt")
    if protocol == "websockets":
        return "wss" if is_encrypted else "ws"
    if protocol != "mqtt":
        raise NotOpened(f"protocol {protocol} is not spoken")
    return "tls" if is_encrypted else "tcp"


def tls_of(listener: Section) -> dict[str, Any]:
    """Return what a listener has of TLS; nothing: it has none. Raises NotOpened, ValueError."""
    tls: dict[str, Any] = {}
    asks = listener.is_true("require_certificate")
    if "psk_hint" in listener.lines:
        if "psk_file" not in listener.lines:
            raise NotOpened("it has no psk_file, so nobody has a key")
        tls = {"psk_file": listener.value("psk_file")}
    elif "certfile" in listener.lines:
        tls = {"certificate": listener.value("certfile"), "key": listener.value("keyfile")}
        if asks and "cafile" not in listener.lines:
            raise NotOpened(
                "the CAs of clients are in a directory; cafile wants them in one file"
            )
        if not asks and names_its_users(listener):
            raise NotOpened("users are to have certificates, and none is asked for")
        if asks:
            tls |= {"client_ca": listener.value("cafile"), "client_certificates": "required"}
            tls |= {"crl": listener.value("crlfile")} if "crlfile" in listener.lines else {}
        else:  # what leads to the CA may stand there, and is sent
            tls |= {"chain": listener.value("cafile")} if "cafile" in listener.lines else {}
        if listener.is_true("use_identity_as_username"):
            tls["user_from"] = "cn"
        elif listener.is_true("use_subject_as_username"):
            tls["user_from"] = "subject"
        if listener.value("tls_version") in TLS_MIN:
            tls["tls_min"] = TLS_MIN[listener.value("tls_version")]
    elif asks or names_its_users(listener):
        raise NotOpened("it asks for certificates without having one")
    if tls and "ciphers" in listener.lines:
        tls["ciphers"] = listener.value("ciphers")
    return tls
