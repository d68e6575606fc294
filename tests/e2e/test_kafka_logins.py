"""Logins of Java clients otherwise than by a password once: tokens, again in time, over TLS.

What the Java client is told of delegation tokens was compared with a real Apache Kafka 4.3.1
with SCRAM, StandardAuthorizer and `delegation.token.secret.key`, by the same program.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.certificates import Authority
from tests.e2e.kafka_asker import Asker
from tests.e2e.kafka_commands import CLIENTS, JavaConsole, java_command
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.server_process import Address, ServerProcess, run_isthmus, text_of
from tests.scram_client import ScramClient

from isthmus.kafka.api import ApiKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXPECTED: Final = """\
own token=User:ann User:ann [User:bob] 86400000 604800000 22 64
token for another=User:bob User:ann [] 3600000 3600000 22 64
token for a third=DelegationTokenAuthorizationException
renewer that is a group=InvalidPrincipalTypeException
produce by token=0
produce by token 512=1
produce by token of bob=TopicAuthorizationException
wrong hmac=SaslAuthenticationException
token as a user=SaslAuthenticationException
create by token=UnsupportedByAuthenticationException
describe by token=UnsupportedByAuthenticationException
renew by token=UnsupportedByAuthenticationException
expire by token=UnsupportedByAuthenticationException
ann sees=[ann, bob]
bob sees=[ann, bob]
eve sees=[bob]
ann sees of bob=[ann, bob]
ann sees of eve=[]
renew by renewer=2
renew by requester=DelegationTokenOwnerMismatchException
renew by another=DelegationTokenOwnerMismatchException
renew beyond the end=true
renew nothing=DelegationTokenNotFoundException
expire later=1
expire by another=DelegationTokenOwnerMismatchException
expire nothing=DelegationTokenNotFoundException
expire now=0
produce by ended token=SaslAuthenticationException
renew expired=DelegationTokenExpiredException
expire expired=0
produce by expired token=SaslAuthenticationException
again and again=0.0 0.0
over TLS=true
over TLS with a wrong password=SaslAuthenticationException
over TLS with nobody trusted=SslAuthenticationException
"""


class House:
    """A server whose clients log in, at three doors; `admin` may do everything."""

    def __init__(self, directory: Path) -> None:
        self.ca = Authority(directory / "ca")
        self._users, self._master_key = directory / "users", directory / "master.key"
        self._master_key.write_text("not for anybody else to know: tokens\n")
        command = ("add", "admin", "--file", str(self._users))
        assert run_isthmus("users", *command, stdin=b"admin-secret\n").returncode == 0
        settings = {
            "kafka.authentication": json.dumps(["users"]),
            "kafka.listeners": json.dumps(
                [
                    "tcp://127.0.0.1:0",
                    {"address": "tcp://127.0.0.1:0", "name": "short", "reauthenticate_s": 2},
                    {"address": "tls://127.0.0.1:0", "name": "outside"},
                ]
            ),
            "kafka.authentication_failure_delay_ms": "10",
            "tls.certificate": str(self.ca.issue("server", "localhost", "127.0.0.1")),
            "authentication.users_file": str(self._users),
            "authentication.delegation_tokens.master_key_file": str(self._master_key),
            "access.super_users": json.dumps(["admin"]),
            "access.default": "deny",
        }
        self.server = ServerProcess(directory, settings)
        self.server.start()


@pytest.fixture(scope="module")
def house(own_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("logins"))
    yield house
    house.server.stop()
    print(*house.server.log_lines()[-60:], sep="\n")


@pytest.mark.skipif(not shutil.which("javac"), reason="no Java compiler installed")
def test_the_java_client_logs_in_as_at_apache_kafka(house: House) -> None:
    if missing := JavaConsole().missing():
        pytest.skip(missing)
    doors = map(text_of, house.server.kafka_listeners)
    program = [str(CLIENTS / "Logins.java"), *doors, str(house.ca.certificate)]
    ended = subprocess.run(
        [*java_command("-")[:-1], *program],
        capture_output=True,
        text=True,
        timeout=4 * TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = dict(line.split("=", 1) for line in ended.stdout.splitlines())
    assert found == dict(line.split("=", 1) for line in EXPECTED.splitlines())


def logged_in(server: Address, user: str, password: str, more: str = "") -> Asker:
    """Return a connection whose client has logged in."""
    asker = Asker(server)
    asker.ask(ApiKey.SASL_HANDSHAKE, 1, {"mechanism": "SCRAM-SHA-512"})
    client = ScramClient("SCRAM-SHA-512", user, password, more=more)
    challenge = asker.ask(ApiKey.SASL_AUTHENTICATE, 2, {"auth_bytes": client.first()})
    last = {"auth_bytes": client.final(challenge["auth_bytes"])}
    assert asker.ask(ApiKey.SASL_AUTHENTICATE, 2, last)["error_code"] == 0
    return asker


def test_a_token_outlives_the_server(house: House) -> None:
    wanted: dict[str, Any] = {"renewers": [], "max_lifetime_ms": -1}
    admin = logged_in(house.server.kafka, "admin", "admin-secret")
    made = admin.ask(ApiKey.CREATE_DELEGATION_TOKEN, 3, wanted)
    assert made["error_code"] == 0
    admin.close()
    house.server.kill()
    house.server.start()
    password = b64encode(made["hmac"]).decode()
    client = logged_in(house.server.kafka, made["token_id"], password, ",tokenauth=true")
    assert client.ask(ApiKey.METADATA, 9, {"topics": []})["brokers"]
    client.close()


def test_commands_log_in(house: House, unique: str, tmp_path: Path) -> None:
    """By options and by the environment, over TLS and without, each mechanism once."""
    plain, _, tls = map(text_of, house.server.kafka_listeners)
    password = tmp_path / "password"
    password.write_text("admin-secret\n")
    me = ("-u", "admin", "--password-file", str(password))
    environ = {"ISTHMUS_USER": "admin", "ISTHMUS_PASSWORD": "admin-secret"}
    environ["ISTHMUS_CA"] = str(house.ca.certificate)
    to = ("-t", unique, "-m", "one")
    produced = run_isthmus("produce", "--kafka", plain, *to, *me, "--mechanism", "PLAIN")
    assert produced.returncode == 0, produced.stderr
    encrypted = ("--kafka", f"tls://{tls}")
    ca, topic = ("--ca", str(house.ca.certificate)), ("-t", unique, "-b", "-e")
    scram = ("--mechanism", "SCRAM-SHA-512")
    consumed = run_isthmus("consume", *encrypted, *ca, *me, *scram, *topic)
    assert (consumed.stdout, consumed.stderr) == ("one\n", "")
    listed = run_isthmus("topics", "list", *encrypted, "--json", variables=environ)
    rows = {row["log_topic"]: row for row in map(json.loads, listed.stdout.splitlines())}
    assert (rows[unique]["records"], rows[unique]["bytes"] > 0) == (1, True)
    wrong = environ | {"ISTHMUS_PASSWORD": "wrong"}
    refused = run_isthmus("topics", "--kafka", plain, variables=wrong)
    assert refused.returncode == 1
    assert "SASL authentication error" in refused.stderr
    assert refused.stderr.count("\n") == 1
