"""What an administrator sees and does: pages, one of each kind, what waits for the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Shore

from isthmus.broker import inspection as inspecting
from isthmus.broker.identity import Identity, Principal
from isthmus.broker.inspection import CursorUnknown, Inspection, Page, Wanted
from isthmus.errors import AdministrativeAction, StorageError
from isthmus.mqtt.delivery import DROP_QUEUE
from isthmus.mqtt.packets import Will

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.broker.inspection import RetainedMessage, SessionView


def room(**limits: Any) -> tuple[Shore, Inspection]:
    shore = Shore(**limits)
    return shore, Inspection(shore.broker, shore.clients)


def listed(inspection: Inspection, wanted: Wanted, count_max: int) -> Iterator[Page]:
    """Yield the pages of a listing of sessions."""
    after: str | None = "-1"
    while after is not None:
        page = inspection.sessions(wanted, int(after), count_max)
        after = page.next
        yield page


def test_who_is_subscribed_to_a_topic_name() -> None:
    shore, inspection = room()
    for client_id, topic_filter in (
        ("one", "a/b"),
        ("two", "a/+"),
        ("shared", "$share/g/a/#"),
        ("other", "b/#"),
    ):
        shore.client(client_id, expiry_s=100).subscribe(topic_filter)
    shore.client("none")
    pages = list(listed(inspection, Wanted(topic_name="a/b"), 2))
    assert [ids(page) for page in pages] == [["one", "two"], ["shared"]]
    (page,) = listed(inspection, Wanted(topic_name="a/b", search="t"), 10)
    assert ids(page) == ["two"]
    (page,) = listed(inspection, Wanted(topic_name="c", connected=True), 10)
    assert ids(page) == []


def ids(page: Page) -> list[str]:
    return [view.client_id for view in page.items]  # type: ignore[attr-defined]


def retained(
    shore: Shore, inspection: Inspection, topic_filter: str, cursor: str | None, count_max: int
) -> Page:
    told: list[Any] = []
    inspection.retained(topic_filter, cursor, count_max, told.append)
    shore.runtime.settle()
    (page,) = told
    assert isinstance(page, Page)
    return page


def message(shore: Shore, inspection: Inspection, topic_name: str) -> RetainedMessage | None:
    told: list[Any] = []
    inspection.retained_message(topic_name, told.append)
    shore.runtime.settle()
    (found,) = told
    return found  # type: ignore[no-any-return]


# --- clients and sessions ---------------------------------------------------------------------


def unheard(_: object) -> None:
    """Hear that something is durable."""


def test_sessions_in_pages_in_the_order_in_which_they_began() -> None:
    shore, inspection = room()
    for number in range(7):
        shore.client(f"c{number}", expiry_s=100)
    pages = list(listed(inspection, Wanted(), 3))
    assert [ids(page) for page in pages] == [["c0", "c1", "c2"], ["c3", "c4", "c5"], ["c6"]]


def test_who_stays_is_shown_once_whoever_comes_and_goes() -> None:
    shore, inspection = room()
    clients = [shore.client(f"c{number}", expiry_s=100) for number in range(6)]
    first = inspection.sessions(Wanted(), -1, 2)
    inspection.end_session("c1", unheard)  # where the cursor stands
    inspection.end_session("c2", unheard)
    clients[0].connect(clean_start=True, expiry_s=100)  # a new session of a client seen before
    assert first.next is not None
    rest = inspection.sessions(Wanted(), int(first.next), 10)
    assert ids(rest) == ["c3", "c4", "c5", "c0"] and rest.next is None
    entries = list(shore.clients.sessions.entries.values())
    assert [entry.number for entry in entries] == sorted(entry.number for entry in entries)


def test_a_page_looks_at_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "SESSIONS_PER_PAGE_MAX", 4)
    shore, inspection = room()
    for number in range(10):
        shore.client(f"c{number}")
    pages = list(listed(inspection, Wanted(search="c9"), 3))
    assert [ids(page) for page in pages] == [[], [], ["c9"]]


def test_what_is_asked_for_and_nothing_else() -> None:
    shore, inspection = room()
    shore.client("here", expiry_s=100)
    shore.client("away", expiry_s=100).lose()
    other = shore.client("elsewhere")
    other.identity = Identity("10.0.0.7", 1, "tls")
    other.entry.principal = Principal("ann", "elsewhere", other.identity)
    for wanted, expected in (
        (Wanted(), ["here", "away", "elsewhere"]),
        (Wanted(connected=True), ["here", "elsewhere"]),
        (Wanted(connected=False), ["away"]),
        (Wanted(search="here"), ["here", "elsewhere"]),
        (Wanted(user="ann"), ["elsewhere"]),
        (Wanted(address="127.0.0.1"), ["here"]),
        (Wanted(listener="tls", search="x"), []),
    ):
        assert ids(inspection.sessions(wanted, -1, 10)) == expected, wanted


def session_of(inspection: Inspection, client_id: str) -> Any:
    found: SessionView | None = inspection.session(client_id)
    return found


def test_one_session_connected_and_away() -> None:
    shore, inspection = room()
    began_ms = shore.runtime.now_ms()
    device = shore.client("device", expiry_s=100, receive_maximum=1)
    device.subscribe("a/#", 1)
    shore.client("p", 4).publish("a/b", b"x", 1, packet_id=1)
    shore.clients.sessions.entries["device"].session.drop(DROP_QUEUE, 3)
    view = session_of(inspection, "device")
    assert (view.connected, view.protocol, view.keep_alive_s) == (True, "5.0", 60)
    assert (view.address, view.port, view.listener, view.user) == ("127.0.0.1", 5000, "tcp", "")
    assert (view.connected_at_ms, view.disconnected_at_ms) == (began_ms, None)
    assert (view.subscriptions, view.in_flight, view.queued, view.dropped) == (1, 1, 0, 3)
    assert view.dropped_by_reason == {
        "queue": 3,
        "expired": 0,
        "too_large": 0,
        "gone": 0,
        "offline": 0,
        "denied": 0,
    }
    shore.runtime.advance(1000)
    device.lose()
    view = session_of(inspection, "device")
    assert (view.connected, view.expiry_s) == (False, 100)
    assert view.disconnected_at_ms == began_ms + 1000
    assert view.expires_at_ms == began_ms + 101_000
    assert session_of(inspection, "nobody") is None


def test_a_session_that_never_ends() -> None:
    shore, inspection = room()
    device = shore.client("device")
    shore.clients.sessions.entries["device"].expiry_s = 0xFFFF_FFFF
    device.lose()
    view = session_of(inspection, "device")
    assert (view.expiry_s, view.expires_at_ms) == (None, None)


def test_subscriptions_in_pages_by_name() -> None:
    shore, inspection = room()
    device = shore.client("device")
    for name, options in (("c", 2), ("a/+", 1 | 4 | 8 | 0x10), ("b", 0)):
        device.subscribe(name, options)
    page = inspection.subscriptions("device", "", 2)
    assert page is not None and page.next == "b"
    first: Any = page.items[0]
    assert (first.topic_filter, first.qos, first.no_local) == ("a/+", 1, True)
    assert (first.retain_as_published, first.retain_handling) == (True, 1)
    assert (first.identifier, first.automatic) == (None, False)
    rest = inspection.subscriptions("device", "b", 2)
    assert rest is not None and rest.next is None and len(rest.items) == 1
    assert inspection.subscriptions("nobody", "", 2) is None


def test_a_kick_ends_the_connection_and_nothing_else() -> None:
    shore, inspection = room()
    device = shore.client("device", expiry_s=100)
    assert inspection.kick("device")
    assert isinstance(device.closed, AdministrativeAction)
    device.lose()
    assert not inspection.kick("device")
    assert not inspection.kick("nobody")
    assert session_of(inspection, "device") is not None


@pytest.mark.parametrize("expiry_s", [0, 100])
def test_ending_a_session_ends_all_of_it(expiry_s: int) -> None:
    shore, inspection = room()
    device = shore.client("device", expiry_s=expiry_s)
    device.subscribe("a")
    told: list[object] = []
    assert inspection.end_session("device", told.append)
    assert isinstance(device.closed, AdministrativeAction)
    assert told == ([] if expiry_s else [None]), "what is not kept need not become durable"
    shore.runtime.settle()
    assert told == [None]
    assert session_of(inspection, "device") is None
    assert not inspection.end_session("device", told.append)
    assert told == [None]
    assert shore.broker.subscriptions.receivers("a") == ([], ())
    assert shore.end().clients.sessions.entries == {}


def test_the_will_of_a_session_that_is_ended_is_sent() -> None:
    shore, inspection = room()
    watcher = shore.client("watcher")
    watcher.subscribe("w")
    will = Will(b"w", b"gone", 0, False, {0x18: 50})
    shore.client("device", expiry_s=100, will=will).lose()
    assert watcher.messages() == []
    inspection.end_session("device", unheard)
    shore.runtime.settle()
    assert watcher.messages() == [("w", b"gone", 0)]


# --- retained messages ------------------------------------------------------------------------


def filled(count: int) -> tuple[Shore, Inspection]:
    shore, inspection = room()
    device = shore.client("device")
    for number in range(count):
        device.publish(f"a/{number}", b"x" * number or b"-", retain=True)
    return shore, inspection


def test_retained_messages_in_pages() -> None:
    shore, inspection = filled(5)
    names: list[str] = []
    cursor: str | None = None
    while True:
        page = retained(shore, inspection, "a/+", cursor, 2)
        names += [view.topic_name for view in page.items]  # type: ignore[attr-defined]
        cursor = page.next
        if cursor is None:
            break
    assert names == [f"a/{number}" for number in range(5)]


def test_a_cursor_is_good_once_and_for_its_filter() -> None:
    shore, inspection = filled(5)
    first = retained(shore, inspection, "a/+", None, 2)
    assert first.next is not None
    second = retained(shore, inspection, "a/+", first.next, 2)
    for cursor in (first.next, "nonsense"):
        with pytest.raises(CursorUnknown):
            inspection.retained("a/+", cursor, 2, print)
    assert second.next is not None
    with pytest.raises(CursorUnknown):
        inspection.retained("#", second.next, 2, print)


def test_only_so_many_listings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "WALKS_MAX", 2)
    shore, inspection = filled(5)
    cursors = [retained(shore, inspection, "#", None, 1).next for _ in range(3)]
    with pytest.raises(CursorUnknown):
        inspection.retained("#", cursors[0], 1, print)
    assert len(retained(shore, inspection, "#", cursors[1], 10).items) == 4


def test_one_retained_message_with_all_that_is_in_it() -> None:
    shore, inspection = room()
    now_ms = shore.runtime.now_ms()
    properties = {0x02: 60, 0x03: "text/plain", 0x26: [("a", "1"), ("a", "2")]}
    shore.client("d").publish("t", b"\xff", 1, packet_id=1, retain=True, properties=properties)
    found = message(shore, inspection, "t")
    assert found is not None
    assert (found.topic_name, found.payload, found.payload_bytes) == ("t", b"\xff", 1)
    assert (found.qos, found.retained_at_ms) == (1, now_ms)
    assert found.expires_at_ms == now_ms + 60_000
    assert (found.content_type, found.user_properties) == (
        "text/plain",
        [("a", "1"), ("a", "2")],
    )
    shore.runtime.advance(60_000)
    assert message(shore, inspection, "t") is None
    assert message(shore, inspection, "u") is None


def test_a_removed_message_stays_away() -> None:
    shore, inspection = filled(2)
    told: list[Any] = []
    assert inspection.remove_retained("a/1", told.append)
    assert told == []
    shore.runtime.settle()
    assert told == [None]
    assert message(shore, inspection, "a/1") is None
    assert not inspection.remove_retained("a/1", told.append)
    again = shore.crash()
    assert message(again, Inspection(again.broker, again.clients), "a/1") is None
    assert message(again, Inspection(again.broker, again.clients), "a/0") is not None


def test_a_disk_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    shore, inspection = filled(2)

    def fails(*_arguments: Any, **_keywords: Any) -> Any:
        raise StorageError("no such disk")

    monkeypatch.setattr(type(shore.broker.retained.partition), "read", fails)
    told: list[Any] = []
    inspection.retained("#", None, 10, told.append)
    inspection.retained_message("a/1", told.append)
    assert [str(error) for error in told] == ["no such disk", "no such disk"]
