"""DescribeClientQuotas, AlterClientQuotas: what clients may use [KIP-546].

What the quotas are, and which of them counts, is in broker/quotas.py. Entities of one request
that are right are changed together; those that are wrong are told so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.quotas import CLIENT_ID, IP, KINDS, USER, entity_of
from isthmus.errors import ConfigInvalid, IsthmusError
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.acls import told, who_asks
from isthmus.server.kafka_api.log_topics import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isthmus.broker.quotas import Entity
    from isthmus.server.kafka_api.call import Call

EXACT, DEFAULT, ANY = 0, 1, 2  # types of matches
INVALID: Final = ErrorCode.INVALID_REQUEST


def describe_client_quotas(call: Call) -> None:
    """Answer with the quotas of the entities that a filter matches."""
    request = call.request
    try:
        wanted = _filter_of(request["components"])
    except RequestRefused as error:
        call.answer({**told(error), "entries": None})
        return
    is_strict = request["strict"]
    rows = [
        _row(entity, limits)
        for entity, limits in call.shore.quotas
        if _matches(dict(entity), wanted, is_strict=is_strict)
    ]
    call.answer({"error_message": "", "entries": rows})


def _filter_of(components: list[dict[str, Any]]) -> dict[str, tuple[int, str | None]]:
    """Return for each kind of entity how it is to match. Raises RequestRefused."""
    wanted: dict[str, tuple[int, str | None]] = {}
    for one in components:
        kind, match_type, match = one["entity_type"], one["match_type"], one["match"]
        if not kind or kind in wanted:
            raise RequestRefused(
                INVALID, f"the type of entity {kind!r} is empty or named twice"
            )
        if kind not in KINDS:
            raise RequestRefused(ErrorCode.UNSUPPORTED_VERSION, f"no entities are {kind!r}")
        if match_type not in (EXACT, DEFAULT, ANY):
            raise RequestRefused(INVALID, f"a type of match {match_type} is none")
        if (match is not None) != (match_type == EXACT):
            raise RequestRefused(INVALID, "a name goes with an exact match, and with no other")
        wanted[kind] = match_type, match
    if IP in wanted and wanted.keys() & {USER, CLIENT_ID}:
        raise RequestRefused(INVALID, "an ip goes with no user and no client-id")
    return wanted


def _matches(
    names: Mapping[str, str | None],
    wanted: Mapping[str, tuple[int, str | None]],
    *,
    is_strict: bool,
) -> bool:
    if is_strict and len(names) != len(wanted):
        return False
    return all(
        kind in names and (match_type == ANY or names[kind] == match)
        for kind, (match_type, match) in wanted.items()
    )


def _row(entity: Entity, limits: Mapping[str, float]) -> dict[str, Any]:
    return {
        "entity": [{"entity_type": kind, "entity_name": name} for kind, name in entity],
        "values": [{"key": key, "value": limits[key]} for key in sorted(limits)],
    }


def alter_client_quotas(call: Call) -> None:
    """Set and remove quotas, or only say whether that would go; answer when it is durable."""
    request, quotas = call.request, call.shore.quotas
    rows: dict[tuple[tuple[str, str | None], ...], dict[str, Any]] = {}
    changes: dict[Entity, dict[str, float]] = {}
    for entry in request["entries"]:
        names = {one["entity_type"]: one["entity_name"] for one in entry["entity"]}
        asked = tuple(names.items())
        again = asked in rows
        row = rows[asked] = {"error_message": None}
        row["entity"] = [{"entity_type": kind, "entity_name": name} for kind, name in asked]
        try:
            entity = entity_of(names)
            if again or entity in changes:
                if again:
                    changes.pop(entity, None)
                raise RequestRefused(INVALID, "the entity is named twice")
            limits = _altered(quotas.of(entity), entry["ops"])
            quotas.check(entity, limits)
            changes[entity] = limits
        except ConfigInvalid as error:
            row.update(error_code=INVALID, error_message=str(error))
        except RequestRefused as error:
            row.update(told(error))

    def done(error: IsthmusError | None) -> None:
        if error is not None:
            for row in rows.values():
                if "error_code" not in row:
                    row.update(told(error))
        call.answer({"entries": [*rows.values()]})

    if request["validate_only"] or not changes:
        done(None)
    else:
        quotas.set(changes, who_asks(call), done)


def _altered(limits: Mapping[str, float], ops: list[dict[str, Any]]) -> dict[str, float]:
    """Return limits as they are to be. Raises RequestRefused."""
    keys = [op["key"] for op in ops]
    if len(set(keys)) < len(keys):
        raise RequestRefused(INVALID, "a quota of the entity is named twice")
    gone = {op["key"] for op in ops if op["remove"]}
    new = {op["key"]: op["value"] for op in ops if not op["remove"]}
    return {key: limit for key, limit in {**limits, **new}.items() if key not in gone}
