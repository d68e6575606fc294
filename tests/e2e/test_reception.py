"""Sockets with a proxy's header or TLS before their protocol, on both loops in this process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from tests.certificates import Authority
from tests.e2e.patience import TIMEOUT_S
from tests.sim import SimRuntime

from isthmus.config_listeners import Address, MqttLimits, TlsOptions
from isthmus.logs import Sparing
from isthmus.server import reception
from isthmus.server.admission import Admission, Arrival, Total
from isthmus.server.listener import open_socket
from isthmus.server.reception import Reception
from isthmus.server.tls import Certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

HEADER = b"PROXY TCP4 203.0.113.9 10.0.0.1 51000 8883\r\n"


class Echo(asyncio.Protocol):
    """What is behind the reception: it says everything again."""

    def __init__(self, house: House, arrival: Arrival) -> None:
        self.house = house
        self.arrival = arrival

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.arrival.is_taken = True
        self.house.origins.append(self.arrival.origin)
        self.house.users.append(self.arrival.user)
        self.house.admission.opened()

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, _: BaseException | None) -> None:
        self.house.admission.leave(self.arrival.origin[0])


class House:
    """One reception, with certificates that its clients trust."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.authority = Authority(directory)
        self.file = self.authority.issue("server", "localhost")
        options = TlsOptions(
            certificate=str(self.file),
            client_ca=str(self.authority.certificate),
            client_certificates=settings.pop("client_certificates", "none"),
        )
        self.certificates = Certificates(options, "door") if settings.pop("tls", True) else None
        self.bound = open_socket(Address("tcp", "127.0.0.1", 0), "mqtt")
        self.origins: list[tuple[str, int]] = []
        runtime = SimRuntime()
        timeout_s = settings.pop("timeout_s", TIMEOUT_S)
        proxies = settings.pop("proxies", None)
        self.users: list[str] = []
        limits = MqttLimits(**settings)
        self.admission = Admission(limits, Total(1000), runtime, lambda _: None)
        self.reception = Reception(
            self.bound,
            lambda arrival: Echo(self, arrival),
            self.admission,
            Sparing(runtime, 10),
            name="door",
            timeout_s=timeout_s,
            certificates=self.certificates,
            proxies=proxies,
            believes_user=proxies is not None,
        )

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[House]:
        await self.reception.open()
        yield self
        self.reception.close()

    async def plain(self) -> Streams:
        return await asyncio.open_connection(*self.bound.getsockname())

    async def encrypted(self, header: bytes = b"") -> Streams:
        context = ssl.create_default_context(cafile=self.authority.certificate)
        client = socket.create_connection(self.bound.getsockname())
        for start in range(0, len(header), 7):
            client.send(header[start : start + 7])
        client.setblocking(False)
        return await asyncio.open_connection(
            sock=client, ssl=context, server_hostname="localhost"
        )


async def echoes(streams: Streams) -> bool:
    reader, writer = streams
    writer.write(b"hello")
    return await reader.readexactly(5) == b"hello"


async def ends(streams: Streams) -> bytes:
    """Return what else the server says before it closes."""
    try:
        return await streams[0].read()
    except ConnectionError:
        return b""
    finally:
        streams[1].close()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # what is waited for tells nobody
        await asyncio.sleep(0.01)


@pytest.fixture(
    params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def run_there(coroutine: Coroutine[Any, Any, None]) -> None:
        async def in_time() -> None:
            async with asyncio.timeout(TIMEOUT_S):
                await coroutine

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(in_time())

    return run_there


def test_a_header_then_tls_then_the_protocol(tmp_path: Path, run: Any) -> None:
    async def scene() -> None:
        proxies = [ip_network("127.0.0.0/8")]
        async with House(tmp_path, proxies=proxies).open() as house:
            streams = await house.encrypted(HEADER)
            assert await echoes(streams)
            assert house.origins == [("203.0.113.9", 51000)]
            streams[1].close()

    run(scene())


def test_a_header_without_tls(tmp_path: Path, run: Any) -> None:
    async def scene() -> None:
        async with House(tmp_path, proxies=[], tls=False).open() as house:
            reader, writer = await house.plain()
            writer.write(HEADER + b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert house.origins == [("203.0.113.9", 51000)]
            writer.close()

    run(scene())


def test_a_proxy_says_who_it_is(
    tmp_path: Path, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fields = bytes([203, 0, 113, 9, 10, 0, 0, 1, 0xC7, 0x38, 7, 0x5B])
    signature = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"

    async def scene() -> None:
        async with House(tmp_path, proxies=[], tls=False).open() as house:
            for trusted in (b"\0", b"\x01"):  # as the proxy has found the certificate
                said = b"\x20\0\x0d\x03\0\0\0" + trusted + b"\x22\0\x05press"
                reader, writer = await house.plain()
                writer.write(signature + bytes([len(fields + said)]) + fields + said + b"hello")
                if trusted == b"\0":
                    assert await reader.readexactly(5) == b"hello"
                else:
                    assert await ends((reader, writer)) == b""
                writer.close()
            assert house.users == ["press"]
            assert house.origins == [("203.0.113.9", 51000)]

    run(scene())
    assert "names no user, or the proxy does not trust it" in caplog.text


def test_new_certificates_count_for_the_next_connection(tmp_path: Path, run: Any) -> None:
    async def scene() -> None:
        async with House(tmp_path / "old").open() as house:
            assert house.certificates is not None
            before = await house.encrypted()
            house.authority = Authority(tmp_path / "new")
            house.file.write_bytes(house.authority.issue("server", "localhost").read_bytes())
            with pytest.raises(ssl.SSLCertVerificationError):
                await house.encrypted()
            await house.certificates.renew(forced=False)
            after = await house.encrypted()
            assert await echoes(before) and await echoes(after)
            before[1].close()
            after[1].close()

    run(scene())


def test_who_is_silent_is_closed_and_counted_back(
    tmp_path: Path, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with House(tmp_path, timeout_s=0.1, proxies=[]).open() as house:
            silent, stuck = await house.plain(), await house.plain()
            stuck[1].write(HEADER)  # and no TLS behind it
            assert [await ends(silent), await ends(stuck)] == [b"", b""]
            await until(lambda: not house.admission.opening)
            assert house.admission.connections == 0

    run(scene())
    lines = [record.getMessage() for record in caplog.records]
    assert any("peer=127.0.0.1:" in line for line in lines)
    assert any("peer=203.0.113.9:51000" in line for line in lines)


def test_what_is_not_tls_is_closed_with_one_line(
    tmp_path: Path, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with House(tmp_path).open() as house:
            for _ in range(5):
                streams = await house.plain()
                streams[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await ends(streams)
            await until(lambda: not house.admission.opening)

    run(scene())
    (line,) = [record.getMessage() for record in caplog.records]
    assert "listener=door reason=TLS: " in line


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
def test_who_is_refused_by_tls_is_told_why(
    tmp_path: Path, run: Any, version: ssl.TLSVersion
) -> None:
    """[RFC 8446, 6.2]"""

    def join(house: House) -> None:
        context = ssl.create_default_context(cafile=house.authority.certificate)
        context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection(house.bound.getsockname()) as client,
            context.wrap_socket(client, server_hostname="localhost") as encrypted,
        ):
            encrypted.recv(1)

    async def scene() -> None:
        async with House(tmp_path, client_certificates="required").open() as house:
            with pytest.raises(ssl.SSLError, match="alert"):
                await asyncio.to_thread(join, house)

    run(scene())


def test_who_comes_while_too_many_open_waits_for_a_turn(tmp_path: Path, run: Any) -> None:
    async def scene() -> None:
        async with House(tmp_path, handshakes_max=1).open() as house:
            slow = await house.plain()
            await until(lambda: house.admission.is_busy)
            patient = asyncio.create_task(house.encrypted())
            await until(lambda: house.admission.on_room is not None)
            slow[1].close()
            assert await echoes(await patient)
            (await patient)[1].close()

    run(scene())


def test_one_too_many_is_closed_before_the_handshake(tmp_path: Path, run: Any) -> None:
    async def scene() -> None:
        async with House(tmp_path, address_connections_max=1).open() as house:
            first = await house.encrypted()
            second = await house.plain()
            assert await ends(second) == b""
            first[1].close()
            await until(lambda: not house.admission.connections)
            third = await house.encrypted()
            assert await echoes(third)
            third[1].close()

    run(scene())


def test_who_is_no_proxy_is_not_believed(
    tmp_path: Path, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        house = House(tmp_path, proxies=[ip_network("192.0.2.1")], tls=False)
        async with house.open():
            stranger = await house.plain()
            stranger[1].write(HEADER)
            assert await ends(stranger) == b""
            assert house.origins == []

    run(scene())
    assert "not one of the proxies" in caplog.text


def test_without_a_descriptor_nobody_is_accepted_for_a_while(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reception, "PAUSE_S", 0.01)
    accept = socket.socket.accept
    failures = [errno.EMFILE, errno.ENFILE]

    def failing(bound: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "Too many open files")
        return accept(bound)

    async def scene() -> None:
        async with House(tmp_path).open() as house:
            monkeypatch.setattr(socket.socket, "accept", failing)
            streams = await house.encrypted()
            assert await echoes(streams)
            streams[1].close()

    run(scene())
    assert caplog.text.count("connections not accepted") == 2
