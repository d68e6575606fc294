"""Traces: the packets of one client, of one address, or of one topic filter, for a while.

A trace of a client or an address has every packet, in both directions. One of a topic filter
has each PUBLISH that a client sends to a topic name which the filter matches, and who is
subscribed to that then; also what comes there otherwise: wills, delayed messages whose time has
come, and records of Kafka clients. Passwords and what authentication methods exchange are never
shown; payloads only where that was asked for.

The connections ask `is_on` once for what they read or write at a time, and the broker once for
each batch that it relays; only where it is true anything is done for a trace. Not here: where
it is sent (admin/api.py).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from isthmus.mqtt.codec import Decoder
from isthmus.mqtt.packets import CONNACK, CONNECT, NAMES, PUBLISH, fields
from isthmus.mqtt.properties import AUTH_DATA, CORRELATION_DATA, RULES
from isthmus.mqtt.reasons import name_of
from isthmus.topics.filter import filter_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.broker.identity import Identity
    from isthmus.broker.subscriptions import Subscriptions
    from isthmus.mqtt.packets import Publish
    from isthmus.runtime import Runtime

    Line = dict[str, Any]

SUBSCRIBERS_MAX: Final = 100  # of a topic name that are named
TRACES_MAX: Final = 8  # at one time
OUTPUT_BYTES_MAX: Final = 1 << 28  # larger than any packet
HIDDEN: Final = frozenset(("type", "password"))


class Trace:
    """What is to be traced, and who wants it; exactly one of the three is given."""

    def __init__(
        self,
        give: Callable[[Line | None], object],
        *,
        client_id: str = "",
        address: str = "",
        topic_filter: str = "",
        with_payloads: bool = False,
    ) -> None:
        """`give(line)` takes what becomes one JSON object; None: the server ends."""
        self.give = give
        self.client_id = client_id
        self.address = address
        self.topic_filter = topic_filter
        self.with_payloads = with_payloads

    @property
    def view(self) -> Line:
        """What is traced, for whoever asks which traces there are."""
        wanted = {
            "client_id": self.client_id,
            "address": self.address,
            "filter": self.topic_filter,
        }
        given = {name: value for name, value in wanted.items() if value}
        return given | {"payload": self.with_payloads}

    def is_of(self, identity: Identity, client_id: str) -> bool:
        """Whether all packets of a connection are wanted."""
        if self.topic_filter:
            return False
        return (
            client_id == self.client_id if self.client_id else identity.address == self.address
        )


class Traces:
    """The traces that are on."""

    def __init__(self, runtime: Runtime, subscriptions: Subscriptions) -> None:
        self.is_on = False
        self._runtime = runtime
        self._subscriptions = subscriptions
        self._traces: list[Trace] = []

    def views(self) -> list[Line]:
        """Return which traces are on, the oldest first."""
        return [trace.view for trace in self._traces]

    @property
    def is_full(self) -> bool:
        """Whether no other trace should begin."""
        return len(self._traces) >= TRACES_MAX

    def begin(self, trace: Trace) -> None:
        """Trace from now on."""
        self._traces.append(trace)
        self.is_on = True

    def end(self, trace: Trace) -> None:
        """Trace no more, if it is on."""
        if trace in self._traces:
            self._traces.remove(trace)
        self.is_on = bool(self._traces)

    def close(self) -> None:
        """Tell whoever has a trace that nothing more comes; each is still to be ended."""
        for trace in self._traces:
            trace.give(None)

    # --- connections call these, while `is_on` ------------------------------------------------

    def received(self, identity: Identity, client_id: str, packets: Sequence[Any]) -> None:
        """A client has sent packets, which nobody has looked at so far."""
        if packets and packets[0].type == CONNECT:
            client_id = packets[0].client_id
        for trace in self._traces:
            if trace.is_of(identity, client_id):
                for packet in packets:
                    trace.give(self._line("in", str(identity), client_id, packet, trace))

    def accepted(self, identity: Identity, client_id: str, packets: Sequence[Any]) -> None:
        """The same packets, once aliases have become topic names."""
        for trace in self._traces:
            if trace.topic_filter:
                for packet in packets:
                    if packet.type == PUBLISH:
                        self._give_publish(str(identity), client_id, packet, trace)

    def sent(self, identity: Identity, client_id: str, version: int, data: bytes) -> None:
        """Whole packets go out to a client, in the form of its protocol version."""
        wanted = [trace for trace in self._traces if trace.is_of(identity, client_id)]
        if not wanted:
            return
        packets = Decoder(OUTPUT_BYTES_MAX, version).feed(data)
        for packet in packets:
            for trace in wanted:
                trace.give(self._line("out", str(identity), client_id, packet, trace))

    # --- what is no packet of a connection, likewise ------------------------------------------

    def came(
        self, kind: str, publish: Publish, client_id: str = "", address: str = "-", **place: Any
    ) -> None:
        """A message is on its way to a topic name; `kind` stands in place of a packet's."""
        for trace in self._traces:
            if trace.topic_filter:
                self._give_publish(
                    address, client_id, publish, trace, {"packet": kind, **place}
                )

    # --- lines --------------------------------------------------------------------------------

    def _give_publish(
        self,
        address: str,
        client_id: str,
        packet: Publish,
        trace: Trace,
        more: Line | None = None,
    ) -> None:
        topic_name = packet.topic.decode()
        if not filter_matches(trace.topic_filter, topic_name):
            return
        line = self._line("in", address, client_id, packet, trace) | (more or {})
        receivers, groups = self._subscriptions.receivers(topic_name)
        subscribers = sorted(receiver.session.client_id for receiver in receivers)
        subscribers += sorted(group.shared_filter for group in groups)
        line["subscribers"] = subscribers[:SUBSCRIBERS_MAX]
        line["subscribers_count"] = len(subscribers)
        trace.give(line)

    def _line(
        self, direction: str, address: str, client_id: str, packet: Any, trace: Trace
    ) -> Line:
        return {
            "at_ms": self._runtime.now_ms(),
            "direction": direction,
            "client_id": client_id,
            "address": address,
            "packet": NAMES[packet.type],
            **shown(packet, with_payloads=trace.with_payloads),
        }


def shown(packet: Any, *, with_payloads: bool) -> Line:
    """Return what a packet holds, by the names of its fields, and nothing that is secret."""
    line: Line = {}
    for name in fields(packet):
        value = getattr(packet, name)
        if name in HIDDEN or value is None:
            continue
        if name == "payload":
            line["payload_bytes"] = len(value)
            if with_payloads:
                line |= bytes_shown("payload", value)
        elif name == "topic":
            line["topic_name"] = value.decode("utf-8", "replace")
        elif name == "reason":
            line["reason_code"] = value
            if packet.type != CONNACK or not 0 < value < 0x80:  # else a code of 3.1.1
                line["reason"] = name_of(value)
        elif name == "will":
            line["will"] = shown(value, with_payloads=with_payloads)
        elif name == "properties":
            line["properties"] = properties_shown(value, with_payloads=with_payloads)
        else:
            line[name] = value
    return line


def properties_shown(properties: dict[int, Any], *, with_payloads: bool) -> Line:
    """Return properties by the names that the specification has for them."""
    line: Line = {}
    for identifier, value in properties.items():
        name = RULES[identifier].name.replace(" ", "_").lower()
        if identifier == AUTH_DATA:
            line[f"{name}_bytes"] = len(value)
        elif identifier == CORRELATION_DATA:
            line[f"{name}_bytes"] = len(value)
            if with_payloads:
                line |= bytes_shown(name, value)
        else:
            line[name] = value
    return line


def bytes_shown(name: str, value: bytes) -> Line:
    """Return bytes as text, or, where they are none, in base64."""
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}
