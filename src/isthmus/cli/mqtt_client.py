"""An MQTT connection for commands: paho behind three calls that work or say why not.

paho's own thread keeps the connection alive while a command waits for its terminal. A lost
connection is not opened again: a command says so and ends. Messages are acknowledged when the
command has dealt with them, not before, so `sub -n 1` takes just one out of a session's queue.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import click
from paho.mqtt.client import (
    MQTT_CLEAN_START_FIRST_ONLY,
    Client,
    MQTTMessage,
    MQTTMessageInfo,
    MQTTv5,
    MQTTv311,
)
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from isthmus.cli.options import Login
    from isthmus.config_listeners import Address

ANSWER_S_MAX: Final = 10.0
KEEP_ALIVE_S: Final = 30
WINDOW: Final = 100  # publishes on their way at one time
TURN_S: Final = 0.2  # how soon a lost connection is noticed


class MqttConnection:
    """One connection to a server; raises ClickException with one sentence."""

    def __init__(
        self,
        address: Address,
        *,
        client_id: str = "",
        v311: bool = False,
        expiry_s: int = 0,
        login: Login | None = None,
    ) -> None:
        """Connect and wait for the CONNACK; with `expiry_s` the session is kept for so long."""
        self._address = address.authority
        self._v311 = v311
        self._answered = threading.Event()
        self._refusal = ""
        self._lost = ""
        self._granted: list[Any] = []
        self._messages: queue.SimpleQueue[MQTTMessage] = queue.SimpleQueue()
        self._under_way: deque[MQTTMessageInfo] = deque()
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTv311 if v311 else MQTTv5,
            clean_session=(expiry_s == 0) if v311 else None,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._client.max_inflight_messages_set(WINDOW)
        if login is not None:
            self._client.username_pw_set(*login)  # type: ignore[arg-type]  # it takes bytes, too
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._connect(address, expiry_s)

    def publish(
        self,
        topic_name: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Send one publish; waits while `WINDOW` of them are not acknowledged yet."""
        carried = None
        if not self._v311 and properties:
            carried = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in properties.items():
                setattr(carried, name, value)
        try:
            info = self._client.publish(topic_name, payload, qos, retain, carried)
        except ValueError as error:
            raise click.ClickException(f"{topic_name!r} is not taken: {error}") from None
        self._under_way.append(info)
        while len(self._under_way) >= WINDOW:
            self._settle(self._under_way.popleft())

    def flush(self) -> None:
        """Wait until every publish is sent and, above QoS 0, acknowledged."""
        while self._under_way:
            self._settle(self._under_way.popleft())

    def subscribe(self, filters: Sequence[str], qos: int) -> None:
        """Subscribe, and wait until each filter is granted."""
        self._answered.clear()
        wanted: list[Any] = [
            (each, qos if self._v311 else SubscribeOptions(qos=qos)) for each in filters
        ]
        try:
            self._client.subscribe(wanted)
        except ValueError as error:
            raise click.ClickException(f"the topic filter is not taken: {error}") from None
        self._await_answer("the subscription was not answered")
        for each, code in zip(filters, self._granted, strict=True):
            if code.is_failure:
                raise click.ClickException(f"the subscription to {each} was refused: {code}")

    def messages(self) -> Iterator[MQTTMessage]:
        """Yield what comes, until the connection is lost."""
        while True:
            try:
                message = self._messages.get(timeout=TURN_S)
            except queue.Empty:
                self._check()
                continue
            yield message

    def acknowledge(self, message: MQTTMessage) -> None:
        """Tell the server that a message has arrived where it should."""
        if message.qos:
            self._client.ack(message.mid, message.qos)

    def close(self) -> None:
        """Say good-bye and wait for the end of the connection."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connect(self, address: Address, expiry_s: int) -> None:
        wanted: Any = None
        if not self._v311:
            wanted = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            wanted.SessionExpiryInterval = expiry_s
        try:
            self._client.connect(
                address.host,
                address.port,
                KEEP_ALIVE_S,
                clean_start=MQTT_CLEAN_START_FIRST_ONLY if self._v311 else expiry_s == 0,
                properties=wanted,
            )
        except OSError as error:
            raise click.ClickException(
                f"no MQTT server answers at {self._address}: {error.strerror or error}"
            ) from None
        self._client.loop_start()
        self._await_answer(f"{self._address} is silent: is it an MQTT server?")
        if self._refusal:
            raise click.ClickException(f"{self._address} refuses: {self._refusal}")

    def _await_answer(self, otherwise: str) -> None:
        for _ in range(int(ANSWER_S_MAX / TURN_S)):
            if self._answered.wait(TURN_S):
                return
            self._check()
        raise click.ClickException(otherwise)

    def _settle(self, info: MQTTMessageInfo) -> None:
        while not info.is_published():
            self._check()
            info.wait_for_publish(TURN_S)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE):
            self._check()

    def _check(self) -> None:
        if self._lost:
            raise click.ClickException(
                f"the connection to {self._address} was lost: {self._lost}"
            )

    # --- called by paho's thread --------------------------------------------------------------

    def _on_connect(self, _c: Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._refusal = str(reason) if reason.is_failure else ""
        self._answered.set()

    def _on_disconnect(self, _c: Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._lost = str(reason)

    def _on_subscribe(self, _c: Client, _u: Any, _m: int, reasons: Any, _p: Any) -> None:
        self._granted = list(reasons)
        self._answered.set()

    def _on_message(self, _c: Client, _u: Any, message: MQTTMessage) -> None:
        self._messages.put(message)
