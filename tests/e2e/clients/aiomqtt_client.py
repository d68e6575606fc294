"""aiomqtt: python aiomqtt_client.py HOST:PORT, then a command a line in, an event a line out.

Commands and events are those of mqtt_scripted.py. aiomqtt has its own way to hold a connection,
on paho's packets: here its context is entered and left by hand.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WINDOW = 100


def say(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def properties_of(command: dict[str, Any]) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)
    if command["user"]:
        properties.UserProperty = [tuple(pair) for pair in command["user"]]
    if command["response"]:
        properties.ResponseTopic = command["response"]
    if command["correlation"]:
        properties.CorrelationData = bytes.fromhex(command["correlation"])
    if command["type"]:
        properties.ContentType = command["type"]
    return properties


class Session:
    """One client at a time, and the task that reads its messages."""

    def __init__(self, address: str) -> None:
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.client: aiomqtt.Client | None = None
        self.reading: asyncio.Task[None] | None = None
        self.version = 5

    async def connect(self, command: dict[str, Any]) -> None:
        self.version = command["version"]
        will, properties = command["will"], None
        if self.version == 5 and not command["clean"]:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
        self.client = aiomqtt.Client(
            self.host,
            self.port,
            identifier=command["id"],
            protocol=aiomqtt.ProtocolVersion(self.version),
            clean_session=command["clean"] if self.version == 4 else None,
            clean_start=command["clean"] if self.version == 5 else 3,
            properties=properties,
            max_inflight_messages=WINDOW,
            will=will
            and aiomqtt.Will(
                will["topic"], bytes.fromhex(will["payload"]), will["qos"], will["retain"]
            ),
        )
        await self.client.__aenter__()
        self.reading = asyncio.create_task(self.read(self.client))
        say({"is": "connected"})

    async def read(self, client: aiomqtt.Client) -> None:
        try:
            async for message in client.messages:
                said = message.properties
                say(
                    {
                        "is": "message",
                        "topic": str(message.topic),
                        "payload": bytes(message.payload).hex(),
                        "qos": message.qos,
                        "retain": message.retain,
                        "user": getattr(said, "UserProperty", []),
                        "response": getattr(said, "ResponseTopic", ""),
                        "correlation": getattr(said, "CorrelationData", b"").hex(),
                        "type": getattr(said, "ContentType", ""),
                    }
                )
        except aiomqtt.MqttError:
            return  # it was cut

    async def subscribe(self, command: dict[str, Any]) -> None:
        granted = await self.client.subscribe(command["filter"], command["qos"])
        say({"is": "subscribed", "qos": [getattr(one, "value", one) for one in granted]})

    async def publish(self, command: dict[str, Any]) -> None:
        await self.client.publish(
            command["topic"],
            bytes.fromhex(command["payload"]),
            command["qos"],
            command["retain"],
            properties_of(command) if self.version == 5 else None,
        )
        say({"is": "published"})

    async def leave(self, command: dict[str, Any]) -> None:
        self.reading.cancel()
        await self.client.__aexit__(None, None, None)
        say({"is": "left"})

    async def cut(self, command: dict[str, Any]) -> None:
        self.client._client.socket().shutdown(2)  # it has no way of its own to break a line
        await self.reading
        say({"is": "cut"})


async def main() -> None:
    session = Session(sys.argv[1])
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        await getattr(session, command["do"])(command)


asyncio.run(main())
