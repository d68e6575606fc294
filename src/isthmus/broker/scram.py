"""SCRAM: a client shows that it knows a password without sending it, and the server likewise.

RFC 5802 with SHA-256 (RFC 7677) and SHA-512. What is kept of a password is `ScramKeys`, from
which it cannot be had; they also check a password that was sent. `Exchange` is the server's end
of one conversation: the client's first message in, a challenge out, its proof in, the server's
out. Channel binding is not offered.

Pure: salts and nonces are arguments. `keys_of` is slow on purpose (the iterations), and not
for the loop; an exchange costs three hashes. Not here: who has which keys (users.py).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.errors import NotAuthorized

if TYPE_CHECKING:
    from collections.abc import Callable

HASHES: Final = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
ITERATIONS_MIN: Final = 4096  # [RFC 7677, 4]
ITERATIONS_MAX: Final = 10_000_000
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 18
MESSAGE_BYTES_MAX: Final = 4096
TOO_LONG: Final = "a SCRAM message that is too long"
BY_TOKEN: Final = b"tokenauth=true"  # in a client's first message [KIP-48]
_NONCE: Final = re.compile(rb"[!-+\--~]{1,512}")  # printable, without the comma [RFC 5802, 7]
_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class ScramKeys(NamedTuple):
    """What is kept of a password for one mechanism."""

    mechanism: str
    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def matches(self, password: bytes) -> bool:
        """Say whether this is the password; slow."""
        found = keys_of(self.mechanism, password, self.salt, self.iterations)
        return hmac.compare_digest(found.stored_key, self.stored_key)


def keys_of(mechanism: str, password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """Return what is to be kept of a password [RFC 5802, 3]; slow."""
    name = HASHES[mechanism]
    salted = hashlib.pbkdf2_hmac(name, prepared_bytes(password), salt, iterations)
    return keys_of_salted(mechanism, salted, salt, iterations)


def keys_of_salted(mechanism: str, salted: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """Return the same from what the iterations make of a password (SaltedPassword)."""
    name = HASHES[mechanism]
    client_key = hmac.digest(salted, b"Client Key", name)
    stored_key = hashlib.new(name, client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", name)
    return ScramKeys(mechanism, iterations, salt, stored_key, server_key)


class First(NamedTuple):
    """The first message of a client, read."""

    flag: bytes  # of channel binding
    authorized: bytes  # whom it wants to be, as it stands there
    bare: bytes  # what the proof covers of it
    user: str
    nonce: bytes
    by_token: bool  # the user name is the id of a delegation token [KIP-48]


class Exchange:
    """The server's end of one conversation.

    `find(user, by_token)` returns the keys to challenge with, and whether they are a user's, or
    a token's: for one that is not there the conversation goes to its end like any other. `user`
    is whom the client says to be, and after the last step whom it is.
    """

    def __init__(
        self, find: Callable[[str, bool], tuple[ScramKeys, bool]], nonce: bytes
    ) -> None:
        """Wait for the client's first message; `nonce` has NONCE_BYTES random bytes."""
        self.user = ""
        self.is_done = False
        self._find = find
        self._nonce = base64.b64encode(nonce)
        self._keys: ScramKeys | None = None
        self._is_real = False
        self._binding = b""  # what the client's last message has to repeat
        self._said = b""  # both first messages

    def step(self, data: bytes) -> bytes:
        """Take a message of the client, return the answer. Raises NotAuthorized."""
        if self._keys is None:
            return self._challenge(read_first(data))
        if len(data) > MESSAGE_BYTES_MAX:
            raise NotAuthorized(TOO_LONG)
        return self._verify(data)

    def _challenge(self, first: First) -> bytes:
        self.user = first.user
        self._nonce = first.nonce + self._nonce
        self._keys, self._is_real = self._find(first.user, first.by_token)
        self._binding = base64.b64encode(b"%b,%b," % (first.flag, first.authorized))
        salt = base64.b64encode(self._keys.salt)
        answer = b"r=%b,s=%b,i=%d" % (self._nonce, salt, self._keys.iterations)
        self._said = first.bare + b"," + answer
        return answer

    def _verify(self, data: bytes) -> bytes:
        keys = self._keys
        assert keys is not None and not self.is_done
        without_proof, _, text = data.rpartition(b",p=")
        binding, nonce = attributes(without_proof, b"c", b"r")
        try:
            proof = base64.b64decode(text, validate=True)
        except binascii.Error:
            proof = b""
        name = HASHES[keys.mechanism]
        said = self._said + b"," + without_proof
        signature = hmac.digest(keys.stored_key, said, name)
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=False))
        stored_key = hashlib.new(name, client_key).digest()
        proven = hmac.compare_digest(stored_key, keys.stored_key)
        # librdkafka before 2.6.1 puts its own nonce in front once more. What follows is what we
        # said, and the proof is of all of it, so that is as fresh.
        continues = binding == self._binding and nonce.endswith(self._nonce)
        if not continues or len(proof) != len(signature):
            raise NotAuthorized("a SCRAM message that does not continue the first")
        if not (proven and self._is_real):
            raise NotAuthorized("a SCRAM proof that shows no user's password")
        self.is_done = True
        return b"v=" + base64.b64encode(hmac.digest(keys.server_key, said, name))


def read_first(data: bytes) -> First:
    """Read the first message of a client [RFC 5802, 7]. Raises NotAuthorized."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise NotAuthorized(TOO_LONG)
    flag, _, rest = data.partition(b",")
    authorized, _, bare = rest.partition(b",")
    if flag not in (b"n", b"y"):
        raise NotAuthorized("SCRAM with channel binding, which is not offered")
    name, nonce = attributes(bare, b"n", b"r")
    user = prepared(unescaped(name))
    if authorized and prepared(unescaped(authorized.removeprefix(b"a="))) != user:
        raise NotAuthorized("SCRAM of one user on behalf of another")
    if not _NONCE.fullmatch(nonce):
        raise NotAuthorized("a SCRAM nonce that is none")
    by_token = BY_TOKEN in bare.lower().split(b",")[2:]
    return First(flag, authorized, bare, user, nonce, by_token)


def attributes(message: bytes, *names: bytes) -> list[bytes]:
    """Return the values of the first attributes of a message, which have these names.

    Others may follow [RFC 5802, 5.1]; one in front, an `m=` say, is not understood.
    """
    parts = message.split(b",")
    if [part[:2] for part in parts[: len(names)]] != [name + b"=" for name in names]:
        raise NotAuthorized("a SCRAM message that is none")
    return [part[2:] for part in parts[: len(names)]]


def unescaped(name: bytes) -> str:
    """Read a user name as SCRAM messages carry it [RFC 5802, 5.1]."""
    if re.search(rb"=(?!2C|3D)", name):
        raise NotAuthorized("a SCRAM user name with a stray =")
    try:
        return name.replace(b"=2C", b",").replace(b"=3D", b"=").decode()
    except UnicodeDecodeError:
        raise NotAuthorized("a SCRAM user name that is not UTF-8") from None


# --- SASLprep ---------------------------------------------------------------------------------


def prepared(text: str) -> str:
    """Return a name or password as it is compared [RFC 4013]; as it is where it may be none.

    What people type for the same characters becomes the same.
    """
    if text.isascii():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each
        for each in text
        if not stringprep.in_table_b1(each)
    )
    result = unicodedata.normalize("NFKC", mapped)
    prohibited = any(is_in(each) for each in result for is_in in _PROHIBITED)
    is_right_to_left = any(map(stringprep.in_table_d1, result))
    is_mixed = is_right_to_left and (
        any(map(stringprep.in_table_d2, result))
        or not (stringprep.in_table_d1(result[0]) and stringprep.in_table_d1(result[-1]))
    )
    return text if prohibited or is_mixed or not result else result


def prepared_bytes(password: bytes) -> bytes:
    """Return a password as it is hashed; MQTT allows any bytes."""
    try:
        return prepared(password.decode()).encode()
    except UnicodeDecodeError:
        return password
