"""Who is banned, for how long, and that it lasts."""

from __future__ import annotations

import pytest
from tests.unit.broker.shore import Shore

from isthmus.broker import bans
from isthmus.broker.bans import BANS_LOG_TOPIC, Ban, Bans
from isthmus.cli.log_decoders import ban_record
from isthmus.errors import ConfigInvalid, IsthmusError, QuotaExceeded


@pytest.fixture
def shore() -> Shore:
    return Shore()


def table(shore: Shore) -> Bans:
    return shore.clients.guard.bans


def test_a_client_a_user_or_an_address_is_banned(shore: Shore) -> None:
    mine = table(shore)
    kept = [
        mine.add(Ban("client", "pump", reason="leaks")),
        mine.add(Ban("user", "eve")),
        mine.add(Ban("address", "192.0.2.7")),
    ]
    assert [ban.who for ban in kept] == ["pump", "eve", "192.0.2.7/32"]
    assert list(mine) == kept
    found = mine.of("client", "pump")
    assert found is not None and found.reason == "leaks"
    assert mine.of("user", "pump") is None
    assert mine.of("client", "") is None
    assert mine.of("address", "192.0.2.7") == kept[2]
    assert mine.of("address", "192.0.2.8") is None
    assert mine.of("address", "unix") is None


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("10.1.2.3/8", "10.255.0.1", "11.0.0.1"),  # whatever host is named
        ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
        ("fe80::/64", "fe80::1%eth0", "fe80:0:0:1::1"),
        ("192.0.2.0/24", "::ffff:192.0.2.1", "::ffff:192.0.3.1"),
        ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
    ],
)
def test_a_network_is_banned(shore: Shore, network: str, inside: str, outside: str) -> None:
    mine = table(shore)
    mine.add(Ban("address", network))
    assert mine.of("address", inside) is not None
    assert mine.of("address", outside) is None
    assert mine.remove("address", network)
    assert mine.of("address", inside) is None
    assert mine._lengths == {}


def test_what_names_nobody_is_refused(shore: Shore) -> None:
    for ban in (Ban("address", "somewhere"), Ban("address", "10.0.0.0/33"), Ban("client", "")):
        with pytest.raises(ConfigInvalid):
            table(shore).add(ban)
    assert not table(shore).remove("client", "nobody")


def test_a_ban_ends_at_its_time_and_leaves_nothing(shore: Shore) -> None:
    mine = table(shore)
    mine.add(Ban("address", "192.0.2.7", shore.runtime.now_ms() + 5_000))
    shore.runtime.advance(4_999)
    assert mine.of("address", "192.0.2.7") is not None
    shore.runtime.advance(1)
    assert list(mine) == []
    assert mine.of("address", "192.0.2.7") is None
    assert len(mine) == 0
    shore.runtime.settle()
    assert [record.value is None for record in shore.records(BANS_LOG_TOPIC)] == [False, True]


def test_bans_outlive_the_server(shore: Shore) -> None:
    mine = table(shore)
    until_ms = shore.runtime.now_ms() + 60_000
    mine.add(Ban("client", "pump", until_ms, "leaks: café"))
    mine.add(Ban("client", "valve"))
    mine.add(Ban("address", "10.0.0.0/8"))
    mine.remove("client", "valve")
    mine.add(Ban("client", "pump", until_ms, "leaks again"))  # takes the place of the first
    shore.runtime.settle()
    expected = list(mine)
    assert [ban.reason for ban in expected] == ["leaks again", ""]
    again = table(shore.crash())
    assert list(again) == expected
    assert again.of("address", "10.1.1.1") == expected[1]


def test_the_log_is_readable(shore: Shore) -> None:
    mine = table(shore)
    mine.add(Ban("client", "pump", 0, "leaks"))
    mine.remove("client", "pump")
    shore.runtime.settle()
    said = [ban_record(record) for record in shore.records(BANS_LOG_TOPIC)]
    now_ms = shore.runtime.now_ms()
    about = {"banned": "client", "who": "pump"}
    assert said == [
        {**about, "since_ms": now_ms, "until_ms": 0, "reason": "leaks"},
        {**about, "removed": True},
    ]


def test_a_record_of_another_form_bans_nobody() -> None:
    shore = Shore()
    for key, value in ((b"client:a", b"\x91\x02"), (b"client:b", b"?"), (b"planet:c", b"")):
        shore.produce(BANS_LOG_TOPIC, key, value)
    assert list(table(shore.crash())) == []


def test_who_gives_a_ban_hears_when_it_lasts(shore: Shore) -> None:
    heard: list[IsthmusError | None] = []
    table(shore).add(Ban("user", "eve"), heard.append)
    assert heard == []
    shore.runtime.settle()
    assert heard == [None]
    table(shore).remove("user", "eve", heard.append)
    shore.runtime.settle()
    assert heard == [None, None]


def test_their_number_is_limited(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bans, "BANS_MAX", 2)
    mine = table(shore)
    mine.add(Ban("user", "a", shore.runtime.now_ms() + 1))
    mine.add(Ban("user", "b"))
    with pytest.raises(QuotaExceeded):
        mine.add(Ban("user", "c"))
    mine.add(Ban("user", "b", reason="changed"))
    shore.runtime.advance(1)  # and one is over
    mine.add(Ban("user", "c"))
    assert [ban.who for ban in mine] == ["b", "c"]
