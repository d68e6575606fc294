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
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus import __version__
from isthmus.admin.http import Asked, application, serve_http
from isthmus.app_listeners import (
    Entrances,
    failures_in,
    flapping_in,
    new_terms,
    packet_size_max,
)
from isthmus.app_metrics import METRICS, look
from isthmus.app_status import Overview
from isthmus.broker.automatic import AutomaticSubscription
from isthmus.broker.broker import Broker
from isthmus.broker.clients import Clients
from isthmus.broker.inspection import Inspection
from isthmus.broker.rewrite import Rewriting, Rewritings
from isthmus.broker.routes import Route, RouteTable
from isthmus.broker.security import open_security
from isthmus.broker.shared_strategies import STRATEGIES
from isthmus.broker.status import Status, totals_of
from isthmus.errors import ServerMoved, ServerShuttingDown, UseAnotherServer
from isthmus.logs import Sparing
from isthmus.server.kafka_shore import KafkaShore
from isthmus.server.mqtt_listener import MqttShore
from isthmus.server.reloads import Reloads
from isthmus.server.renewal import keep_renewed
from isthmus.server.rules import ConfiguredRules
from isthmus.server.runtime import LoopRuntime
from isthmus.server.ways import Ways
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.memory import MemoryLog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.applications import Starlette

    from isthmus.broker.access import Access
    from isthmus.broker.delegation import DelegationTerms
    from isthmus.broker.security import Security
    from isthmus.broker.users import Users
    from isthmus.config import HttpSettings, MqttSettings, Settings
    from isthmus.errors import IsthmusError
    from isthmus.server.renewal import Renewed
    from isthmus.server.tls import Certificates

logger = logging.getLogger(__name__)

DRAIN_S_MAX = 5.0  # for what is under way when the server is told to stop
FILES_MAX = 1 << 20  # open at a time, sockets and segments together
RECORD_OVERHEAD_MAX = 1 << 20  # headers, key and batch header beside the largest packet


def run(settings: Settings, read: Callable[[], Settings]) -> int:
    """Serve until told to stop; return the exit status. `read` reads the settings again.

    Raises ConfigError before anything is accepted: a port in use, a directory that is not ours.
    """
    # What the message path makes is dropped again at once and forms no cycles, so the collector
    # has little to find; by its default it would look after every 700 messages. It looks at few
    # objects at a time, some milliseconds of work, for everybody waits meanwhile.
    gc.set_threshold(5_000, 5, 800)
    gc.disable()  # until all is there; a million objects come at a start, and all of them stay
    raise_file_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(settings, read))


def watch_what_comes() -> None:
    """Have the collector look at what comes from here on; what is there now stays."""
    gc.freeze()
    gc.enable()


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
    entrances = Entrances(settings)
    rules = ConfiguredRules(settings.access)
    reloads.add("access", rules.prepare)
    ways = Ways(settings)
    entrances.open_sockets()
    runtime = LoopRuntime(loop)
    log = open_log(settings, runtime)
    broker = open_broker(settings, runtime, log, routes, rules.access, rewritings)
    security = users_and_rules(settings, broker, rules.access, ways.delegation)
    ways.open(runtime, security)  # users of a file, too, whose sessions may come back now
    mqtt = mqtt_shore(settings, broker, automatic, security.users)
    kafka = kafka_shore(settings, broker, mqtt, security)
    await entrances.open(mqtt, kafka, ways)
    reloads.add("authentication", ways.prepare)
    reloads.add("listeners", partial(new_terms, mqtt, kafka, entrances, ways, settings))
    async with asyncio.TaskGroup() as group:
        shores = (broker, mqtt, kafka, ways, security, entrances.certificates)
        build = http_shore(*shores, settings.http, partial(_unready, log, stop))
        group.create_task(serve_http(entrances.doors, build, stop))
        watched: list[Renewed] = [
            ways,
            *entrances.certificates,
            *rules.watched,
            entrances.ends(runtime),
        ]
        group.create_task(keep_renewed(watched, renewal, stop, settings.tls.reload_check_s))
        group.create_task(reloads.run(stop))
        logger.info("ready")
        print(entrances.ready_line(), flush=True)  # noqa: T201  # stdout is for this line
        watch_what_comes()
        await stop.wait()
        logger.info("stopping")
        mqtt.clients.traces.close()
        renewal.set()
        reloads.ask()
        entrances.close()
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
        delayed_bytes_max=settings.mqtt.delayed_bytes_max,
        rewritings=rewritings,
        sparkplug=settings.mqtt.sparkplug,
        new_group=partial(
            STRATEGIES[settings.mqtt.shared_strategy], queue_max=settings.mqtt.queue_length_max
        ),
    )


def kafka_shore(
    settings: Settings, broker: Broker, mqtt: MqttShore, security: Security
) -> KafkaShore:
    """Wire the Kafka side; who is kept out of the one is kept out of the other."""
    shore = KafkaShore(
        broker.runtime,
        broker.log,
        broker,
        settings.kafka,
        security,
        refuses=mqtt.clients.guard.refuses,
        refuses_user=mqtt.clients.guard.refuses_user,
        lines=mqtt.lines,
    )
    security.users.follow(shore.users_changed)
    mqtt.clients.guard.follow(shore.banned)
    return shore


def users_and_rules(
    settings: Settings,
    broker: Broker,
    access: Access,
    delegation: DelegationTerms,
) -> Security:
    """Read the users, the rules and the tokens that the server keeps."""
    return open_security(
        broker.runtime,
        broker.log,
        broker,
        access,
        settings.authentication.iterations,
        delegation,
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
            compression=route.compression,
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


def mqtt_shore(
    all_settings: Settings,
    broker: Broker,
    automatic: list[AutomaticSubscription],
    users: Users,
) -> MqttShore:
    """Wire the MQTT side, and bring back its sessions, which are of these users."""
    settings = all_settings.mqtt
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
        users=users,
    )
    lines = Sparing(broker.runtime, all_settings.log.repeats_s)
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


def farewell(settings: MqttSettings) -> IsthmusError:
    """Return what MQTT clients are told when the server ends."""
    text, reference = "the server is shutting down", settings.server_reference
    reason = settings.shutdown_reason
    if reason == "auto":
        reason = "use-another" if reference else "shutting-down"
    kind = {"use-another": UseAnotherServer, "moved": ServerMoved}.get(reason)
    return ServerShuttingDown(text) if kind is None else kind(text, reference)


def http_shore(
    broker: Broker,
    mqtt: MqttShore,
    kafka: KafkaShore,
    ways: Ways,
    security: Security,
    certificates: Sequence[Certificates],
    settings: HttpSettings,
    unready: Callable[[], str | None],
) -> Callable[[], Starlette]:
    """Wire the HTTP side; what it returns imports much, so it is called later."""
    asked = None
    if settings.authentication:
        chain = ways.chain(settings.authentication)
        guard = mqtt.clients.guard
        asked = Asked(chain, settings.administrators, settings.observers, guard)
    return partial(
        application,
        unready,
        Inspection(broker, mqtt.clients),
        mqtt.clients.traces,
        security=security,
        allow_anonymous=settings.allow_anonymous,
        asked=asked,
        metrics=(METRICS, partial(look, broker, mqtt, kafka, certificates)),
        status=Overview(broker, mqtt, kafka, unready).look,
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


def _unready(log: LocalLog, stop: asyncio.Event) -> str | None:
    """Return why no traffic should come here now, or None."""
    if stop.is_set():
        return "the server is shutting down"
    return None if log.trouble is None else f"the log accepts no records: {log.trouble}"
