"""The settings, as one frozen tree: every name, its default, its range and one line about it.

This file is what can be set; `config_sources.py` is where the values come from. `app.py` gives
each component its own section, never the tree, and no component reads a file or the environment
itself. Units stand in the names (`_s`, `_ms`, `_bytes`); sizes without one are bytes. The line
below a field documents it: `tools/generate_docs_tables.py` makes the reference from it.

What a type cannot check of a table is checked at the end of this file, and what concerns
listeners in `config_listeners.py`, once, before anything starts. Whether a route can be
inverted is for `broker/routes.py` to say: it owns what a route means.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from isthmus.config_listeners import (
    PROPERTY_TEXT,
    Address,
    Addresses,
    HttpLimits,
    HttpListeners,
    HttpListenerSettings,
    KafkaLimits,
    KafkaListeners,
    KafkaListenerSettings,
    MqttLimits,
    MqttListeners,
    MqttListenerSettings,
    TlsSettings,
)
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

LOG_TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
CAPTURE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")


class AutoSubscription(Struct, frozen=True, kw_only=True):
    """A subscription that every new session begins with, as if its client had asked for it."""

    filter: Annotated[str, Meta(min_length=1)]
    """Topic filter; `%c`: client id, `%u`: user name, for clients whose name fits a level."""

    qos: Annotated[int, Meta(ge=0, le=2)] = 0
    """The highest QoS that its messages come with."""

    no_local: bool = False
    """Leave out what the client publishes itself."""

    retain_as_published: bool = False
    """Leave the RETAIN flag as the publisher had it."""

    retained: bool = True
    """Begin with the retained messages."""


class Rewriting(Struct, frozen=True, kw_only=True):
    """Another topic name than the one that clients say."""

    topic: Annotated[str, Meta(min_length=1)]
    """Topic filter with captures: `{name}` is one level, `{rest...}` all that follow."""

    to: Annotated[str, Meta(min_length=1)]
    """What it becomes, with the captures where they belong."""

    action: Literal["all", "publish", "subscribe"] = "all"
    """Whether it holds for what is published, for what is subscribed to, or for both."""


class MqttSettings(MqttLimits, frozen=True, kw_only=True):
    """What MQTT clients meet."""

    listeners: MqttListeners = (
        MqttListenerSettings(address=Address("tcp", "127.0.0.1", 1883)),
    )
    """Addresses to listen on; empty: MQTT is not served."""

    queue_length_max: Annotated[int, Meta(ge=0)] = 1_000_000
    """Deliveries that wait for one session, or one shared subscription; more are dropped."""

    shared_strategy: Literal["fair", "sticky", "hash"] = "fair"
    """Who of a shared subscription gets a message: the next one, the same, or by its key."""

    queue_policy: Literal["newest", "oldest", "disconnect"] = "newest"
    """What is dropped of them; `disconnect`: the newest, and the client is disconnected."""

    queue_qos_0: bool = True
    """Whether deliveries at QoS 0 wait for a connected client that is slow."""

    sessions_max: Annotated[int, Meta(ge=1)] = 1_000_000
    """Sessions kept at one time, with and without a connection."""

    output_bytes_max: Annotated[int, Meta(ge=65_536)] = 4_194_304
    """Bytes kept in memory for one slow connection; above it deliveries wait in the log."""

    output_total_bytes_max: Annotated[int, Meta(ge=1_048_576)] = 268_435_456
    """The same for all connections together: each has its share of it, if that is less."""

    server_reference: Annotated[str, PROPERTY_TEXT] = ""
    """Servers to use instead, as MQTT 5 clients are told when this one shuts down."""

    redirect: Literal["at-shutdown", "use-another", "moved"] = "at-shutdown"
    """`use-another`, `moved`: refuse every client at once, for now or for good."""

    shutdown_reason: Literal["auto", "shutting-down", "use-another", "moved"] = "auto"
    """What they are told then: 0x8B, 0x9C, 0x9D; `auto`: 0x9C if there is a reference."""

    sys_interval_s: Annotated[int, Meta(ge=0, le=86_400)] = 10
    """Seconds from one look at what `$SYS/#` says to the next; 0: it says nothing."""

    retained_max: Annotated[int, Meta(ge=0)] = 1_000_000
    """Retained messages kept, over all topic names; more are sent but not retained."""

    retained_bytes_max: Annotated[int, Meta(ge=0)] = 1_073_741_824
    """Bytes of all retained messages: their topic names, payloads and properties."""

    subscriptions_per_session_max: Annotated[int, Meta(ge=1)] = 10_000
    """Topic filters that one session may have."""

    will_grace_s: Annotated[int, Meta(ge=0, le=86_400)] = 30
    """How long a start waits for the clients of the run before until it sends their wills."""

    slow_consumer_s: Annotated[int, Meta(ge=0, le=86_400)] = 60
    """Time after which the log names who takes nothing of what waits for it; 0: nobody."""

    shutdown_s: Annotated[int, Meta(ge=0, le=3600)] = 0
    """Time over which clients are sent away when the server ends, for other servers' sake."""

    flapping_connects_max: Annotated[int, Meta(ge=0)] = 0
    """Connections of one client id from one address in `flapping_window_s`; 0: no limit."""

    flapping_window_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    """Time in which they are counted."""

    flapping_ban_s: Annotated[int, Meta(ge=1, le=604_800)] = 300
    """Time for which such a client is kept out then, from that address."""

    authentication_failures_max: Annotated[int, Meta(ge=0)] = 100
    """Failed attempts to authenticate from one address in `authentication_window_s`; 0: all."""

    authentication_window_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    """Time in which they are counted."""

    authentication_ban_s: Annotated[int, Meta(ge=1, le=604_800)] = 60
    """Time for which such an address is kept out then."""

    delayed_max: Annotated[int, Meta(ge=0)] = 100_000
    """Messages published to `$delayed/` that wait for their moment."""

    delayed_bytes_max: Annotated[int, Meta(ge=0)] = 1_073_741_824
    """Bytes of all these: their topic names, payloads and properties."""

    delayed_max_s: Annotated[int, Meta(ge=0, le=4_294_967_295)] = 4_294_967
    """Seconds that a message may be delayed by."""

    sparkplug: bool = False
    """Keep Sparkplug's births at `$sparkplug/certificates/`, and date its nodes' deaths."""

    auto_subscribe: tuple[AutoSubscription, ...] = ()
    """Subscriptions that every new session begins with."""

    rewrite: tuple[Rewriting, ...] = ()
    """What clients say, and the topic names and filters that they mean by it."""


class KafkaSettings(KafkaLimits, frozen=True, kw_only=True):
    """What Kafka clients meet."""

    listeners: KafkaListeners = (
        KafkaListenerSettings(address=Address("tcp", "127.0.0.1", 9092)),
    )
    """Addresses to listen on; empty: Kafka is not served."""

    advertised_listeners: Addresses = ()
    """Where clients are told to connect, by listener; what one says of its own comes first."""

    partitions_default: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """Partitions of a log topic created without their number."""

    auto_create_topics: bool = True
    """Create a log topic when a client that asks for it allows that."""

    request_size_max: Annotated[int, Meta(ge=4096, le=0x7FFF_FFFF)] = 104_857_600
    """Bytes of the largest request taken."""

    replication_factor_policy: Literal["clamp", "strict"] = "clamp"
    """A log topic wanted with more replicas than one: `clamp` creates it with one."""

    group_initial_rebalance_delay_ms: Annotated[int, Meta(ge=0, le=300_000)] = 500
    """Time that an empty group waits for more members."""

    group_session_timeout_min_ms: Annotated[int, Meta(ge=1)] = 6_000
    """The shortest session timeout that a member may ask for."""

    group_session_timeout_max_ms: Annotated[int, Meta(ge=1)] = 1_800_000
    """The longest session timeout that a member may ask for."""

    group_consumer_session_timeout_ms: Annotated[int, Meta(ge=100)] = 45_000
    """Silence after which a member of the consumer protocol is put out (KIP-848)."""

    group_consumer_heartbeat_interval_ms: Annotated[int, Meta(ge=10)] = 5_000
    """Time between heartbeats that members of the consumer protocol are told."""

    group_consumer_assignment_interval_ms: Annotated[int, Meta(ge=0, le=15_000)] = 0
    """Shortest time between two assignments of a group of the consumer protocol."""

    group_consumer_migration_policy: Literal[
        "bidirectional", "upgrade", "downgrade", "disabled"
    ] = "bidirectional"
    """Which way a group with members may go between the classic and the consumer protocol."""

    group_share_session_timeout_ms: Annotated[int, Meta(ge=100)] = 45_000
    """Silence after which a member of a share group is put out (KIP-932)."""

    group_share_heartbeat_interval_ms: Annotated[int, Meta(ge=10)] = 5_000
    """Time between heartbeats that members of share groups are told."""

    group_share_assignment_interval_ms: Annotated[int, Meta(ge=0, le=15_000)] = 0
    """Shortest time between two assignments of a share group."""

    group_share_record_lock_duration_ms: Annotated[int, Meta(ge=100)] = 30_000
    """Time that a member of a share group has for a record before another gets it."""

    group_share_delivery_count_limit: Annotated[int, Meta(ge=1, le=1_000)] = 5
    """Times that a record is given to somebody of a share group at most."""

    group_share_partition_max_record_locks: Annotated[int, Meta(ge=1, le=100_000)] = 2_000
    """Records of a partition in work for one share group at one time."""

    group_share_members_max: Annotated[int, Meta(ge=1)] = 200
    """Members of one share group."""

    group_share_sessions_max: Annotated[int, Meta(ge=1)] = 2_000
    """Share sessions kept at one time."""

    group_members_max: Annotated[int, Meta(ge=1)] = 10_000
    """Members of one group."""

    offsets_retention_minutes: Annotated[int, Meta(ge=1)] = 10_080
    """Time that an empty group's offsets are kept."""

    transaction_timeout_max_ms: Annotated[int, Meta(ge=1)] = 900_000
    """The longest time that a producer may ask to have for a transaction."""

    transactional_id_expiration_hours: Annotated[int, Meta(ge=1)] = 168
    """Time after which a transactional id that nobody uses is forgotten."""

    fetch_sessions_max: Annotated[int, Meta(ge=0)] = 1_000
    """Incremental fetch sessions kept at one time (KIP-227)."""

    fetch_bytes_max: Annotated[int, Meta(ge=1024, le=0x7FFF_FFFF)] = 57_671_680
    """Bytes of records in one response, whatever a client asks for; or one batch."""

    fetch_unsent_bytes_max: Annotated[int, Meta(ge=1024)] = 268_435_456
    """Bytes of all responses that clients are slow to take; beyond it, one batch at a time."""


class HttpSettings(HttpLimits, frozen=True, kw_only=True):
    """Health, metrics and the REST API, for those who look after this server."""

    listeners: HttpListeners = (
        HttpListenerSettings(address=Address("tcp", "127.0.0.1", 8080)),
    )
    """Addresses to listen on; empty: HTTP is not served."""

    allow_anonymous: bool = False
    """Let everybody in without credentials, from other machines too; the REST API is theirs."""

    authentication: tuple[str, ...] = ()
    """Ways to find out who uses the REST API, in their order: certificate, users, jwt, http."""

    administrators: Annotated[str, Meta(min_length=1)] = "administrators"
    """The group whose members may use the REST API where `authentication` asks who they are."""

    observers: Annotated[str, Meta(min_length=1)] = "observers"
    """The group whose members may read `/metrics` there, beside these."""


class JwtSettings(Struct, frozen=True, kw_only=True):
    """Tokens (JWT) that clients show: who signs them, and what they have to say."""

    keys: tuple[str, ...] = ()
    """Files with public keys in PEM, or key sets in JSON (JWKS)."""

    secret_file: str = ""
    """File with a secret of 32 bytes or more, for algorithms that begin with HS."""

    keys_url: str = ""
    """URL of a key set (JWKS)."""

    keys_url_s: Annotated[int, Meta(ge=10, le=86_400)] = 300
    """Seconds after which the key set is fetched again."""

    ca: str = ""
    """File with the CAs to believe at that URL, in PEM; empty: those of the system."""

    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    """Algorithms that are believed, each with its own kind of key."""

    issuer: str = ""
    """Who has to have made the token (`iss`); empty: not asked."""

    audience: str = ""
    """For whom the token has to be (`aud`); empty: not asked."""

    user_claim: Annotated[str, Meta(min_length=1)] = "sub"
    """What in the token is the user's name."""

    groups_claim: Annotated[str, Meta(min_length=1)] = "groups"
    """What in the token are the user's groups: a list, or a text with spaces between."""

    leeway_s: Annotated[int, Meta(ge=0, le=3600)] = 30
    """Seconds by which clocks may differ."""


class HookSettings(Struct, frozen=True, kw_only=True):
    """A program of yours that says over HTTP who somebody is."""

    url: str = ""
    """Where it is asked, by POST."""

    ca: str = ""
    """File with the CAs to believe there, in PEM; empty: those of the system."""

    authorization_file: str = ""
    """File with the Authorization header that shows who asks; empty: none."""

    timeout_ms: Annotated[int, Meta(ge=10, le=60_000)] = 3_000
    """Milliseconds without an answer after which nobody is let in."""

    remember_s: Annotated[int, Meta(ge=0, le=86_400)] = 60
    """Seconds for which somebody who was let in need not be asked about again."""

    connections_max: Annotated[int, Meta(ge=1, le=100)] = 8
    """Questions under way at one time; others wait."""


class DelegationTokenSettings(Struct, frozen=True, kw_only=True):
    """Logins that users of Kafka hand to their programs (KIP-48)."""

    master_key_file: str = ""
    """File with the secret that tokens are made of, 32 bytes or more; empty: there are none."""

    lifetime_max_s: Annotated[int, Meta(ge=1)] = 604_800
    """Seconds after which a token cannot be renewed any more."""

    expiry_s: Annotated[int, Meta(ge=1)] = 86_400
    """Seconds after which a token expires that nobody renews; the most that a renewal gives."""

    expiry_check_s: Annotated[int, Meta(ge=1, le=2_000_000)] = 3_600
    """Seconds between two looks for tokens that have expired; these let nobody in before."""


class AuthenticationSettings(Struct, frozen=True, kw_only=True):
    """What the ways to find out who a client is need to know."""

    users_file: str = ""
    """File with users beside those of the server, `NAME:CREDENTIAL` in each line."""

    iterations: Annotated[int, Meta(ge=4096, le=10_000_000)] = 4096
    """Rounds of hashing for new passwords; SCRAM clients do the same work at each login."""

    jwt: JwtSettings = JwtSettings()
    http: HookSettings = HookSettings()
    delegation_tokens: DelegationTokenSettings = DelegationTokenSettings()


class AccessSettings(Struct, frozen=True, kw_only=True):
    """Who may do what; docs/guide/access.md has the form of the rules."""

    rules: tuple[str, ...] = ()
    """Rules, as in ["allow user:line-* publish,subscribe factory/%u/#"]."""

    rules_file: str = ""
    """File with more rules, one in each line; read again when it changes."""

    default: Literal["auto", "allow", "deny"] = "auto"
    """What no rule speaks of; `auto`: allowed without rules, denied with some or a file."""

    super_users: tuple[str, ...] = ()
    """Users who may do everything, whatever the rules say."""


class LocalStorageSettings(Struct, frozen=True, kw_only=True):
    """The log as files in one directory."""

    directory: Annotated[str, Meta(min_length=1)] = "./isthmus-data"
    """Where the log is kept; a relative path begins where the server was started."""

    durability: Literal["synced", "written", "memory"] = "synced"
    """What an acknowledged record survives: `synced` a power cut, `written` SIGKILL."""

    retention_s: Annotated[int, Meta(ge=-1)] = 604_800
    """Age above which records are deleted, unless their log topic says otherwise; -1: never."""

    retention_bytes: Annotated[int, Meta(ge=-1)] = -1
    """Size above which a partition loses its oldest records, likewise; -1: no limit."""

    retention_check_s: Annotated[int, Meta(ge=1, le=86_400)] = 30
    """Seconds between two looks for what is to be deleted."""

    producer_expiration_s: Annotated[int, Meta(ge=1)] = 86_400
    """How long an idempotent producer that writes nothing is remembered, per partition."""


class StorageSettings(Struct, frozen=True, kw_only=True):
    """Which engine keeps the log."""

    engine: Literal["local"] = "local"
    """The log engine: `local` keeps files on this machine."""

    local: LocalStorageSettings = LocalStorageSettings()


class LogSettings(Struct, frozen=True, kw_only=True):
    """The lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least serious line that is written."""

    format: Literal["text", "json"] = "text"
    """`text`: event key=value; `json`: one object on each line."""

    repeats_s: Annotated[int, Meta(ge=0, le=3600)] = 10
    """Time in which lines that a client can cause come once for each address; 0: always."""


class Route(Struct, frozen=True, kw_only=True):
    """Which MQTT topic names live in which log topic, and under which key."""

    mqtt: Annotated[str, Meta(min_length=1)]
    """Topic filter with captures: `{line}` is one level, `{rest...}` all that follow."""

    log: str
    """Name of the log topic."""

    key: str = ""
    """Key of the record, made from captures; empty: the topic name."""

    partitions: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    """Partitions that the log topic is created with; none: `kafka.partitions_default`."""

    compression: Literal["producer", "uncompressed", "zstd", "lz4", "snappy", "gzip"] | None = (
        None
    )
    """`compression.type` that the log topic is created with; none: as the producer sends."""

    direction: Literal["both", "to-log"] = "both"
    """`to-log`: what Kafka clients write there does not reach MQTT."""


class Settings(Struct, frozen=True, kw_only=True):
    """All settings; each component is given its section only."""

    mqtt: MqttSettings = MqttSettings()
    kafka: KafkaSettings = KafkaSettings()
    http: HttpSettings = HttpSettings()
    tls: TlsSettings = TlsSettings()
    authentication: AuthenticationSettings = AuthenticationSettings()
    access: AccessSettings = AccessSettings()
    storage: StorageSettings = StorageSettings()
    log: LogSettings = LogSettings()
    routes: tuple[Route, ...] = ()


# --- what a type cannot check of a table ------------------------------------------------------


def check_route(route: Route) -> None:
    """Check the form of a route's templates. Raises ConfigError; the caller says where."""
    captures = check_pattern(
        "mqtt",
        route.mqtt,
        wildcards=route.direction == "to-log",
        instead=', or say direction = "to-log"',
    )
    if not LOG_TOPIC_NAME.fullmatch(route.log) or route.log in {".", ".."}:
        raise ConfigError(
            f"log = {route.log!r} is no name for a log topic: letters, digits, '.', '_' and '-'"
            " are allowed, 249 at most"
        )
    if route.log.startswith("__"):
        raise ConfigError(f"log = {route.log!r} is one of the server's own log topics")
    for name, _ in CAPTURE.findall(route.key):
        if name not in captures:
            raise ConfigError(
                f"key = {route.key!r} uses {{{name}}},"
                f" which mqtt = {route.mqtt!r} does not capture"
            )
    if re.search(r"[{}]", CAPTURE.sub("", route.key)):
        raise ConfigError(
            f"key = {route.key!r} has a brace that belongs to no capture like {{name}}"
        )


def check_rewriting(rewriting: Rewriting) -> None:
    """Check that a rule makes topic names of topic names, and filters of filters."""
    captured = check_pattern("topic", rewriting.topic)
    if rewriting.topic.startswith("$"):
        raise ConfigError(f"topic = {rewriting.topic!r} is one of the server's own names")
    for name, rest in check_pattern("to", rewriting.to).items():
        if captured.get(name) != rest:
            raise ConfigError(
                f"to = {rewriting.to!r} uses {{{name}{rest}}},"
                f" which topic = {rewriting.topic!r} does not capture"
            )


CHECKS: Final[dict[type[Struct], Callable[[Any], None]]] = {
    Route: check_route,
    Rewriting: check_rewriting,
}
"""What checks the tables of a list, each by itself; it raises ConfigError."""


def check_pattern(
    key: str, pattern: str, *, wildcards: bool = False, instead: str = ""
) -> dict[str, str]:
    """Return what `factory/{line}/{rest...}` captures: {"line": "", "rest": "..."}.

    Raises ConfigError. `wildcards`: it may have plain ones, too; `instead`: another way out.
    """
    captures: dict[str, str] = {}
    levels = pattern.split("/")
    for position, level in enumerate(levels):
        last = position == len(levels) - 1
        capture = CAPTURE.fullmatch(level)
        if capture is not None:
            if capture[1] in captures:
                raise ConfigError(f"{key} = {pattern!r} captures {{{capture[1]}}} twice")
            if capture[2] and not last:
                raise ConfigError(
                    f"{key} = {pattern!r}: {level} takes all that follows, so it is last"
                )
            captures[capture[1]] = capture[2] or ""
        elif level in {"+", "#"}:
            if not wildcards:
                raise ConfigError(
                    f"{key} = {pattern!r} has a plain {level}: give it a name, as in"
                    f" {'{name}' if level == '+' else '{rest...}'}{instead}"
                )
            if level == "#" and not last:
                raise ConfigError(f"{key} = {pattern!r} has # before its end [MQTT-4.7.1-1]")
        elif re.search(r"[{}+#\0]", level):
            raise ConfigError(
                f"{key} = {pattern!r}: a capture or wildcard is a whole level between slashes,"
                f" and {level!r} is not"
            )
    return captures
