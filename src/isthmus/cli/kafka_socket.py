"""Requests that librdkafka does not offer, over a socket of our own, in the server's codec.

One request at a time, after TLS and SASL where the server wants them, as commands do it
otherwise (kafka_login.py). SCRAM from the client's end is here [RFC 5802]; the server's end is
broker/scram.py.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.scram import HASHES, ITERATIONS_MAX, NONCE_BYTES, prepared_bytes
from isthmus.cli.kafka_login import BEARER
from isthmus.errors import Malformed
from isthmus.kafka.api import ApiKey
from isthmus.kafka.frames import decode_response, encode_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from isthmus.cli.kafka_login import KafkaServer, Login

ANSWER_S_MAX: Final = 10.0
ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
HANDSHAKE_VERSION: Final = 1  # of SaslHandshake: messages travel in SaslAuthenticate
AUTHENTICATE_VERSION: Final = 1


class KafkaSocket:
    """One connection to one broker; all methods raise OSError and Malformed."""

    def __init__(self, server: KafkaServer, host: str, port: int) -> None:
        """Connect, and log in where `server` says as whom."""
        self._socket = socket.create_connection((host, port), ANSWER_S_MAX)
        try:
            if server.is_encrypted:
                context = ssl.create_default_context(cafile=server.ca)
                if server.certificate is not None:
                    context.load_cert_chain(server.certificate)
                self._socket = context.wrap_socket(self._socket, server_hostname=host)
            if server.login is not None:
                self._log_in(server.login)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> KafkaSocket:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, api_key: ApiKey, version: int, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return its answer."""
        self._socket.sendall(encode_request(api_key, version, 1, "isthmus", body))
        size = int.from_bytes(self._receive(4), "big")
        if size > ANSWER_BYTES_MAX:
            raise Malformed(f"an answer of {size} bytes")
        return decode_response(api_key, version, self._receive(size))

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionResetError("the connection was closed")
            data += more
        return bytes(data)

    def _log_in(self, login: Login) -> None:
        named = {"mechanism": login.mechanism}
        if self.ask(ApiKey.SASL_HANDSHAKE, HANDSHAKE_VERSION, named)["error_code"]:
            raise ConnectionRefusedError(f"{login.mechanism} is not offered")
        if login.mechanism in HASHES:
            by_scram(login, self._say)
        elif login.mechanism == BEARER:
            self._say(b"n,,\x01auth=Bearer %b\x01\x01" % login.secret.encode())  # [RFC 7628]
        else:
            user, password = login.user.encode(), login.secret.encode(errors=ESCAPES)
            self._say(b"\0%b\0%b" % (user, password))  # [RFC 4616]

    def _say(self, data: bytes) -> bytes:
        """Send a message of the mechanism, and return the server's."""
        request = {"auth_bytes": data}
        answer = self.ask(ApiKey.SASL_AUTHENTICATE, AUTHENTICATE_VERSION, request)
        if answer["error_code"]:
            raise ConnectionRefusedError(answer["error_message"] or "not let in")
        return bytes(answer["auth_bytes"])


ESCAPES: Final = "surrogateescape"  # a password may be any bytes


def by_scram(login: Login, say: Callable[[bytes], bytes]) -> None:
    """Show by SCRAM that one knows a password, and have the server show it, too.

    `say` sends a message and returns the answer. Raises Malformed for one that is none.
    """
    name = HASHES[login.mechanism]
    nonce = base64.b64encode(os.urandom(NONCE_BYTES)).decode()
    user = login.user.replace("=", "=3D").replace(",", "=2C")
    bare = f"n={user},r={nonce}".encode()
    challenge = say(b"n,," + bare)
    try:
        said = dict(part.split(b"=", 1) for part in challenge.split(b","))
        whole, iterations = said[b"r"], int(said[b"i"])
        salt = base64.b64decode(said[b"s"], validate=True)
    except (KeyError, ValueError, binascii.Error):
        raise Malformed("a SCRAM challenge that is none") from None
    if not whole.startswith(nonce.encode()) or not 0 < iterations <= ITERATIONS_MAX:
        raise Malformed("a SCRAM challenge that does not answer")
    password = prepared_bytes(login.secret.encode(errors=ESCAPES))
    salted = hashlib.pbkdf2_hmac(name, password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", name)
    unproven = b"c=biws,r=" + whole
    message = b",".join((bare, challenge, unproven))
    signature = hmac.digest(hashlib.new(name, client_key).digest(), message, name)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    last = say(unproven + b",p=" + base64.b64encode(proof))
    server_key = hmac.digest(salted, b"Server Key", name)
    if last != b"v=" + base64.b64encode(hmac.digest(server_key, message, name)):
        raise Malformed("a server that does not know the password itself")
