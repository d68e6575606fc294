"""Every option of mosquitto.conf, and what becomes of it: a table.

An option is of the whole server, of a listener, or of a bridge. It becomes a setting (`Taken`),
counts together with others (`Joined`, see mosquitto_import.py), changes nothing because Isthmus
is always so (`Usual`), or has no equivalent (`Lost`).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from isthmus.cli.mosquitto_conf import flag

if TYPE_CHECKING:
    from collections.abc import Callable

PACKET_BYTES_MAX: Final = 268_435_460  # fixed header and the longest rest [MQTT-1.5.5]
NO_LIMIT: Final = 1_000_000_000
NEVER_S: Final = 0xFFFF_FFFF
HOURS: Final = {"h": 1, "d": 24, "w": 168, "m": 720, "y": 8760}


class Scope(Enum):
    """Whose an option is."""

    SERVER = "server"
    LISTENER = "listener"
    SECURITY = "security"  # the server's, unless per_listener_settings is true
    BRIDGE = "bridge"


class Taken(NamedTuple):
    """It becomes settings of Isthmus, `[mqtt]` and a listener have them by the same names."""

    keys: tuple[str, ...]
    read: Callable[[str], Any]  # raises ValueError


class Joined(NamedTuple):
    """What it means depends on others."""


class Usual(NamedTuple):
    """It needs no setting where it has this value, any if None; else it is lost."""

    value: str | None = None
    why: str = ""
    opens: bool = False


class Lost(NamedTuple):
    """There is no equivalent; `opens`: without it somebody could do more than before."""

    why: str
    opens: bool = False


Fate: TypeAlias = Taken | Joined | Usual | Lost


def whole(value: str) -> int:
    """Read a whole number. Raises ValueError."""
    if not re.fullmatch(r"-?[0-9]+", value):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def or_else(
    instead: int, *, at_most: int = NO_LIMIT, at_least: int = 1
) -> Callable[[str], int]:
    """Return a reader of numbers that are unlimited where they are not above 0."""

    def read(value: str) -> int:
        number = whole(value)
        return min(max(number, at_least), at_most) if number > 0 else instead

    return read


def proxy_version(value: str) -> bool:
    """Read the version of the PROXY protocol; both are understood. Raises ValueError."""
    if whole(value) not in (1, 2):
        raise ValueError(f"{value} is neither 1 nor 2")
    return True


def lifetime_s(value: str) -> int:
    """Read `14d`, as persistent_client_expiration has it."""
    found = re.fullmatch(r"([0-9]+)([hdwmy])", value)
    if found is None:
        raise ValueError(f"{value!r} is no number with h, d, w, m or y behind it")
    return min(int(found[1]) * HOURS[found[2]] * 3600, NEVER_S)


_LOG: Final = Lost("log lines go to standard error, as log.format and log.level say")
_SUPERVISOR: Final = Lost("whatever starts the server cares for that, systemd for one")
_DATA: Final = Lost("the log is kept in storage.local.directory, and always up to date")
PLUGIN: Final = Lost(
    "there are no plugins; users and rights that it knows are lost", opens=True
)
_ENGINE: Final = Lost("keys are files, in PEM")
_BRIDGE: Final = Lost(
    "Isthmus begins no bridge: have the other side begin it, or a Mosquitto between the two"
    " (guide, Coming from Mosquitto: Bridges)"
)
_WEB: Final = Lost("WebSocket has no such setting")

OPTIONS: Final[dict[str, tuple[Scope, Fate]]] = {
    # who may come in, and do what
    "acl_file": (Scope.SECURITY, Joined()),
    "allow_anonymous": (Scope.SECURITY, Joined()),
    "password_file": (Scope.SECURITY, Joined()),
    "psk_file": (Scope.SECURITY, Joined()),
    "per_listener_settings": (Scope.SERVER, Joined()),
    "auth_plugin": (Scope.SECURITY, PLUGIN),
    "plugin": (Scope.SECURITY, PLUGIN),
    "plugin_load": (Scope.SERVER, PLUGIN),
    "plugin_use": (Scope.LISTENER, PLUGIN),
    "global_plugin": (Scope.SERVER, PLUGIN),
    "listener_allow_anonymous": (Scope.LISTENER, Joined()),
    "auth_plugin_deny_special_chars": (
        Scope.SECURITY,
        Usual(why="a name with + or # in it is never part of a rule"),
    ),
    "clientid_prefixes": (Scope.SERVER, Lost("client ids are not limited", opens=True)),
    "use_username_as_clientid": (
        Scope.LISTENER,
        Usual("false", "a client id is what the client says", opens=True),
    ),
    "allow_zero_length_clientid": (
        Scope.SECURITY,
        Usual("true", "clients may always leave their id to the server"),
    ),
    **dict.fromkeys(
        ("auto_id_prefix", "listener_auto_id_prefix"),
        (Scope.SECURITY, Usual("auto-", "such ids begin with auto-")),
    ),
    "check_retain_source": (
        Scope.SERVER,
        Usual("false", "a retained message stays when its publisher loses the right to it"),
    ),
    # listeners
    "listener": (Scope.LISTENER, Joined()),
    "port": (Scope.LISTENER, Joined()),
    "bind_address": (Scope.LISTENER, Joined()),
    "protocol": (Scope.LISTENER, Joined()),
    "socket_domain": (Scope.LISTENER, Joined()),
    "bind_interface": (
        Scope.LISTENER,
        Lost("a listener has an address, not an interface", opens=True),
    ),
    "mount_point": (Scope.LISTENER, Lost("all clients see the same topic names", opens=True)),
    "http_dir": (Scope.LISTENER, Lost("no files are served")),
    "accept_protocol_versions": (Scope.LISTENER, Lost("all versions of MQTT are spoken")),
    "enable_proxy_protocol": (Scope.LISTENER, Taken(("proxy_protocol",), proxy_version)),
    "proxy_protocol_v2_require_tls": (
        Scope.LISTENER,
        Usual("false", "whether a client of the proxy has TLS is not asked", opens=True),
    ),
    "websockets_origin": (Scope.LISTENER, Taken(("origins",), str.split)),
    "global_max_connections": (Scope.SERVER, Taken(("connections_max",), or_else(NO_LIMIT))),
    "global_max_clients": (Scope.SERVER, Taken(("sessions_max",), or_else(NO_LIMIT))),
    "max_connections": (Scope.LISTENER, Taken(("connections_max",), or_else(NO_LIMIT))),
    **dict.fromkeys(
        ("max_qos", "maximum_qos"), (Scope.LISTENER, Taken(("maximum_qos",), whole))
    ),
    "max_topic_alias": (Scope.LISTENER, Taken(("topic_alias_max",), whole)),
    "max_topic_alias_broker": (Scope.LISTENER, Taken(("topic_alias_out_max",), whole)),
    "packet_buffer_size": (Scope.SERVER, Usual()),
    "websockets_headers_size": (Scope.SERVER, _WEB),
    "websockets_log_level": (Scope.SERVER, _WEB),
    # TLS
    "cafile": (Scope.LISTENER, Joined()),
    "capath": (Scope.LISTENER, Joined()),
    "certfile": (Scope.LISTENER, Joined()),
    "keyfile": (Scope.LISTENER, Joined()),
    "crlfile": (Scope.LISTENER, Joined()),
    "require_certificate": (Scope.LISTENER, Joined()),
    "use_identity_as_username": (Scope.LISTENER, Joined()),
    "use_subject_as_username": (Scope.LISTENER, Joined()),
    "tls_version": (Scope.LISTENER, Joined()),
    "ciphers": (Scope.LISTENER, Joined()),
    "psk_hint": (Scope.LISTENER, Joined()),
    "disable_client_cert_date_checks": (
        Scope.LISTENER,
        Usual("false", "certificates of clients that have run out are refused"),
    ),
    "ciphers_tls1.3": (Scope.LISTENER, Lost("those of TLS 1.3 are all safe, and not chosen")),
    "dhparamfile": (Scope.LISTENER, Usual()),
    "tls_engine": (Scope.LISTENER, _ENGINE),
    "tls_engine_kpass_sha1": (Scope.LISTENER, _ENGINE),
    "tls_keyform": (Scope.LISTENER, Usual("pem", "keys are files, in PEM")),
    # limits
    "max_inflight_messages": (
        Scope.SERVER,
        Taken(("inflight_max", "receive_maximum"), or_else(65_535, at_most=65_535)),
    ),
    "max_keepalive": (
        Scope.SERVER,
        Taken(("keep_alive_max_s",), or_else(65_535, at_most=65_535)),
    ),
    "max_packet_size": (
        Scope.SERVER,
        Taken(
            ("packet_size_max",),
            or_else(PACKET_BYTES_MAX, at_least=1024, at_most=PACKET_BYTES_MAX),
        ),
    ),
    "max_queued_messages": (Scope.SERVER, Taken(("queue_length_max",), or_else(NO_LIMIT))),
    "max_queued_bytes": (
        Scope.SERVER,
        Usual("0", "what waits is in the log and counts by messages: mqtt.queue_length_max"),
    ),
    "max_inflight_bytes": (
        Scope.SERVER,
        Usual("0", "what is in flight counts by messages: mqtt.inflight_max"),
    ),
    "message_size_limit": (
        Scope.SERVER,
        Usual("0", "the limit is that of the packet, mqtt.packet_size_max"),
    ),
    "memory_limit": (
        Scope.SERVER,
        Usual("0", "each limit is a setting of its own, see docs/guide/limits.md"),
    ),
    "persistent_client_expiration": (
        Scope.SERVER,
        Taken(("session_expiry_max_s",), lifetime_s),
    ),
    # messages
    "retain_available": (Scope.SERVER, Taken(("retain_available",), flag)),
    "queue_qos0_messages": (
        Scope.SERVER,
        Usual("false", "QoS 0 does not wait for clients that are gone [MQTT-3.1.2-5]"),
    ),
    "upgrade_outgoing_qos": (
        Scope.SERVER,
        Usual("false", "no message comes at a higher QoS than it was published at"),
    ),
    "allow_duplicate_messages": (Scope.SERVER, Usual()),
    "set_tcp_nodelay": (Scope.SERVER, Usual()),
    "sys_interval": (Scope.SERVER, Taken(("sys_interval_s",), whole)),
    "retain_expiry_interval": (Scope.SERVER, Usual()),  # what has expired is always removed
    "retry_interval": (Scope.SERVER, Usual()),  # of old; Mosquitto reads over it, too
    "enable_control_api": (Scope.SERVER, Usual("false", "there is no $CONTROL/broker")),
    "mosquitto_sparkplug_aware": (Scope.SERVER, Taken(("sparkplug",), bool)),
    # what is kept
    "mosquitto_persist_sqlite": (Scope.SERVER, Usual()),
    "persistence": (Scope.SERVER, Usual("true", "what is published is always kept")),
    "persistence_file": (Scope.SERVER, _DATA),
    "persistence_location": (Scope.SERVER, _DATA),
    "autosave_interval": (Scope.SERVER, _DATA),
    "autosave_on_changes": (Scope.SERVER, _DATA),
    # the process
    "log_dest": (Scope.SERVER, Usual("stderr", _LOG.why)),
    "log_type": (Scope.SERVER, _LOG),
    "log_facility": (Scope.SERVER, _LOG),
    "log_timestamp": (Scope.SERVER, Usual("true", _LOG.why)),
    "log_timestamp_format": (Scope.SERVER, _LOG),
    "connection_messages": (Scope.SERVER, Usual("true", _LOG.why)),
    "pid_file": (Scope.SERVER, _SUPERVISOR),
    "user": (Scope.SERVER, _SUPERVISOR),
    # bridges
    "connection": (Scope.BRIDGE, _BRIDGE),
    **dict.fromkeys(
        (
            *("address", "addresses", "topic", "start_type", "threshold", "round_robin"),
            *("cleansession", "local_cleansession", "keepalive_interval", "idle_timeout"),
            *("restart_timeout", "try_private", "clientid", "remote_clientid", "username"),
            *("remote_username", "password", "remote_password", "local_clientid"),
            *("local_username", "local_password", "notifications", "notification_topic"),
            *("notifications_local_only", "bridge_alpn", "bridge_cafile", "bridge_capath"),
            *("bridge_certfile", "bridge_keyfile", "bridge_identity", "bridge_psk"),
            *("bridge_insecure", "bridge_require_ocsp", "bridge_tls_version"),
            *("bridge_attempt_unsubscribe", "bridge_bind_address", "bridge_max_packet_size"),
            *("bridge_outgoing_retain", "bridge_protocol_version", "bridge_max_topic_alias"),
            *("bridge_ciphers", "bridge_ciphers_tls1.3", "bridge_receive_maximum"),
            *("bridge_reload_type", "bridge_session_expiry_interval", "bridge_tcp_keepalive"),
            *("bridge_tcp_user_timeout", "bridge_tls_use_os_certs"),
        ),
        (Scope.BRIDGE, Lost("belongs to that bridge")),
    ),
}
"""What becomes of which option."""

PREFIXES: Final[dict[str, tuple[Scope, Fate]]] = {
    "auth_opt_": (Scope.SECURITY, PLUGIN),
    "plugin_opt_": (Scope.SECURITY, PLUGIN),
}


def fate_of(option: str) -> tuple[Scope, Fate]:
    """Return what becomes of an option; one that is not known may have closed something."""
    found = OPTIONS.get(option)
    if found is None:
        found = next((PREFIXES[each] for each in PREFIXES if option.startswith(each)), None)
    return found or (Scope.SERVER, Lost("is no option that is known here", opens=True))
