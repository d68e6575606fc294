"""Listeners: the addresses that are listened on, and what each may have of its own.

A listener is a text (`"tcp://127.0.0.1:1883"`) or a table (`[[mqtt.listeners]]`,
`[[kafka.listeners]]`) with an address, a name, limits and TLS; what a table does not say is as
the protocol's section and `[tls]` have it, so whoever is given a listener finds everything in
it. What must not be open to everybody is checked here. Opening the sockets is for
`server/listener.py`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

MQTT_PACKET_BYTES_MAX: Final = 268_435_460  # fixed header and the longest rest [MQTT-1.5.5]
MQTT_SCHEMES: Final = ("tcp", "tls", "ws", "wss", "unix")
PLAIN_SCHEMES: Final = ("tcp", "tls")  # of Kafka and HTTP
TLS_SCHEMES: Final = ("tls", "wss")
WEB_SCHEMES: Final = ("ws", "wss")
WAYS: Final = ("certificate", "users", "jwt", "http")  # to find out who a client is
SASL: Final = {  # mechanisms of Kafka clients, and the ways of which one is needed
    "PLAIN": {"users", "jwt", "http"},
    "SCRAM-SHA-256": {"users"},
    "SCRAM-SHA-512": {"users"},
    "OAUTHBEARER": {"jwt"},
}
HTTP_WAYS: Final = WAYS  # and who uses the REST API
FILE_MODE: Final = Meta(
    pattern="^0?[0-7]{3}$", description='three digits from 0 to 7, as in "0660"'
)
PROPERTY_TEXT: Final = Meta(  # 65,535 bytes at most in UTF-8 [MQTT-1.5.4-1, MQTT-1.5.4-2]
    max_length=16_383,
    pattern=r"\A[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*\Z",
    description="a text of 16,383 characters at most, without control characters",
)
UNIX_PATH_BYTES_MAX: Final = 107  # and a zero behind it [unix(7)]


class Address(Struct, frozen=True):
    """Where to listen: `tcp://HOST:PORT`, `ws://HOST:PORT/PATH`, `unix://PATH` and so on.

    Port 0 lets the system choose.
    """

    scheme: str
    host: str
    port: int
    path: str = ""  # of the socket's file, or in the URL of a WebSocket (empty: any)

    @property
    def authority(self) -> str:
        """Return `HOST:PORT`, with IPv6 in brackets; the path of a file."""
        if self.scheme == "unix":
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        if self.scheme == "unix" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        path = self.path if self.scheme in WEB_SCHEMES else ""
        return f"{self.scheme}://{self.authority}{path}"


Addresses: TypeAlias = tuple[Address, ...]


class ConnectionLimits(Struct, frozen=True, kw_only=True):
    """What one listener may have otherwise than the others of its protocol."""

    connections_max: Annotated[int, Meta(ge=1)] = 100_000
    """Connections open at one time, over all listeners; a listener's own counts its own."""

    connect_timeout_s: Annotated[int, Meta(ge=1, le=3600)] = 10
    """Seconds that a new connection has for all that comes before its client is let in."""

    handshakes_max: Annotated[int, Meta(ge=1)] = 10_000
    """Connections of one listener whose clients are not let in yet, at one time."""

    connection_rate_max: Annotated[int, Meta(ge=0)] = 0
    """New connections a second through one listener; 0: no limit."""

    address_connection_rate_max: Annotated[int, Meta(ge=0)] = 0
    """New connections a second from one address through one listener; 0: no limit."""

    address_connections_max: Annotated[int, Meta(ge=0)] = 0
    """Connections from one address through one listener, at one time; 0: no limit."""


class MqttLimits(ConnectionLimits, frozen=True, kw_only=True):
    """What one MQTT listener may have otherwise than the others."""

    allow_anonymous: bool = False
    """Let clients in who do not show who they are, from other machines or at all."""

    authentication: tuple[str, ...] = ()
    """Ways to find out who a client is, in their order: certificate, users, jwt, http."""

    packet_size_max: Annotated[int, Meta(ge=1024, le=MQTT_PACKET_BYTES_MAX)] = 16_777_216
    """Bytes of the largest packet taken."""

    client_messages_rate_max: Annotated[int, Meta(ge=0)] = 0
    """Messages a second from one connection; 0: no limit."""

    client_bytes_rate_max: Annotated[int, Meta(ge=0)] = 0
    """Bytes a second from one connection; 0: no limit."""

    client_rate_action: Literal["wait", "disconnect"] = "wait"
    """Above its own rates a connection is read from later, or ended (0x96)."""

    messages_rate_max: Annotated[int, Meta(ge=0)] = 0
    """Messages a second through one listener, from all connections; 0: no limit."""

    bytes_rate_max: Annotated[int, Meta(ge=0)] = 0
    """Bytes a second through one listener, from all connections; 0: no limit."""

    session_expiry_max_s: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)] = 604_800
    """Seconds that a session outlives its connection, at most; with 3.1.1, always."""

    receive_maximum: Annotated[int, Meta(ge=1, le=65_535)] = 1024
    """QoS 1 and 2 publishes that a client may have unacknowledged."""

    inflight_max: Annotated[int, Meta(ge=1, le=65_535)] = 1024
    """QoS 1 and 2 deliveries that a session has unacknowledged; a client may ask for fewer."""

    topic_alias_max: Annotated[int, Meta(ge=0, le=65_535)] = 64
    """Topic aliases that a client may use."""

    keep_alive_max_s: Annotated[int, Meta(ge=1, le=65_535)] = 65_535
    """The longest keep alive; an MQTT 5 client that asks for more, or none, is given this."""

    topic_alias_out_max: Annotated[int, Meta(ge=0, le=65_535)] = 16
    """Topic aliases that the server uses towards a client which takes some."""

    maximum_qos: Annotated[int, Meta(ge=0, le=2)] = 2
    """The highest QoS that clients may publish with, and that subscriptions are granted."""

    retain_available: bool = True
    """Take messages and wills that are to be retained."""

    wildcard_available: bool = True
    """Take topic filters with `+` and `#`."""

    identifiers_available: bool = True
    """Take subscription identifiers."""

    shared_available: bool = True
    """Take shared subscriptions, `$share/<group>/<filter>`."""

    response_information: Annotated[str, PROPERTY_TEXT] = ""
    """What MQTT 5 clients that ask for it are told; `%c`: client id, `%u`: user."""


class KafkaLimits(ConnectionLimits, frozen=True, kw_only=True):
    """What one Kafka listener may have otherwise than the others."""

    allow_anonymous: bool = False
    """Let clients in who do not show who they are, from other machines or at all."""

    connections_max: Annotated[int, Meta(ge=1)] = 10_000
    """Connections open at one time, over all listeners; a listener's own counts its own."""

    authentication: tuple[str, ...] = ()
    """Ways to find out who a client is, in their order: certificate, users, jwt, http."""

    sasl_mechanisms: tuple[str, ...] = ()
    """SASL mechanisms that are offered; empty: all that these ways have."""

    reauthenticate_s: Annotated[int, Meta(ge=0, le=31_536_000)] = 0
    """Seconds after which a client that logged in by SASL has to do so again; 0: never."""

    authentication_failure_delay_ms: Annotated[int, Meta(ge=0, le=10_000)] = 100
    """Milliseconds until a client hears that it has failed to log in."""


class HttpLimits(ConnectionLimits, frozen=True, kw_only=True):
    """What one HTTP listener may have otherwise than the others."""

    connections_max: Annotated[int, Meta(ge=1)] = 256
    """Connections open at one time, over all listeners; a listener's own counts its own."""


class ServerCertificate(Struct, frozen=True, kw_only=True):
    """One more certificate of a server, for clients that ask for one of its names (SNI)."""

    names: tuple[str, ...]
    """Host names to use it for, as in ["a.example", "*.b.example"]."""

    certificate: Annotated[str, Meta(min_length=1)]
    """File with the certificate and those between it and its CA's, in PEM."""

    key: str = ""
    """File with its private key, in PEM; empty: in the same file."""


class TlsOptions(Struct, frozen=True, kw_only=True):
    """What one listener with TLS may have otherwise than the others."""

    certificate: str = ""
    """File with the server's certificate and those between it and its CA's, in PEM."""

    key: str = ""
    """File with its private key, in PEM; empty: in the same file."""

    certificates: tuple[ServerCertificate, ...] = ()
    """More certificates, chosen by the name that a client asks for."""

    chain: str = ""
    """File with the certificates between, where they are not with the server's; in PEM."""

    client_ca: str = ""
    """File with the CAs whose client certificates are believed, in PEM."""

    client_certificates: Literal["none", "optional", "required"] = "none"
    """Whether clients show a certificate: `optional` checks those that are shown."""

    crl: str = ""
    """File with the lists of revoked client certificates, in PEM: one for each CA."""

    user_from: Literal["none", "cn", "san-dns", "san-email", "subject"] = "none"
    """What in a client's certificate is the user's name; without it the client is refused."""

    user_mapping: tuple[str, ...] = ()
    """Rules that make the user's name of that, `RULE:pattern/replacement/[LU]` or `DEFAULT`."""

    psk_file: str = ""
    """File with keys of clients, `IDENTITY:HEXADECIMAL` in each line; replaces certificates."""

    tls_min: Literal["1.2", "1.3"] = "1.2"
    """The oldest version of TLS that is spoken."""

    ciphers: str = ""
    """Ciphers of TLS 1.2, as OpenSSL lists them; empty: those that Python thinks safe."""


class TlsSettings(TlsOptions, frozen=True, kw_only=True):
    """TLS of all listeners that do not say otherwise."""

    reload_check_s: Annotated[int, Meta(ge=1, le=86_400)] = 10
    """Seconds between two looks whether a file has changed; SIGHUP looks at once."""


class MqttListenerSettings(MqttLimits, frozen=True, kw_only=True):
    """One MQTT listener; what it does not say is as `[mqtt]` and `[tls]` have it."""

    address: Address
    """Where to listen."""

    name: str = ""
    """What it is called in log lines; empty: its address."""

    mode: Annotated[str, FILE_MODE] = "0660"
    """Who may connect through the file of a `unix://` socket, as chmod takes it."""

    proxy_protocol: bool = False
    """Whether a proxy stands before it and says for whom it connects (PROXY, 1 and 2)."""

    proxy_from: tuple[str, ...] = ()
    """Addresses or networks of these proxies; empty: whoever connects is believed."""

    proxy_user: bool = False
    """Whether a client's user is whom its certificate names, as the proxy says (PROXY 2)."""

    origins: tuple[str, ...] = ()
    """Web sites whose pages may connect, as in ["https://a.example"]; empty: all."""

    tls: TlsOptions = TlsOptions()
    """What it has otherwise than `[tls]`, except for `reload_check_s`."""

    @property
    def is_authenticated(self) -> bool:
        """Whether nobody comes in who does not show who it is."""
        return bool(self.authentication) or asks_by_tls(self)

    def __post_init__(self) -> None:
        if not self.name:
            force_setattr(self, "name", str(self.address))


class KafkaListenerSettings(KafkaLimits, frozen=True, kw_only=True):
    """One Kafka listener; what it does not say is as `[kafka]` and `[tls]` have it."""

    address: Address
    """Where to listen."""

    name: str = ""
    """What it is called in log lines; empty: its address."""

    advertised: Address | None = None
    """Where its clients are told to connect; port 0: the one that they came to."""

    proxy_protocol: bool = False
    """Whether a proxy stands before it and says for whom it connects (PROXY, 1 and 2)."""

    proxy_from: tuple[str, ...] = ()
    """Addresses or networks of these proxies; empty: whoever connects is believed."""

    tls: TlsOptions = TlsOptions()
    """What it has otherwise than `[tls]`, except for `reload_check_s`."""

    @property
    def is_authenticated(self) -> bool:
        """Whether nobody comes in who does not show who it is."""
        return bool(self.authentication) or asks_by_tls(self)

    def __post_init__(self) -> None:
        if not self.name:
            force_setattr(self, "name", str(self.address))


class HttpListenerSettings(HttpLimits, frozen=True, kw_only=True):
    """One HTTP listener; what it does not say is as `[http]` and `[tls]` have it."""

    address: Address
    """Where to listen."""

    name: str = ""
    """What it is called in log lines; empty: its address."""

    proxy_protocol: bool = False
    """Whether a proxy stands before it and says for whom it connects (PROXY, 1 and 2)."""

    proxy_from: tuple[str, ...] = ()
    """Addresses or networks of these proxies; empty: whoever connects is believed."""

    tls: TlsOptions = TlsOptions()
    """What it has otherwise than `[tls]`, except for `reload_check_s`."""

    def __post_init__(self) -> None:
        if not self.name:
            force_setattr(self, "name", str(self.address))


ClientListenerSettings: TypeAlias = MqttListenerSettings | KafkaListenerSettings
ListenerSettings: TypeAlias = ClientListenerSettings | HttpListenerSettings
MqttListeners: TypeAlias = tuple[MqttListenerSettings, ...]
KafkaListeners: TypeAlias = tuple[KafkaListenerSettings, ...]
HttpListeners: TypeAlias = tuple[HttpListenerSettings, ...]


def asks_by_tls(listener: ClientListenerSettings) -> bool:
    """Whether TLS ends without a certificate or a key of the client."""
    asks = listener.tls.client_certificates == "required" or listener.tls.psk_file != ""
    return listener.address.scheme in TLS_SCHEMES and asks


def parse_address(text: str, schemes: tuple[str, ...] = ("tcp",)) -> Address:
    """Read an address; IPv6 stands in brackets. Raises ConfigError."""
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        raise ConfigError(f"the address {text!r} needs a scheme in front, as in tcp://{text}")
    if scheme not in schemes:
        offered = " or ".join(f"{each}://" for each in schemes)
        raise ConfigError(f"{text!r} asks for {scheme}, and this can listen on {offered} only")
    if scheme == "unix":
        if not 0 < len(os.fsencode(rest)) <= UNIX_PATH_BYTES_MAX:
            raise ConfigError(
                f"{text!r} needs a path of 1 to {UNIX_PATH_BYTES_MAX} bytes, as in"
                " unix:///run/isthmus/mqtt.sock"
            )
        return Address(scheme, "", 0, rest)
    path = ""
    if scheme in WEB_SCHEMES:
        rest, slash, path = rest.partition("/")
        path = slash + path
        if not re.fullmatch(r"[!-~]*", path) or set(path) & set("?#"):
            raise ConfigError(f"the path in {text!r} is none that a URL may have")
    return Address(scheme, *host_and_port(rest, text), path)


def host_and_port(authority: str, text: str) -> tuple[str, int]:
    """Read `HOST:PORT` as it stands in the address `text`. Raises ConfigError."""
    host, separator, port = authority.rpartition(":")
    if not separator or not host:
        raise ConfigError(f"{text!r} needs a host and a port, as in tcp://127.0.0.1:1883")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ConfigError(f"{host!r} in {text!r} is no IPv6 address") from None
    elif ":" in host:
        raise ConfigError(f"an IPv6 address in {text!r} needs brackets, as in [::1]:1883")
    elif not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ConfigError(f"{host!r} in {text!r} is neither a host name nor an IP address")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ConfigError(f"the port in {text!r} is not a number from 0 to 65535")
    return host, int(port)


def check_listener(listener: ListenerSettings, own: Collection[str]) -> None:
    """Refuse what would leave a listener less closed than it reads; `own` are its own keys."""
    address = listener.address
    encrypted = address.scheme in TLS_SCHEMES
    if "tls" in own and not encrypted:
        raise ConfigError(f"tls has no effect on {address}: only tls:// and wss:// have it")
    check_proxies(listener)
    if isinstance(listener, MqttListenerSettings):
        check_ways(listener.authentication, WAYS)
        check_mqtt_listener(listener, own)
    elif isinstance(listener, KafkaListenerSettings):
        check_ways(listener.authentication, WAYS)
        mechanisms_of(listener)
    if encrypted:
        check_tls(address, listener.tls)


def check_proxies(listener: ListenerSettings) -> None:
    """Refuse proxies that would not be heard, or are none."""
    address = listener.address
    if listener.proxy_from and (not listener.proxy_protocol or address.scheme == "unix"):
        raise ConfigError("proxy_from has no effect without proxy_protocol, nor on a file")
    for network in listener.proxy_from:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(f"proxy_from: {error}") from None


def check_mqtt_listener(listener: MqttListenerSettings, own: Collection[str]) -> None:
    """Do so for what only listeners of MQTT have."""
    address = listener.address
    if "mode" in own and address.scheme != "unix":
        raise ConfigError(f"mode has no effect on {address}, which is no file")
    if listener.origins and address.scheme not in WEB_SCHEMES:
        raise ConfigError(f"origins has no effect on {address}, which is no WebSocket")
    if listener.proxy_user and not (
        listener.proxy_protocol and (listener.proxy_from or address.scheme == "unix")
    ):
        raise ConfigError(
            "proxy_user lets whoever connects be anybody: it needs proxy_protocol, and"
            " proxy_from to name the proxies"
        )


def mechanisms_of(listener: KafkaListenerSettings) -> tuple[str, ...]:
    """Return the SASL mechanisms that a listener offers. Raises ConfigError."""
    ways = listener.authentication
    found = [name for name, which in SASL.items() if not which.isdisjoint(ways)]
    unknown = [name for name in listener.sasl_mechanisms if name not in found]
    if unknown:
        raise ConfigError(
            f"sasl_mechanisms = {unknown[0]!r} is none that its authentication has, which are"
            f" {', '.join(found) or 'none'}"
        )
    return listener.sasl_mechanisms or tuple(found)


def check_ways(ways: Collection[str], offered: Collection[str]) -> None:
    """Refuse a way of finding out who somebody is that is unknown here, or there twice."""
    unknown = [way for way in ways if way not in offered]
    if unknown or len(set(ways)) < len(ways):
        raise ConfigError(
            f"authentication has each of {', '.join(offered)} once at most,"
            f" and not {', '.join(unknown or ways)}"
        )


def check_tls(address: Address, tls: TlsOptions) -> None:
    """Refuse TLS without what it needs, or with what it does not use."""
    asks = tls.client_certificates != "none"
    if tls.psk_file and (asks or tls.tls_min != "1.2"):
        raise ConfigError("tls.psk_file is for TLS 1.2, without certificates of clients")
    if not tls.certificate and not tls.psk_file:
        raise ConfigError(f"{address} needs tls.certificate, for itself or in [tls]")
    if asks and not tls.client_ca:
        raise ConfigError("tls.client_certificates needs tls.client_ca")
    if asks and tls.chain:
        raise ConfigError("tls.chain would be believed of clients: join it to tls.certificate")
    for key in ("client_ca", "crl", "user_from"):
        if not asks and getattr(tls, key) not in {"", "none"}:
            raise ConfigError(f'tls.{key} has no effect while client_certificates = "none"')
    if tls.user_mapping and tls.user_from == "none":
        raise ConfigError('tls.user_mapping has no effect while user_from = "none"')


def check_open(section: str, listener: ListenerSettings, *, allow_anonymous: bool) -> None:
    """Refuse to serve other machines without authentication, unless that is written down."""
    address = listener.address
    ask = f"ask with {section}.authentication who they are, "
    if section == "http" and listener.proxy_protocol and not allow_anonymous:
        raise ConfigError(
            f"{address} has a proxy before it, for other machines, and nobody has to log in"
            f" there: {ask}or write http.allow_anonymous = true"
        )
    if not address.is_loopback and not allow_anonymous:
        raise ConfigError(
            f"{address} can be reached from other machines and nobody has to log in there:"
            f" listen on 127.0.0.1, {ask}or write {section}.allow_anonymous = true"
        )


def check_distinct(addresses: Addresses) -> None:
    """Refuse the same address and port twice; port 0 is another one each time."""
    seen: set[str] = set()
    for address in addresses:
        if (address.port or address.scheme == "unix") and address.authority in seen:
            raise ConfigError(
                f"{address.authority} is to be listened on twice; change one of them"
            )
        seen.add(address.authority)


def check_names(listeners: Sequence[ListenerSettings]) -> None:
    """Refuse two listeners of one name; without a name the address is it."""
    named = [listener.name for listener in listeners if listener.name != str(listener.address)]
    for name in named:
        if named.count(name) > 1:
            raise ConfigError(f"two listeners are called {name!r}; change one of them")


LIMITS: Final[dict[type[ListenerSettings], type[ConnectionLimits]]] = {
    MqttListenerSettings: MqttLimits,
    KafkaListenerSettings: KafkaLimits,
    HttpListenerSettings: HttpLimits,
}
"""What a listener has from the section of its protocol where it says nothing."""


def own_of(
    listener: ListenerSettings, section: ConnectionLimits, tls: TlsOptions
) -> dict[str, Any]:
    """Return, by name, what a listener has otherwise than its sections: what its table says."""
    kind = type(listener)
    own = different(listener, section, LIMITS[kind].__struct_fields__)
    alone = set(kind.__struct_fields__) - set(LIMITS[kind].__struct_fields__) - {"tls"}
    own |= different(listener, kind(address=listener.address), sorted(alone))
    own_tls = different(listener.tls, tls, TlsOptions.__struct_fields__)
    return own | ({"tls": own_tls} if own_tls else {})


def different(one: Struct, other: Struct, keys: Sequence[str]) -> dict[str, Any]:
    """Return the values of one that the other does not share."""
    values = {key: getattr(one, key) for key in keys}
    return {key: value for key, value in values.items() if value != getattr(other, key)}
