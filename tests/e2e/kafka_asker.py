"""Any request of the schema table over a plain socket, and the answer field by field.

For what clients do not show: all of an answer. The codec is the server's own (other tests hold
it against two others); for bytes that no codec would write see raw_kafka.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.e2e.raw_kafka import connect, receive

from isthmus.kafka.frames import decode_response, encode_request

if TYPE_CHECKING:
    from tests.e2e.server_process import Address


class Asker:
    """One connection on which requests are asked and answered, one after the other."""

    def __init__(self, server: Address) -> None:
        self._connection = connect(server)
        self._correlation_id = 0

    def ask(self, api_key: int, version: int, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request, and return its answer as the schema table names the fields.

        Raises OSError where the connection ends.
        """
        self._correlation_id += 1
        request = encode_request(api_key, version, self._correlation_id, "raw", body)
        self._connection.sendall(request)
        answer = receive(self._connection)
        if not answer:
            raise ConnectionResetError("the server has closed the connection")
        assert int.from_bytes(answer[:4], "big") == self._correlation_id
        return decode_response(api_key, version, answer)

    def close(self) -> None:
        self._connection.close()
