"""Sessions whose clients are not here: only what they may receive comes to wait for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Client, Shore
from tests.unit.broker.test_permits import Ruled, rules_of

from isthmus.broker import permits
from isthmus.broker.access import Access
from isthmus.broker.identity import Identity, Principal
from isthmus.broker.users import parse_user
from isthmus.mqtt.packets import Publish

if TYPE_CHECKING:
    from isthmus.mqtt.opening import Opening

SECRET = (
    "$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


def waiting(shore: Shore, client_id: str) -> int:
    return shore.clients.sessions.entries[client_id].session.queue.length


def publish(shore: Shore, *names: str) -> None:
    for name in names:
        shore.broker.publish(None, Publish(name.encode(), b"x", 1))
        shore.runtime.settle()


class House:
    """A shore with users of its own, who come in as what the server says that they are."""

    def __init__(self, *rules: str) -> None:
        self.access = Access(rules_of(*rules), default=None)
        self.shore = Shore(access=self.access, has_users=True)

    def put(self, name: str, *groups: str, is_enabled: bool = True) -> None:
        text = f"{'' if is_enabled else '!'}{SECRET}:{','.join(groups)}"
        self.shore.users.put(parse_user(name, text), lambda _: None)  # type: ignore[union-attr]
        self.shore.runtime.settle()

    def remove(self, name: str) -> None:
        self.shore.users.remove(name, lambda _: None)  # type: ignore[union-attr]
        self.shore.runtime.settle()

    def comes(self, name: str, **connect: Any) -> Client:
        """Have the client `of-NAME` come, who is this user."""

        def judge(identity: Identity, opening: Opening) -> None:
            user = self.shore.users.find(name)  # type: ignore[union-attr]
            assert user is not None
            opening.accept(
                Principal(name, f"of-{name}", identity, groups=user.groups, way="users")
            )

        client = Client(self.shore, f"of-{name}", 5)
        client.authenticate = judge  # type: ignore[assignment]
        client.connect(**{"expiry_s": 1000, **connect})
        return client

    def leaves(self, name: str, topic_filter: str = "#") -> None:
        client = self.comes(name)
        client.subscribe(topic_filter)
        client.lose()


def test_rules_count_for_who_is_away() -> None:
    ruled = Ruled("allow all publish,subscribe #")
    ann = ruled.user("ann", expiry_s=100)
    ann.subscribe("#")
    ann.lose()
    publish(ruled.shore, "s", "t")
    ruled.change("allow all publish #", "allow user:ann subscribe t")
    publish(ruled.shore, "s", "t")
    assert waiting(ruled.shore, "of-ann") == 3


@pytest.mark.parametrize("rule", ["user:ann", "listener:tcp", "all", "group:staff"])
def test_rules_count_for_sessions_of_an_earlier_run(rule: str) -> None:
    """In the scan after a crash as well as later, whatever it is that they look at."""
    house = House("allow all publish #", f"allow {rule} subscribe t from 127.0.0.1")
    house.put("ann", "staff")
    house.leaves("ann")
    house.shore.broker.session_log.checkpoint()
    publish(house.shore, "s", "t")
    house.shore = house.shore.crash()
    assert waiting(house.shore, "of-ann") == 1
    publish(house.shore, "s", "t")
    assert waiting(house.shore, "of-ann") == 2
    house.access.replace(rules_of("allow all subscribe s"), default=False)
    publish(house.shore, "s", "t")
    assert waiting(house.shore, "of-ann") == 3
    back = house.comes("ann", clean_start=False)
    assert [one.topic for one in back.after_connack if isinstance(one, Publish)] == [b"s"]


@pytest.mark.parametrize("restarts", [False, True])
def test_nothing_comes_to_wait_for_a_user_that_is_gone(restarts: bool) -> None:
    """Removed or disabled, rules or none; who is back gets what came before and comes then."""
    house = House()
    for name in ("ann", "bob", "eve"):
        house.put(name)
        house.leaves(name)
    publish(house.shore, "t")
    house.remove("ann")
    house.put("bob", is_enabled=False)
    if restarts:
        house.shore = house.shore.end()
    publish(house.shore, "t", "t")
    assert [waiting(house.shore, f"of-{name}") for name in ("ann", "bob", "eve")] == [1, 1, 3]
    for name in ("ann", "bob"):
        house.put(name)
    assert not house.shore.broker.permits.is_on
    publish(house.shore, "t")
    assert [waiting(house.shore, f"of-{name}") for name in ("ann", "bob", "eve")] == [2, 2, 4]


def test_a_user_that_went_while_the_server_was_down_is_gone() -> None:
    house = House()
    house.put("ann")
    house.leaves("ann")
    house.shore.broker.session_log.checkpoint()
    publish(house.shore, "t")
    house.remove("ann")
    house.shore = house.shore.crash()
    assert waiting(house.shore, "of-ann") == 0
    assert "of-ann" in house.shore.clients.sessions.entries


@pytest.mark.parametrize("restarts", [False, True])
def test_groups_are_those_that_the_user_is_in_now(restarts: bool) -> None:
    house = House(
        "allow all publish #", "allow group:staff subscribe s", "deny all alter log:a"
    )
    house.put("ann", "staff")
    house.leaves("ann")
    publish(house.shore, "s")
    house.put("ann", "guests")
    if restarts:
        house.shore = house.shore.end()
    publish(house.shore, "s")
    assert waiting(house.shore, "of-ann") == 1
    house.put("ann", "guests", "staff")
    publish(house.shore, "s")
    assert waiting(house.shore, "of-ann") == 2


def test_what_is_remembered_of_sessions_at_rest_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(permits, "RESTING_MAX", 5)
    ruled = Ruled("allow all publish,subscribe t")
    for number in range(20):
        client = ruled.user("ann", f"c{number}", expiry_s=100)
        client.subscribe("#")
        client.lose()
    publish(ruled.shore, "t", "s")
    entries = ruled.shore.clients.sessions.entries
    assert [waiting(ruled.shore, f"c{number}") for number in range(20)] == [1] * 20
    assert sum(entry.permitted is not None for entry in entries.values()) <= 5
