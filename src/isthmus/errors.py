"""The error tree: what went wrong, as a class that knows its kind.

Three kinds, told apart by type, each caught in exactly one place per edge. `ProtocolError`: the
peer broke the rules, so it gets the reason and loses its connection. `Refused`: understood and
refused, so it gets the code and goes on. `StorageError`: the disk or the cluster, so the server
stops accepting writes and says why. Anything else is our own bug. No wire codes here: the
tables are in `mqtt/reasons.py` and `kafka/errors.py`, and a test proves that every leaf is in
both.
"""

from __future__ import annotations


class IsthmusError(Exception):
    """Root of all errors that the server raises on purpose."""


class ConfigError(IsthmusError):
    """Configuration or environment do not allow a start; the text says how to mend it."""


# --- the peer broke the rules ---------------------------------------------------------------


class ProtocolError(IsthmusError):
    """The peer broke the rules of its protocol; its connection ends."""


class Malformed(ProtocolError):
    """The bytes are not a packet, request or batch of the protocol."""


class TooLarge(ProtocolError):
    """A packet or request is larger than the server's limit."""


class UnsupportedVersion(ProtocolError):
    """The protocol or the version of a request is not spoken here."""


class UnexpectedPacket(ProtocolError):
    """A well-formed packet or request that has no place in the present state."""


class TopicAliasInvalid(ProtocolError):
    """A topic alias of 0, above the maximum, or never assigned."""


class TopicNameInvalid(ProtocolError):
    """A topic name with a wildcard in a PUBLISH or a will; no name can be that."""


class ClientIdInvalid(ProtocolError):
    """A client id that the server does not take."""


class QosNotSupported(ProtocolError):
    """A PUBLISH or a will of a QoS above the server's Maximum QoS."""


class RetainNotSupported(ProtocolError):
    """A PUBLISH or a will that is to be retained by a server that retains nothing."""


class WildcardsNotSupported(ProtocolError):
    """A wildcard in a topic filter, where the server has announced that it takes none."""


class IdentifiersNotSupported(ProtocolError):
    """A subscription identifier, where the server has announced that it takes none."""


class SharedNotSupported(ProtocolError):
    """A shared subscription, where the server has announced that it takes none."""


class ReceiveMaximumExceeded(ProtocolError):
    """More unacknowledged QoS 1 and 2 publishes than the receiver announced."""


class MessageRateExceeded(ProtocolError):
    """More messages or bytes a second than one client may send, where that ends it."""


class KeepAliveTimeout(ProtocolError):
    """Nothing came for one and a half keep alive intervals."""


class SessionTakenOver(ProtocolError):
    """Another connection opened the same session."""


class AdministrativeAction(ProtocolError):
    """An administrator ended the connection or its session."""


class ServerShuttingDown(ProtocolError):
    """The server drains and closes."""


# --- understood and refused -----------------------------------------------------------------


class Refused(IsthmusError):
    """Understood and refused; the peer gets a code and goes on."""


class NotAuthorized(Refused):
    """The principal may not do this."""


class BadCredentials(Refused):
    """The client is not who it says, or does not show it."""


class AuthenticationMethodUnknown(Refused):
    """The authentication method of a CONNECT is not one of the server's."""


class Banned(Refused):
    """The client, its user or its address is kept out, by an administrator or for a while."""


class ServerBusy(Refused):
    """More clients than the server takes at one time; the client may try again later."""


class ConnectionRateExceeded(Refused):
    """More connections a second than are taken; the client may try again later."""


class ConnectionThrottled(ConnectionRateExceeded):
    """The same by a quota; the connection is closed after `wait_ms` [KIP-612]."""

    def __init__(self, text: str, wait_ms: int = 0) -> None:
        super().__init__(text)
        self.wait_ms = wait_ms


class Redirected(Refused):
    """Another server is to be used; `reference` names it, if known [MQTT 5.0, 4.11]."""

    def __init__(self, text: str, reference: str = "") -> None:
        super().__init__(text)
        self.reference = reference


class UseAnotherServer(Redirected):
    """Another server is to be used for now."""


class ServerMoved(Redirected):
    """Another server is to be used from now on."""


class TopicUnknown(Refused):
    """No such log topic or partition."""


class TopicExists(Refused):
    """A log topic of this name is there already."""


class TopicInvalid(Refused):
    """A topic name, topic filter or log topic name breaks its rules."""


class OffsetOutOfRange(Refused):
    """The offset is before the first or after the last record of the partition."""


class BatchRefused(Refused):
    """A record batch is well-formed but breaks a rule of the log topic or of its producer.

    `record_errors` names the records at fault, as (index in the batch, why) [KIP-467].
    """

    record_errors: tuple[tuple[int, str], ...] = ()


class OutOfOrderSequence(BatchRefused):
    """A gap in the sequence numbers of an idempotent producer."""


class ProducerFenced(BatchRefused):
    """The producer epoch is older than the newest seen for this producer id."""


class TransactionStateInvalid(BatchRefused):
    """A producer wrote outside of the transaction that it has open."""


class CoordinatorFenced(BatchRefused):
    """A transaction marker comes from a coordinator that another one has replaced."""


class BatchTooLarge(BatchRefused):
    """A record batch is larger than the log topic's max.message.bytes."""


class TimestampInvalid(BatchRefused):
    """A record's timestamp is too far from the broker's time."""


class QuotaExceeded(Refused):
    """A limit on number or size is reached; the text names it."""


class RetainedFull(QuotaExceeded):
    """A message is not retained: it exceeds the limit on their number or their bytes."""


class PolicyViolation(Refused):
    """The cleanup policy of the log topic does not allow it."""


class ConfigInvalid(Refused):
    """A setting of a log topic is unknown or has an impossible value."""


# --- the disk or the cluster ----------------------------------------------------------------


class StorageError(IsthmusError):
    """The log cannot be written or read."""


class NoSpace(StorageError):
    """The disk is full; reads go on, appends are refused until there is room."""


class CorruptBatch(StorageError):
    """Stored or received bytes fail their checksum or contradict themselves."""


class SyncFailed(StorageError):
    """fdatasync failed; nothing is acknowledged any more [DESIGN 3, guarantee 2]."""


class LogClosed(StorageError):
    """The log is closing; the append was not accepted."""
