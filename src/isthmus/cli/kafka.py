"""`isthmus produce` and `isthmus consume`: the back end's side of the log, from a terminal."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

import click

from isthmus.cli.kafka_login import kafka_options, server_of
from isthmus.cli.options import pairs_of, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka import Message

BEGINNING: Final = -2  # librdkafka's OFFSET_BEGINNING and OFFSET_END
END: Final = -1


@click.command()
@kafka_options
@click.option("-t", "--topic", "log_topic", required=True, help="The log topic.")
@click.option("-m", "--message", "texts", multiple=True, help="A value; many are possible.")
@click.option("-k", "--key", help="The key of the records.")
@click.option("-K", "--key-separator", help="Each value begins with its key and this text.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME=VALUE")
@click.option("-p", "--partition", type=click.IntRange(0), help="Where to, whatever the key.")
def produce(
    log_topic: str,
    texts: tuple[str, ...],
    key: str | None,
    key_separator: str | None,
    headers: tuple[str, ...],
    partition: int | None,
    **where: Any,
) -> None:
    """Produce records over the Kafka protocol: each --message, or each line of standard input.

    Ends when the server has acknowledged them all.
    """
    carried = pairs_of(headers, "--header")

    from isthmus.cli.kafka_client import KafkaShore, RecordWriter

    values: Iterable[bytes] = (text.encode() for text in texts) if texts else read_lines()
    writer = RecordWriter(KafkaShore(server_of(**where)))
    for value in values:
        record_key = None if key is None else key.encode()
        if key_separator:
            record_key, value = split_key(value, key_separator)
        writer.write(log_topic, value, record_key, carried, partition)
    writer.flush()


@click.command()
@kafka_options
@click.option("-t", "--topic", "log_topics", required=True, multiple=True, help="A log topic.")
@click.option("-b", "--from-beginning", is_flag=True, help="Begin with the oldest record.")
@click.option("-p", "--partition", type=click.IntRange(0), help="Read this partition only.")
@click.option("-o", "--offset", type=click.IntRange(0), help="Begin at this offset.")
@click.option("-g", "--group", help="Read as a member of this consumer group.")
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many records.")
@click.option("-e", "--end", "until_end", is_flag=True, help="End where the log ends now.")
@click.option("-v", "--verbose", is_flag=True, help="Print place and key before the value.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each.")
def consume(
    log_topics: tuple[str, ...],
    partition: int | None,
    offset: int | None,
    group: str | None,
    count: int | None,
    *,
    from_beginning: bool,
    until_end: bool,
    verbose: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Consume over the Kafka protocol and print each record on a line.

    Begins with the next record that comes; a group, where it stopped the last time.
    """
    if group is not None and (partition is not None or offset is not None):
        raise click.UsageError("a group is given its partitions and offsets by the server")

    from isthmus.cli.kafka_client import KafkaShore, RecordReader

    reader = RecordReader(KafkaShore(server_of(**where)), group, from_beginning=from_beginning)
    try:
        if group is not None:
            reader.subscribe(log_topics)
        else:
            start = BEGINNING if from_beginning else END
            reader.assign(log_topics, partition, start if offset is None else offset)
        for number, record in enumerate(reader.records(until_end=until_end), 1):
            if as_json:
                click.echo(in_json(record))
            else:
                click.echo(in_text(record, with_place=verbose))
            reader.done_with(record)
            if number == count:
                break
    finally:
        reader.close()


def split_key(line: bytes, separator: str) -> tuple[bytes, bytes]:
    """Return key and value of a line. Raises ClickException."""
    key, found, value = line.partition(separator.encode())
    if not found:
        shown = line.decode(errors="replace")
        raise click.ClickException(f"there is no {separator!r} in {shown!r}")
    return key, value


def in_text(record: Message, *, with_place: bool) -> bytes:
    """Return the value as it is, after partition, offset and key if they are wanted."""
    value = record.value() or b""
    if not with_place:
        return value
    place = f"{record.topic()}-{record.partition()}@{record.offset()}"
    return b"%s %s %s" % (place.encode(), record.key() or b"-", value)


def in_json(record: Message) -> str:
    """Return all of a record as one JSON object; bytes that are no text in base64."""
    line: dict[str, Any] = {
        "log_topic": record.topic(),
        "partition": record.partition(),
        "offset": record.offset(),
        "timestamp_ms": record.timestamp()[1],
    }
    line |= text_or_base64("key", record.key())
    line |= text_or_base64("value", record.value())
    headers: Any = record.headers()  # a list of pairs, or None
    if headers:
        line["headers"] = [
            {"name": name, **text_or_base64("value", value)} for name, value in headers
        ]
    return json.dumps(line, ensure_ascii=False)


def text_or_base64(name: str, data: bytes | str | None) -> dict[str, Any]:
    """Return bytes under their name as text, or under `name_base64` where they are none."""
    if not isinstance(data, bytes):
        return {name: data}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
