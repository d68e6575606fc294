"""Derives src/isthmus/kafka/schema.txt from the message definitions of Apache Kafka.

    tools/generate_kafka_schema.py kafka-clients-4.3.1.jar kafka-group-coordinator-4.3.1.jar \\
        kafka-transaction-coordinator-4.3.1.jar kafka-share-coordinator-4.3.1.jar \\
        > src/isthmus/kafka/schema.txt

Run by hand when the supported Kafka release changes; the artifacts come from Maven (group
`org.apache.kafka`). Only facts of the wire format are taken: names, types, versions, defaults.
What is no longer valid in the release is dropped: versions below a message's first, fields that
only such versions had, and a last version that is still marked unstable, because a broker does
not advertise it. The notation is explained in the head of the table, and read by
`isthmus.kafka.schema`.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import ZipFile

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a client may send to a broker (docs/reference: Kafka APIs); what brokers and controllers
# say among themselves stays out.
API_KEYS = [*range(4), *range(8, 52), 55, 57, 60, 61, 65, 66, 68, 69, 71, 72]
API_KEYS += [*range(74, 80), *range(88, 93)]
OTHERS = [
    *("RequestHeader", "ResponseHeader"),
    *("ConsumerProtocolSubscription", "ConsumerProtocolAssignment"),
    *("ControlRecordTypeSchema", "EndTxnMarker"),
    *("LegacyOffsetCommitKey", "OffsetCommitKey", "OffsetCommitValue"),
    *("GroupMetadataKey", "GroupMetadataValue"),
    *(
        f"ShareGroup{kind}{part}"
        for kind in (
            "MemberMetadata",
            "Metadata",
            "TargetAssignmentMetadata",
            "TargetAssignmentMember",
            "CurrentMemberAssignment",
            "StatePartitionMetadata",
        )
        for part in ("Key", "Value")
    ),
    *(f"Share{kind}{part}" for kind in ("Snapshot", "Update") for part in ("Key", "Value")),
    *(
        f"ConsumerGroup{kind}{part}"
        for kind in (
            "Metadata",
            "MemberMetadata",
            "TargetAssignmentMetadata",
            "TargetAssignmentMember",
            "CurrentMemberAssignment",
            "RegularExpression",
        )
        for part in ("Key", "Value")
    ),
    *("TransactionLogKey", "TransactionLogValue"),
]
IMPLICIT = {"string": "", "bool": "false", "records": "null", "uuid": "zero"}
HEAD = """\
# The messages of the Kafka protocol that Isthmus speaks, as of Apache Kafka {release}.
# Made by tools/generate_kafka_schema.py; read by schema.py. One paragraph per message:
#
#   Name key=API-KEY versions=FIRST-LAST flexible=FIRST+
#       field type [versions] [tag=N] [default=VALUE] [ignorable]
#
# In the order of the wire, nested fields indented below their struct. Without `versions` a
# field is in every version of its message. `?`: null is allowed (`?7+`: from version 7).
# [type]: an array. `tag`: sent as a tagged field, and left out when it has its default.
# Without `default`: 0, false, an empty string or array, a zero uuid, a struct of defaults, no
# records. `ignorable`: dropped in silence for a version that lacks it. `inflexible`: never
# compact.
"""


class Span(NamedTuple):
    """A closed range of versions, empty when `last < first`."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str, last: int) -> Span:
        """Read `3`, `3-7`, `3+` or `none`; an open end reaches to `last`."""
        if text == "none":
            return cls(0, -1)
        if text.endswith("+"):
            return cls(int(text[:-1]), last)
        low, _, high = text.partition("-")
        return cls(int(low), int(high or low))

    def within(self, outer: Span) -> Span:
        return Span(max(self.first, outer.first), min(self.last, outer.last))

    def text(self, last: int) -> str:
        """Write the range the way `parse` reads it."""
        if self.last == last:
            return f"{self.first}+"
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def definitions(jars: list[str]) -> dict[str, dict[str, Any]]:
    """Return every message definition in `jars` by name; they are JSON with // comments."""
    found = {}
    for jar in jars:
        with ZipFile(jar) as archive:
            for entry in archive.namelist():
                if entry.startswith("common/message/") and entry.endswith(".json"):
                    text = re.sub(r"^\s*//.*$", "", archive.read(entry).decode(), flags=re.M)
                    definition = json.loads(text)
                    found[definition["name"]] = definition
    return found


def chosen(found: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the definitions for the table, each request before its response."""
    by_key = {(one.get("apiKey"), one["type"]): one for one in found.values()}
    for key in API_KEYS:
        request = by_key[key, "request"]
        yield request
        # only the request says whether the last version is unstable
        yield {"latestVersionUnstable": request.get("latestVersionUnstable")} | by_key[
            key, "response"
        ]
    for name in OTHERS:
        yield found[name]


def snake_case(name: str) -> str:
    """Turn `ISRNodes` into `isr_nodes`, `TopicIDs` into `topic_ids`."""
    name = re.sub(r"([A-Z]+)s\b", lambda match: match[1].capitalize() + "s", name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def default_text(field: dict[str, Any], kind: str) -> str:
    """Return the default in our notation, empty where it is the implicit one of its type."""
    if "default" not in field:
        return ""
    value = field["default"]
    text = "null" if value is None else str(value).lower()
    if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", text):
        text = str(int(text, 0))
    return "" if text == IMPLICIT.get(kind, "0") else text


class Writer:
    """Writes one message; holds what its fields share."""

    def __init__(self, definition: dict[str, Any]) -> None:
        self.structs = {
            one["name"]: one["fields"] for one in definition.get("commonStructs", ())
        }
        self.lines: list[str] = []
        valid = Span.parse(definition["validVersions"], -1)
        if definition.get("latestVersionUnstable"):
            valid = Span(valid.first, valid.last - 1)
        self.last = valid.last
        key = f" key={definition['apiKey']}" if "apiKey" in definition else ""
        flexible = Span.parse(definition["flexibleVersions"], self.last).within(valid)
        flexes = (
            f" flexible={flexible.text(self.last)}" if flexible.first <= flexible.last else ""
        )
        self.lines.append(
            f"{definition['name']}{key} versions={valid.first}-{valid.last}{flexes}"
        )
        self.fields(definition["fields"], valid, 1)

    def fields(self, fields: list[dict[str, Any]], outer: Span, depth: int) -> None:
        names = [field["name"] for field in fields]
        assert len(set(names)) == len(names), "two fields of one struct share a name"
        for field in fields:
            self.field(field, outer, depth)

    def field(self, field: dict[str, Any], outer: Span, depth: int) -> None:
        declared = field.get("versions") or field["taggedVersions"]
        span = Span.parse(declared, self.last).within(outer)
        if span.last < span.first:
            return
        kind = field["type"].removeprefix("[]")
        nested = field.get("fields") or self.structs.get(kind)
        shown = "struct" if nested else kind
        words = [
            snake_case(field["name"]),
            (f"[{shown}]" if field["type"].startswith("[]") else shown)
            + self.null_mark(field, span),
        ]
        if span != outer:
            words.append(span.text(self.last))
        if "tag" in field:
            assert Span.parse(field["taggedVersions"], self.last).within(span) == span
            words.append(f"tag={field['tag']}")
        if default := default_text(field, shown):
            words.append(f"default={default}")
        if field.get("ignorable"):
            words.append("ignorable")
        if field.get("flexibleVersions") == "none":
            words.append("inflexible")
        self.lines.append("    " * depth + " ".join(words))
        if nested:
            self.fields(nested, span, depth + 1)

    def null_mark(self, field: dict[str, Any], span: Span) -> str:
        nullable = Span.parse(field.get("nullableVersions", "none"), self.last).within(span)
        if nullable.last < nullable.first:
            return ""
        return "?" if nullable == span else f"?{nullable.text(self.last)}"


def main(jars: list[str]) -> None:
    if not jars:
        sys.exit(
            "usage: generate_kafka_schema.py kafka-clients-X.Y.Z.jar [more jars] > schema.txt"
        )
    release = re.search(r"-(\d+\.\d+\.\d+)\.jar$", jars[0])
    print(HEAD.format(release=release[1] if release else "?"))
    print("\n\n".join("\n".join(Writer(one).lines) for one in chosen(definitions(jars))))


if __name__ == "__main__":
    main(sys.argv[1:])
