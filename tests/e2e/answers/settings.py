"""What is answered about settings: described with all there is to know, changed, refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.kafka.api import ApiKey

if TYPE_CHECKING:
    from tests.e2e.answers.conversation import Conversation

TOPIC: Final = 2
BROKER: Final = 4
GROUP: Final = 32
CLIENT_METRICS: Final = 16
SET, DELETE, APPEND, SUBTRACT = range(4)


class Settings:
    """The ways to ask."""

    def __init__(self, conversation: Conversation) -> None:
        self.c = conversation
        self.name = conversation.create("s", retention_ms="60000")

    def describe(
        self, what: str, kind: int = TOPIC, name: str | None = None, version: int = 4, **of: Any
    ) -> None:
        """Ask for settings; how Kafka documents them is not compared."""
        name = self.name if name is None else name
        resource = {"resource_type": kind, "resource_name": name, "configuration_keys": None}
        told = {"include_synonyms": True} if version >= 1 else {}
        body = {"resources": [{**resource, **of.pop("resource", {})}], **told, **of}
        answer = self.c.ask_aside(ApiKey.DESCRIBE_CONFIGS, version, body)
        for row in answer["results"]:
            for one in row["configs"]:
                del one["documentation"]
        self.c.keep(f"describe v{version}: {what}", answer)

    def change(self, what: str, *rows: Any, kind: int = TOPIC, **of: Any) -> None:
        name = of.pop("name", self.name)
        configs = [
            {"name": name, "config_operation": operation, "value": value}
            for name, operation, value in rows
        ]
        resource = {"resource_type": kind, "resource_name": name, "configs": configs}
        body = {"resources": [resource] * of.pop("times", 1), **of}
        self.c.ask(f"change: {what}", ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, body)

    def replace(self, what: str, *rows: tuple[str, str | None], **of: Any) -> None:
        configs = [{"name": name, "value": value} for name, value in rows]
        name = of.pop("name", self.name)
        resource = {"resource_type": TOPIC, "resource_name": name, "configs": configs}
        body = {"resources": [resource], **of}
        self.c.ask(f"replace: {what}", ApiKey.ALTER_CONFIGS, 2, body)


def play(c: Conversation) -> None:
    """Have the conversation."""
    settings = Settings(c)
    describe(settings)
    change(settings)
    replace(settings)
    others(settings)


def describe(s: Settings) -> None:
    for version in range(1, 5):
        s.describe("a log topic", version=version)
    s.describe("without synonyms", include_synonyms=False)
    s.describe("one setting", resource={"configuration_keys": ["retention.ms"]})
    s.describe("one that there is not", resource={"configuration_keys": ["no.such"]})
    s.describe("no settings", resource={"configuration_keys": []})
    s.describe("no such log topic", name=s.c.name("absent"))
    s.describe("a name that none can have", name="a b")
    s.describe("no name", name="")
    for kind in (0, 1, 3, 99):
        s.describe(f"of kind {kind}", kind=kind)
    for what, name in {"another": "7", "no number": "one"}.items():
        s.describe(f"a broker: {what}", BROKER, name)


def change(s: Settings) -> None:
    for what, rows in {
        "set": [("retention.ms", SET, "70000")],
        "set two": [("retention.ms", SET, "80000"), ("segment.bytes", SET, "1048576")],
        "delete": [("segment.bytes", DELETE, None)],
        "delete what was not set": [("flush.ms", DELETE, None)],
        "append": [("cleanup.policy", APPEND, "compact")],
        "append it again": [("cleanup.policy", APPEND, "compact")],
        "subtract": [("cleanup.policy", SUBTRACT, "delete")],
        "subtract what is not in it": [("cleanup.policy", SUBTRACT, "delete")],
        "append to no list": [("retention.ms", APPEND, "1")],
        "subtract from no list": [("retention.ms", SUBTRACT, "1")],
        "no value": [("retention.ms", SET, None)],
        "no value to append": [("cleanup.policy", APPEND, None)],
        "no such setting": [("no.such", SET, "1")],
        "no such setting, deleted": [("no.such", DELETE, None)],
        "no number": [("retention.ms", SET, "soon")],
        "below its bounds": [("retention.ms", SET, "-2")],
        "above its bounds": [("min.cleanable.dirty.ratio", SET, "1.5")],
        "no truth": [("preallocate", SET, "perhaps")],
        "none of some": [("compression.type", SET, "rar")],
        "a level": [("compression.gzip.level", SET, "6")],
        "no such level": [("compression.gzip.level", SET, "99")],
        "a list with what it cannot hold": [("cleanup.policy", SET, "delete,burn")],
        "an empty list": [("cleanup.policy", SET, "")],
        "one twice": [("retention.ms", SET, "1"), ("retention.ms", SET, "2")],
        "no such operation": [("retention.ms", 9, "1")],
        "with blanks": [("retention.ms", SET, " 90000 ")],
        "nothing": [],
    }.items():
        s.change(what, *rows)
    s.change("only checked", ("retention.ms", SET, "5"), validate_only=True)
    s.change("twice in a request", ("retention.ms", SET, "5"), times=2)
    s.change("no such log topic", ("retention.ms", SET, "5"), name=s.c.name("absent"))
    s.change("a name that none can have", ("retention.ms", SET, "5"), name="a b")
    s.change("of no kind", ("retention.ms", SET, "5"), kind=99)
    s.describe("after all this")


def replace(s: Settings) -> None:
    s.replace("all", ("retention.bytes", "1000000"))
    s.describe("replaced")
    s.replace("no value", ("retention.bytes", None))
    s.replace("no such setting", ("no.such", "1"))
    s.replace("no number", ("retention.bytes", "all"))
    s.replace("no such log topic", ("retention.bytes", "1"), name=s.c.name("absent"))
    s.replace("only checked", ("retention.bytes", "2000000"), validate_only=True)
    s.replace("by nothing")
    s.describe("by nothing at all")


def others(s: Settings) -> None:
    """Ask about what is no log topic."""
    group = s.c.name("g")
    s.describe("a group", GROUP, group)
    s.change(
        "of a group", ("consumer.session.timeout.ms", SET, "50000"), kind=GROUP, name=group
    )
    s.describe("a group that has its own", GROUP, group)
    s.change(
        "of a group, too short",
        ("consumer.session.timeout.ms", SET, "1"),
        kind=GROUP,
        name=group,
    )
    s.change("of a group, no such", ("no.such", SET, "1"), kind=GROUP, name=group)
    s.change(
        "of a group without name",
        ("consumer.session.timeout.ms", SET, "50000"),
        kind=GROUP,
        name="",
    )
    s.change(
        "of a group, deleted",
        ("consumer.session.timeout.ms", DELETE, None),
        kind=GROUP,
        name=group,
    )
    for kinds in ([TOPIC], [GROUP], [99]):
        answer = s.c.ask_aside(ApiKey.LIST_CONFIG_RESOURCES, 1, {"resource_types": kinds})
        rows = [one for one in answer["config_resources"] if s.c.is_ours(one["resource_name"])]
        s.c.keep(f"resources of {kinds}", {**answer, "config_resources": rows})
