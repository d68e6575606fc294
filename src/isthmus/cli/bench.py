"""`isthmus bench`: a load for any MQTT broker or Kafka cluster, and what became of it.

Ends with status 0 where every message is accounted for, else with 1 and the account.
"""

from __future__ import annotations

import json
import ssl
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from isthmus.cli.options import kafka_option, login_of, login_options
from isthmus.config_listeners import MQTT_SCHEMES, TLS_SCHEMES, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isthmus.config_listeners import Address
    from isthmus.load.report import Report

    Command = TypeVar("Command", bound=Callable[..., Any])

COUNT: Final = click.IntRange(0)
POSITIVE: Final = click.IntRange(1)
SECONDS: Final = click.FloatRange(0)
QOS: Final = click.IntRange(0, 2)
FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def bench() -> None:
    """Measure a server: any MQTT broker, any Kafka cluster, and the way across."""


def read_mqtt_url(_: click.Context, __: click.Parameter, text: str) -> Address:
    """Read an address of MQTT, `tcp://` where no scheme is said, as an option's callback."""
    return parse_address(text if "://" in text else f"tcp://{text}", MQTT_SCHEMES)


def load_options(command: Command) -> Command:
    """Give a command the options that every load has."""
    for option in reversed(LOAD):
        command = option(command)
    return command


LOAD: Final = (
    click.option("-d", "--duration", "duration_s", default=10.0, show_default=True,
                 type=click.FloatRange(0, min_open=True), help="Seconds to measure."),
    click.option("-n", "--count", type=COUNT, default=0,
                 help="Measure so many messages instead."),
    click.option("-w", "--warm-up", "warm_up_s", type=SECONDS, default=1.0, show_default=True,
                 help="Seconds of load before that, which do not count."),
    click.option("-r", "--rate", type=click.FloatRange(0), default=0.0,
                 help="Open loop: so many messages a second, all together, each measured from"
                 " when it was due. Without it, as fast as the server goes (closed loop)."),
    click.option("-s", "--size", "payload_bytes", type=POSITIVE, default=64, show_default=True,
                 help="Bytes of a payload, at least 16."),
    click.option("--patience", "quiet_s", type=SECONDS, default=5.0, show_default=True,
                 help="Seconds without anything new, after which the rest is lost."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
)  # fmt: skip

SUBSCRIBERS: Final = (
    click.option("-c", "--subscribers", type=COUNT, default=1, show_default=True),
    click.option("--idle", type=COUNT, default=0, help="Clients that only are connected."),
    click.option("-f", "--filter", "filters", multiple=True,
                 help="What each subscriber subscribes to; {client} is its number. Without it,"
                 " everything. $share/GROUP/FILTER shares the messages out."),
    click.option("--subscriber-qos", type=QOS, help="If not that of the publishers."),
)  # fmt: skip

MQTT: Final = (
    click.option("--mqtt", "address", metavar="ADDRESS", default="127.0.0.1:1883",
                 show_default=True, callback=read_mqtt_url,
                 help="The server: HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH, wss://…,"
                 " unix://PATH."),
    click.option("-p", "--publishers", type=COUNT, default=1, show_default=True),
    click.option("-t", "--topic", default="isthmus-bench/{client}/{n}", show_default=True,
                 help="Pattern of topic names: {client} is the publisher's number, {n} runs"
                 " through --topics."),
    click.option("--topics", type=POSITIVE, default=1, show_default=True,
                 help="Topic names of each publisher, in turn."),
    click.option("-q", "--qos", type=QOS, default=0, show_default=True),
    click.option("--window", type=COUNT, default=0,
                 help="Messages on their way at one time: at QoS 1 and 2 of each publisher"
                 " (100), at QoS 0 deliveries of all (1000)."),
    click.option("--burst", type=COUNT, default=0,
                 help="Messages at QoS 0 that a publisher sends before the next one's turn."),
    click.option("--retain", is_flag=True, help="Publish retained messages; they stay."),
    click.option("--persistent", is_flag=True,
                 help="Sessions that last. With --v311 the server keeps them afterwards."),
    click.option("--v311", is_flag=True, help="Speak MQTT 3.1.1 instead of 5."),
    click.option("--keep-alive", "keep_alive_s", type=click.IntRange(0, 65_535), default=60,
                 show_default=True, help="Seconds; 0: none."),
    click.option("--client-prefix", default="bench", show_default=True,
                 help="What client ids begin with."),
    click.option("--ca", type=FILE, help="Certificates of the CA, if not the system's."),
    click.option("--cert", type=FILE, help="A certificate to show, with its key behind it."),
    click.option("--key", type=FILE, help="Its key, where that is in another file."),
    click.option("--server-name", default="", help="The name its certificate must have."),
    click.option("--insecure", is_flag=True, help="Take whatever certificate it shows."),
    click.option("--spin", is_flag=True,
                 help="Never sleep: for a load that has a core of its own."),
)  # fmt: skip


def mqtt_options(command: Command) -> Command:
    """Give a command the options of a load of MQTT clients."""
    for option in reversed((*SUBSCRIBERS, *MQTT)):
        command = option(command)
    return command


def publisher_options(command: Command) -> Command:
    """Give a command the options of a load of publishers alone."""
    for option in reversed(MQTT):
        command = option(command)
    return command


@bench.command()
@mqtt_options
@load_options
@login_options
@click.pass_context
def mqtt(ctx: click.Context, /, *, as_json: bool, **options: Any) -> None:
    """Load an MQTT broker, and account for every message.

    \b
    isthmus bench mqtt -q 1 -p 10                 closed loop: how much can it do?
    isthmus bench mqtt -p 500 -r 20000            open loop: how long does it take then?
    isthmus bench mqtt -p 0 -c 0 --idle 10000     connections that only are there
    """
    from isthmus.load.errors import LoadError
    from isthmus.load.mqtt import MqttLoad

    try:
        plan = mqtt_plan(**options)
        with progress() as notice:
            report = MqttLoad(plan, notice=notice).run()
    except LoadError as error:
        raise click.ClickException(str(error)) from None
    show(ctx, report, as_json=as_json)


@bench.command()
@kafka_option
@click.option("--log-topic", default="", help="Without it one is made, and deleted afterwards.")
@click.option("--partitions", type=POSITIVE, default=6, show_default=True, help="Of that one.")
@click.option("-p", "--producers", type=POSITIVE, default=1, show_default=True)
@click.option("-c", "--consumers", type=COUNT, default=1, show_default=True)
@click.option("--acks", type=click.Choice(["0", "1", "all"]), default="all", show_default=True)
@click.option("--batch-bytes", type=POSITIVE, default=1_000_000, show_default=True)
@click.option("--linger-ms", type=SECONDS, default=5.0, show_default=True)
@click.option(
    "--codec",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    default="none",
    show_default=True,
)
@click.option(
    "--window",
    type=POSITIVE,
    default=50_000,
    show_default=True,
    help="Records on their way at one time, all producers together.",
)
@load_options
@click.pass_context
def kafka(ctx: click.Context, /, *, as_json: bool, kafka: Address, **options: Any) -> None:
    """Load a Kafka cluster by stock clients, and account for every record.

    \b
    isthmus bench kafka                           how much can it do, with this client?
    isthmus bench kafka -r 10000 --linger-ms 0    how long does it take then?
    """
    from isthmus.load.errors import LoadError
    from isthmus.load.kafka import KafkaLoad, KafkaPlan

    try:
        with progress() as notice:
            report = KafkaLoad(KafkaPlan(address=kafka, **options), notice=notice).run()
    except LoadError as error:
        raise click.ClickException(str(error)) from None
    show(ctx, report, as_json=as_json)


@bench.command()
@kafka_option
@click.option("--log-topic", default="mqtt", show_default=True, help="Where they arrive.")
@publisher_options
@load_options
@login_options
@click.pass_context
def bridge(
    ctx: click.Context, /, *, as_json: bool, kafka: Address, log_topic: str, **options: Any
) -> None:
    """Publish over MQTT, consume over the Kafka protocol, and account for every message.

    \b
    isthmus bench bridge -r 1000                  how long does it take to get across?
    isthmus bench bridge -q 1 -p 10               how much gets across?
    """
    from isthmus.load.errors import LoadError
    from isthmus.load.kafka_reader import KafkaReader
    from isthmus.load.mqtt import MqttLoad

    try:
        plan = mqtt_plan(subscribers=0, **options)
        reader = KafkaReader(kafka, log_topic)
        try:
            with progress() as notice:
                report = MqttLoad(plan, notice=notice, reader=reader).run()
        finally:
            reader.close()
    except LoadError as error:
        raise click.ClickException(str(error)) from None
    show(ctx, report, as_json=as_json)


def mqtt_plan(
    *,
    address: Address,
    user: str | None,
    password_file: Path | None,
    v311: bool,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    insecure: bool,
    **options: Any,
) -> Any:
    """Make the plan that the options ask for. LoadError, or ClickException."""
    from isthmus.load.plan import MqttPlan
    from isthmus.mqtt.packets import VERSION_3_1_1, VERSION_5

    tls = None
    if address.scheme in TLS_SCHEMES:
        tls = tls_context(ca, cert, key, insecure=insecure)
    elif ca or cert or key or insecure:
        raise click.UsageError(f"--ca, --cert, --key and --insecure are for TLS, not {address}")
    login = login_of(user, password_file)
    return MqttPlan(
        address=address,
        tls=tls,
        version=VERSION_3_1_1 if v311 else VERSION_5,
        user=None if login is None else login[0],
        password=None if login is None else login[1],
        **options,
    )


def tls_context(
    ca: Path | None, cert: Path | None, key: Path | None, *, insecure: bool
) -> ssl.SSLContext:
    """Return how to speak TLS. ClickException for files that are none."""
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError, too
        files = ", ".join(str(each) for each in (ca, cert, key) if each)
        raise click.ClickException(f"{files}: {error.strerror or error}") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """Give a function to call with a phase and how much of it is done; a terminal shows it."""
    if not sys.stderr.isatty():
        yield lambda _phase, _share: None
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=1.0)
        yield lambda phase, share: shown.update(task, description=phase, completed=share)


def show(ctx: click.Context, report: Report, *, as_json: bool) -> None:
    """Print a report, and end with the status that it deserves."""
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1))
    else:
        from isthmus.cli.bench_table import print_report

        print_report(report)
    for warning in report.warnings():
        click.echo(f"Note: {warning}.", err=True)
    if not report.is_good:
        ctx.exit(1)
