"""`isthmus bench mqtt` on real servers, where nothing may be missing, and on bad ones."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
from getpass import getuser
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.certificates import Authority
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import ServerProcess, address_of, run_isthmus

from isthmus.config_listeners import MQTT_SCHEMES, parse_address
from isthmus.load.errors import LoadError
from isthmus.load.mqtt import MqttLoad
from isthmus.load.plan import MqttPlan
from isthmus.mqtt.codec import Decoder, encode
from isthmus.mqtt.packets import (
    PUBACK,
    VERSION_3_1_1,
    VERSION_5,
    Ack,
    Connack,
    Connect,
    Publish,
    Suback,
    Subscribe,
)
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.server_process import Address

    from isthmus.load.report import MqttReport

COUNT: Final = 300
MOSQUITTO: Final = """
user {user}
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
listener {tcp} 127.0.0.1
listener {tls} 127.0.0.1
certfile {certificate}
keyfile {certificate}
listener {ws} 127.0.0.1
protocol websockets
"""
ISTHMUS: Final = """
[tls]
certificate = "{certificate}"
key = "{certificate}"
"""


class Broker:
    """A server with a listener of each kind."""

    def __init__(self, tcp: int, tls: int, ws: int, ca: Path) -> None:
        self.urls = {
            "tcp": f"tcp://127.0.0.1:{tcp}",
            "tls": f"tls://127.0.0.1:{tls}",
            "ws": f"ws://127.0.0.1:{ws}/mqtt",
        }
        self.ca = ca

    def plan(self, scheme: str = "tcp", **more: Any) -> MqttPlan:
        tls = ssl.create_default_context(cafile=self.ca) if scheme == "tls" else None
        address = parse_address(self.urls[scheme], MQTT_SCHEMES)
        return MqttPlan(address=address, tls=tls, **{"count": COUNT, "quiet_s": 60.0, **more})


@contextlib.contextmanager
def running_isthmus(directory: Path, authority: Authority) -> Iterator[Broker]:
    certificate = authority.issue("isthmus", "127.0.0.1")
    kinds = '["tcp://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0/mqtt"]'
    server = ServerProcess(
        directory, {"mqtt.listeners": kinds}, ISTHMUS.format(certificate=certificate)
    )
    server.start()
    ports = [address_of(each)[1] for each in server.mqtt_listeners]
    yield Broker(*ports, authority.certificate)
    server.stop()


@contextlib.contextmanager
def running_mosquitto(directory: Path, authority: Authority) -> Iterator[Broker]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.create_server(("127.0.0.1", 0)) as three,
    ):
        ports = [each.getsockname()[1] for each in (one, two, three)]
    certificate = authority.issue("mosquitto", "127.0.0.1")
    file = directory / "mosquitto.conf"
    names = dict(zip(("tcp", "tls", "ws"), ports, strict=True))
    text = MOSQUITTO.format(certificate=certificate, user=getuser(), **names)
    file.write_text(text, "utf-8")
    process = subprocess.Popen(["mosquitto", "-c", str(file)])
    try:
        for port in ports:
            wait_until(lambda port=port: answers(("127.0.0.1", port)), "a listening Mosquitto")
        yield Broker(*ports, authority.certificate)
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def answers(address: Address) -> bool:
    try:
        socket.create_connection(address, TIMEOUT_S).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture(scope="module", params=["isthmus", "mosquitto"])
def broker(
    request: pytest.FixtureRequest, own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    if request.param == "mosquitto" and shutil.which("mosquitto") is None:
        pytest.skip("mosquitto not installed")
    run = {"isthmus": running_isthmus, "mosquitto": running_mosquitto}[request.param]
    directory = tmp_path_factory.mktemp(request.param)
    with run(directory, Authority(directory / "ca")) as found:
        yield found


def account_of(plan: MqttPlan) -> MqttReport:
    """Run a load and return its report, which must be a good one."""
    report = MqttLoad(plan).run()
    said = report.as_dict()
    assert report.is_good, said
    assert report.measured.published == plan.count, said
    assert report.totals.foreign == 0 or plan.retain, said
    return report


# --- real servers -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [VERSION_3_1_1, VERSION_5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("scheme", ["tcp", "tls", "ws"])
def test_every_message_is_accounted_for(
    broker: Broker, scheme: str, qos: int, version: int
) -> None:
    report = account_of(broker.plan(scheme, qos=qos, version=version))
    assert report.measured.delivered == COUNT == report.delivered.count
    assert report.measured.acknowledged == report.acknowledged.count == (COUNT if qos else 0)


@pytest.mark.parametrize(
    ("shape", "deliveries"),
    [
        ({"publishers": 7, "subscribers": 3, "topics": 5, "qos": 1}, 3 * COUNT),
        ({"publishers": 4, "subscribers": 4, "topic": "one/{client}",
          "filters": ("one/{client}",)}, COUNT),
        ({"subscribers": 5, "filters": ("$share/g/isthmus-bench/#",), "qos": 1}, COUNT),
        ({"publishers": 3, "subscribers": 0, "idle": 5, "qos": 2}, 0),
        ({"persistent": True, "qos": 1, "topic": "kept/{client}"}, COUNT),
        ({"payload_bytes": 70_000, "qos": 1, "window": 3}, COUNT),
        ({"payload_bytes": 16, "subscriber_qos": 0, "qos": 2}, COUNT),
        ({"retain": True, "topic": "retained/{n}", "topics": 10, "qos": 1}, COUNT),
    ],
)  # fmt: skip
def test_all_shapes(broker: Broker, shape: dict[str, Any], deliveries: int) -> None:
    report = account_of(broker.plan(**shape))
    assert report.measured.delivered == deliveries


def test_the_open_loop_keeps_its_rate_and_its_count(broker: Broker) -> None:
    report = account_of(broker.plan(rate=1_000.0, publishers=10, warm_up_s=0.1))
    assert report.measured.seconds >= (COUNT - 1) / 1_000 - 0.001
    assert report.delivered.count == COUNT


def test_a_duration_ends_and_what_is_on_its_way_is_awaited(broker: Broker) -> None:
    report = MqttLoad(broker.plan(count=0, duration_s=0.2, qos=1, keep_alive_s=1)).run()
    assert report.is_good, report.as_dict()
    assert report.measured.seconds >= 0.2
    assert report.totals.published == report.totals.delivered == report.totals.acknowledged > 0


def test_a_report_for_programs_and_one_for_people(broker: Broker) -> None:
    command = ("bench", "mqtt", "--mqtt", broker.urls["tcp"], "-n", "50", "-w", "0", "-q", "1")
    done = run_isthmus(*command, "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 0 and said["good"] is True
    assert said["delivered"]["messages"] == said["acknowledged"]["messages"] == 50
    assert set(said["latency_ms"]["delivery"]) == {"p50", "p90", "p99", "p99.9", "max"}
    done = run_isthmus(*command)
    assert done.returncode == 0 and "all is accounted for" in done.stdout


# --- bad servers ------------------------------------------------------------------------------


class Impostor:
    """A server that speaks MQTT 5 and treats the deliveries as it likes.

    `change` gets each publish with its place and returns what comes of it; None ends the
    connection of the publisher.
    """

    def __init__(self, change: Callable[[int, Publish], list[Publish] | None]) -> None:
        self._change = change
        self._seen = 0
        self._subscribers: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def plan(self, **more: Any) -> MqttPlan:
        address = parse_address(f"tcp://127.0.0.1:{self._listener.getsockname()[1]}")
        return MqttPlan(address=address, **{"count": 50, "quiet_s": 0.5, **more})

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        decoder = Decoder(1 << 20)
        with client, contextlib.suppress(OSError):  # the load may be gone
            while data := client.recv(1 << 16):
                found = decoder.feed(data)
                while decoder.is_held:
                    found += decoder.go_on()
                for packet in found:
                    if not self._act(client, packet):
                        return

    def _act(self, client: socket.socket, packet: Any) -> bool:
        if isinstance(packet, Connect):
            say(client, Connack())
        elif isinstance(packet, Subscribe):
            say(client, Suback(packet.packet_id, [1]))
            self._subscribers.append(client)
        elif isinstance(packet, Publish):
            with self._lock:
                self._seen += 1
                deliveries = self._change(self._seen, packet)
            if deliveries is None:
                return False
            for each in deliveries:
                for subscriber in self._subscribers:
                    say(subscriber, each)
            say(client, Ack(PUBACK, packet.packet_id))
        return True


def say(client: socket.socket, packet: Any) -> None:
    out = WriteBuffer()
    encode(packet, VERSION_5, out)
    client.sendall(out.take())


@contextlib.contextmanager
def impostor(change: Callable[[int, Publish], list[Publish] | None]) -> Iterator[Impostor]:
    made = Impostor(change)
    yield made
    made.close()


def plain(publish: Publish) -> Publish:
    return Publish(publish.topic, publish.payload)


def lie(number: int, publish: Publish) -> list[Publish]:
    """Lose the tenth message, send the twentieth twice, change a byte of the thirtieth."""
    copy = plain(publish)
    if number == 30:
        copy.payload = copy.payload[:-1] + b"?"
    return {10: [], 20: [copy, copy]}.get(number, [copy])


def test_lost_doubled_and_changed_messages_are_told_apart() -> None:
    with impostor(lie) as server:
        report = MqttLoad(server.plan(qos=1)).run()
    said = report.as_dict()["all_phases"]
    assert (said["doubled"], said["corrupted"]) == (1, 1)
    assert said["lost"] == 2  # the changed one is not what was sent
    assert said["unacknowledged"] == 0 and not report.is_good


def test_a_connection_that_ends_is_opened_again_and_nothing_is_lost() -> None:
    with impostor(lambda number, publish: None if number == 10 else [plain(publish)]) as server:
        report = MqttLoad(server.plan(qos=1, quiet_s=60.0)).run()
    assert (report.disconnects, report.reconnects, report.lost) == (1, 1, 0)
    assert report.unacknowledged == 0
    assert list(report.errors.values()) == [1] and not report.is_good


def test_a_server_that_throws_clients_out_again_and_again_ends_the_load() -> None:
    with impostor(lambda number, publish: None if number % 2 else [plain(publish)]) as server:
        report = MqttLoad(server.plan(qos=1, quiet_s=60.0, window=2)).run()
    assert report.disconnects == 11  # five for each of the two, and the one that was too much
    assert 0 < report.totals.acknowledged < 50 and not report.is_good


def test_a_server_that_falls_silent_ends_the_load() -> None:
    silent = threading.Event()

    def change(number: int, publish: Publish) -> list[Publish]:
        if number == 10:
            silent.wait(TIMEOUT_S)
        return [plain(publish)]

    with impostor(change) as server:
        report = MqttLoad(server.plan(qos=1, window=20)).run()
        silent.set()
    assert report.totals.published == 29  # nine were answered, and let nine more go out
    assert report.unacknowledged == report.lost == 20
    assert not report.is_good


def test_a_server_that_never_answers_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(LoadError, match=r"is silent: 2 of 2 clients"):
            MqttLoad(MqttPlan(address=parse_address(url), answer_s=0.1)).run()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-s", "3"), "a payload needs 16 bytes"),
        (("-p", "0"), "without publishers get nothing"),
        (("--ca", __file__), "are for TLS"),
        (("--mqtt", "ftp://localhost:1"), "tcp:// or tls://"),
        (("--mqtt", "localhost"), "needs a host and a port"),
    ],
)
def test_wrong_options_are_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    done = run_isthmus("bench", "mqtt", *arguments)
    assert done.returncode in (1, 2)
    assert words in done.stderr and "Traceback" not in done.stderr


def test_nobody_there_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = run_isthmus("bench", "mqtt", "--mqtt", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "Connection refused" in done.stderr
