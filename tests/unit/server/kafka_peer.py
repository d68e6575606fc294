"""A Kafka client without a socket: requests in as bytes, responses out as dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.sim import SimRuntime
from tests.unit.broker.kafka_room import TurnAppends, security_apart

from isthmus.broker.delegation import DelegationTerms
from isthmus.config import KafkaSettings
from isthmus.kafka.api import apis
from isthmus.kafka.frames import decode_response, encode_request
from isthmus.server.kafka_listener import KafkaListener
from isthmus.server.kafka_shore import KafkaShore
from isthmus.storage.memory import MemoryLog

if TYPE_CHECKING:
    from isthmus.config_listeners import Address
    from isthmus.server.kafka import KafkaConnection


class Transport:
    """What asyncio gives a protocol, turned by hand."""

    def __init__(
        self, peer: tuple = ("10.0.0.9", 5), local: tuple = ("10.0.0.1", 9092)
    ) -> None:
        self.info = {"peername": peer, "sockname": local}
        self.sent = bytearray()
        self.closed = False
        self.reading = True
        self.unsent = 0  # what the test says is waiting in the buffer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.info.get(name, default)

    def set_write_buffer_limits(self, high: int) -> None:
        assert high > 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: Any) -> None:
        assert not self.closed
        self.sent += data

    def writelines(self, buffers: Any) -> None:
        for data in buffers:
            self.write(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class Peer:
    """One connection, seen from the other side."""

    def __init__(self, room: ShoreRoom, **addresses: tuple) -> None:
        self.room = room
        self.transport = Transport(**addresses)
        self.connection: KafkaConnection = room.listener.connection()
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self._correlation = 0
        self._asked: list[tuple[int, int, int]] = []

    def frame(self, api_key: int, version: int, body: dict[str, Any] | None = None) -> bytes:
        """Return a request with its size, to be fed later."""
        self._correlation += 1
        self._asked.append((api_key, version, self._correlation))
        return encode_request(api_key, version, self._correlation, "peer", body or {})

    def feed(self, data: bytes, *, chunk: int = 1 << 30) -> None:
        """Let bytes arrive, as a loop would."""
        position = 0
        while position < len(data) and not self.transport.closed:
            buffer = self.connection.get_buffer(-1)
            taken = data[position : position + min(chunk, len(buffer))]
            assert taken
            buffer[: len(taken)] = taken
            del buffer
            self.connection.buffer_updated(len(taken))
            position += len(taken)

    def answers(self) -> list[dict[str, Any]]:
        """Return the responses that came, decoded, in order."""
        found = []
        while self.transport.sent:
            size = int.from_bytes(self.transport.sent[:4], "big")
            frame = bytes(self.transport.sent[4 : 4 + size])
            assert len(frame) == size
            del self.transport.sent[: 4 + size]
            api_key, version, correlation = self._asked.pop(0)
            assert int.from_bytes(frame[:4], "big") == correlation, "in the order asked"
            found.append(decode_response(api_key, version, frame))
        return found

    def skip_answer(self) -> None:
        """The oldest request will not be answered."""
        self._asked.pop(0)

    def ask(
        self, api_key: int, version: int, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ask and return the answer; let turns pass until it is there."""
        self.feed(self.frame(api_key, version, body))
        self.room.runtime.settle()
        (answer,) = self.answers()
        return answer


class ShoreRoom:
    """A Kafka shore over a log in memory."""

    def __init__(
        self,
        advertised: Address | None = None,
        delegation: DelegationTerms = DelegationTerms(),  # noqa: B008  # never changed
        **settings: Any,
    ) -> None:
        self.runtime = SimRuntime()
        self.log = MemoryLog(self.runtime)
        self.appends = TurnAppends(self.runtime, self.log)
        self.settings = KafkaSettings(
            **{"group_initial_rebalance_delay_ms": 0, "partitions_default": 4, **settings}
        )
        self.security = security_apart(self.runtime, delegation)
        self._advertised = advertised
        self.start()

    def start(self) -> None:
        """Begin with what the log holds; done again, this is a server that comes back."""
        self.shore = KafkaShore(
            self.runtime, self.log, self.appends, self.settings, self.security
        )
        self.listener = KafkaListener(
            self.shore, "kafka", self.settings, advertised=self._advertised
        )

    def peer(self, **addresses: tuple) -> Peer:
        return Peer(self, **addresses)


def versions(api_key: int) -> range:
    """Return the versions of a request that are served."""
    first, last = apis()[api_key].versions
    return range(first, last + 1)
