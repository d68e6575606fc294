"""Which Kafka server a command talks to, and as whom: options, or else the environment.

`tls://HOST:PORT` stands for TLS. Who comes is a user and its password, by SCRAM unless another
mechanism is chosen, or a token by OAUTHBEARER. The environment says it as it does to commands
that use the REST API (rest.py): ISTHMUS_USER and ISTHMUS_PASSWORD, or ISTHMUS_TOKEN;
ISTHMUS_CA and ISTHMUS_CERTIFICATE for TLS. A password is never an argument.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from isthmus.cli.options import login_of, login_options
from isthmus.config_listeners import PLAIN_SCHEMES, Address, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Command = TypeVar("Command", bound=Callable[..., Any])

SCRAM: Final = "SCRAM-SHA-256"
BEARER: Final = "OAUTHBEARER"
PASSWORD_MECHANISMS: Final = (SCRAM, "SCRAM-SHA-512", "PLAIN")
TOKEN_S: Final = 3_600  # for which librdkafka does not ask for the token again


class Login(NamedTuple):
    """Who a client is by SASL; with a token it has no name."""

    mechanism: str
    user: str
    secret: str  # password or token


class KafkaServer(NamedTuple):
    """Where a server is, and what it takes to be let in."""

    address: Address
    login: Login | None = None
    ca: str | None = None  # file with certificates; None: those of the system
    certificate: str | None = None  # file with our own and its key

    @property
    def is_encrypted(self) -> bool:
        """Whether it speaks TLS."""
        return self.address.scheme == "tls"

    def settings(self) -> dict[str, Any]:
        """Return all this as librdkafka's configuration."""
        found: dict[str, Any] = {"bootstrap.servers": self.address.authority}
        protocol = "SSL" if self.is_encrypted else "PLAINTEXT"
        if self.is_encrypted and self.ca is not None:
            found["ssl.ca.location"] = self.ca
        if self.is_encrypted and self.certificate is not None:
            found["ssl.certificate.location"] = found["ssl.key.location"] = self.certificate
        if self.login is not None:
            protocol = f"SASL_{protocol}"
            found |= _sasl(self.login)
        return {**found, "security.protocol": protocol}


def _sasl(login: Login) -> dict[str, Any]:
    found: dict[str, Any] = {"sasl.mechanism": login.mechanism}
    if login.mechanism == BEARER:
        token = login.secret
        return {**found, "oauth_cb": lambda _: (token, time.time() + TOKEN_S)}
    return {**found, "sasl.username": login.user, "sasl.password": login.secret}


def read_kafka_address(_: click.Context, __: click.Parameter, text: str) -> Address:
    """Read HOST:PORT or `tls://HOST:PORT`, as an option's callback. Raises ConfigError."""
    return parse_address(text if "://" in text else f"tcp://{text}", PLAIN_SCHEMES)


def kafka_options(command: Command) -> Command:
    """Give a command the options of a client of Kafka, keywords for `server_of`."""
    command = click.option(
        "--ca",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Certificates of the CA, for tls://, if not the system's.",
    )(command)
    command = click.option(
        "--mechanism",
        type=click.Choice(PASSWORD_MECHANISMS),
        help=f"How to log in as that user ({SCRAM}).",
    )(command)
    return click.option(
        "--kafka",
        metavar="HOST:PORT",
        default="127.0.0.1:9092",
        show_default=True,
        callback=read_kafka_address,
        help="The Kafka server; tls://HOST:PORT where it speaks TLS.",
    )(login_options(command))


def server_of(
    *,
    kafka: Address,
    user: str | None,
    password_file: Path | None,
    mechanism: str | None,
    ca: Path | None,
    environ: Mapping[str, str] = os.environ,
) -> KafkaServer:
    """Return the server that options and environment name. Raises ClickException."""
    if ca is not None and kafka.scheme != "tls":
        raise click.UsageError("--ca is for TLS: --kafka tls://HOST:PORT")
    return KafkaServer(
        kafka,
        _login_of(user, password_file, mechanism, environ),
        environ.get("ISTHMUS_CA") if ca is None else str(ca),
        environ.get("ISTHMUS_CERTIFICATE"),
    )


def _login_of(
    user: str | None,
    password_file: Path | None,
    mechanism: str | None,
    environ: Mapping[str, str],
) -> Login | None:
    if user is None and password_file is None:
        if "ISTHMUS_TOKEN" in environ and mechanism is None:
            return Login(BEARER, "", environ["ISTHMUS_TOKEN"])
        user = environ.get("ISTHMUS_USER")
    if user is not None and password_file is None and "ISTHMUS_PASSWORD" in environ:
        return Login(mechanism or SCRAM, user, environ["ISTHMUS_PASSWORD"])
    found = login_of(user, password_file)
    if found is None:
        if mechanism is not None:
            raise click.UsageError("--mechanism is for --user")
        return None
    return Login(mechanism or SCRAM, found[0], found[1].decode("utf-8", "surrogateescape"))
