"""UpdateFeatures: levels of features are raised and lowered [KIP-584, KIP-1022].

A request is done as a whole or not at all; from version 2 on its answer has no rows. Nothing is
lost when a level is lowered, so a downgrade that may lose something is the same as one that may
not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import ConfigInvalid
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call

UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = 1, 2, 3
TYPES_FIRST_VERSION: Final = 1
ROWS_LAST_VERSION: Final = 1


def update_features(call: Call) -> None:
    """Change levels, or only say whether that would go; answer when it is durable."""
    request, features = call.request, call.shore.features
    wanted: dict[str, int] = {}
    try:
        for update in request["feature_updates"]:
            name, level = update["feature"], update["max_version_level"]
            features.check(name, level, is_downgrade=_is_downgrade(call, update))
            wanted[name] = level
    except ConfigInvalid as error:
        answer = {"error_code": ErrorCode.INVALID_UPDATE_VERSION, "error_message": str(error)}
        call.answer(answer)
        return
    rows = [
        {"feature": update["feature"], "error_message": None}
        for update in request["feature_updates"]
    ]

    def done(failure: ErrorCode) -> None:
        has_rows = call.version <= ROWS_LAST_VERSION and not failure
        call.answer({"error_code": failure, "results": rows if has_rows else []})

    changed = {name: wanted[name] for name in wanted if wanted[name] != features.level(name)}
    if request["validate_only"] or not changed:
        done(ErrorCode.NONE)
    else:
        features.set(changed, done)


def _is_downgrade(call: Call, update: dict[str, Any]) -> bool:
    """Whether a level is to become lower, and may. Raises ConfigInvalid."""
    if call.version < TYPES_FIRST_VERSION:
        return bool(update["allow_downgrade"])
    kind = update["upgrade_type"]
    if kind not in (UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE):
        raise ConfigInvalid(f"there is no type {kind} of updates")
    return bool(kind != UPGRADE)
