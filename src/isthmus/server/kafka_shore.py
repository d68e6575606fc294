"""What all Kafka connections of the server share, and what their handlers work on.

The tables that requests ask and change: groups, transactions, fetch sessions, and the log
below them. It knows its connections, so that it can end those that may not stay. One for the
whole server, whatever listeners there are. Not here: what comes through a socket (kafka.py).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from isthmus.broker.client_metrics import METRICS_LOG_TOPIC
from isthmus.broker.client_metrics import check as check_metrics
from isthmus.broker.consumer_groups import ConsumerGroups
from isthmus.broker.features import Features
from isthmus.broker.fetch_sessions import FetchSessions
from isthmus.broker.fetches import Fetches
from isthmus.broker.group_configs import GroupConfigs
from isthmus.broker.group_offsets import GroupOffsets
from isthmus.broker.groups import GroupTable
from isthmus.broker.kept_configs import KeptConfigs
from isthmus.broker.passwords import USERS
from isthmus.broker.quotas import Quotas
from isthmus.broker.server_configs import ServerConfigs
from isthmus.broker.share_fetches import ShareFetches
from isthmus.broker.share_groups import ShareGroups
from isthmus.broker.share_sessions import ShareSessions
from isthmus.broker.share_states import ShareStates
from isthmus.broker.throttling import Throttling
from isthmus.broker.topic_ids import TopicIds
from isthmus.broker.transaction_markers import MarkerWriter
from isthmus.broker.transactions import TransactionTable
from isthmus.logs import Sparing
from isthmus.server.admission import Total
from isthmus.server.kafka_api.consumer_groups import consumer_terms
from isthmus.server.kafka_api.counts import RequestCounts
from isthmus.server.kafka_api.share_groups import share_terms

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.appends import Appends
    from isthmus.broker.security import Security
    from isthmus.config import KafkaSettings
    from isthmus.errors import IsthmusError
    from isthmus.runtime import Runtime
    from isthmus.server.kafka import KafkaConnection
    from isthmus.server.kafka_listener import KafkaListener
    from isthmus.storage.log import Log

RECEIVE_BYTES = 256 * 1024
IDLE_MS = 600_000  # Kafka's connections.max.idle.ms: its clients hang up earlier themselves
NODE_ID = 1


class KafkaShore:
    """What all Kafka connections of the server share, and what their handlers work on."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        broker: Appends,
        settings: KafkaSettings,
        security: Security,
        *,
        refuses: Callable[[str], IsthmusError | None] = lambda _: None,
        refuses_user: Callable[[str], IsthmusError | None] = lambda _: None,
        lines: Sparing | None = None,
    ) -> None:
        """Read back groups and transactions; `broker` takes the batches.

        `refuses` says why nobody may come from an address, if so, `refuses_user` why a user may
        not; `lines` spares the log.
        """
        self.runtime = runtime
        self.log = log
        self.security = security
        self.broker = broker
        self.settings = settings
        self.topic_ids = TopicIds(log)
        self.fetches = Fetches(runtime, log, self.topic_ids)
        self.fetch_sessions = FetchSessions(runtime, sessions_max=settings.fetch_sessions_max)
        self.connections_max = settings.connections_max
        self.total = Total(settings.connections_max)
        self.server_configs = ServerConfigs(runtime, log, broker, NODE_ID)
        self.server_configs.follow(self._limit)
        self.features = Features(runtime, log, broker)
        self.group_configs = GroupConfigs(
            runtime, log, broker, consumer_terms(settings), share_terms(settings)
        )
        self.client_metrics = KeptConfigs(
            *(runtime, log, broker, METRICS_LOG_TOPIC), check=check_metrics
        )
        self.quotas = Quotas(runtime, log, broker)
        self.throttling = Throttling(runtime, self.quotas)
        self._open_groups(broker)
        self.node_id = NODE_ID
        self.refuses = refuses
        self.refuses_user = refuses_user
        self.lines = lines or Sparing(runtime, 0)
        self.listeners: list[KafkaListener] = []
        self.connections: set[KafkaConnection] = set()
        self.receive_buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.accepted = 0
        self.counts = RequestCounts()
        self.unsent_bytes = 0  # of responses to clients that are slow to take them
        runtime.later(IDLE_MS, self._cut_idle)

    def _open_groups(self, appends: Appends) -> None:
        """Read back groups and transactions, which write into each other's log topics."""
        runtime, log, settings = self.runtime, self.log, self.settings
        self.share_states = ShareStates(
            *(runtime, log, appends, self.topic_ids),
            limits=lambda group_id: self.group_configs.share(group_id).limits,
        )
        self.groups = GroupTable(
            *(runtime, log, appends),
            initial_delay_ms=settings.group_initial_rebalance_delay_ms,
            members_max=settings.group_members_max,
            share_members_max=settings.group_share_members_max,
            terms=self.group_configs.terms,
            share_terms=lambda group_id: self.group_configs.share(group_id).members,
            migration=settings.group_consumer_migration_policy,
            dropped=self.share_states.forget_group,
        )
        self.share_groups = ShareGroups(runtime, self.groups, self.share_states)
        self.share_sessions = ShareSessions(settings.group_share_sessions_max)
        self.share_fetches = ShareFetches(
            *(runtime, log, self.topic_ids, self.groups),
            *(self.share_states, self.group_configs),
        )
        self.consumer_groups = ConsumerGroups(runtime, self.groups)
        self.group_offsets = GroupOffsets(
            runtime, self.groups, retention_ms=settings.offsets_retention_minutes * 60_000
        )
        self.markers = MarkerWriter(runtime, log, appends, self.groups)
        self.transactions = TransactionTable(
            *(runtime, log, appends, self.markers),
            timeout_max_ms=settings.transaction_timeout_max_ms,
            expiration_ms=settings.transactional_id_expiration_hours * 3_600_000,
        )

    @property
    def fetch_bytes_left(self) -> int:
        """How large the next response to a Fetch may be."""
        settings = self.settings
        left = settings.fetch_unsent_bytes_max - self.unsent_bytes
        return max(0, min(settings.fetch_bytes_max, left))

    def limit_connections(self, maximum: int) -> None:
        """Take what is configured; what an administrator has set comes first."""
        self.connections_max = maximum
        self._limit()

    def _limit(self) -> None:
        found = self.server_configs.connections_max
        self.total.maximum = self.connections_max if found is None else found

    def forget_log_topic(self, name: str) -> None:
        """A log topic was deleted: tell everybody who remembers it."""
        self.broker.forget_log_topic()
        self.group_offsets.forget_log_topic(name)
        self.share_groups.forget_log_topics(self.topic_ids.name_of)
        self.share_states.forget_log_topics()
        self.fetches.recheck()
        self.share_fetches.recheck()

    def lost(self, connection: KafkaConnection) -> None:
        """A connection has ended, and with it what its client had to work on."""
        self.connections.discard(connection)
        for member in self.share_sessions.lost(connection):
            self.share_fetches.release(member)

    def users_changed(self, names: set[str]) -> None:
        """Send away who is in as one of these users, once it has its answers."""
        for connection in [*self.connections]:
            principal = connection.principal
            if principal is not None and principal.way == USERS and principal.user in names:
                self.runtime.defer(partial(connection.drop, "the user was changed or removed"))

    def banned(self) -> None:
        """Send away who may not come any more."""
        for connection in [*self.connections]:
            user = connection.principal.user if connection.principal is not None else ""
            if self.refuses(connection.identity.address) or self.refuses_user(user):
                connection.drop("banned")

    def close(self) -> None:
        """Close all connections; a client that was not answered asks again elsewhere."""
        for connection in [*self.connections]:
            connection.drop()

    def _cut_idle(self) -> None:
        for connection in [*self.connections]:
            connection.cut_if_idle()
        self.runtime.later(IDLE_MS, self._cut_idle)
