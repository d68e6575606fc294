"""DescribeAcls, CreateAcls, DeleteAcls: the rules of access, as Kafka's admin clients see them.

What is described is what is in force and has a form there; created and deleted are rules that
the server keeps (broker/kept_rules.py), so what stands in the configuration cannot be deleted
here. What is asked for in one request is written down together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.errors import IsthmusError, QuotaExceeded
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.acl_forms import AclFilter, acls_of, rule_of
from isthmus.server.kafka_api.log_topics import RequestRefused, refusal_of

if TYPE_CHECKING:
    from isthmus.broker.access_rules import Rule
    from isthmus.server.kafka_api.acl_forms import Acl
    from isthmus.server.kafka_api.call import Call


def describe_acls(call: Call) -> None:
    """Answer with the ACLs that a filter matches, by what they are about."""
    try:
        wanted = AclFilter(call.request)
    except RequestRefused as error:
        call.answer({"error_code": error.code, "error_message": str(error)})
        return
    found: dict[tuple[int, str, int], list[dict[str, Any]]] = {}
    for rule in call.shore.security.access.rules:
        for acl in acls_of(rule):
            if wanted.matches(acl):
                rows = found.setdefault(acl.resource, [])
                row = entry_of(acl)
                if row not in rows:  # configured and kept, say
                    rows.append(row)
    call.answer(
        {
            "error_message": None,
            "resources": [
                {
                    "resource_type": kind,
                    "resource_name": name,
                    "pattern_type": pattern,
                    "acls": rows,
                }
                for (kind, name, pattern), rows in found.items()
            ],
        }
    )


def create_acls(call: Call) -> None:
    """Keep rules; what is no ACL is told so, and the others are kept all the same."""
    rows: list[dict[str, Any]] = []
    wanted: list[Rule] = []
    made: list[dict[str, Any]] = []
    for creation in call.request["creations"]:
        row: dict[str, Any] = {"error_code": ErrorCode.NONE, "error_message": None}
        rows.append(row)
        try:
            wanted.append(rule_of(creation))
            made.append(row)
        except RequestRefused as error:
            row.update(told(error))

    def done(error: IsthmusError | None) -> None:
        if error is not None:
            for row in made:
                row.update(told(error))
        call.answer({"results": rows})

    try:
        call.shore.security.kept.add(wanted, who_asks(call), done)
    except QuotaExceeded as error:
        done(error)


def delete_acls(call: Call) -> None:
    """Keep those rules no longer that each filter matches, and name them."""
    rows: list[dict[str, Any]] = []
    gone: list[Rule] = []
    for one in call.request["filters"]:
        row: dict[str, Any] = {"error_code": ErrorCode.NONE, "error_message": None}
        row["matching_acls"] = []
        rows.append(row)
        try:
            wanted = AclFilter(one)
        except RequestRefused as error:
            row.update(told(error))
            continue
        for kept in call.shore.security.kept:
            for acl in acls_of(kept.rule):
                if wanted.matches(acl):
                    gone.append(kept.rule)
                    kind, name, pattern = acl.resource
                    about = {
                        "error_message": None,
                        "resource_type": kind,
                        "resource_name": name,
                        "pattern_type": pattern,
                    }
                    row["matching_acls"].append({**about, **entry_of(acl)})

    def done(error: IsthmusError | None) -> None:
        if error is not None:
            for row in rows:
                row.update(told(error), matching_acls=[])
        call.answer({"filter_results": rows})

    call.shore.security.kept.remove(gone, who_asks(call), done)


def entry_of(acl: Acl) -> dict[str, Any]:
    """Return what is said of an ACL beside what it is about."""
    return {
        "principal": acl.principal,
        "host": acl.host,
        "operation": acl.operation,
        "permission_type": acl.permission,
    }


def told(error: IsthmusError) -> dict[str, Any]:
    """Return an error as a row has it."""
    return {"error_code": refusal_of(error), "error_message": str(error)}


def who_asks(call: Call) -> str:
    """Return who sends a request, as the log and the rules that are kept name it."""
    connection = call.connection
    return f"{connection.principal}@{connection.identity.address}"
