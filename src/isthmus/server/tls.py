"""TLS: contexts from certificate files, made anew when the files change.

For every listener that speaks TLS, whatever protocol it carries. `Certificates` holds the
context for the connections that come next; each connection is given the newest one
(`server/reception.py`, docs/adr/0028). What is wrong with a file is one sentence that names
setting and file: a ConfigError at the start, a log line later, and then the old certificates
stay.

Sessions of TLS are resumed within one context only, so no certificate that was revoked, and no
CA that was taken away, lives on in a session of before.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import ConfigError
from isthmus.server.lifetimes import lifetimes_in

if TYPE_CHECKING:
    from isthmus.config_listeners import TlsOptions
    from isthmus.server.lifetimes import Lifetime

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]  # of a file: when it was changed, its size, which file it is

VERIFY_MODES: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
KEYED_CIPHERS: Final = "kECDHEPSK:kPSK:!eNULL"
VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class AskedKey:
    """The key that one connection was asked for, and who said to have it."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._keys = keys
        self.identity = ""

    def answer(self, identity: str | None) -> bytes:
        """Return the key of an identity; without one OpenSSL ends the handshake."""
        self.identity = identity or ""
        return self._keys.get(self.identity, b"")


class TellingObject(ssl.SSLObject):
    """TLS of one connection; what fails its handshake carries the alert that says so.

    Event loops close the socket without sending it, and the client would see an end without
    a reason [RFC 8446, 6.2].
    """

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises SSLError, with `alert`: bytes for the client."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.alert = self.outgoing.read()  # type: ignore[attr-defined]
            raise


class ServingContext(ssl.SSLContext):
    """A context whose connections are told why they are refused."""

    sslobject_class: type[ssl.SSLObject] = TellingObject

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *rest: Any, **options: Any
    ) -> ssl.SSLObject:
        """Begin TLS over two buffers, as event loops have it."""
        connection = super().wrap_bio(incoming, outgoing, *rest, **options)
        assert isinstance(connection, TellingObject), "the class above"
        connection.outgoing = outgoing
        return connection


class KeyedContext(ServingContext):
    """The context of one connection whose client has a key."""

    asked: AskedKey


class Certificates:
    """The certificates of one listener, and the context made of them.

    Raises ConfigError if a file cannot be read or does not hold what it should.
    """

    def __init__(self, options: TlsOptions, listener: str) -> None:
        self.listener = listener
        self.ends: dict[str, Lifetime] = {}  # by setting: of what is over first
        self._options = options
        self._stamps = self._look()
        self.context = self._load()

    async def renew(self, *, forced: bool) -> None:
        """Read the files again if one has changed, or anyway, on another thread."""
        options = self._options
        fresh = await asyncio.to_thread(self._read_again, forced=forced)
        if fresh is not None and self._options is options:
            self.take(fresh)

    def reload(self, *, forced: bool) -> bool:
        """Do the same here, which blocks; say whether `context` is new."""
        fresh = self._read_again(forced=forced)
        if fresh is not None:
            self.take(fresh)
        return fresh is not None

    def take(self, fresh: Certificates) -> None:
        """Have those that were read for the same listener, by other settings perhaps."""
        self._options, self._stamps = fresh._options, fresh._stamps
        self.context, self.ends = fresh.context, fresh.ends
        logger.info("certificates reloaded listener=%s", self.listener)

    def _read_again(self, *, forced: bool) -> Certificates | None:
        stamps = self._look()
        if stamps == self._stamps and not forced:
            return None
        self._stamps = stamps  # those that fail are not tried again until they change
        try:
            return Certificates(self._options, self.listener)
        except (ConfigError, OSError) as error:  # or a file went away while it was read
            logger.error("certificates kept listener=%s reason=%s", self.listener, error)
            return None

    def _look(self) -> dict[str, Stamp | None]:
        options = self._options
        pairs = [(options.certificate, options.key)]
        pairs += [(each.certificate, each.key) for each in options.certificates]
        files = {file for pair in pairs for file in pair}
        files |= {options.chain, options.client_ca, options.crl, options.psk_file}
        return {file: stamp_of(file) for file in files if file}

    def _load(self) -> ssl.SSLContext:
        """Return the context to listen with; it chooses a certificate by the name asked for."""
        options = self._options
        if options.psk_file:
            keys = self._load_keys(options.psk_file)
            if sys.version_info >= (3, 13):
                return self._keyed(keys)
            raise self._wrong("psk_file", options.psk_file, "needs Python 3.13 or newer")
        named: dict[str, ssl.SSLContext] = {}
        for each in options.certificates:
            context = self._context(each.certificate, each.key)
            named |= dict.fromkeys((name.lower() for name in each.names), context)
        context = self._context(options.certificate, options.key)
        if named:

            def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
                asked = (name or "").lower()
                any_there = "*." + asked.partition(".")[2]
                chosen = named.get(asked) or named.get(any_there)
                if chosen is not None:
                    connection.context = chosen

            context.sni_callback = choose
        return context

    def _context(self, certificate: str, key: str) -> ssl.SSLContext:
        options = self._options
        context = ServingContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = VERSIONS[options.tls_min]
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        if options.ciphers:
            self._choose_ciphers(context, options.ciphers)
        self._load_pair(context, certificate, key)
        if options.client_certificates != "none":
            self._load_authorities(context)
        elif options.chain:  # OpenSSL sends those of its store that lead to a CA
            self._load_trusted(context, "chain", options.chain)
        context.verify_mode = VERIFY_MODES[options.client_certificates]
        return context

    def _choose_ciphers(self, context: ssl.SSLContext, ciphers: str) -> None:
        try:
            context.set_ciphers(ciphers)
        except ssl.SSLError:
            raise self._wrong("ciphers", ciphers, "names no cipher known") from None

    def _keyed(self, keys: dict[str, bytes]) -> ssl.SSLContext:
        """Return a context for clients with keys; it gives each connection one of its own.

        OpenSSL asks for a key without saying for which connection, so what is asked has to be
        known by the context; it costs a connection some 13 KiB.
        """

        def make() -> KeyedContext:
            context = KeyedContext(ssl.PROTOCOL_TLS_SERVER)
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # 1.3 has no such keys in Python
            context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
            self._choose_ciphers(context, self._options.ciphers or KEYED_CIPHERS)
            context.asked = AskedKey(keys)
            context.set_psk_server_callback(  # type: ignore[attr-defined, unused-ignore]
                context.asked.answer
            )
            return context

        def choose(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            connection.context = make()

        listening = make()
        listening.sni_callback = choose
        return listening

    def _load_keys(self, file: str) -> dict[str, bytes]:
        self._check_readable("psk_file", file)
        keys = {}
        for number, line in enumerate(Path(file).read_text("utf-8", "replace").splitlines(), 1):
            identity, _, key = line.strip().rpartition(":")
            if not line.strip() or line.startswith("#"):
                continue
            try:
                keys[identity] = bytes.fromhex(key)
            except ValueError:
                identity = ""
            if not identity or not keys[identity]:
                why = f"has no IDENTITY:HEXADECIMAL in line {number}"
                raise self._wrong("psk_file", file, why)
        return keys

    def _load_pair(self, context: ssl.SSLContext, certificate: str, key: str) -> None:
        self._check_readable("certificate", certificate)
        self._note_end("certificate", certificate)
        if key:
            self._check_readable("key", key)

        def passphrase() -> bytes:  # or OpenSSL would ask for it at the terminal
            raise self._wrong("key", key or certificate, "is encrypted with a passphrase")

        try:
            context.load_cert_chain(certificate, key or None, passphrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                name = key or certificate
                raise self._wrong("key", name, f"does not belong to {certificate}") from None
            text = Path(certificate).read_text("latin-1")
            if "-----BEGIN CERTIFICATE-----" not in text:
                raise self._wrong("certificate", certificate, "holds no certificate") from None
            if "PRIVATE KEY-----" not in Path(key or certificate).read_text("latin-1"):
                raise self._wrong("key", key or certificate, "holds no private key") from None
            both = f"{certificate} and {key}" if key else certificate
            raise self._wrong("certificate", both, f"is refused: {told(error)}") from None

    def _load_authorities(self, context: ssl.SSLContext) -> None:
        """Load whom to believe, and what they have taken back."""
        options = self._options
        self._load_trusted(context, "client_ca", options.client_ca)
        if not context.get_ca_certs():
            raise self._wrong("client_ca", options.client_ca, "holds no certificate of a CA")
        if options.crl:
            self._load_trusted(context, "crl", options.crl)
            if not context.cert_store_stats()["crl"]:
                raise self._wrong("crl", options.crl, "holds no list of revoked certificates")
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF

    def _load_trusted(self, context: ssl.SSLContext, setting: str, file: str) -> None:
        self._check_readable(setting, file)
        if setting == "crl":
            self._note_end(setting, file)
        try:
            context.load_verify_locations(cafile=file)
        except ssl.SSLError as error:
            raise self._wrong(setting, file, f"is refused: {told(error)}") from None

    def _note_end(self, setting: str, file: str) -> None:
        """Note what of a file is over first."""
        try:
            lives = lifetimes_in(Path(file).read_text("latin-1"))
        except (ValueError, LookupError, StopIteration):
            return  # OpenSSL says what is wrong with it
        known = self.ends.get(setting)
        lives += [known] if known is not None else []
        if lives:
            self.ends[setting] = min(lives, key=attrgetter("end_s"))

    def _check_readable(self, setting: str, file: str) -> None:
        try:
            Path(file).read_bytes()
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
            raise self._wrong(setting, file, why) from None

    def _wrong(self, setting: str, file: str, why: str) -> ConfigError:
        return ConfigError(f"the listener {self.listener}: {setting} = {file!r} {why}")


def stamp_of(file: str) -> Stamp | None:
    """Return what changes when a file does, whatever link leads there; None: it is missing."""
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def told(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason in lower case words."""
    return (error.reason or str(error)).lower().replace("_", " ")
