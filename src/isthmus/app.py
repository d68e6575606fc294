"""The whole system, wired in one place: read this to see what there is and who knows whom.

`run` builds everything from the settings, serves until it is told to stop, and puts it away in
order. Start: open every port, lock and recover the log, accept, then say `ready`. End (SIGTERM,
SIGINT): stop accepting, let what is under way become durable and acknowledged, close the
connections, close the log.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus import __version__
from isthmus.admin.http import Asked, application, serve_http
from isthmus.broker.automatic import AutomaticSubscription
from isthmus.broker.broker import Broker
from isthmus.broker.clients import Clients
from isthmus.broker.guard import Streaks
from isthmus.broker.inspection import Inspection
from isthmus.broker.rewrite import Rewriting, Rewritings
from isthmus.broker.routes import Route, RouteTable
from isthmus.broker.shared import STRATEGIES
from isthmus.broker.status import Status, totals_of
from isthmus.config_listeners import TLS_SCHEMES, WEB_SCHEMES
from isthmus.errors import ConfigError, ServerMoved, ServerShuttingDown, UseAnotherServer
from isthmus.logs import Sparing
from isthmus.mqtt.handshake import Offer
from isthmus.server.kafka import KafkaShore
from isthmus.server.listener import (
    Listening,
    address_of,
    close_socket,
    open_socket,
)
from isthmus.server.mqtt import MqttListener, MqttShore
from isthmus.server.reception import Reception
from isthmus.server.reloads import Reloads
from isthmus.server.renewal import keep_renewed
from isthmus.server.rules import ConfiguredRules
from isthmus.server.runtime import LoopRuntime
from isthmus.server.tls import Certificates
from isthmus.server.ways import Ways
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.memory import MemoryLog

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from starlette.applications import Starlette

    from isthmus.broker.access import Access
    from isthmus.config import HttpSettings, KafkaSettings, MqttSettings, Settings
    from isthmus.config_listeners import MqttListenerSettings
    from isthmus.errors import IsthmusError
    from isthmus.server.admission import Arrival

logger = logging.getLogger(__name__)

DRAIN_S_MAX = 5.0  # for what is under way when the server is told to stop
FILES_MAX = 1 << 20  # open at a time, sockets and segments together
RECORD_OVERHEAD_MAX = 1 << 20  # headers, key and batch header beside the largest packet


def run(settings: Settings, read: Callable[[], Settings]) -> int:
    """Serve until told to stop; return the exit status. `read` reads the settings again.

    Raises ConfigError before anything is accepted: a port in use, a directory that is not ours.
    """
    # What the message path makes is dropped again at once and forms no cycles, so the collector
    # has little to find; by its default it would look after every 700 messages.
    gc.set_threshold(50_000, 20, 20)
    raise_file_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(settings, read))


def raise_file_limit() -> None:
    """Allow this process as many open files as it may have: 1,024 are few, and rarely meant."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def segments_open_max() -> int:
    """Return how many segments may be open: a quarter of all files, for the rest is sockets."""
    default = LocalSettings().open_segments_max
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return default if soft == resource.RLIM_INFINITY else min(default, max(16, soft // 4))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's, or asyncio's own where there is no uvloop for the platform."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return factory


async def serve(settings: Settings, read: Callable[[], Settings]) -> int:
    """Start, serve until a signal comes, stop in order."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    renewal = asyncio.Event()
    reloads = Reloads(settings, read)
    reloads.add("files of certificates, users and rules", lambda _: renewal.set)
    loop.add_signal_handler(signal.SIGHUP, reloads.ask)
    routes, rewritings, automatic = topic_rules(settings)
    certificates = [certificates_of(listener) for listener in settings.mqtt.listeners]
    rules = ConfiguredRules(settings.access)
    reloads.add("access", rules.prepare)
    ways = Ways(settings.authentication, settings.mqtt.listeners, settings.http.authentication)
    sockets = _open_sockets(settings)
    runtime = LoopRuntime(loop)
    log = open_log(settings, runtime)
    broker = open_broker(settings, runtime, log, routes, rules.access, rewritings)
    mqtt = mqtt_shore(
        broker, settings.mqtt, automatic, Sparing(runtime, settings.log.repeats_s)
    )
    watched = ways.open(runtime, broker, mqtt.clients)
    reloads.add("limits", partial(new_limits, mqtt, settings.mqtt))
    kafka = kafka_shore(broker, settings.kafka, sockets["kafka"])
    listening = [
        mqtt_listening(mqtt, ways, *each)
        for each in zip(settings.mqtt.listeners, sockets["mqtt"], certificates, strict=True)
    ]
    listening += [Listening(at, kafka.connection) for at in sockets["kafka"]]
    for each in listening:
        await each.open()
    async with asyncio.TaskGroup() as group:
        unready = partial(_unready, log, stop)
        build = http_shore(broker, mqtt, ways, settings.http, unready)
        group.create_task(serve_http(sockets["http"], build, stop))
        watched += [*filter(None, certificates), *rules.watched]
        group.create_task(keep_renewed(watched, renewal, stop, settings.tls.reload_check_s))
        group.create_task(reloads.run(stop))
        logger.info("ready")
        print(_ready_line(sockets), flush=True)  # noqa: T201  # stdout is for this line
        gc.freeze()  # what is there now stays
        await stop.wait()
        logger.info("stopping")
        mqtt.clients.traces.close()
        renewal.set()
        reloads.ask()
        for each in listening:
            each.close()
        await say_farewell(broker, mqtt, kafka, settings.mqtt)
    broker.close()
    log.close()
    runtime.close()
    logger.info("stopped")
    return 0


def open_log(settings: Settings, runtime: LoopRuntime) -> LocalLog:
    """Open the log engine that is configured."""
    local = settings.storage.local
    limits = LocalSettings(
        durability=local.durability,
        open_segments_max=segments_open_max(),
        retention_ms=local.retention_s * 1000 if local.retention_s >= 0 else -1,
        retention_bytes=local.retention_bytes,
        retention_check_ms=local.retention_check_s * 1000,
        producer_expiration_ms=local.producer_expiration_s * 1000,
    )
    return LocalLog(Path(local.directory), runtime, settings=limits)


def open_broker(
    settings: Settings,
    runtime: LoopRuntime,
    log: LocalLog,
    routes: RouteTable,
    access: Access,
    rewritings: Rewritings,
) -> Broker:
    """Wire the broker, over a log that is open."""
    return Broker(
        runtime,
        log,
        routes,
        MemoryLog(runtime),
        access=access,
        partitions_default=settings.kafka.partitions_default,
        message_bytes_max=packet_size_max(settings.mqtt) + RECORD_OVERHEAD_MAX,
        retained_max=settings.mqtt.retained_max,
        retained_bytes_max=settings.mqtt.retained_bytes_max,
        delayed_max=settings.mqtt.delayed_max,
        delayed_max_s=settings.mqtt.delayed_max_s,
        rewritings=rewritings,
        sparkplug=settings.mqtt.sparkplug,
        new_group=partial(
            STRATEGIES[settings.mqtt.shared_strategy], queue_max=settings.mqtt.queue_length_max
        ),
    )


def topic_rules(
    settings: Settings,
) -> tuple[RouteTable, Rewritings, list[AutomaticSubscription]]:
    """Return all that the settings say of topic names. Raises ConfigError."""
    mqtt = settings.mqtt
    return route_table(settings), rewritings_of(mqtt), automatic_subscriptions(mqtt)


def route_table(settings: Settings) -> RouteTable:
    """Return the routes; raises ConfigError where one has no way back or two collide."""
    return RouteTable(
        Route(
            route.mqtt,
            route.log,
            route.key,
            route.partitions,
            to_log_only=route.direction == "to-log",
        )
        for route in settings.routes
    )


def rewritings_of(settings: MqttSettings) -> Rewritings:
    """Return the rules of rewriting; raises ConfigError where two collide."""
    return Rewritings(
        Rewriting(
            rule.topic,
            rule.to,
            of_names=rule.action != "subscribe",
            of_filters=rule.action != "publish",
        )
        for rule in settings.rewrite
    )


def automatic_subscriptions(settings: MqttSettings) -> list[AutomaticSubscription]:
    """Return what new sessions begin with; raises ConfigError for what is no topic filter."""
    return [
        AutomaticSubscription(
            each.filter,
            qos=each.qos,
            no_local=each.no_local,
            retain_as_published=each.retain_as_published,
            retained=each.retained,
        )
        for each in settings.auto_subscribe
    ]


def packet_size_max(settings: MqttSettings) -> int:
    """Return the size of the largest packet that any listener takes."""
    return max(each.packet_size_max for each in (settings, *settings.listeners))


def mqtt_shore(
    broker: Broker,
    settings: MqttSettings,
    automatic: list[AutomaticSubscription],
    lines: Sparing,
) -> MqttShore:
    """Wire the MQTT side."""
    kind = {"use-another": UseAnotherServer, "moved": ServerMoved}.get(settings.redirect)
    clients = Clients(
        broker,
        queue_length_max=settings.queue_length_max,
        queue_policy=settings.queue_policy,
        queue_qos_0=settings.queue_qos_0,
        output_bytes_max=settings.output_bytes_max,
        output_total_bytes_max=settings.output_total_bytes_max,
        subscriptions_max=settings.subscriptions_per_session_max,
        sessions_max=settings.sessions_max,
        will_grace_s=settings.will_grace_s,
        redirected=kind and kind("clients are sent elsewhere", settings.server_reference),
        automatic=automatic,
        flapping=flapping_in(settings),
        failures=failures_in(settings),
    )
    shore = MqttShore(clients, connections_max=settings.connections_max, lines=lines)
    shore.loop.start()
    if settings.slow_consumer_s:
        drops_oldest = settings.queue_policy == "oldest"
        shore.slow_consumers.start(settings.slow_consumer_s, drops_oldest=drops_oldest)
    if settings.sys_interval_s:
        Status(
            broker.runtime,
            partial(broker.say, retain=True),
            lambda: totals_of(broker, clients, shore.accepted, memory_bytes()),
            version=__version__,
            interval_s=settings.sys_interval_s,
        )
    return shore


def memory_bytes() -> tuple[int, int]:
    """Return how much memory the process has, and the most that it ever had."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    now = pages * resource.getpagesize()
    return now, max(now, peak_kib * 1024)


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


def certificates_of(settings: MqttListenerSettings) -> Certificates | None:
    """Load the certificates of a listener that speaks TLS. Raises ConfigError."""
    if settings.address.scheme not in TLS_SCHEMES:
        return None
    return Certificates(settings.tls, settings.name)


def mqtt_listening(
    shore: MqttShore,
    ways: Ways,
    settings: MqttListenerSettings,
    bound: socket.socket,
    certificates: Certificates | None,
) -> Listening | Reception:
    """Wire one way into the MQTT side."""
    listener = MqttListener(
        shore,
        settings.name,
        offer_of(settings),
        settings,
        user_from=settings.tls.user_from,
        authenticate=ways.door(settings),
    )
    protocol = protocol_of(listener, settings)
    if certificates is None and not settings.proxy_protocol:
        return Listening(bound, protocol)
    proxies = [ip_network(each) for each in settings.proxy_from]
    return Reception(
        bound,
        protocol,
        listener.admission,
        shore.lines,
        name=settings.name,
        timeout_s=settings.connect_timeout_s,
        certificates=certificates,
        proxies=proxies if settings.proxy_protocol else None,
        believes_user=settings.proxy_user,
    )


def new_limits(
    shore: MqttShore, begun: MqttSettings, settings: Settings
) -> Callable[[], object]:
    """Return what gives the MQTT listeners the limits of new settings. Raises ConfigError."""
    new = settings.mqtt
    if [(each.name, each.address) for each in new.listeners] != [
        (each.name, each.address) for each in begun.listeners
    ]:
        raise ConfigError("mqtt.listeners: they are opened, closed and named by a restart only")
    if packet_size_max(new) > packet_size_max(begun):
        raise ConfigError("mqtt.packet_size_max grows by a restart only")

    def put_in_place() -> None:
        shore.total.maximum = new.connections_max
        guard = shore.clients.guard
        guard.flapping.limits, guard.failures.limits = flapping_in(new), failures_in(new)
        for listener, own in zip(shore.listeners, new.listeners, strict=True):
            listener.change(offer_of(own), own)

    return put_in_place


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


def farewell(settings: MqttSettings) -> IsthmusError:
    """Return what MQTT clients are told when the server ends."""
    text = "the server is shutting down"
    if settings.server_reference:
        return UseAnotherServer(text, settings.server_reference)
    return ServerShuttingDown(text)


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


def kafka_shore(
    broker: Broker, settings: KafkaSettings, sockets: list[socket.socket]
) -> KafkaShore:
    """Wire the Kafka side; each listener advertises its own address, if one is configured."""
    shore = KafkaShore(broker.runtime, broker.log, broker, settings)
    for at, advertised in zip(sockets, settings.advertised_listeners, strict=False):
        shore.advertised[at.getsockname()[1]] = (advertised.host, advertised.port)
    return shore


def http_shore(
    broker: Broker,
    mqtt: MqttShore,
    ways: Ways,
    settings: HttpSettings,
    unready: Callable[[], str | None],
) -> Callable[[], Starlette]:
    """Wire the HTTP side; what it returns imports much, so it is called later."""
    asked = None
    if settings.authentication:
        chain = ways.chain(settings.authentication)
        asked = Asked(chain, settings.administrators, mqtt.clients.guard)
    return partial(
        application,
        unready,
        Inspection(broker, mqtt.clients),
        mqtt.clients.traces,
        users=ways.users,
        allow_anonymous=settings.allow_anonymous,
        asked=asked,
    )


async def say_farewell(
    broker: Broker, mqtt: MqttShore, kafka: KafkaShore, settings: MqttSettings
) -> None:
    """End all connections, once what is under way is done; MQTT clients are told why."""
    await drain(broker)
    if settings.shutdown_s:
        await mqtt.leave(farewell(settings), settings.shutdown_s)
        await drain(broker)
    mqtt.close(farewell(settings))
    kafka.close()
    await asyncio.sleep(0)  # the loop writes out what the connections were told


async def drain(broker: Broker) -> None:
    """Wait, for a while at most, until what was published is durable and acknowledged."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DRAIN_S_MAX
    broker.commit()
    while broker.backlog_bytes and loop.time() < deadline:  # noqa: ASYNC110  # at the end only
        await asyncio.sleep(0.005)
    broker.turn()


def _open_sockets(settings: Settings) -> dict[str, list[socket.socket]]:
    """Open every port, or none; the order is that of the `ready` line."""
    opened: dict[str, list[socket.socket]] = {"mqtt": [], "kafka": [], "http": []}
    try:
        for listener in settings.mqtt.listeners:
            mode = int(listener.mode, 8)
            opened["mqtt"].append(open_socket(listener.address, "mqtt", mode=mode))
        for section, addresses in (
            ("kafka", settings.kafka.listeners),
            ("http", settings.http.listeners),
        ):
            for address in addresses:
                opened[section].append(open_socket(address, section))
    except BaseException:
        for sockets in opened.values():
            for at in sockets:
                close_socket(at)
        raise
    return opened


def _ready_line(sockets: dict[str, list[socket.socket]]) -> str:
    """Return what tells whoever started the server where it listens."""
    addresses = [f"{name}={address_of(at)}" for name, ats in sockets.items() for at in ats]
    return " ".join(["ready", *addresses])


def _unready(log: LocalLog, stop: asyncio.Event) -> str | None:
    """Return why no traffic should come here now, or None."""
    if stop.is_set():
        return "the server is shutting down"
    return None if log.trouble is None else f"the log accepts no records: {log.trouble}"
