"""Clients with tokens, and clients that a program of the user's judges."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.certificates import Authority
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import wait_until
from tests.e2e.raw_mqtt import (
    CONNACK,
    DISCONNECT,
    RawMqtt,
    authentication_data,
    connect,
    raw_connection,
)
from tests.e2e.server_process import ServerProcess, address_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.server_process import Address

SIGNER = rsa.generate_private_key(65537, 2048)
OTHER = ec.generate_private_key(ec.SECP256R1())


class Program(BaseHTTPRequestHandler):
    """A program that judges clients by their user name, and has a key set."""

    protocol_version = "HTTP/1.1"
    asked: list[dict[str, Any]]
    hangs: threading.Event

    def do_GET(self) -> None:
        row = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(OTHER.public_key()))
        self._answer({"keys": [row | {"kid": "other"}]})

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(said)
        name = said["user_name"]
        if name == "slow":
            type(self).hangs.wait()
        if name == "long":
            self._answer({"result": "allow", "pad": "x" * (11 << 20)})
        else:
            verdict = "allow" if name in ("ann", "slow") else "deny"
            self._answer({"result": verdict, "groups": ["fitters"]})

    def _answer(self, said: dict[str, Any]) -> None:
        content = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # nobody waits for it any more

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(tls: Any = None) -> Iterator[tuple[type[Program], Address]]:
    """Run a program on a port of its own."""
    program = type("ThisProgram", (Program,), {"asked": [], "hangs": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), program)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield program, server.server_address[:2]
    finally:
        program.hangs.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Guarded:
    """A server with a listener for tokens, and one whose clients a program judges."""

    def __init__(self, process: ServerProcess, program: type[Program]) -> None:
        self.process = process
        self.program = program
        self.for_tokens, self.for_hook = map(address_of, process.mqtt_listeners)


@pytest.fixture(scope="module")
def server(own_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("ways")
    key = directory / "signer.pem"
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key.write_bytes(SIGNER.public_key().public_bytes(*form))
    with serving() as (program, (host, port)):
        process = ServerProcess(
            directory,
            settings={
                "mqtt.listeners": json.dumps(
                    [
                        {"address": "tcp://127.0.0.1:0", "authentication": [way]}
                        for way in ("jwt", "http")
                    ]
                ),
                "authentication.jwt.keys": json.dumps([str(key)]),
                "authentication.jwt.keys_url": f"http://{host}:{port}/keys",
                "authentication.jwt.leeway_s": "0",
                "authentication.http.url": f"http://{host}:{port}/who",
                "authentication.http.timeout_ms": "500",
                "log.level": "debug",
            },
        )
        process.start()
        yield Guarded(process, program)
        process.stop()


def token(seconds: float = 3600, *, key: Any = SIGNER, **claims: Any) -> str:
    algorithm = "RS256" if key is SIGNER else "ES256"
    said = {"sub": "ann", "exp": time.time() + seconds} | claims
    return jwt.encode(said, key, algorithm, headers={"kid": "other"} if key is OTHER else None)


def reason_for(address: Address, name: str, password: str) -> int:
    with raw_connection(address) as connection:
        connection.send(connect("c", user=(name, password.encode())))
        return connection.expect(CONNACK).body[1]


def test_paho_comes_in_with_a_token(server: Guarded, unique: str) -> None:
    with paho_client(
        server.for_tokens,
        unique,
        prepare=lambda client: client.username_pw_set("ann", token()),
    ) as client:
        inbox = paho_subscribe(client, unique)
        paho_publish(client, [Message(unique, b"hello")])
        inbox.wait(1)


def test_tokens_that_are_no_good(server: Guarded) -> None:
    assert reason_for(server.for_tokens, "ann", token(-1)) == 0x86
    assert reason_for(server.for_tokens, "ann", token()[:-8] + "AAAAAAAA") == 0x86
    assert reason_for(server.for_tokens, "ann", "password") == 0x86


def test_keys_come_from_a_url(server: Guarded) -> None:
    wait_until(
        lambda: reason_for(server.for_tokens, "ann", token(key=OTHER)) == 0, "the key set"
    )


def test_a_connection_ends_with_its_token(server: Guarded, unique: str) -> None:
    connection = RawMqtt(server.for_tokens)
    connection.open(unique, user=("ann", token(2).encode()))
    began = time.monotonic()
    assert connection.expect(DISCONNECT).body[0] == 0x87
    assert time.monotonic() - began > 0.5
    assert connection.receive() is None
    connection.cut()


def test_a_token_is_borne_by_a_method_of_mqtt_5(server: Guarded, unique: str) -> None:
    """[RFC 7628]"""
    data = b"n,,\x01auth=Bearer " + token().encode() + b"\x01\x01"
    with raw_connection(server.for_tokens) as connection:
        connection.send(connect(unique, method=("OAUTHBEARER", data)))
        connack = connection.expect(CONNACK)
        assert connack.body[1] == 0
        assert b"OAUTHBEARER" in connack.body
        with pytest.raises(ValueError, match="not found"):
            authentication_data(connack.body[2:])


def test_a_program_says_who_comes_in(server: Guarded) -> None:
    assert reason_for(server.for_hook, "ann", "geheim-7") == 0
    assert server.program.asked[-1]["password"] == "geheim-7"
    assert server.program.asked[-1]["address"] == "127.0.0.1"
    assert reason_for(server.for_hook, "bob", "geheim-7") == 0x87
    asked = len(server.program.asked)
    assert reason_for(server.for_hook, "ann", "geheim-7") == 0  # remembered
    assert len(server.program.asked) == asked
    assert reason_for(server.for_hook, "long", "x") == 0x89


def test_a_program_that_hangs_holds_up_only_whom_it_judges(server: Guarded) -> None:
    waiting = [RawMqtt(server.for_hook) for _ in range(4)]
    for number, connection in enumerate(waiting):
        connection.send(connect(f"slow-{number}", user=("slow", b"%d" % number)))
    asked = server.program.asked
    wait_until(lambda: [each["user_name"] for each in asked].count("slow") == 4, "questions")
    assert reason_for(server.for_tokens, "ann", token()) == 0
    assert reason_for(server.for_hook, "ann", "geheim-7") == 0
    for connection in waiting:
        assert connection.expect(CONNACK).body[1] == 0x89
        connection.cut()
    server.program.hangs.set()


def test_nothing_secret_is_in_the_log(server: Guarded) -> None:
    shown = token(sub="zoe")
    assert reason_for(server.for_tokens, "zoe", shown) == 0
    assert reason_for(server.for_hook, "bob", "geheim-8") == 0x87
    log = server.process.log_path.read_text()
    assert "zoe" in log
    assert [secret for secret in ("geheim", shown, "eyJ") if secret in log] == []


def test_a_program_is_asked_over_tls_that_is_checked(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import ssl

    from isthmus.server.http_client import HttpClient, NoAnswer, believing

    directory = tmp_path_factory.mktemp("tls")
    ours, stranger = Authority(directory / "ours"), Authority(directory / "stranger")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.issue("server", "localhost"))
    with serving(context) as (_, (_, port)):
        url = f"https://localhost:{port}/keys"
        client = HttpClient("url", url, timeout_s=30)
        client.believe(believing(ours.certificate.read_text(), "ours"))
        for _ in range(2):  # over one connection
            assert b"other" in client.ask("GET")
        client._kept.connection.close()
        client.believe(believing(stranger.certificate.read_text(), "stranger"))
        with pytest.raises(NoAnswer, match="SSLCertVerificationError"):
            client.ask("GET")
