"""What an MQTT 5 client is told and given beside its messages, as paho sees it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish
from tests.e2e.patience import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.usefixtures("own_process")


def test_paho_is_given_response_information_and_aliases(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    server = start_server(settings={"mqtt.response_information": "answers/%c"})
    asking = Properties(PacketTypes.CONNECT)
    asking.RequestResponseInformation = 1
    asking.TopicAliasMaximum = 3
    told: list[Any] = []
    came: list[tuple[str, int]] = []
    granted = threading.Event()

    def prepare(client: Any) -> None:
        before = client.on_connect

        def on_connect(*arguments: Any) -> None:
            told.append(arguments[-1])
            before(*arguments)

        client.on_connect = on_connect
        client.on_subscribe = lambda *_: granted.set()
        client.on_message = lambda _client, _data, message: came.append(
            (message.topic, message.properties.TopicAlias)
        )

    with paho_client(server.mqtt, unique, prepare=prepare, properties=asking) as client:
        assert told[0].ResponseInformation == f"answers/{unique}"
        client.subscribe(f"{unique}/#", 1)
        assert granted.wait(TIMEOUT_S)
        paho_publish(client, [Message(f"{unique}/{name}", b"x") for name in "aab"])
        wait_until(lambda: len(came) >= 3, lambda: f"3 messages, and not {came},")
    assert came == [(f"{unique}/a", 1), ("", 1), (f"{unique}/b", 2)]
