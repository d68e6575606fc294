"""The way "jwt": whoever has a token that one of the keys signed is whom the token names.

JSON Web Tokens (RFC 7519), as the password of a client or by OAUTHBEARER (RFC 7628). The token
says who somebody is, in which groups, and until when; the connection ends then. Signatures are
PyJWT's, an extra (`isthmus[jwt]`) because cryptography comes with it, which is larger than the
rest of the server; what a token has to say is checked here, by the server's own clock.

Which algorithms may be is fixed by the settings, never by the token, and each key is used with
its own kind of algorithm only: a public key is not a secret. Keys come from files and from a
URL; who reads those is server/key_sets.py.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from isthmus.broker.authentication import Found, Shown
from isthmus.broker.users import checked_groups, checked_name
from isthmus.errors import BadCredentials, ConfigError, IsthmusError, NotAuthorized, ServerBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from isthmus.broker.authentication import Answer, Request, Verdict
    from isthmus.config import JwtSettings
    from isthmus.runtime import Crew

JWT: Final = "jwt"
BEARER: Final = "OAUTHBEARER"
ALGORITHMS: Final = {  # by the kind of key
    "secret": ("HS256", "HS384", "HS512"),
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
TIME_MAX_S: Final = 10**11  # of a claim: some thousand years
SECRET_BYTES_MIN: Final = 32  # [RFC 7518, 3.2]
KEYS_MAX: Final = 100


class Key(NamedTuple):
    """One key that signs tokens, or checks what another one has signed."""

    kind: str  # of ALGORITHMS
    key: Any  # PyJWT's
    key_id: str = ""  # empty: for tokens that name any key, or none

    def __repr__(self) -> str:
        """Show what is no secret."""
        return f"Key({self.kind}, {self.key_id!r})"


class TokenRules:
    """What a token has to be."""

    def __init__(self, settings: JwtSettings) -> None:
        """Raises ConfigError for settings that let everybody in, or nobody."""
        known = [name for names in ALGORITHMS.values() for name in names]
        unknown = sorted(set(settings.algorithms) - set(known))
        if unknown or not settings.algorithms:
            raise ConfigError(
                f"authentication.jwt.algorithms has some of {', '.join(known)},"
                f" and not {', '.join(unknown) or 'none'}"
            )
        self._settings = settings

    def read(self, token: bytes, keys: Sequence[Key], now_ms: int) -> Found:
        """Return whom a token names. Raises BadCredentials."""
        import jwt

        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
            claims = self._verified(token, [key for key in keys if key.key_id in ("", key_id)])
        except jwt.InvalidAudienceError:
            raise BadCredentials("the token is for somebody else: aud") from None
        except jwt.InvalidIssuerError:
            raise BadCredentials("the token is from somebody else: iss") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise BadCredentials("the token is not valid") from None
        return self._found(claims, now_ms)

    def _verified(self, token: bytes, keys: Sequence[Key]) -> dict[str, Any]:
        """Return what stands in a token that one of the keys has signed."""
        import jwt

        settings = self._settings
        for key in keys:
            algorithms = [name for name in ALGORITHMS[key.kind] if name in settings.algorithms]
            if not algorithms:
                continue
            try:
                return jwt.decode(
                    token,
                    key.key,
                    algorithms=algorithms,
                    audience=settings.audience or None,
                    issuer=settings.issuer or None,
                    options={
                        "verify_aud": bool(settings.audience),
                        "verify_exp": False,  # by our clock, see `_found`
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                continue  # perhaps another key's
        raise BadCredentials("the token is signed by no key that is known here")

    def _found(self, claims: dict[str, Any], now_ms: int) -> Found:
        settings = self._settings
        leeway_ms = settings.leeway_s * 1000
        expires_ms, begins_ms = time_in(claims, "exp"), time_in(claims, "nbf", 0)
        until_ms = expires_ms + leeway_ms
        if until_ms <= now_ms:
            raise BadCredentials("the token has expired")
        if begins_ms - leeway_ms > now_ms:
            raise BadCredentials("the token is not valid yet")
        try:
            user = checked_name(named(claims, settings.user_claim))
            groups = checked_groups(listed(claims, settings.groups_claim))
        except ConfigError as error:
            raise BadCredentials(f"the token names nobody: {error}") from None
        return Found(user, groups, until_ms)


def time_in(claims: dict[str, Any], claim: str, default: int | None = None) -> int:
    """Return a claim that is a NumericDate [RFC 7519, 2] in ms. Raises BadCredentials."""
    value: Any = claims.get(claim, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < TIME_MAX_S:
        raise BadCredentials(f"the token has no {claim}, or none that is a time")
    return int(value * 1000)


def named(claims: dict[str, Any], claim: str) -> str:
    """Return a claim that is a text. Raises ConfigError."""
    value = claims.get(claim)
    if not isinstance(value, str):
        raise ConfigError(f"it has no {claim}")
    return value


def listed(claims: dict[str, Any], claim: str) -> Sequence[str]:
    """Return a claim that is a list of texts, or a text with spaces. Raises ConfigError."""
    value = claims.get(claim, [])
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ConfigError(f"its {claim} is no list of texts")
    return value


class TokensWay:
    """Tokens, and the keys that are known just now."""

    name = JWT

    def __init__(self, rules: TokenRules, crew: Crew, now_ms: Callable[[], int]) -> None:
        self._rules = rules
        self._crew = crew
        self._now_ms = now_ms
        self._keys: dict[str, tuple[Key, ...]] = {}
        self.methods = {BEARER: partial(BearerConversation, self)}

    def change(self, rules: TokenRules, sources: Collection[str]) -> None:
        """Believe other tokens from now on; keys that came from elsewhere are forgotten."""
        self._rules = rules
        self._keys = {name: keys for name, keys in self._keys.items() if name in sources}

    def use(self, source: str, keys: Sequence[Key]) -> None:
        """Have these keys instead of those that came from there before."""
        self._keys[source] = tuple(keys)

    def judge(self, request: Request, answer: Callable[[Verdict], object]) -> None:
        """Say whom the password names, if it is a token."""
        if request.password is None or not is_token(request.password):
            answer(None)
        else:
            self.check(request, request.password, answer)

    def check(
        self, request: Request, token: bytes, answer: Callable[[Verdict], object]
    ) -> None:
        """Say whom a token names."""
        keys = [key for keys in self._keys.values() for key in keys]
        work = partial(self._rules.read, token, keys, self._now_ms())

        def done(found: Found | None, error: BaseException | None) -> None:
            if found is not None:
                answer(found)
            else:
                answer(error if isinstance(error, IsthmusError) else NOT_CHECKED)

        if not self._crew.offload(work, done):
            answer(NOT_CHECKED)


NOT_CHECKED: Final = ServerBusy("too many tokens are being checked; try again")


def is_token(password: bytes) -> bool:
    """Say whether a password looks like a signed token [RFC 7515, 7.1]."""
    return password.startswith(b"ey") and password.count(b".") == 2


class BearerConversation:
    """One client that shows a token by OAUTHBEARER."""

    def __init__(self, way: TokensWay, request: Request) -> None:
        self._way = way
        self._request = request

    def step(self, data: bytes, answer: Callable[[Answer], object]) -> None:
        """Take the one message of the client [RFC 7628, 3.1]."""
        header, *pairs = data.split(b"\x01")
        fields = dict(pair.partition(b"=")[::2] for pair in pairs)
        kind, _, token = fields.get(b"auth", b"").partition(b" ")
        if not header.startswith((b"n,", b"y,")) or kind.lower() != b"bearer" or not token:
            answer(NotAuthorized("an OAUTHBEARER message without a token"))
            return

        def checked(verdict: Verdict) -> None:
            if isinstance(verdict, Found):
                answer(Shown(verdict))
            elif isinstance(verdict, ServerBusy):
                answer(verdict)
            else:
                answer(NotAuthorized(str(verdict)))

        self._way.check(self._request, token, checked)


# --- keys -------------------------------------------------------------------------------------


def check_library() -> None:
    """Raise ConfigError where PyJWT is missing, or what it needs for signatures."""
    try:
        import cryptography  # noqa: F401  # whether it is there
        import jwt  # noqa: F401
    except ImportError:
        raise ConfigError(
            "authentication = [… \"jwt\" …] needs libraries: pip install 'isthmus[jwt]'"
        ) from None


def parse_keys(text: str, file: str) -> list[Key]:
    """Read public keys in PEM, or a key set in JSON (JWKS). Raises ConfigError."""
    if text.lstrip().startswith("{"):
        return parse_key_set(text, file)
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    key: object
    try:
        if "-----BEGIN CERTIFICATE-----" in text:
            key = load_pem_x509_certificate(text.encode()).public_key()
        else:
            key = load_pem_public_key(text.encode())
    except ValueError:
        raise ConfigError(f"{file} holds no public key in PEM and no key set in JSON") from None
    kinds = {
        "RSA": rsa.RSAPublicKey,
        "EC": ec.EllipticCurvePublicKey,
        "OKP": (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey),
    }
    for kind, classes in kinds.items():
        if isinstance(key, classes):  # type: ignore[arg-type]
            return [Key(kind, key)]
    raise ConfigError(f"{file} holds a key of a kind that signs no tokens")


def parse_key_set(text: str, source: str) -> list[Key]:
    """Read a key set [RFC 7517]; keys of kinds not known are left out. Raises ConfigError."""
    from jwt import PyJWK, PyJWTError

    try:
        rows = json.loads(text)["keys"][:KEYS_MAX]
        rows = [row for row in rows if row.get("use", "sig") == "sig"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ConfigError(f"{source} holds no key set (JWKS)") from None
    keys = []
    for row in rows:
        kind, key_id = row.get("kty"), row.get("kid", "")
        if kind not in ("RSA", "EC", "OKP") or not isinstance(key_id, str):
            continue
        with suppress(PyJWTError, ValueError, TypeError):  # of a curve not known, say
            keys.append(Key(kind, PyJWK(row).key, key_id))
    if not keys:
        raise ConfigError(f"{source} holds no key that signs tokens")
    return keys


def parse_secret(text: str, file: str) -> list[Key]:
    """Read a secret shared with those who make tokens. Raises ConfigError."""
    secret = text.strip().encode()
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(f"{file} holds a secret of less than {SECRET_BYTES_MIN} bytes")
    return [Key("secret", secret)]
