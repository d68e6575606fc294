"""The listeners, wired: each bound socket with its certificates, its limits and its protocol.

A part of `app.py`. Certificates are read before a socket is opened, and all sockets are opened
before the log is, so that what is wrong with one of them is said before anything happens.
Whatever has TLS or a proxy before its protocol goes through a `Reception`; all else is given
its protocol at once.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from isthmus.broker.guard import Streaks
from isthmus.config_listeners import (
    TLS_SCHEMES,
    WEB_SCHEMES,
    HttpListenerSettings,
    ListenerSettings,
    MqttListenerSettings,
)
from isthmus.errors import ConfigError
from isthmus.mqtt.handshake import Offer
from isthmus.server.admission import Admission, Total
from isthmus.server.certificate_names import CertificateNames
from isthmus.server.kafka_listener import KafkaListener
from isthmus.server.lifetimes import Ends
from isthmus.server.listener import Listening, address_of, close_socket, open_socket
from isthmus.server.mqtt_listener import MqttListener
from isthmus.server.reception import Reception
from isthmus.server.tls import Certificates
from isthmus.server.visits import Visits

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from isthmus.broker.identity import Identity
    from isthmus.config import HttpSettings, MqttSettings, Settings
    from isthmus.config_listeners import Address, KafkaListenerSettings, TlsOptions
    from isthmus.logs import Sparing
    from isthmus.runtime import Runtime
    from isthmus.server.admission import Arrival
    from isthmus.server.kafka_login import KafkaDoor
    from isthmus.server.kafka_shore import KafkaShore
    from isthmus.server.mqtt_listener import MqttShore
    from isthmus.server.proxy import Network
    from isthmus.server.ways import Ways

Own = TypeVar("Own", bound=ListenerSettings)


class Entrance(Generic[Own]):
    """One way in: settings, the files that they name, and the socket once it is open."""

    bound: socket.socket

    def __init__(self, section: str, settings: Own) -> None:
        """Read the files. Raises ConfigError."""
        self.section = section
        self.settings = settings
        self.tls = settings.tls  # in force
        self.names = CertificateNames(settings.tls, settings.name)
        self.proxies: list[Network] | None = None
        if settings.proxy_protocol:
            self.proxies = [ip_network(each) for each in settings.proxy_from]
        self.certificates: Certificates | None = None
        if settings.address.scheme in TLS_SCHEMES:
            self.certificates = Certificates(settings.tls, settings.name)

    def new_tls(self, tls: TlsOptions) -> Callable[[], None]:
        """Read what other settings name; return what has it in force. Raises ConfigError."""
        name = self.settings.name
        names, certificates = CertificateNames(tls, name), self.certificates
        fresh = Certificates(tls, name) if certificates is not None else None

        def put_in_force() -> None:
            self.tls = tls
            self.names.take(names)
            if certificates is not None and fresh is not None:
                certificates.take(fresh)

        return put_in_force

    def open_socket(self) -> socket.socket:
        """Open its socket. Raises ConfigError."""
        settings = self.settings
        mode = settings.mode if isinstance(settings, MqttListenerSettings) else "0600"
        self.bound = open_socket(settings.address, self.section, mode=int(mode, 8))
        return self.bound

    def listening(
        self,
        protocol: Callable[..., asyncio.BaseProtocol],
        admission: Admission,
        lines: Sparing,
    ) -> Listening | Reception:
        """Return what takes connections to their protocol, once it is opened."""
        settings = self.settings
        if self.certificates is None and self.proxies is None:
            return Listening(self.bound, protocol)
        return Reception(
            self.bound,
            protocol,
            admission,
            lines,
            name=settings.name,
            timeout_s=settings.connect_timeout_s,
            certificates=self.certificates,
            proxies=self.proxies,
            believes_user=isinstance(settings, MqttListenerSettings) and settings.proxy_user,
            tells=self.section == "mqtt",
        )


class Entrances:
    """All listeners of the server; those of HTTP are opened by its server (`doors`)."""

    doors: Doors

    def __init__(self, settings: Settings) -> None:
        """Read the files that they name. Raises ConfigError."""
        self._settings = settings
        self._mqtt = [Entrance("mqtt", each) for each in settings.mqtt.listeners]
        self._kafka = [Entrance("kafka", each) for each in settings.kafka.listeners]
        self._http = [Entrance("http", each) for each in settings.http.listeners]
        self._listening: list[Listening | Reception] = []

    @property
    def _all(self) -> list[Entrance[Any]]:
        return [*self._mqtt, *self._kafka, *self._http]

    @property
    def certificates(self) -> list[Certificates]:
        """Those of all listeners that speak TLS."""
        return [each.certificates for each in self._all if each.certificates is not None]

    def ends(self, runtime: Runtime) -> Ends:
        """Return what warns of those that are about to be over."""
        return Ends(self.certificates, runtime.now_ms)

    def new_tls(self, settings: Settings) -> list[Callable[[], None]]:
        """Read what listeners whose TLS has changed are to have; return what gives it to them.

        Raises ConfigError.
        """
        new: list[TlsOptions] = []
        for section in (settings.mqtt, settings.kafka, settings.http):
            new += [each.tls for each in section.listeners]
        return [
            entrance.new_tls(tls)
            for entrance, tls in zip(self._all, new, strict=True)
            if tls != entrance.tls
        ]

    def open_sockets(self) -> None:
        """Open every port, or none. Raises ConfigError."""
        opened: list[socket.socket] = []
        try:
            opened += (each.open_socket() for each in self._all)
        except BaseException:
            for bound in opened:
                close_socket(bound)
            raise

    async def open(self, mqtt: MqttShore, kafka: KafkaShore, ways: Ways) -> None:
        """Accept connections to both shores."""
        self.doors = Doors(self._http, self._settings.http, mqtt)
        advertised = dict(enumerate(self._settings.kafka.advertised_listeners))
        self._listening += [mqtt_listening(mqtt, ways, each) for each in self._mqtt]
        guard = mqtt.clients.guard
        self._listening += [
            kafka_listening(
                kafka,
                each,
                advertised.get(number),
                ways.kafka_door(each.settings, kafka.runtime, guard),
            )
            for number, each in enumerate(self._kafka)
        ]
        for each in self._listening:
            await each.open()

    def close(self) -> None:
        """Accept no more."""
        for each in self._listening:
            each.close()

    def ready_line(self) -> str:
        """Return what tells whoever started the server where it listens."""
        ways_in = [(each.section, each.bound) for each in self._all]
        return " ".join(["ready", *(f"{name}={address_of(at)}" for name, at in ways_in)])


class Doors:
    """The listeners of HTTP, once there is a server behind them."""

    def __init__(
        self,
        entrances: list[Entrance[HttpListenerSettings]],
        settings: HttpSettings,
        mqtt: MqttShore,
    ) -> None:
        """Nobody is banned here: bans are lifted by HTTP."""
        runtime = mqtt.clients.runtime
        self._entrances = entrances
        self._lines = mqtt.lines
        self._listening: list[Listening | Reception] = []
        self.total = Total(settings.connections_max)
        self.admissions = [
            Admission(each.settings, self.total, runtime, lambda _: None) for each in entrances
        ]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._entrances)

    async def open(self, protocol: Callable[[Identity], asyncio.Protocol]) -> None:
        """Accept connections, each of which is given a protocol."""
        for entrance, admission in zip(self._entrances, self.admissions, strict=True):
            name, names = entrance.settings.name, entrance.names
            visits = Visits(name, admission, self._lines, protocol, names)
            listening = entrance.listening(visits.connection, admission, self._lines)
            self._listening.append(listening)
            await listening.open()

    def close(self) -> None:
        """Accept no more; nobody has, where they were never opened."""
        for each in self._listening:
            each.close()
        for entrance in self._entrances:
            entrance.bound.close()


def mqtt_listening(
    shore: MqttShore, ways: Ways, entrance: Entrance[MqttListenerSettings]
) -> Listening | Reception:
    """Wire one way into the MQTT side."""
    settings = entrance.settings
    listener = MqttListener(
        shore,
        settings.name,
        offer_of(settings),
        settings,
        names=entrance.names,
        authenticate=ways.door(settings),
    )
    protocol = protocol_of(listener, settings)
    return entrance.listening(protocol, listener.admission, shore.lines)


def kafka_listening(
    shore: KafkaShore,
    entrance: Entrance[KafkaListenerSettings],
    advertised: Address | None,
    door: KafkaDoor | None,
) -> Listening | Reception:
    """Wire one way into the Kafka side; it may say itself where its clients are to connect."""
    settings = entrance.settings
    listener = KafkaListener(
        shore,
        settings.name,
        settings,
        advertised=settings.advertised or advertised,
        names=entrance.names,
        door=door,
    )
    return entrance.listening(listener.connection, listener.admission, shore.lines)


def protocol_of(
    listener: MqttListener, settings: MqttListenerSettings
) -> Callable[..., asyncio.BufferedProtocol]:
    """Return what makes a connection's protocol; it may be told what was admitted before."""
    if settings.address.scheme not in WEB_SCHEMES:
        return listener.connection

    from isthmus.server.websocket import WebSocketConnection

    def connection(arrival: Arrival | None = None) -> WebSocketConnection:
        return WebSocketConnection(
            listener.connection(arrival), path=settings.address.path, origins=settings.origins
        )

    return connection


def offer_of(settings: MqttListenerSettings) -> Offer:
    """Return what the clients of a listener are offered."""
    return Offer(
        session_expiry_max_s=settings.session_expiry_max_s,
        receive_maximum=settings.receive_maximum,
        inflight_max=settings.inflight_max,
        packet_size_max=settings.packet_size_max,
        topic_alias_max=settings.topic_alias_max,
        topic_alias_out_max=settings.topic_alias_out_max,
        keep_alive_max_s=settings.keep_alive_max_s,
        maximum_qos=settings.maximum_qos,
        retain_available=settings.retain_available,
        wildcard_available=settings.wildcard_available,
        identifiers_available=settings.identifiers_available,
        shared_available=settings.shared_available,
        response_information=settings.response_information,
    )


def new_terms(
    mqtt: MqttShore,
    kafka: KafkaShore,
    entrances: Entrances,
    ways: Ways,
    begun: Settings,
    settings: Settings,
) -> Callable[[], object]:
    """Return what gives all listeners the limits of new settings, their ways and their TLS.

    Raises ConfigError.
    """
    for section in ("mqtt", "kafka", "http"):
        was, new = getattr(begun, section).listeners, getattr(settings, section).listeners
        if [(each.name, each.address) for each in new] != [
            (each.name, each.address) for each in was
        ]:
            raise ConfigError(
                f"{section}.listeners: they are opened, closed and named by a restart only"
            )
    if packet_size_max(settings.mqtt) > packet_size_max(begun.mqtt):
        raise ConfigError("mqtt.packet_size_max grows by a restart only")
    new_tls = entrances.new_tls(settings)
    guard, http = mqtt.clients.guard, entrances.doors
    doors = [ways.door(each) for each in settings.mqtt.listeners]
    kafka_doors = [
        ways.kafka_door(each, kafka.runtime, guard) for each in settings.kafka.listeners
    ]

    def put_in_place() -> None:
        for take in new_tls:
            take()
        mqtt.total.maximum = settings.mqtt.connections_max
        kafka.limit_connections(settings.kafka.connections_max)
        guard.flapping.limits = flapping_in(settings.mqtt)
        guard.failures.limits = failures_in(settings.mqtt)
        for listener, own, door in zip(
            mqtt.listeners, settings.mqtt.listeners, doors, strict=True
        ):
            listener.change(offer_of(own), own)
            listener.authenticate = door
        for each, limits, way_in in zip(
            kafka.listeners, settings.kafka.listeners, kafka_doors, strict=True
        ):
            each.change(limits, way_in)
        http.total.maximum = settings.http.connections_max
        for admission, new in zip(http.admissions, settings.http.listeners, strict=True):
            admission.limits = new

    return put_in_place


def packet_size_max(settings: MqttSettings) -> int:
    """Return the size of the largest packet that any listener takes."""
    return max(each.packet_size_max for each in (settings, *settings.listeners))


def flapping_in(settings: MqttSettings) -> Streaks:
    """Return how often a client may connect."""
    return Streaks(
        most=settings.flapping_connects_max,
        window_s=settings.flapping_window_s,
        blocked_s=settings.flapping_ban_s,
    )


def failures_in(settings: MqttSettings) -> Streaks:
    """Return how often attempts to authenticate may fail."""
    return Streaks(
        most=settings.authentication_failures_max,
        window_s=settings.authentication_window_s,
        blocked_s=settings.authentication_ban_s,
    )
