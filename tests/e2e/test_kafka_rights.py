"""ACLs and SCRAM users by the clients' admin APIs, and what they mean for everybody.

What the Java client is told was compared with a real Apache Kafka 4.3.1 with StandardAuthorizer
and SASL, by the same program; `EXPECTED` has its answers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from tests.e2e.kafka_commands import CLIENTS, JavaConsole, java_command
from tests.e2e.kafka_libraries import confluent_consumer, confluent_producer, poll_records
from tests.e2e.mqtt_programs import paho_client
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import ServerProcess, run_isthmus, text_of
from tests.e2e.test_access import published

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPECTED: Final = """\
user=null
user with another=null
user twice=DuplicateResourceException
described users=2
unknown user=ResourceNotFoundException
deleted user=ResourceNotFoundException
few iterations=UnacceptableCredentialException
topics=null
acls=null
no principal=InvalidRequestException
a cluster by another name=InvalidRequestException
settled=0
described acls=7
matching acls=2
wrong password=SaslAuthenticationException
nobody=SaslAuthenticationException
produce=0
produce 512=1
produce by prefix=0
produce denied by name=TopicAuthorizationException
produce shut=TopicAuthorizationException
produce seen=TopicAuthorizationException
produce to nothing=TopicAuthorizationException
consume=2
consume shut=TopicAuthorizationException
consume seen=TopicAuthorizationException
consume as others=GroupAuthorizationException
transaction txn=done
transaction other=TransactionalIdAuthorizationException
list topics=[open, pre-a, seen]
describe open=[DESCRIBE, READ, WRITE]
describe shut=TopicAuthorizationException
describe never=TopicAuthorizationException
create=TopicAuthorizationException
create by prefix=null
delete shut=TopicAuthorizationException
delete seen=TopicAuthorizationException
delete never=TopicAuthorizationException
partitions=TopicAuthorizationException
partitions by prefix=null
delete records=TopicAuthorizationException
offsets=TopicAuthorizationException
topic settings=TopicAuthorizationException
broker settings=ClusterAuthorizationException
alter settings=TopicAuthorizationException
alter settings by prefix=null
list groups=[mine]
describe group=[DESCRIBE, READ]
describe other group=GroupAuthorizationException
group offsets=1
other group offsets=GroupAuthorizationException
alter offsets=TopicAuthorizationException
delete offsets=GroupAuthorizationException
delete group=GroupAuthorizationException
cluster=[]
log dirs=ClusterAuthorizationException
describe acls=ClusterAuthorizationException
create acls=ClusterAuthorizationException
delete acls=ClusterAuthorizationException
describe users=ClusterAuthorizationException
alter users=ClusterAuthorizationException
elect=ClusterAuthorizationException
reassign=ClusterAuthorizationException
reassignments=ClusterAuthorizationException
producers=TopicAuthorizationException
producers of open=1
list transactions=[txn]
describe transaction=1
describe other transaction=TransactionalIdAuthorizationException
deleted acls=7
acls left=0
user gone=null
user left=1
"""


@pytest.fixture(scope="module")
def server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("rights")
    users = directory / "users"
    added = run_isthmus("users", "add", "admin", "--file", str(users), stdin=b"admin-secret\n")
    assert added.returncode == 0
    ways = json.dumps(["users"])
    settings = {
        "mqtt.authentication": ways,
        "kafka.authentication": ways,
        "authentication.users_file": str(users),
        "access.super_users": json.dumps(["admin"]),
        "access.default": "deny",
        "kafka.group_initial_rebalance_delay_ms": "0",
    }
    server = ServerProcess(directory, settings)
    server.start()
    yield server
    server.stop()
    print(*server.log_lines()[-60:], sep="\n")


def admin(server: ServerProcess, user: str = "admin") -> AdminClient:
    about = {"sasl.mechanism": "SCRAM-SHA-256", "sasl.username": user}
    about |= {"sasl.password": f"{user}-secret", "security.protocol": "SASL_PLAINTEXT"}
    return AdminClient({"bootstrap.servers": text_of(server.kafka), **about})


@pytest.mark.skipif(not shutil.which("javac"), reason="no Java compiler installed")
def test_the_java_client_is_told_what_apache_kafka_tells_it(server: ServerProcess) -> None:
    if missing := JavaConsole().missing():
        pytest.skip(missing)
    command = java_command("-")[:-1]
    ended = subprocess.run(
        [*command, str(CLIENTS / "Rights.java"), text_of(server.kafka)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = dict(line.split("=", 1) for line in ended.stdout.splitlines())
    assert found == dict(line.split("=", 1) for line in EXPECTED.splitlines())


def test_acls_of_librdkafka_are_rules_of_both_shores(server: ServerProcess) -> None:
    """A user and its rights, by one client; met over MQTT; seen by the command."""
    client = admin(server)
    carl = UserScramCredentialUpsertion(
        "carl", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), b"carl-secret"
    )
    client.alter_user_scram_credentials([carl])["carl"].result(TIMEOUT_S)
    acl = AclBinding(
        ResourceType.TOPIC,
        "librd",
        ResourcePatternType.PREFIXED,
        "User:carl",
        "*",
        AclOperation.READ,
        AclPermissionType.ALLOW,
    )
    client.create_acls([acl])[acl].result(TIMEOUT_S)
    wanted = AclBindingFilter(
        ResourceType.TOPIC,
        "librd-x",
        ResourcePatternType.MATCH,
        None,
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    assert client.describe_acls(wanted).result(TIMEOUT_S) == [acl]

    def as_carl(mqtt: object) -> None:
        mqtt.username_pw_set("carl", "carl-secret")  # type: ignore[attr-defined]

    with paho_client(server.mqtt, "carl", prepare=as_carl) as mqtt:
        assert published(mqtt, "hall/1") == "Not authorized"
        http = "{}:{}".format(*server.http)
        rule = "allow user:carl publish hall/#"
        assert run_isthmus("acls", "add", rule, "--http", http).returncode == 0
        assert published(mqtt, "hall/1") != "Not authorized"
    listed = run_isthmus("acls", "list", "--http", http).stdout
    assert "kept: allow user:carl read log:librd*\n" in listed
    denied = admin(server, "carl")
    with pytest.raises(KafkaException) as caught:
        denied.create_acls([acl])[acl].result(TIMEOUT_S)
    assert caught.value.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED
    assert client.delete_acls([wanted])[wanted].result(TIMEOUT_S) == [acl]
    wait_until(
        lambda: any("access rule removed by=admin@127" in line for line in server.log_lines()),
        "a line in the log that says who",
    )


def test_a_pattern_of_librdkafka_reads_what_its_user_may_know_of(
    server: ServerProcess, unique: str
) -> None:
    """With the new protocol of groups, where the server says what a pattern matches."""
    about = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-256"}

    def login(user: str) -> dict[str, str]:
        return {**about, "sasl.username": user, "sasl.password": f"{user}-secret"}

    client = admin(server)
    rick = UserScramCredentialUpsertion(
        "rick", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), b"rick-secret"
    )
    client.alter_user_scram_credentials([rick])["rick"].result(TIMEOUT_S)
    rules = [
        (ResourceType.TOPIC, f"{unique}-open"),
        (ResourceType.GROUP, unique),
    ]
    acls = [
        AclBinding(
            kind,
            name,
            ResourcePatternType.LITERAL,
            *("User:rick", "*", AclOperation.READ, AclPermissionType.ALLOW),
        )
        for kind, name in rules
    ]
    for made in client.create_acls(acls).values():
        made.result(TIMEOUT_S)
    producer = confluent_producer(server.kafka, **login("admin"))
    for name in ("shut", "open"):
        producer.produce(f"{unique}-{name}", name.encode())
    assert producer.flush(TIMEOUT_S) == 0
    consumer = confluent_consumer(
        server.kafka, **login("rick"), **{"group.id": unique, "group.protocol": "consumer"}
    )
    consumer.subscribe([f"^{unique}-.*"])
    assert [one.value() for one in poll_records(consumer, 1)] == [b"open"]
    assert [one.topic for one in consumer.assignment()] == [f"{unique}-open"]
    consumer.close()


def test_kafka_acls_and_kafka_configs(server: ServerProcess) -> None:
    """The commands of Apache Kafka, as an administrator types them."""
    if missing := JavaConsole().missing():
        pytest.skip(missing)
    properties = server.directory / "admin.properties"
    properties.write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required"
        ' username="admin" password="admin-secret";\n'
    )
    where = ["--bootstrap-server", text_of(server.kafka), "--command-config", str(properties)]

    def run(main_class: str, *arguments: str) -> str:
        command = [*java_command(main_class), *where, *arguments]
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    user = ("--alter", "--entity-type", "users", "--entity-name", "dora")
    run("kafka.admin.ConfigCommand", *user, "--add-config", "SCRAM-SHA-256=[password=dora]")
    acls = "org.apache.kafka.tools.AclCommand"
    added = run(acls, "--add", "--allow-principal", "User:dora", "--producer", "--topic", "d")
    assert "principal=User:dora" in added
    http = "{}:{}".format(*server.http)
    listed = run_isthmus("acls", "list", "--http", http).stdout
    for operation in ("write", "describe", "create"):
        assert f"kept: allow user:dora {operation} log:d\n" in listed
