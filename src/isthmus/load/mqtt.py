"""A load of MQTT clients on one server: all of them, and the phases of a run.

`open`, `warm_up`, `measure`, `drain`, `close`, in this order; `report` then says what became of
it. One thread drives all clients. Each turn it publishes what may be published, waits until a
socket is ready or a message due, and serves the sockets that are.

How much may be published: in the open loop what is due; else at QoS 1 and 2 what each
publisher's window has room for, at QoS 0 as many messages as leave no more deliveries on their
way than the window holds, so that no server need drop any. A server that does drop some would
leave the window closed: after a second without a delivery those on their way are given up.
"""

from __future__ import annotations

import gc
import os
import resource
import selectors
import ssl
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, Protocol

from isthmus.load.clients import UNTIL_MEASURED, Clients
from isthmus.load.errors import LoadError
from isthmus.load.latencies import Latencies
from isthmus.load.link import Link, LinkError, Stage
from isthmus.load.report import Measured, MqttReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.load.plan import MqttPlan

AT_A_TIME: Final = 100  # connections on their way to their CONNACK
RECEIVE_BYTES: Final = 262_144
RETRY_NS: Final = 200_000_000
DISCONNECTS_MAX: Final = 5  # of each client, after which a count is not waited for
GIVE_UP_NS: Final = 1_000_000_000
TICK_NS: Final = 100_000_000
PAUSE_S: Final = 0.05
READER_PAUSE_S: Final = 0.001
SELECTOR_S: Final = 0.002
SPARE_FILES: Final = 64
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Reader(Protocol):
    """Somebody who gets every message that is published, not as a subscriber."""

    name: str

    def read(self) -> Iterable[tuple[int, bytes]]:
        """Return the payloads that have come, and when, without waiting."""


class MqttLoad:
    """All clients of a plan. `notice` is told now and then how much of a phase is done."""

    def __init__(
        self,
        plan: MqttPlan,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        notice: Callable[[str, float], None] = lambda _phase, _share: None,
        reader: Reader | None = None,
    ) -> None:
        self._plan = plan
        self._reader = reader
        self._clock = clock
        self._notice = notice
        self._clients = Clients(plan, is_read_elsewhere=reader is not None)
        self._links = self._clients.links
        self._publishing = self._clients.publishing
        self.totals = self._clients.totals
        self.acknowledged = self._clients.acknowledged
        self.delivered = self._clients.delivered
        self.opened = Latencies()
        self.opening_s = 0.0
        self.disconnects = 0
        self.reconnects = 0
        self.errors: Counter[str] = Counter()
        self._selector = selectors.DefaultSelector()
        self._room = memoryview(bytearray(RECEIVE_BYTES + 2 * plan.packet_bytes))
        self._is_opening = True
        self._may_publish = False
        self._retries: deque[tuple[int, Link]] = deque()
        self._next = 0  # in turn, in the closed loop at QoS 0
        self._dispatched = 0  # messages of the schedule whose publishers were told
        self._start_ns = 0
        self._given_up = 0
        self._target = UNTIL_MEASURED
        self._progress = 0
        self._progress_ns = 0
        self._tick_ns = 0
        self._measured = Measured()

    # --- phases -------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and subscribe all clients. LoadError where one cannot."""
        make_room_for(len(self._links))
        begin = self._progress_ns = self._clock()
        waiting = deque(self._links)
        ready = 0
        while ready < len(self._links):
            opening = len(self._links) - len(waiting) - ready
            while waiting and opening < AT_A_TIME:
                self._open(waiting.popleft())
                opening += 1
            before = self.opened.count
            self._turn(PAUSE_S)
            ready = self.opened.count
            now = self._clock()
            if ready > before:
                self._progress_ns = now
            if now - self._progress_ns > self._plan.answer_s * 1e9:
                raise LoadError(
                    f"{self._plan.address} is silent: {len(self._links) - ready} of"
                    f" {len(self._links)} clients wait for an answer"
                )
            self._notice("connecting", ready / len(self._links))
        self.opening_s = (self._clock() - begin) / 1e9
        self._is_opening = False

    def warm_up(self) -> None:
        """Publish what is not measured."""
        if not self._plan.warm_up_s:
            return
        self._begin()
        self._drive("warming up", self._clock() + int(self._plan.warm_up_s * 1e9))
        if self._plan.count:
            self.drain()  # the messages that are counted begin with nothing on its way

    def measure(self) -> None:
        """Publish what is measured, for the plan's duration or count."""
        plan = self._plan
        cpu_s = time.process_time()
        begin = self._clock()
        self.acknowledged.since_ns = self.delivered.since_ns = begin
        before = self._done()
        self._progress_ns = begin
        gc.disable()
        try:
            if not self._may_publish:
                self._begin(plan.count)
            if plan.count:
                self._drive("measuring", None)
                end = max(self._progress_ns, begin + 1)
            else:
                end = self._drive("measuring", begin + int(plan.duration_s * 1e9))
        finally:
            gc.enable()
        after = self._done()
        self._measured = Measured(
            seconds=(end - begin) / 1e9,
            published=after[0] - before[0],
            acknowledged=after[1] - before[1],
            delivered=after[2] - before[2],
            cpu_s=time.process_time() - cpu_s,
        )

    def drain(self) -> None:
        """Publish no more, and wait until all is there or nothing more comes."""
        self._may_publish = False
        self._progress_ns = self._clock()
        self._drive("waiting for the rest", None)

    def close(self) -> None:
        """Disconnect all clients."""
        for link in self._links:
            if link.stage is not Stage.CLOSED:
                self._selector.unregister(link.fileno)
                link.leave(self._clock())
        self._selector.close()

    def run(self) -> MqttReport:
        """Go through all phases."""
        try:
            self.open()
            self.warm_up()
            self.measure()
            self.drain()
        finally:
            self.close()
        return self.report()

    def report(self) -> MqttReport:
        """Return what became of it."""
        totals = self.totals
        unanswered = sum(part.unacknowledged for part in self._clients.publishers())
        return MqttReport(
            plan=self._plan,
            measured=self._measured,
            totals=totals,
            unacknowledged=unanswered,
            opening_s=self.opening_s,
            disconnects=self.disconnects,
            reconnects=self.reconnects,
            errors=dict(self.errors),
            opened=self.opened,
            acknowledged=self.acknowledged,
            delivered=self.delivered,
            reader="" if self._reader is None else self._reader.name,
        )

    def is_complete(self) -> bool:
        """Whether all that was published has arrived and is acknowledged."""
        totals = self.totals
        settled = totals.acknowledged + totals.refused if self._plan.qos else totals.published
        return settled == totals.published and totals.delivered >= totals.expected

    # --- clients ------------------------------------------------------------------------------

    def _open(self, link: Link) -> None:
        try:
            link.open(self._clock())
            self._selector.register(link.fileno, READ | WRITE, link)
        except OSError as error:
            self._lose(link, error)

    def _lose(self, link: Link, error: Exception) -> None:
        """A connection has failed; come again, unless it is one of the first."""
        text = reason_of(error)
        if link.stage is not Stage.CLOSED:
            self._selector.unregister(link.fileno)
            self.disconnects += link.stage is Stage.READY
        link.close()
        if self._is_opening:
            raise LoadError(f"{self._plan.address}, client {link.client_id}: {text}") from None
        self.errors[text] += 1
        self._retries.append((self._clock() + RETRY_NS, link))

    # --- turns --------------------------------------------------------------------------------

    def _begin(self, count: int = 0) -> None:
        """Have the publishers publish: by a schedule from now on, so many messages or any."""
        self._may_publish = True
        self._start_ns = now = self._progress_ns = self._clock()
        self._dispatched = 0
        self._target = self.totals.published + count if count else UNTIL_MEASURED
        publishers = self._clients.publishers()
        share, rest = divmod(count, max(1, len(publishers)))
        interval_ns = self._interval_s() * 1e9
        for number, publisher in enumerate(publishers):
            publisher.keep_to(now + int(number * interval_ns), len(publishers) * interval_ns)
            publisher.left = share + (number < rest) if count else UNTIL_MEASURED
            self._try(self._publishing[number], self._serve)

    def _drive(self, phase: str, end_ns: int | None) -> int:
        """Turn until the end or, without one, until all is done or nothing more comes."""
        begin = now = self._clock()
        patience_ns = int(1e9 * max(self._plan.quiet_s, self._interval_s() * 2))
        while end_ns is None or now < end_ns:
            if end_ns is None and (
                self._is_done()
                or now - self._progress_ns > patience_ns
                or self.disconnects > DISCONNECTS_MAX * len(self._links)
            ):
                break
            flows = self._publish(now)
            self._turn(self._pause_s(now, end_ns, flows=flows))
            if self._reader is not None:
                for arrived_ns, payload in self._reader.read():
                    self._clients.elsewhere.take(payload, arrived_ns)
            now = self._clock()
            self._look(now)
            if now >= self._tick_ns:
                self._tick_ns = now + TICK_NS
                self._tick(now)
                self._notice(phase, self._share(begin, now, end_ns))
        return now

    def _turn(self, pause_s: float) -> None:
        for key, mask in self._selector.select(pause_s):
            self._try(key.data, self._read_and_serve if mask & READ else self._serve)

    def _try(self, link: Link, act: Callable[[Link], None]) -> None:
        try:
            act(link)
        except (LinkError, OSError) as error:
            self._lose(link, error)

    def _read_and_serve(self, link: Link) -> None:
        if link.stage is not Stage.OPENING:
            was_ready = link.stage is Stage.READY
            link.read(self._room, self._clock)
            while link.has_more:
                link.read(self._room, self._clock)
            if not was_ready and link.stage is Stage.READY:
                self.opened.add(link.opened_ns, self._clock())
                self.reconnects += not self._is_opening
        self._serve(link)

    def _serve(self, link: Link) -> None:
        """Open it further, or fill and flush it until it takes no more."""
        now = self._clock()
        if link.stage is Stage.OPENING:
            link.go_on(now)
        elif link.stage is not Stage.CLOSED:
            is_clear = link.flush(now)
            while is_clear and self._refill(link, now):
                is_clear = link.flush(now)
        if link.stage is not Stage.CLOSED:
            self._watch(link)

    def _refill(self, link: Link, now: int) -> int:
        """Have a publisher make what it may; return how many messages."""
        publisher = link.publisher
        if publisher is None or not self._may_publish or link.stage is not Stage.READY:
            return 0
        if self._plan.rate:
            return publisher.fill_due(now)
        return publisher.fill(now, 1 << 20) if self._plan.qos else 0

    def _watch(self, link: Link) -> None:
        wanted = READ | WRITE if link.wants_write else READ
        key = self._selector.get_key(link.fileno)
        if key.events != wanted:
            self._selector.modify(link.fileno, wanted, link)

    def _publish(self, now: int) -> bool:
        """Publish what nothing else brings about; return whether there is more at once."""
        if not self._may_publish or not self._publishing:
            return False
        if self._plan.rate:
            self._publish_due(now)
            return False
        return not self._plan.qos and self._publish_in_turn(now)

    def _publish_due(self, now: int) -> None:
        """Tell the publishers whose messages are due; who was blocked is told by its socket."""
        due = int((now - self._start_ns) * self._plan.rate / 1e9) + 1
        count = len(self._publishing)
        for number in range(max(self._dispatched, due - count), due):
            self._try(self._publishing[number % count], self._serve)
        self._dispatched = due

    def _publish_in_turn(self, now: int) -> bool:
        """Let the publishers fill, burst by burst, what is left of the window of deliveries."""
        window = self._plan.window_size
        fan = max(1, self._clients.fan_max)
        room = window
        if self._clients.fan_max:
            room -= self.totals.expected - self.totals.delivered - self._given_up
            if room < max(fan, window // 8):
                return False
        made = 0
        for _ in self._publishing:
            link = self._publishing[self._next]
            self._next = (self._next + 1) % len(self._publishing)
            publisher = link.publisher
            assert publisher is not None
            if link.stage is not Stage.READY or link.wants_write:
                continue
            count = publisher.fill(now, min(self._plan.burst_size, max(1, room // fan)))
            if count:
                made += count
                self._try(link, self._serve)
            if self._clients.fan_max:
                room -= count * fan
                if room < fan:
                    break
        return made > 0

    def _pause_s(self, now: int, end_ns: int | None, *, flows: bool) -> float:
        """Return how long to wait for sockets; near a moment that matters, not at all."""
        if self._plan.spin or flows:
            return 0.0
        pause_s = PAUSE_S if self._reader is None else READER_PAUSE_S
        if end_ns is not None:
            pause_s = min(pause_s, (end_ns - now) / 1e9)
        if self._may_publish and self._plan.rate:
            due_ns = self._start_ns + int(self._dispatched * 1e9 / self._plan.rate)
            wait_s = (due_ns - self._clock()) / 1e9
            # A selector counts in whole milliseconds, and wakes late rather than early.
            pause_s = min(pause_s, wait_s - SELECTOR_S)
            if pause_s <= 0 and self._reader is not None:
                time.sleep(max(0.0, wait_s))  # its threads are to have the core
            elif pause_s <= 0:
                os.sched_yield()
        return max(0.0, pause_s)

    # --- now and then -------------------------------------------------------------------------

    def _look(self, now: int) -> None:
        """See whether anything has moved; after a second, do not wait for deliveries."""
        totals = self.totals
        progress = totals.published + totals.acknowledged + totals.delivered
        if progress != self._progress:
            self._progress = progress
            self._progress_ns = now
        elif now - self._progress_ns > GIVE_UP_NS:
            self._given_up = totals.expected - totals.delivered

    def _tick(self, now: int) -> None:
        while self._retries and self._retries[0][0] <= now:
            self._open(self._retries.popleft()[1])
        for link in self._links:
            quiet_ns = link.keep_alive_s * 500_000_000
            if quiet_ns and link.stage is Stage.READY and now - link.sent_ns > quiet_ns:
                link.ping()
                self._try(link, self._serve)

    def _is_done(self) -> bool:
        """Whether the count is published, or nothing is to be, and all of it has arrived."""
        is_published = not self._may_publish or self.totals.published >= self._target
        return is_published and self.is_complete()

    def _done(self) -> tuple[int, int, int]:
        return self.totals.published, self.totals.acknowledged, self.totals.delivered

    def _interval_s(self) -> float:
        return 1 / self._plan.rate if self._plan.rate else 0.0

    def _share(self, begin: int, now: int, end_ns: int | None) -> float:
        """Return how much of the phase is done."""
        if end_ns is not None:
            return (now - begin) / (end_ns - begin)
        if self._plan.count and self._may_publish:
            return 1 - (self._target - self.totals.published) / self._plan.count
        return self.totals.delivered / max(1, self.totals.expected)


def make_room_for(connections: int) -> None:
    """Have the system allow so many sockets. LoadError where it does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise LoadError(
            f"{connections} connections need {wanted} open files, and {hard} are allowed"
            " (ulimit -n)"
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def reason_of(error: Exception) -> str:
    """Return why a connection has failed, in a few words."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)
