"""What is kept of passwords, and the text in which it is written down.

    $scram-sha-256$ITERATIONS$SALT$STOREDKEY$SERVERKEY      ours, also with sha-512
    $6$SALT$HASH                                            Mosquitto 1.x: SHA-512 with salt
    $7$ITERATIONS$SALT$HASH                                 Mosquitto 2.0: PBKDF2 with SHA-512
    $argon2id$v=19$m=KIB,t=ROUNDS,p=LANES$SALT$HASH         Mosquitto 2.1: Argon2id, a PHC text

Salts, keys and hashes are in Base64. Checking a password takes as long as its credential says,
milliseconds to a second, so it is not for the loop. From none of them can a password be had, so
they may stand in files; from a weak password they protect only for a while.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final, NamedTuple

from isthmus.broker.scram import HASHES, ITERATIONS_MAX, ScramKeys
from isthmus.errors import ConfigError

KINDS: Final = ("scram-sha-256", "scram-sha-512", "6", "7", "argon2id")
ARGON2_TEXT_MAX: Final = 512
ARGON2_MEMORY_KIB_MAX: Final = 1 << 20  # that one check may take
ARGON2_COSTS: Final = re.compile(r"m=([0-9]{1,8}),t=([0-9]{1,4}),p=[0-9]{1,3}")
ARGON2_COST_MAX: Final = 1 << 24  # of KiB times rounds: some seconds


class Sha512(NamedTuple):
    """A salted hash, fast and so only as good as the password."""

    salt: bytes
    hash: bytes

    def matches(self, password: bytes) -> bool:
        """Say whether this is the password."""
        return hmac.compare_digest(hashlib.sha512(password + self.salt).digest(), self.hash)


class Pbkdf2(NamedTuple):
    """PBKDF2 with SHA-512."""

    iterations: int
    salt: bytes
    hash: bytes

    def matches(self, password: bytes) -> bool:
        """Say whether this is the password; slow."""
        found = hashlib.pbkdf2_hmac("sha512", password, self.salt, self.iterations)
        return hmac.compare_digest(found, self.hash)


class Argon2(NamedTuple):
    """Argon2id, by a library that is an extra."""

    text: str

    def matches(self, password: bytes) -> bool:
        """Say whether this is the password; slow."""
        from argon2.exceptions import VerificationError
        from argon2.low_level import Type, verify_secret

        try:
            return verify_secret(self.text.encode(), password, Type.ID)
        except VerificationError:
            return False


Credential = ScramKeys | Sha512 | Pbkdf2 | Argon2


def text_of(credential: Credential) -> str:
    """Return a credential as it is written down."""
    match credential:
        case ScramKeys(mechanism, iterations, salt, stored_key, server_key):
            parts = map(_text, (salt, stored_key, server_key))
            return "$".join(["", mechanism.lower(), str(iterations), *parts])
        case Sha512(salt, hash_):
            return f"$6${_text(salt)}${_text(hash_)}"
        case Pbkdf2(iterations, salt, hash_):
            return f"$7${iterations}${_text(salt)}${_text(hash_)}"
        case Argon2(text):
            return text


def parse_credential(text: str) -> Credential:
    """Read a credential. Raises ConfigError, which does not repeat it."""
    kind, *parts = text.removeprefix("$").split("$")
    if not text.startswith("$") or kind not in KINDS:
        raise ConfigError(
            "a credential begins with $scram-sha-256$, $scram-sha-512$, $6$, $7$ or $argon2id$,"
            " as `isthmus users` and mosquitto_passwd write it"
        )
    try:
        return _argon2(text, *parts) if kind == "argon2id" else _of_parts(kind, parts)
    except ValueError:  # Base64's errors, too
        raise ConfigError(f"this is no ${kind}$ credential: it is cut off or altered") from None


def _of_parts(kind: str, parts: list[str]) -> Credential:
    """Read what stands behind the kind. Raises ValueError."""
    iterations = 1
    if kind != "6":
        first, *parts = parts
        iterations = int(first)
    if not 0 < iterations <= ITERATIONS_MAX:
        raise ValueError("no number of iterations")
    salt, *hashes = (base64.b64decode(part, validate=True) for part in parts)
    scram = kind.upper() if kind.upper() in HASHES else ""
    size = hashlib.new(HASHES[scram] if scram else "sha512").digest_size
    if not salt or [len(each) for each in hashes] != [size] * (2 if scram else 1):
        raise ValueError("too short or too long")
    if scram:
        return ScramKeys(scram, iterations, salt, *hashes)
    return Sha512(salt, hashes[0]) if kind == "6" else Pbkdf2(iterations, salt, hashes[0])


def _argon2(text: str, *parts: str) -> Argon2:
    """Check form and cost: a line in a file must not take all memory. Raises ValueError."""
    _version, costs, _salt, _hash = parts
    found = ARGON2_COSTS.fullmatch(costs)
    if found is None or len(text) > ARGON2_TEXT_MAX:
        raise ValueError("no Argon2id")
    memory_kib, rounds = int(found[1]), int(found[2])
    if memory_kib > ARGON2_MEMORY_KIB_MAX or memory_kib * rounds > ARGON2_COST_MAX:
        raise ValueError("too much work")
    try:
        import argon2  # noqa: F401  # whether it is there
    except ImportError:
        raise ConfigError(
            "an $argon2id$ credential needs a library: pip install 'isthmus[argon2]'"
        ) from None
    return Argon2(text)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
