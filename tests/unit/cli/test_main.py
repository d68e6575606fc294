"""The command as a whole: its table, its exit statuses, and what it does not import."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from isthmus import __version__
from isthmus.cli.main import COMMANDS, main
from isthmus.errors import ConfigError

HEAVY = ("paho", "confluent_kafka", "rich", "starlette", "uvicorn", "asyncio")


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_help_names_every_command() -> None:
    status, text, _ = run("--help")
    assert status == 0
    for name in COMMANDS:
        assert f"  {name} " in text
        status, of_command, _ = run(name, "--help")
        assert status == 0 and "Usage:" in of_command


def test_version() -> None:
    assert run("version") == (0, f"isthmus {__version__}\n", "")
    assert run("--version")[0] == 0


def test_a_command_that_is_none() -> None:
    status, _, text = run("srve")
    assert status == 2 and "No such command 'srve'" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "show", "--set", "mqtt.listners=x"],
        ["config", "show", "--config", "/nowhere/isthmus.toml"],
        ["serve", "--mqtt", "0.0.0.0:1883"],
        ["sub", "--mqtt", "127.0.0.1", "-t", "a"],
        ["topics", "list", "--kafka", "::1:9092"],
        ["topics", "--kafka", "::1:9092"],
    ],
)
def test_a_wrong_configuration_is_one_sentence_and_status_2(arguments: list[str]) -> None:
    status, out, text = run(*arguments)
    assert status == 2 and not out
    assert text.startswith("Error: ") and text.count("\n") == 1


def test_options_of_a_command_stand_behind_it() -> None:
    status, _, text = run("topics", "--json", "describe", "t")
    assert status == 2
    assert "options go behind the command describe" in text


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def version() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isthmus.cli.settings.version", version)
    assert run("version") == (130, "", "")


def test_an_error_of_the_start_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def version() -> None:
        raise ConfigError("port 1883 is taken; choose another one with --mqtt")

    monkeypatch.setattr("isthmus.cli.settings.version", version)
    assert run("version") == (
        2,
        "",
        "Error: port 1883 is taken; choose another one with --mqtt\n",
    )


def test_nothing_heavy_is_imported_for_help() -> None:
    script = (
        "import sys\n"
        "from isthmus.cli.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        f"sys.exit(' '.join(each for each in {HEAVY!r} if each in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
