"""What becomes of mosquitto.conf, line by line, and what is said of what is lost."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from isthmus.cli.main import main
from isthmus.cli.mosquitto_acl import rules_of
from isthmus.cli.mosquitto_conf import read_lines
from isthmus.cli.mosquitto_import import Importer
from isthmus.errors import ConfigError

HASHED = "$7$101$c2FsdHNhbHRzYWx0$" + "QUJD" * 21 + "QQ=="


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files are named as they are found from here, so notes are short."""
    monkeypatch.chdir(tmp_path)
    Path("passwords").write_text(f"ann:{HASHED}\n")
    Path("acl").write_text("user ann\ntopic a/#\n")
    return tmp_path


def imported(text: str, *, has_ipv6: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that come of a configuration, and the notes, security's with !."""
    Path("m.conf").write_text(text)
    importer = Importer(read_lines(Path("m.conf")), Path("/out"), has_ipv6=has_ipv6)
    files, notes = importer.result()
    said = [f"{'!' if note.opens else ''}{note.place}: {note.line}" for note in notes]
    return tomllib.loads(files["isthmus.toml"]), said


def addresses(settings: dict[str, Any]) -> list[str]:
    return [listener["address"] for listener in settings["mqtt"]["listeners"]]


@pytest.mark.usefixtures("here")
class TestListeners:
    def test_without_any_it_is_this_machine_and_whoever_comes(self) -> None:
        settings, notes = imported("# nothing\n\n")
        assert settings["mqtt"]["listeners"] == [
            {"address": "tcp://127.0.0.1:1883", "allow_anonymous": True, "authentication": []}
        ]
        assert settings["mqtt"]["session_expiry_max_s"] == 0xFFFF_FFFF
        assert notes == []

    def test_an_address_is_where_mosquitto_listens(self) -> None:
        text = (
            "allow_anonymous true\nport 1884\nlistener 1885\nsocket_domain ipv4\n"
            "listener 1886 ::1\nlistener 0 /run/m.sock\nlistener 1887 h.example\n"
            "protocol websockets\n"
        )
        settings, notes = imported(text, has_ipv6=True)
        assert addresses(settings) == [
            *(
                "tcp://0.0.0.0:1884",
                "tcp://[::]:1884",
                "tcp://0.0.0.0:1885",
                "tcp://[::1]:1886",
            ),
            *("unix:///run/m.sock", "ws://h.example:1887"),
        ]
        assert notes == []
        assert addresses(imported("listener 1\nallow_anonymous true\n")[0]) == [
            "tcp://0.0.0.0:1"
        ]

    def test_an_option_of_a_listener_begins_the_one_that_is_not_named(self) -> None:
        """Mosquitto 2.0 does so, and lets anybody in there: seen, not guessed."""
        settings, _ = imported("max_connections 5\n")
        (listener,) = settings["mqtt"]["listeners"]
        assert (listener["address"], listener["allow_anonymous"]) == (
            "tcp://0.0.0.0:1883",
            True,
        )
        settings, _ = imported("max_qos 1\nlistener 1884 127.0.0.1\nallow_anonymous true\n")
        assert addresses(settings) == ["tcp://0.0.0.0:1883", "tcp://127.0.0.1:1884"]
        settings, _ = imported("max_topic_alias 5\nlistener 1884 ::1\nallow_anonymous true\n")
        assert addresses(settings) == ["tcp://[::1]:1884"]

    def test_what_listeners_have_since_mosquitto_2_1(self) -> None:
        settings, notes = imported(
            "listener 1883\nlistener_allow_anonymous true\nenable_proxy_protocol 1\n"
            "maximum_qos 1\nmax_topic_alias_broker 3\nwebsockets_origin https://a.example\n"
            "listener 9001\nprotocol websockets\nlistener_allow_anonymous true\n"
            "websockets_origin https://a.example\nwebsockets_origin https://b.example\n"
            "accept_protocol_versions 5\n"
        )
        plain, web = settings["mqtt"]["listeners"]
        del plain["address"], web["address"]
        assert plain == {
            "allow_anonymous": True,
            "authentication": [],
            "proxy_protocol": True,
            "maximum_qos": 1,
            "topic_alias_out_max": 3,
        }
        assert web["origins"] == ["https://a.example", "https://b.example"]
        assert notes == ["m.conf:12: accept_protocol_versions 5"]

    def test_a_socket_may_be_named_as_it_is_found_from_here(self) -> None:
        settings, _ = imported("listener 0 m.sock\nallow_anonymous true\n")
        assert addresses(settings) == ["unix://m.sock"]

    def test_nobody_comes_in_where_nobody_could(self) -> None:
        settings, notes = imported("listener 1883\n")
        assert settings["mqtt"]["listeners"][0]["allow_anonymous"] is False
        assert settings["mqtt"]["listeners"][0]["authentication"] == ["users"]
        assert notes == ["m.conf:1: listener 1883"]

    def test_tls_with_certificates_of_clients(self) -> None:
        settings, notes = imported(
            "listener 8883\ncertfile s.pem\nkeyfile s.key\ncafile ca.pem\ncrlfile crl.pem\n"
            "require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\n"
            "listener 8884\ncertfile s.pem\nkeyfile s.key\ncafile ca.pem\n"
            "password_file passwords\nciphers HIGH\n"
        )
        first, second = settings["mqtt"]["listeners"]
        assert first["address"] == "tls://0.0.0.0:8883"
        assert first["authentication"] == ["certificate"]
        assert first["tls"] == {
            "certificate": "s.pem",
            "key": "s.key",
            "client_ca": "ca.pem",
            "client_certificates": "required",
            "crl": "crl.pem",
            "user_from": "cn",
            "tls_min": "1.3",
        }
        assert second["authentication"] == ["users"]
        assert second["tls"] == {
            "certificate": "s.pem",
            "key": "s.key",
            "chain": "ca.pem",
            "ciphers": "HIGH",
        }
        assert notes == []

    def test_keys_of_clients(self) -> None:
        settings, _ = imported(
            "listener 8883\npsk_hint h\npsk_file keys\nuse_identity_as_username true\n"
        )
        assert settings["mqtt"]["listeners"][0]["tls"] == {"psk_file": "keys"}
        assert settings["mqtt"]["listeners"][0]["authentication"] == ["certificate"]

    @pytest.mark.parametrize(
        "lines",
        [
            "mount_point a/",
            "bind_interface eth0",
            "use_username_as_clientid true",
            "certfile c\nkeyfile k\ncapath /ca\nrequire_certificate true",
            "certfile c\nkeyfile k\ncafile f\nuse_identity_as_username true",
            "require_certificate true",
            "psk_hint h",
            "protocol http_api",
            "socket_domain unix",
            "enable_proxy_protocol 2\nproxy_protocol_v2_require_tls true",
            "enable_proxy_protocol 2\nuse_identity_as_username true",
        ],
    )
    def test_what_cannot_be_closed_as_it_was_is_not_opened(self, lines: str) -> None:
        text = f"allow_anonymous true\nlistener 1 127.0.0.1\nlistener 2\n{lines}\n"
        settings, notes = imported(text)
        assert addresses(settings) == ["tcp://127.0.0.1:1"]
        assert "!m.conf:3: listener 2" in notes


@pytest.mark.usefixtures("here")
class TestOptions:
    def test_limits_become_ours(self) -> None:
        settings, notes = imported(
            "max_inflight_messages 0\nmax_queued_messages 0\nmax_packet_size 100\n"
            "max_keepalive 60\npersistent_client_expiration 2w\nretain_available false\n"
            "listener 1\nallow_anonymous true\n"
            "max_connections -1\nmax_qos 1\nmax_topic_alias 5\n"
        )
        (listener,) = settings["mqtt"].pop("listeners")
        assert settings["mqtt"] == {
            "inflight_max": 65_535,
            "receive_maximum": 65_535,
            "queue_length_max": 1_000_000_000,
            "packet_size_max": 1024,
            "keep_alive_max_s": 60,
            "session_expiry_max_s": 14 * 86_400,
            "retain_available": False,
        }
        assert listener["connections_max"] == 1_000_000_000
        assert (listener["maximum_qos"], listener["topic_alias_max"]) == (1, 5)
        assert notes == []

    def test_each_line_without_an_equivalent_is_named(self) -> None:
        text = (
            "user mosquitto\nlog_dest file /m.log\nlog_dest stderr\npersistence true\n"
            "persistence_location /var/\nqueue_qos0_messages true\nupgrade_outgoing_qos false\n"
            "max_queued_bytes 5\nmemory_limit 0\nclientid_prefixes x-\nno_such_option 1\n"
        )
        _, notes = imported(text)
        assert notes == [
            "m.conf:1: user mosquitto",
            "m.conf:2: log_dest file /m.log",
            "m.conf:5: persistence_location /var/",
            "m.conf:6: queue_qos0_messages true",
            "m.conf:8: max_queued_bytes 5",
            "!m.conf:10: clientid_prefixes x-",
            "!m.conf:11: no_such_option 1",
        ]

    def test_a_plugin_knew_who_may_do_what_so_nobody_may(self) -> None:
        settings, notes = imported("listener 1\nauth_plugin /p.so\nauth_opt_db x\n")
        assert settings["access"] == {"default": "deny"}
        assert settings["mqtt"]["listeners"][0]["authentication"] == ["users"]
        assert notes == ["!m.conf:2: auth_plugin /p.so", "!m.conf:3: auth_opt_db …"]

    def test_a_bridge_is_named_line_by_line(self) -> None:
        text = "connection up\naddress h:1883\ntopic # out\nremote_password x\nbridge_psk 0a\n"
        _, notes = imported(f"{text}listener 1\n")
        assert notes[:5] == [
            "m.conf:1: connection up",
            "m.conf:2: address h:1883",
            "m.conf:3: topic # out",
            "m.conf:4: remote_password …",
            "m.conf:5: bridge_psk …",
        ]

    @pytest.mark.parametrize(
        "line",
        [
            "max_inflight_messages x",
            "retain_available perhaps",
            "persistent_client_expiration 3",
            "password_file none",
            "acl_file none",
            "include_dir none",
        ],
    )
    def test_what_mosquitto_refuses_is_one_sentence(self, line: str) -> None:
        with pytest.raises((ConfigError, ValueError)):
            imported(f"{line}\n")

    def test_files_of_a_directory_stand_where_they_are_included(self) -> None:
        Path("d").mkdir()
        Path("d/b.conf").write_text("max_keepalive 2\n")
        Path("d/B.conf").write_text("max_keepalive 1\nmax_qos 7\n")
        Path("d/c.txt").write_text("max_keepalive 3\n")
        settings, _ = imported("include_dir d\n")
        assert settings["mqtt"]["keep_alive_max_s"] == 2


@pytest.mark.usefixtures("here")
class TestWhoMayDoWhat:
    def test_users_and_rules_are_files_beside_the_settings(self) -> None:
        settings, notes = imported("listener 1\npassword_file passwords\nacl_file acl\n")
        assert settings["authentication"] == {"users_file": "/out/users"}
        assert settings["access"] == {"rules_file": "/out/rules"}
        assert notes == []

    def test_a_listener_without_acl_file_lets_everybody_do_everything(self) -> None:
        text = (
            "per_listener_settings true\nlistener 1 127.0.0.1\nallow_anonymous true\n"
            "listener 2\npassword_file passwords\nacl_file acl\n"
        )
        Path("m.conf").write_text(text)
        importer = Importer(read_lines(Path("m.conf")), Path("/out"), has_ipv6=False)
        files, notes = importer.result()
        assert not notes
        first, second = tomllib.loads(files["isthmus.toml"])["mqtt"]["listeners"]
        assert (first["authentication"], second["authentication"]) == ([], ["users"])
        assert "name" not in second
        assert files["rules"].splitlines()[1:] == [
            "allow user:ann publish,subscribe a/#",
            f"allow listener:{first['name']} publish,subscribe #",
            f"allow listener:{first['name']} subscribe $SYS/#",
        ]

    def test_of_two_acl_files_the_second_closes_its_listener(self) -> None:
        Path("other").write_text("topic b\n")
        settings, notes = imported(
            "per_listener_settings true\n"
            "listener 1\nallow_anonymous true\nacl_file acl\n"
            "listener 2\nallow_anonymous true\nacl_file other\n"
        )
        assert addresses(settings) == ["tcp://0.0.0.0:1"]
        assert notes == ["!m.conf:7: acl_file other", "!m.conf:5: listener 2"]

    def test_a_password_that_is_none_is_named_without_it(self) -> None:
        Path("passwords").write_text(f"# users\nann:{HASHED}\nbob:secret\n")
        Path("m.conf").write_text("listener 1\npassword_file passwords\n")
        files, notes = Importer(
            read_lines(Path("m.conf")), Path("/out"), has_ipv6=False
        ).result()
        assert files["users"] == f"ann:{HASHED}\n"
        assert [(note.place, note.line, note.opens) for note in notes] == [
            ("passwords:3", "bob", False)
        ]
        assert "secret" not in str(notes[0])


@pytest.mark.usefixtures("here")
class TestPlugins:
    """Those of Mosquitto's own that are options of Isthmus."""

    def test_files_of_users_and_rules(self) -> None:
        settings, notes = imported(
            "plugin /usr/lib/mosquitto_password_file.so\nplugin_opt_password_file passwords\n"
            "plugin /usr/lib/mosquitto_acl_file.so\nplugin_opt_acl_file acl\n"
            "listener 1883 127.0.0.1\n"
        )
        assert settings["mqtt"]["listeners"][0]["authentication"] == ["users"]
        assert settings["authentication"]["users_file"] == "/out/users"
        assert settings["access"]["rules_file"] == "/out/rules"
        assert notes == []

    def test_one_that_is_loaded_counts_where_it_is_used(self) -> None:
        settings, notes = imported(
            "per_listener_settings true\n"
            "plugin_load files mosquitto_password_file.so\nplugin_opt_password_file passwords\n"
            "listener 1883\nallow_anonymous true\nlistener 1884\nplugin_use files\n"
        )
        ways = [each["authentication"] for each in settings["mqtt"]["listeners"]]
        assert ways == [[], ["users"]]
        assert notes == []

    def test_what_is_kept_and_sparkplug(self) -> None:
        settings, notes = imported(
            "plugin mosquitto_persist_sqlite.so\nplugin_opt_db_file m.db\n"
            "global_plugin mosquitto_sparkplug_aware.so\n"
        )
        assert settings["mqtt"]["sparkplug"] is True
        assert "access" not in settings
        assert notes == []

    def test_all_others_are_lost(self) -> None:
        settings, notes = imported(
            "plugin mosquitto_persist_sqlite.so\nplugin mosquitto_dynamic_security.so\n"
            "plugin_opt_config_file d.json\nlistener 1883\n"
            "plugin_load x other.so\nplugin_use x\n"
        )
        assert notes == [
            "!m.conf:2: plugin mosquitto_dynamic_security.so",
            "!m.conf:3: plugin_opt_config_file d.json",
            "!m.conf:5: plugin_load x other.so",
            "!m.conf:6: plugin_use x",
            "!m.conf:4: listener 1883",
        ]
        assert settings["access"]["default"] == "deny"


def test_an_acl_file_as_rules() -> None:
    lines = [
        *("# guests", "topic read hall/#", "", "user line 1", "topic a", "topic write b b"),
        *("topic deny 100%", "pattern readwrite own/%u/%c/#", "pattern read 5%"),
    ]
    rules, notes = rules_of(lines, "acl")
    assert rules == [
        "allow anonymous subscribe hall/#",
        'allow "user:line 1" publish,subscribe a',
        'allow "user:line 1" publish "b b"',
        'deny "user:line 1" publish,subscribe 100%%',
        "allow all publish,subscribe own/%u/%c/#",
        "allow all subscribe 5%%",
        "deny all subscribe $SYS/#",
    ]
    assert not notes
    assert rules_of(["user a", "topic read $SYS/#"], "acl")[0] == [
        "allow user:a subscribe $SYS/#"
    ]


@pytest.mark.parametrize(
    "line", ["topic", "topic all a", "subject a", "topic read a/#/b", "user", "pattern # x"]
)
def test_a_line_that_is_none_of_an_acl_file_is_named(line: str) -> None:
    rules, (note,) = rules_of(["topic a", line], "acl")
    assert (note.place, note.opens, len(rules)) == ("acl:2", True, 2)


def test_a_star_in_a_name_would_be_anybody() -> None:
    rules, (note,) = rules_of(["user a*", "topic a"], "acl")
    assert rules == ["deny all subscribe $SYS/#"]
    assert (note.place, note.opens) == ("acl:2", True)


def test_a_deny_for_all_wins_here_and_is_named_where_that_matters() -> None:
    lines = ["user a", "topic read x/+", "pattern deny x/%u", "pattern deny y/%u"]
    _, (note,) = rules_of(lines, "acl")
    assert (note.place, note.opens) == ("acl:3", False)
    assert "acl:2" in note.why


@pytest.mark.usefixtures("here")
def test_the_command_writes_files_and_says_what_is_lost() -> None:
    Path("m.conf").write_text(
        "listener 1\npassword_file passwords\nacl_file acl\npid_file /p\n"
    )
    ended = CliRunner().invoke(main, ["config", "import", "m.conf", "--out", "ours"])
    assert ended.exit_code == 0, ended.output
    assert "m.conf:4: pid_file /p\n" in ended.output
    assert Path("ours/users").stat().st_mode & 0o777 == 0o600
    shown = CliRunner().invoke(main, ["config", "show", "--config", "ours/isthmus.toml"])
    assert shown.exit_code == 0, shown.output
    listed = CliRunner().invoke(main, ["acls", "list", "--config", "ours/isthmus.toml"])
    assert "allow user:ann publish,subscribe a/#\n" in listed.output
    again = CliRunner().invoke(main, ["config", "import", "m.conf", "--out", "ours"])
    assert again.exit_code == 2 and "already" in again.stderr


@pytest.mark.usefixtures("here")
def test_the_command_fails_where_something_would_be_open() -> None:
    Path("m.conf").write_text("listener 1\nallow_anonymous true\nclientid_prefixes x-\n")
    ended = CliRunner().invoke(main, ["config", "import", "m.conf", "--out", "ours"])
    assert ended.exit_code == 1
    assert "SECURITY" in ended.output
