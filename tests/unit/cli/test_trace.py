"""`isthmus trace`: times that are none, and lines for people."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from isthmus.cli.main import main
from isthmus.cli.trace import in_words


@pytest.mark.parametrize("text", ["", "m", "1w", "-1s", "1.5m", "123456s"])
def test_what_is_no_time(text: str) -> None:
    result = CliRunner().invoke(main, ["trace", "--client", "c", "--for", text])
    assert result.exit_code == 2 and "is no time such as" in result.stderr


def test_a_packet_in_words() -> None:
    line = {
        "at_ms": 0,
        "direction": "in",
        "client_id": "",
        "address": "10.0.0.1:5",
        "packet": "PUBLISH",
        "topic_name": "a/b",
        "qos": 1,
        "retain": False,
        "properties": {"content_type": "x"},
    }
    assert in_words(line) == (
        "1970-01-01T00:00:00.000Z - 10.0.0.1:5 -> PUBLISH topic_name=a/b qos=1 retain=false"
        ' properties={"content_type": "x"}'
    )
    assert in_words({"lost": 7}) == "(7 packets were not shown: this is too slow)"
