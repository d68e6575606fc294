"""One run of `isthmus.load` on a fresh server: the load that users have, with the server's CPU.

The load goes through its phases; around the measured one the server's CPU is read. What the
account of the load says is not as it should be is counted as lost, or stops the row.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.process import BenchError, running
from bench.rows import Measurement
from isthmus.config_listeners import parse_address
from isthmus.load.errors import LoadError
from isthmus.load.mqtt import MqttLoad
from isthmus.load.plan import MqttPlan
from isthmus.mqtt.packets import VERSION_3_1_1

if TYPE_CHECKING:
    from pathlib import Path

    from bench.process import Server, System
    from isthmus.load.mqtt import Reader
    from isthmus.load.report import MqttReport

QUIET_SECONDS_MAX = 2.0


def plan_for(server: Server, seconds: float, warm_up_s: float, **shape: Any) -> MqttPlan:
    """Return the plan of a load with a core of its own, if there are two."""
    tls = None
    if server.ca is not None:
        tls = ssl.create_default_context(cafile=server.ca)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
    host, port = server.mqtt_address()
    path = "/mqtt" if server.scheme == "ws" else ""
    values = {
        "address": parse_address(f"{server.scheme}://{host}:{port}{path}", (server.scheme,)),
        "tls": tls,
        "version": VERSION_3_1_1,
        "duration_s": seconds,
        "warm_up_s": warm_up_s,
        "quiet_s": QUIET_SECONDS_MAX,
        "keep_alive_s": 0,
        "spin": not machine.SHARED_CORE,
    }
    return MqttPlan(**{**values, **shape})


def drive(
    server: Server, plan: MqttPlan, reader: Reader | None = None
) -> tuple[MqttReport, float]:
    """Run a load; return its report, and the CPU seconds that the server took meanwhile."""
    try:
        load = MqttLoad(plan, reader=reader)
        try:
            load.open()
            load.warm_up()
            cpu_before = server.cpu_s()
            load.measure()
            cpu_s = server.cpu_s() - cpu_before
            load.drain()
        finally:
            load.close()
    except LoadError as error:
        raise BenchError(str(error)) from error
    report = load.report()
    if report.errors or report.totals.corrupted or report.totals.strange:
        raise BenchError(f"not as it should be: {report.as_dict()['all_phases']}")
    return report, cpu_s


def lost_in(report: MqttReport) -> int:
    """Return the deliveries and acknowledgements that never came; negative: doubled."""
    return report.lost + report.unacknowledged - report.totals.doubled


def measure_throughput(
    system: System, directory: Path, seconds: float, **shape: Any
) -> Measurement:
    """Return deliveries a second; without subscribers, acknowledgements."""
    with running(system, directory) as server:
        plan = plan_for(server, seconds, seconds * system.warm_share, **shape)
        report, cpu_s = drive(server, plan)
        details = {"rss_mib": server.rss_bytes() / 2**20}
    measured = report.measured
    messages = measured.delivered if plan.subscribers else measured.acknowledged
    return Measurement(messages / measured.seconds, messages, cpu_s, lost_in(report), details)


def measure_latency(
    system: System, directory: Path, seconds: float, **shape: Any
) -> Measurement:
    """Return the p99 of deliveries in the open loop, in ms; the others are in the details."""
    with running(system, directory) as server:
        report, cpu_s = drive(server, plan_for(server, seconds, seconds * 0.1, **shape))
    return latency_measurement(report, cpu_s)


def latency_measurement(report: MqttReport, cpu_s: float) -> Measurement:
    """Put p99 in the column, the other percentiles beside it."""
    found = report.delivered
    details = {
        f"{name}_ms": found.percentile_ns(percent) / 1e6
        for name, percent in (("p50", 50), ("p99", 99), ("p99.9", 99.9), ("max", 100))
    }
    return Measurement(
        details["p99_ms"], report.measured.published, cpu_s, lost_in(report), details
    )
