"""The client's end of SCRAM [RFC 5802], for tests of the server's."""

from __future__ import annotations

import base64
import hashlib
import hmac

HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}


class ScramClient:
    """One client that shows a password, and is shown that the server knows it, too."""

    def __init__(
        self,
        mechanism: str,
        user: str,
        password: str,
        nonce: str = "fyko",
        header: str = "n,,",
        repeated: str = "",
        more: str = "",
    ) -> None:
        """`repeated` is put in front of the nonce that the last message repeats.

        `more` is what follows in the first message, as in ",tokenauth=true".
        """
        self._hash = HASHES[mechanism]
        self._password = password.encode()
        escaped = user.replace("=", "=3D").replace(",", "=2C")
        self._header = header
        self._repeated = repeated
        self._bare = f"n={escaped},r={nonce}{more}"
        self._signature = b""
        self.challenge: dict[str, str] = {}

    def first(self) -> bytes:
        return (self._header + self._bare).encode()

    def final(self, challenge: bytes) -> bytes:
        said = self.challenge = dict(
            part.split("=", 1) for part in challenge.decode().split(",")
        )
        salt, iterations = base64.b64decode(said["s"]), int(said["i"])
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", self._hash)
        stored_key = hashlib.new(self._hash, client_key).digest()
        binding = base64.b64encode(self._header.encode()).decode()
        unproven = f"c={binding},r={self._repeated}{said['r']}"
        message = ",".join((self._bare, challenge.decode(), unproven)).encode()
        signature = hmac.digest(stored_key, message, self._hash)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", self._hash)
        self._signature = hmac.digest(server_key, message, self._hash)
        return f"{unproven},p={base64.b64encode(proof).decode()}".encode()

    def is_server(self, last: bytes) -> bool:
        return last == b"v=" + base64.b64encode(self._signature)
