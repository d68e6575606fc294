"""What clients have used, held against their quotas: how long each has to wait.

Whoever serves a request says what it took and is told for how long its client should be left
alone (0: not at all). Rates belong to those who share a quota, and exist only while one is set;
where nobody has any, `Quotas.is_any` is all that is looked at. What nobody used for a while is
forgotten, when it is the same as what would be begun anew.

Time that a request takes is counted as the share of the one loop that serves everybody: 100 is
all of it [KIP-124]. Not here: making clients wait (server/kafka_api/throttles.py).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from isthmus.broker.quota_rates import SAMPLE_MS, SAMPLES, Rate, Tokens
from isthmus.broker.quotas import CONNECTION, CONSUMER, MUTATION, PRODUCER, REQUEST
from isthmus.errors import ConnectionThrottled

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.quotas import Quotas
    from isthmus.runtime import Runtime

RATES_SWEPT: Final = 1_000  # before those that nobody uses are dropped
SHORT_WAIT_MS_MAX: Final = SAMPLE_MS  # for requests and connections, as in Kafka


class Mutations:
    """What one request makes and deletes of partitions, against its client's quota [KIP-599].

    A client may overdraw what it has, once; then it makes nothing until that is there again.
    """

    __slots__ = ("_now_ms", "_rate", "_tokens", "wait_ms")

    def __init__(self, tokens: Tokens, rate: float, now_ms: Callable[[], int]) -> None:
        self._tokens = tokens
        self._rate = rate
        self._now_ms = now_ms
        self.wait_ms = 0  # for the client, once it is beyond its quota

    def take(self, partitions: int, *, is_strict: bool) -> bool:
        """Count partitions; False, and none are, where they are not to be made (`is_strict`).

        Who cannot be refused is told to wait for what it has overdrawn.
        """
        now_ms = self._now_ms()
        if is_strict:
            self.wait_ms = self._tokens.wait_ms(self._rate, now_ms)
            if self.wait_ms:
                return False
        self._tokens.take(partitions, self._rate, now_ms)
        if not is_strict:
            self.wait_ms = self._tokens.wait_ms(self._rate, now_ms)
        return True


class Throttling:
    """The rates of all who have quotas."""

    def __init__(self, runtime: Runtime, quotas: Quotas) -> None:
        """Begin with nothing used."""
        self.quotas = quotas
        self.waited_ms: Counter[str] = Counter()  # what clients were told to wait, by quota
        self.waits: Counter[str] = Counter()
        self._now_ms = runtime.monotonic_ms
        self._rates: dict[tuple[str, str, str], Rate] = {}
        self._tokens: dict[tuple[str, str], Tokens] = {}
        self._sweep_at = RATES_SWEPT

    @property
    def remembered(self) -> int:
        """How many rates there are."""
        return len(self._rates) + len(self._tokens)

    def produced(self, user: str, client_id: str, size: int) -> int:
        """Count the bytes of a Produce request; return the milliseconds to wait."""
        return self._used(PRODUCER, user, client_id, size)

    def fetched(self, user: str, client_id: str, size: int) -> int:
        """Count the bytes of records that go out; where there is to be a wait, none do."""
        wait_ms = self._used(CONSUMER, user, client_id, size)
        if wait_ms:
            self.not_fetched(user, client_id, size)
        return wait_ms

    def not_fetched(self, user: str, client_id: str, size: int) -> None:
        """Take back bytes of records that were counted and do not go out."""
        self._used(CONSUMER, user, client_id, -size)

    def fetchable(self, user: str, client_id: str) -> int | None:
        """Return the most bytes that may go out at once; None: no quota says."""
        found = self.quotas.limit_of(CONSUMER, user, client_id)
        return None if found is None else int(found[1] * (SAMPLES - 1))

    def worked(self, user: str, client_id: str, seconds: float) -> int:
        """Count the time that a request took of the loop; return the milliseconds to wait."""
        wait_ms = self._used(REQUEST, user, client_id, seconds * 100)
        return min(wait_ms, SHORT_WAIT_MS_MAX)

    def mutating(self, user: str, client_id: str) -> Mutations | None:
        """Return what partitions made and deleted count against; None: no quota says."""
        found = self.quotas.limit_of(MUTATION, user, client_id)
        if found is None:
            return None
        who, rate = found
        if who not in self._tokens:
            self._sweep()
        return Mutations(self._tokens.setdefault(who, Tokens()), rate, self._now_ms)

    def connected(self, address: str) -> None:
        """Count a connection. Raises ConnectionThrottled, and then it counts for nothing."""
        rate = self.quotas.limit_of_address(address)
        if rate is None:
            return
        now_ms = self._now_ms()
        counted = self._rate_of((CONNECTION, address, ""))
        counted.record(1, now_ms)
        wait_ms = min(counted.wait_ms(rate, now_ms), SHORT_WAIT_MS_MAX)
        if wait_ms:
            counted.record(-1, now_ms)
            self.note(CONNECTION, wait_ms)
            raise ConnectionThrottled("more connections a second than the quota", wait_ms)

    def note(self, key: str, wait_ms: int) -> None:
        """Count that a client was told to wait."""
        self.waits[key] += 1
        self.waited_ms[key] += wait_ms

    def _used(self, key: str, user: str, client_id: str, amount: float) -> int:
        found = self.quotas.limit_of(key, user, client_id)
        if found is None:
            return 0
        who, bound = found
        now_ms = self._now_ms()
        rate = self._rate_of((key, *who))
        rate.record(amount, now_ms)
        return rate.wait_ms(bound, now_ms)

    def _rate_of(self, who: tuple[str, str, str]) -> Rate:
        rate = self._rates.get(who)
        if rate is None:
            self._sweep()
            rate = self._rates[who] = Rate()
        return rate

    def _sweep(self) -> None:
        """Forget what is as if it were new, once there is much to be remembered."""
        if self.remembered < self._sweep_at:
            return
        now_ms = self._now_ms()
        self._rates = {
            who: rate for who, rate in self._rates.items() if not rate.is_idle(now_ms)
        }
        self._tokens = {
            who: tokens for who, tokens in self._tokens.items() if not tokens.is_idle(now_ms)
        }
        self._sweep_at = max(RATES_SWEPT, 2 * self.remembered)
