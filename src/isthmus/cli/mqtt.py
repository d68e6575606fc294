"""`isthmus pub` and `isthmus sub`: a device's side of the log, from a terminal or a script."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli.options import login_of, login_options, mqtt_option, pairs_of, read_lines

if TYPE_CHECKING:
    from pathlib import Path

    from paho.mqtt.client import MQTTMessage

    from isthmus.config_listeners import Address

QOS = click.IntRange(0, 2)


@click.command()
@mqtt_option
@click.option("-t", "--topic", "topic_name", required=True, help="The topic name.")
@click.option("-m", "--message", "texts", multiple=True, help="A payload; many are possible.")
@click.option("-q", "--qos", type=QOS, default=0, show_default=True)
@click.option("-r", "--retain", is_flag=True, help="Keep it for those who subscribe later.")
@click.option("-i", "--id", "client_id", default="", help="The client id.")
@click.option("--property", "properties", multiple=True, metavar="NAME=VALUE")
@click.option("--content-type", help="What the payload is, as in application/json.")
@click.option("--expiry", type=click.IntRange(0, 0xFFFF_FFFF), help="Seconds it is worth.")
@click.option("--v311", is_flag=True, help="Speak MQTT 3.1.1 instead of 5.")
@login_options
def pub(
    mqtt: Address,
    topic_name: str,
    texts: tuple[str, ...],
    qos: int,
    client_id: str,
    properties: tuple[str, ...],
    content_type: str | None,
    expiry: int | None,
    user: str | None,
    password_file: Path | None,
    **flags: bool,
) -> None:
    """Publish over MQTT: each --message, or each line of standard input.

    Ends when the server has acknowledged them (at QoS 0: when they are sent).
    """
    carried: dict[str, Any] = {}
    if properties:
        carried["UserProperty"] = pairs_of(properties, "--property")
    if content_type is not None:
        carried["ContentType"] = content_type
    if expiry is not None:
        carried["MessageExpiryInterval"] = expiry
    if carried and flags["v311"]:
        raise click.UsageError("MQTT 3.1.1 has no properties; leave out --v311")

    from isthmus.cli.mqtt_client import MqttConnection

    login = login_of(user, password_file)
    payloads = [text.encode() for text in texts] if texts else read_lines()
    connection = MqttConnection(mqtt, client_id=client_id, v311=flags["v311"], login=login)
    for payload in payloads:
        connection.publish(
            topic_name, payload, qos=qos, retain=flags["retain"], properties=carried
        )
    connection.flush()
    connection.close()


@click.command()
@mqtt_option
@click.option("-t", "--topic", "filters", required=True, multiple=True, help="A topic filter.")
@click.option("-q", "--qos", type=QOS, default=0, show_default=True)
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many messages.")
@click.option("-v", "--verbose", is_flag=True, help="Print the topic name before the payload.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each.")
@click.option("-i", "--id", "client_id", default="", help="The client id.")
@click.option(
    "--session-expiry", "expiry_s", type=click.IntRange(0, 0xFFFF_FFFF), default=0,
    help="Keep the session for so many seconds (needs --id).",
)  # fmt: skip
@click.option("--v311", is_flag=True, help="Speak MQTT 3.1.1 instead of 5.")
@login_options
def sub(
    mqtt: Address,
    filters: tuple[str, ...],
    qos: int,
    count: int | None,
    client_id: str,
    expiry_s: int,
    user: str | None,
    password_file: Path | None,
    **flags: bool,
) -> None:
    """Subscribe over MQTT and print each message on a line; -t may be given many times."""
    if expiry_s and not client_id:
        raise click.UsageError("a session that is kept needs a name: give --id")

    from isthmus.cli.mqtt_client import MqttConnection

    connection = MqttConnection(
        mqtt,
        client_id=client_id,
        v311=flags["v311"],
        expiry_s=expiry_s,
        login=login_of(user, password_file),
    )
    connection.subscribe(filters, qos)
    for number, message in enumerate(connection.messages(), 1):
        if flags["as_json"]:
            click.echo(in_json(message))
        else:
            click.echo(in_text(message, with_topic_name=flags["verbose"]))
        connection.acknowledge(message)
        if number == count:
            break
    connection.close()


def in_text(message: MQTTMessage, *, with_topic_name: bool) -> bytes:
    """Return the payload as it is, after the topic name if that is wanted."""
    payload = bytes(message.payload)
    return message.topic.encode() + b" " + payload if with_topic_name else payload


def in_json(message: MQTTMessage) -> str:
    """Return all of a message as one JSON object; a payload that is no text in base64."""
    line: dict[str, Any] = {"topic": message.topic}
    try:
        line["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        line["payload_base64"] = base64.b64encode(message.payload).decode()
    line |= {"qos": message.qos, "retain": message.retain}
    properties: Any = message.properties
    if properties is not None and not properties.isEmpty():
        line["properties"] = properties.json()
    return json.dumps(line, ensure_ascii=False, default=str)
