"""The MQTT rows: throughput at QoS 0 and 1, fan-out, fan-in, and latency at a fixed rate.

Then some of them once more inside TLS 1.3 and WebSocket, and what the load itself can do.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bench import load, machine
from bench.process import running
from bench.rows import Measurement, Row
from bench.systems import Isthmus, Mosquitto, NullBroker
from isthmus.load.publisher import packet_bytes
from isthmus.mqtt.packets import VERSION_3_1_1

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.process import System

PAYLOAD_BYTES = 64
TOPICS = 10_000
WINDOW = 100
AHEAD = 50_000  # messages that the publishers are ahead of the subscribers at QoS 0
MANY_BURST = 50

LATENCY_SHAPE = {"publishers": 500, "rate": 20_000.0}

ONE = "written 6x; synced 70 % of window / fdatasync"
ONE_AIM = "10x; 90 %"
SHAPES: Sequence[tuple[str, str, dict[str, Any], str, str]] = (
    ("qos0", "QoS 0, 1 publisher, 1 subscriber, 64 B", {}, "written 8x", "20x"),
    (
        "qos0-topics",
        "QoS 0, 1 publisher, 1 subscriber, 64 B, 10,000 topic names in turn",
        {"topics": TOPICS},
        "",
        "",
    ),
    (
        "qos1",
        "QoS 1, 1 publisher, window 100, no subscriber",
        {"subscribers": 0, "qos": 1},
        ONE,
        ONE_AIM,
    ),
    (
        "qos1-sub",
        "QoS 1, 1 publisher, window 100, 1 QoS 1 subscriber",
        {"qos": 1},
        ONE,
        ONE_AIM,
    ),
    (
        "qos1-10",
        "QoS 1, 10 publishers, window 100 each, no subscriber",
        {"publishers": 10, "subscribers": 0, "qos": 1},
        "synced 8x",
        "15x",
    ),
    ("fan-out", "QoS 0, 1 publisher, 8 subscribers", {"subscribers": 8}, "8x", "20x"),
    (
        "fan-in",
        "QoS 0, 100 publishers, 1 subscriber",
        {"publishers": 100, "burst": MANY_BURST},
        "8x",
        "20x",
    ),
)
INSIDE = ("qos0", "qos1-10")  # the rows that are measured inside TLS and WebSocket, too
SCHEMES = {"tls": "TLS 1.3", "ws": "WebSocket"}


def whole(shape: dict[str, Any]) -> dict[str, Any]:
    """Return a shape with the window that its QoS has."""
    window = WINDOW if shape.get("qos") else AHEAD * shape.get("subscribers", 1)
    return {
        "payload_bytes": PAYLOAD_BYTES,
        "topic": "bench/{client}/{n}",
        "window": window,
    } | shape


def null_broker(shape: dict[str, Any]) -> NullBroker:
    """Return the null broker for the packets of a shape."""
    digits = len(str(shape.get("publishers", 1) - 1)), len(str(shape.get("topics", 1) - 1))
    name = b"bench/" + b"0" * digits[0] + b"/" + b"0" * digits[1]
    qos = shape.get("qos", 0)
    size = packet_bytes(name, PAYLOAD_BYTES, version=VERSION_3_1_1, qos=qos)
    return NullBroker(size, qos, WINDOW)


def measure_windowed(
    shape: dict[str, Any], system: System, directory: Path, seconds: float
) -> Measurement:
    """Measure throughput; where one publisher waits for the disk, look at the disk, too."""
    windowed = shape.get("qos") and "publishers" not in shape and isinstance(system, Isthmus)
    sync_ms = machine.sync_ms(directory) if windowed else 0.0
    found = load.measure_throughput(system, directory, seconds, **whole(shape))
    if windowed:
        sync_ms = min(sync_ms, machine.sync_ms(directory))
        found.details["window_per_fdatasync"] = WINDOW / sync_ms * 1000
    return found


def measure_load(system: System, directory: Path, seconds: float) -> Measurement:
    """Return how many messages a second the load makes for a server that discards them."""
    with running(system, directory) as server:
        plan = load.plan_for(server, seconds, seconds * 0.1, **whole({"subscribers": 0}))
        report, cpu_s = load.drive(server, plan)
    measured = report.measured
    details = {"per_cpu_s_of_the_load": measured.published / max(measured.cpu_s, 1e-9)}
    return Measurement(
        measured.published / measured.seconds, measured.published, cpu_s, details=details
    )


def mqtt_rows() -> list[Row]:
    """Return the rows in the order of the budget."""
    servers: list[System] = [Isthmus("written"), Isthmus("synced"), Mosquitto()]
    rows = [
        Row(
            key,
            title,
            "msg/s",
            [*servers, null_broker(shape)],
            partial(measure_windowed, shape),
            Mosquitto.name,
            bar,
            aim,
        )
        for key, title, shape, bar, aim in SHAPES
    ]
    rows.append(
        latency_row(
            "latency", "", [*servers[:-1], Mosquitto(no_delay=True), null_broker(LATENCY_SHAPE)]
        )
    )
    rows += [row for scheme in SCHEMES for row in rows_inside(scheme)]
    rows.append(
        Row(
            "load",
            "the load itself, QoS 0, 64 B, for a server that discards all",
            "msg/s",
            [null_broker({})],
            measure_load,
            bar="5 M",
        )
    )
    return rows


def latency_row(key: str, inside: str, systems: list[System]) -> Row:
    """Return the row of many publishers at a fixed rate."""
    shape = whole(LATENCY_SHAPE)
    return Row(
        key,
        f"500 publishers at 20,000 msg/s together, QoS 0, 1 subscriber{inside}: p99",
        "ms",
        systems,
        partial(load.measure_latency, **shape),
        Mosquitto.name,
        "<= 1x",
        "0.5x",
        more_is_better=False,
    )


def rows_inside(scheme: str) -> list[Row]:
    """Return the rows that are measured inside TLS or WebSocket."""
    ours: list[System] = [Isthmus("written", scheme), Isthmus("synced", scheme)]
    inside = f", {SCHEMES[scheme]}"
    rows = [
        Row(
            f"{key}-{scheme}",
            title + inside,
            "msg/s",
            [*ours, Mosquitto(scheme=scheme)],
            partial(measure_windowed, shape),
            Mosquitto.name,
        )
        for key, title, shape, _, _ in SHAPES
        if key in INSIDE
    ]
    systems = [*ours, Mosquitto(no_delay=True, scheme=scheme)]
    return [*rows, latency_row(f"latency-{scheme}", inside, systems)]
