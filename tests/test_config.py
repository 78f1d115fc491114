"""Settings are read as people write them, and everything that is wrong with them is said at once."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import endpoints as twisted_endpoints

from foreman.config import listen_address, parsers, target_address
from foreman.config.settings import SETTINGS, Config, Setting, load, warnings
from foreman.config.target_address import TargetAddress
from foreman.errors import ConfigError

ROOT = Path(__file__).parents[1]


def problems(environ: dict[str, str], options: dict[str, str | None] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(environ, options)
    return caught.value.problems


def test_without_any_setting_foreman_serves_the_local_ollama_to_this_machine() -> None:
    config = load({"HOME": "/home/alice"})
    assert config == Config(db_path=Path("/home/alice/.local/state/foreman/foreman.db"))
    assert config.listen == "tcp:8080:interface=127.0.0.1"
    assert config.target == TargetAddress("http", "127.0.0.1", 11434)
    assert (config.poll_interval, config.silence_timeout, config.turns) == (30.0, 600.0, 1)
    assert config.auth_token is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("LISTEN", "[::1]:9000", r"tcp6:9000:interface=\:\:1"),
        ("ALLOW_OPEN", "yes", True),
        ("ALLOWED_HOSTS", "Box.lan, nas", ("box.lan", "nas")),
        ("ORIGINS", "https://chat.example.com,app://*", ("https://chat.example.com", "app://*")),
        ("POLL_INTERVAL", "5m", 300.0),
        ("EMBEDDER_MODEL", "nomic-embed-text", "nomic-embed-text"),
        ("TURNS", "2", 2),
        ("EMBED_CAP", "16", 16),
        ("MAX_QUEUE", "10", 10),
        ("TARGET_WAIT", "2m", 120.0),
        ("CONNECT_TIMEOUT", "250ms", 0.25),
        ("SILENCE_TIMEOUT", "1h30m", 5400.0),
        ("STALL_TIMEOUT", "1.5", 1.5),
        ("BUFFER", "64k", 65536),
        ("BUFFER_TOTAL", "1 GiB", 2**30),
        ("MAX_BODY", "1MB", 10**6),
        ("BODY_BUDGET", "3GiB", 3 * 2**30),
        ("HEAD_TIMEOUT", "10s", 10.0),
        ("BODY_TIMEOUT", "2m", 120.0),
        ("IDLE_TIMEOUT", "1d", 86400.0),
        ("MAX_CONNECTIONS", "100", 100),
        ("DRAIN_TIMEOUT", "0", 0.0),
        ("LOG_FORMAT", "json", "json"),
    ],
)
def test_each_setting_comes_from_its_variable_or_its_option_and_the_option_wins(
    name: str, text: str, value: object
) -> None:
    attribute = name.lower()
    assert getattr(load({f"FOREMAN_{name}": text}), attribute) == value
    dashed = attribute.replace("_", "-")
    assert getattr(load({f"FOREMAN_{name}": "nonsense:::"}, {dashed: text}), attribute) == value
    assert getattr(load({}, {attribute: text}), attribute) == value


def test_every_setting_has_a_field_a_default_that_reads_and_a_help() -> None:
    for setting in SETTINGS:
        assert getattr(Config(), setting.attribute) == setting.parse(setting.default)
        assert setting.help
        assert setting.secret == (not setting.option)


def test_what_is_empty_counts_as_not_given() -> None:
    nothing = {setting.variable: " " for setting in SETTINGS}
    assert load(nothing, {"poll-interval": None, "turns": ""}) == load({})


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/alice"}, "/state/foreman/foreman.db"),
        ({"XDG_STATE_HOME": "not/absolute", "HOME": "/home/alice"}, "/home/alice/.local/state/foreman/foreman.db"),
        ({"STATE_DIRECTORY": "/var/lib/foreman:/var/lib/other", "HOME": "/"}, "/var/lib/foreman/foreman.db"),
        ({"FOREMAN_DB_PATH": "/data/jobs.db", "XDG_STATE_HOME": "/state"}, "/data/jobs.db"),
    ],
)
def test_jobs_are_kept_in_the_state_folder_unless_another_place_is_named(environ: dict[str, str], path: str) -> None:
    assert load(environ).db_path == Path(path)


def test_all_problems_are_reported_at_once_each_by_the_name_of_its_variable() -> None:
    found = problems(
        {
            "FOREMAN_LISTEN": "nowhere",
            "FOREMAN_TARGET_URL": "ftp://box",
            "FOREMAN_TURNS": "0",
            "FOREMAN_MAX_QUEUE": "many",
            "FOREMAN_BUFFER": "9x",
            "FOREMAN_ALLOW_OPEN": "perhaps",
            "FOREMAN_LOG_FORMAT": "xml",
            "FOREMAN_ORIGINS": "example.com",
            "FOREMAN_ALLOWED_HOSTS": "a/b",
            "FOREMAN_POL_INTERVAL": "3s",
        },
        {"poll-interval": "soon", "head-timeout": "0"},
    )
    assert [problem.split(":")[0] for problem in found] == [
        "FOREMAN_LISTEN",
        "FOREMAN_TARGET_URL",
        "FOREMAN_ALLOW_OPEN",
        "FOREMAN_ALLOWED_HOSTS",
        "FOREMAN_ORIGINS",
        "FOREMAN_POLL_INTERVAL (--poll-interval)",
        "FOREMAN_TURNS",
        "FOREMAN_MAX_QUEUE",
        "FOREMAN_BUFFER",
        "FOREMAN_HEAD_TIMEOUT (--head-timeout)",
        "FOREMAN_LOG_FORMAT",
        "FOREMAN_POL_INTERVAL",
    ]
    assert "did you mean FOREMAN_POLL_INTERVAL?" in found[-1]
    assert "did you mean" not in problems({"FOREMAN_X": "1"})[0]


# -- who may connect


@pytest.mark.parametrize(
    "listen",
    [
        "127.0.0.1:8080",
        "localhost:8080",
        "[::1]:8080",
        "127.1.2.3:80",
        "unix:/run/foreman.sock",
        "haproxy:tcp:8080:interface=127.0.0.1",
        "ssl:8443:interface=127.0.0.1:privateKey=key.pem",
        "tcp:8080:127.0.0.1",
        "tcp:port=8080:interface=127.0.0.1",
        "TCP:8080:interface=127.0.0.1",
        r"tcp6:8080:interface=\:\:ffff\:127.0.0.1",
        r"tcp:8080:interface=127.0.\0.1",
        "tls:/etc/keys:8443:interface=127.0.0.1",
    ],
)
def test_a_listener_on_this_machine_needs_no_token(listen: str) -> None:
    load({"FOREMAN_LISTEN": listen})


@pytest.mark.parametrize(
    "listen",
    [
        r"tcp6:8080:interface=\:\:ffff\:0.0.0.0",
        r"tcp6:8080",
        "tcp:8080:192.168.1.5",
        "tcp:port=8080",
        "tcp:8080:interface=0",
        "tcp:8080:interface=",
        "tcp:8080:interface=127.1",
        r"tcp6:8080:interface=\:\:1%lo",
        "tls:/etc/keys:8443",
        "ssl:8443:key.pem",
        "haproxy:tcp:8080",
        "onion:80:interface=127.0.0.1",
        "fd:3:interface=127.0.0.1",
        ":8080",
        "0.0.0.0:8080",
        "192.168.1.5:8080",
        "[::]:8080",
        "box.lan:80",
        "tcp:8080",
        "systemd:domain=INET:index=0",
    ],
)
def test_a_listener_for_others_needs_a_token_or_leave_to_be_open_and_both_cures_are_named(
    listen: str, tmp_path: Path
) -> None:
    (problem,) = problems({"FOREMAN_LISTEN": listen})
    assert problem.startswith("FOREMAN_LISTEN:")
    assert "FOREMAN_AUTH_TOKEN" in problem
    assert "FOREMAN_ALLOW_OPEN=1" in problem
    load({"FOREMAN_LISTEN": listen, "FOREMAN_ALLOW_OPEN": "1"})
    for token in ("FOREMAN_AUTH_TOKEN", "FOREMAN_ADMIN_TOKEN"):
        load({"FOREMAN_LISTEN": listen, token: "correct-horse-battery"})


@pytest.mark.parametrize(
    ("text", "description"),
    [
        (":8080", "tcp:8080"),
        ("*:8080", "tcp:8080"),
        ("0.0.0.0:8080", "tcp:8080:interface=0.0.0.0"),
        ("[::1]:8080", r"tcp6:8080:interface=\:\:1"),
        ("localhost:0", "tcp:0:interface=127.0.0.1"),
        ("box.lan:80", "tcp:80:interface=box.lan"),
        ("tcp:8080", "tcp:8080"),
        (r"tcp6:8080:interface=\:\:1", r"tcp6:8080:interface=\:\:1"),
        ("unix:/run/foreman.sock:mode=600", "unix:/run/foreman.sock:mode=600"),
    ],
)
def test_host_and_port_become_an_endpoint_description_and_a_description_stays(text: str, description: str) -> None:
    assert listen_address.endpoint_description(text) == description


TWICE = ["tcp:8080:interface=127.0.0.1:interface=0.0.0.0", "tcp:8080:127.0.0.1:interface=0.0.0.0", "tcp:8080:port=9090"]


@pytest.mark.parametrize("text", TWICE + [f"haproxy:{text}" for text in TWICE[:1]] + ["x:a=1:a=2"])
def test_a_field_that_stands_twice_is_refused_since_twisted_takes_the_last(text: str) -> None:
    (problem,) = problems({"FOREMAN_LISTEN": text})
    assert "twice" in problem


@given(
    st.sampled_from(["tcp", "tcp6", "ssl", "tls", "unix", "haproxy", "haproxy:tcp", "TCP", "onion", "t\\cp"]),
    st.lists(
        st.sampled_from([
            "8080", "0", "99999", "127.0.0.1", "0.0.0.0", "interface=127.0.0.1", "interface=0.0.0.0", "interface=", "50",
            r"interface=\:\:1", r"interface=\:\:", "port=1", "backlog=5", "interface\\=127.0.0.1", "x=y", "", "a=b=c",
            "interface =127.0.0.1", "\\",
        ]),
        max_size=4,
    ),
)  # fmt: skip
def test_an_endpoint_is_read_as_twisted_reads_it(kind: str, parts: list[str]) -> None:
    try:
        description = listen_address.endpoint_description(":".join([kind, *parts]))
    except ValueError:
        return
    first, *args = twisted_endpoints._parse(description)[0]
    named = twisted_endpoints._parse(description)[1]
    if not listen_address.is_private(description) or first in ("unix", "haproxy"):
        return
    interface = named.get("interface")
    if interface is None:
        interface = args[{"tcp": 1, "tcp6": 2, "ssl": 4, "tls": 3}[first]]
    assert ipaddress.ip_address(interface).is_loopback


@pytest.mark.parametrize(
    "text",
    ["8080", "localhost", ":99999", "[zz]:80", "a b:80", "tcp:", "tcp:x:interface=127.0.0.1", "tcp:8080\\", "unix:"],
)
def test_what_cannot_be_listened_on_is_refused(text: str) -> None:
    assert problems({"FOREMAN_LISTEN": text})[0].startswith("FOREMAN_LISTEN:")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://127.0.0.1:43083", "is a URL; write only host:port"),
        ("https://box", "is a URL; write only host:port"),
        ("127.0.0.1:80a", "is neither host:port with a number as its port"),
        ("localhost:80a", "is neither host:port with a number as its port"),
        ("box.lan:", "is neither host:port with a number as its port"),
        ("haproxy:127.0.0.1:80a", "is neither host:port with a number as its port"),
        ("box:80a", "is neither host:port nor an endpoint of Twisted's own"),
    ],
)
def test_a_mistake_in_an_address_is_not_taken_for_a_port_that_others_reach(text: str, words: str) -> None:
    (problem,) = problems({"FOREMAN_LISTEN": text})
    assert words in problem
    assert "can be reached from other machines" not in problem


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("[::]:8080", "http://[::1]:8080"),
        ("box.lan:80", "http://box.lan:80"),
        ("127.0.0.1:0", None),
        ("unix:/run/foreman.sock", None),
    ],
)
def test_where_a_client_on_this_machine_finds_foreman(listen: str, url: str | None) -> None:
    assert listen_address.url_of(listen_address.endpoint_description(listen)) == url


@pytest.mark.parametrize(
    ("listen", "target"),
    [
        ("127.0.0.1:11434", ""),
        ("127.0.0.1:11434", "http://localhost:11434"),
        ("127.0.0.1:11434", "localhost"),
        ("127.0.0.1:11434", "0.0.0.0"),
        ("127.0.0.1:11434", "https://127.0.0.1:11434/behind/a/proxy"),
        ("localhost:11434", "127.0.0.1"),
        (":11434", ""),
        ("0.0.0.0:11434", "127.0.0.5"),
        ("0.0.0.0:11434", "http://LOCALHOST:11434"),
        ("[::1]:11434", "[::1]"),
        ("[::1]:11434", "[::]"),
        ("[::]:11434", "::1"),
        ("[::]:11434", "127.0.0.1"),
        ("[::]:11434", "[::ffff:127.0.0.1]:11434"),
        ("tcp:11434", ""),
        ("tcp:port=11434:interface=127.0.0.1", ""),
        ("tcp:interface=127.0.0.1:port=11434", ""),
        ("ssl:11434:interface=127.0.0.1:privateKey=k.pem", "https://localhost:11434"),
        ("haproxy:tcp:11434:interface=127.0.0.1", ""),
        ("0.0.0.0:80", "http://127.0.0.1"),
    ],
)
def test_foreman_is_not_started_in_front_of_itself(listen: str, target: str) -> None:
    given = {"FOREMAN_LISTEN": listen, "FOREMAN_TARGET_URL": target, "FOREMAN_ALLOW_OPEN": "1"}
    (problem,) = problems(given)
    assert problem.startswith("FOREMAN_TARGET_URL: http")
    assert "where foreman itself listens" in problem


@pytest.mark.parametrize(
    ("listen", "target"),
    [
        ("127.0.0.1:8080", ""),
        ("127.0.0.1:11434", "127.0.0.2"),
        ("127.0.0.1:11434", "http://127.0.0.1:11435"),
        ("127.0.0.1:11434", "192.0.2.7"),
        ("0.0.0.0:11434", "192.0.2.7"),
        ("[::]:11434", "[2001:db8::7]"),
        ("0.0.0.0:11434", "no-such-host.invalid"),
        ("[::1]:11434", "127.0.0.1"),
        ("unix:/run/foreman.sock", ""),
        ("systemd:domain=INET:index=0", ""),
        ("127.0.0.1:0", "http://127.0.0.1:0"),
    ],
)
def test_foreman_is_started_in_front_of_somebody_else(listen: str, target: str) -> None:
    load({"FOREMAN_LISTEN": listen, "FOREMAN_TARGET_URL": target, "FOREMAN_ALLOW_OPEN": "1"})


def test_an_address_of_this_machine_is_known_where_foreman_listens_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen_address, "_is_of_this_machine", lambda address: str(address) == "192.0.2.7")
    target = target_address.parse_target("http://192.0.2.7:8080")
    assert listen_address.would_loop("tcp:8080", target)
    assert listen_address.would_loop("tcp6:8080:interface=\\:\\:", target)
    assert not listen_address.would_loop("tcp:8080:interface=127.0.0.1", target)
    assert not listen_address.would_loop("tcp:8080", target_address.parse_target("http://192.0.2.8:8080"))


# -- secrets


def test_a_secret_can_stand_in_a_file_and_never_shows(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("correct-horse-battery\n")
    config = load({"FOREMAN_AUTH_TOKEN_FILE": str(file), "FOREMAN_TARGET_TOKEN": "for-the-target"})
    assert (config.auth_token, config.target_token) == ("correct-horse-battery", "for-the-target")
    assert "correct-horse" not in repr(config)
    assert "for-the-target" not in repr(config)
    assert "admin_token=None" in repr(config)


def test_a_secret_is_not_an_option() -> None:
    secrets = {"target-token", "auth-token", "admin-token"}
    assert not secrets & {setting.option for setting in SETTINGS}


def test_a_problem_with_a_secret_does_not_show_it() -> None:
    assert "secret" not in str(problems({"FOREMAN_AUTH_TOKEN": "secret\tsecret"}))


@pytest.mark.parametrize("bad", ["two words", "line\nbreak", "tab\there", "n\u00fcll", "\x7fdel"])
def test_a_token_that_no_header_can_carry_is_refused(bad: str) -> None:
    for name in ("FOREMAN_AUTH_TOKEN", "FOREMAN_ADMIN_TOKEN", "FOREMAN_TARGET_TOKEN"):
        assert problems({name: bad})[0].startswith(f"{name}:")


def test_a_file_that_is_missing_empty_or_not_text_is_a_problem_and_so_is_a_secret_given_twice(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing", "empty", "binary"):
        (problem,) = problems({"FOREMAN_AUTH_TOKEN_FILE": str(tmp_path / name)})
        assert problem.startswith("FOREMAN_AUTH_TOKEN:")
        assert name in problem
    (problem,) = problems({"FOREMAN_AUTH_TOKEN_FILE": str(tmp_path / "empty"), "FOREMAN_AUTH_TOKEN": "x"})
    assert "FOREMAN_AUTH_TOKEN_FILE" in problem


@pytest.mark.parametrize("variable", ["FOREMAN_AUTH_TOKEN_FILE", "FOREMAN_TOKENS_FILE", "FOREMAN_DB_PATH"])
def test_a_path_that_leads_nowhere_is_a_problem_of_its_setting(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (problem,) = problems({variable: "~nobody-of-this-name/x"})
    assert problem.startswith(variable.removesuffix("_FILE") if variable.startswith("FOREMAN_AUTH") else variable)
    assert "names a home directory that is not known" in problem
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    (problem,) = problems({variable: "x"})
    assert "is a relative path, and the working directory no longer exists" in problem


def test_one_token_cannot_be_the_users_and_the_admins() -> None:
    (problem,) = problems({"FOREMAN_AUTH_TOKEN": "same-for-both", "FOREMAN_ADMIN_TOKEN": "same-for-both"})
    assert problem.startswith("FOREMAN_ADMIN_TOKEN:")


@pytest.mark.parametrize("place", ["variable", "file"])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_pair_of_quotes_around_a_secret_is_no_part_of_it(place: str, quote: str, tmp_path: Path) -> None:
    written = f" {quote}correct-horse-battery{quote} \n"
    (tmp_path / "secret").write_text(written)
    for setting in SETTINGS:
        if setting.secret:
            given_ = {
                "variable": {setting.variable: written},
                "file": {f"{setting.variable}_FILE": f'"{tmp_path}/secret"'},
            }[place]
            assert getattr(load(given_), setting.attribute) == "correct-horse-battery"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_pair_of_quotes_around_a_value_counts_in_no_setting(setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    sample = {"tokens_file": str(tmp_path / "tokens"), "embedder_model": "m", "db_path": "/data/x.db"}
    text = setting.default or sample.get(
        setting.name, "correct-horse-battery" if setting.secret else "https://a.example"
    )
    text = "a.example" if setting.name == "allowed_hosts" else text
    plain = getattr(load({setting.variable: text}), setting.attribute)
    for quote in "\"'":
        quoted = f"{quote}{text}{quote}"
        assert getattr(load({setting.variable: quoted}), setting.attribute) == plain
        if setting.option:
            assert getattr(load({}, {setting.option: quoted}), setting.attribute) == plain
        empty = {setting.variable: quote * 2}
        assert load(empty) == load({})
        (problem,) = problems({setting.variable: f"{quote}{text}"})
        assert problem.startswith(f"{setting.variable}:")
        assert "quotation mark" in problem


ODD = [
    '"', "'", "\"x'", "\0", "a\nb", "a\r\nFOREMAN_X=1", "\x1b[31m", "\u0663", "\uff11\uff10", "8\u212a", "1e400", "-0",
    "-1", "+1", "0x10", "1_0", "9" * 5000, "0." + "0" * 400 + "1", "1" + "0" * 400 + "s", "nan", "inf", "NaN", "true ",
    "~nobody-of-this-name/x", "\\", "tcp:8080\\", "%s%n", "{x}", "$(id)", "\udcff", "\ufeff1", "*", "**", "://",
    "http://", "https://*.*", "http://a/b", ",", ",,,", ":", "::", "[", "]:1", "x" * 100_000, "http://u:hunter2@h",
    "ftp://u:hunter2@h", "http://u:hunter/2@h", "u:hunter2@h", "http://h/?k=hunter2", "http://h/k/hunter2?", "0", "1ms",
    "1us",
]  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_an_odd_value_has_a_meaning_or_is_refused_in_one_sentence_that_tells_no_secret(setting: Setting) -> None:
    ways: list[tuple[str, dict[str, str], dict[str, str | None]]] = []
    for text in ODD:
        ways.append((text, {setting.variable: text}, {}))
        if setting.option:
            ways.append((text, {}, {setting.option: text}))
    for text, environ, options in ways:
        try:
            config = load({"HOME": "/home/alice", **environ}, options)
        except ConfigError as refusal:
            (problem,) = refusal.problems
            assert problem.startswith("FOREMAN_")
            assert problem.isprintable() or "\udcff" in text
            assert len(problem) < 700
            assert "hunter" not in problem or setting.name not in (
                "target_url",
                "auth_token",
                "admin_token",
                "target_token",
            )
        else:
            value = getattr(config, setting.attribute)
            assert not isinstance(value, float) or (math.isfinite(value) and value >= 0)
            if setting.attribute == "target":
                assert "hunter" not in config.target.masked_url


def test_what_waits_for_nothing_is_refused() -> None:
    for name in ("POLL_INTERVAL", "HEAD_TIMEOUT", "CONNECT_TIMEOUT"):
        assert "1ms" in problems({f"FOREMAN_{name}": "0.0000001"})[0]


def test_a_file_that_never_ends_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "endless").write_bytes(b"a" * (2**20 + 1))
    (problem,) = problems({"FOREMAN_AUTH_TOKEN_FILE": str(tmp_path / "endless")})
    assert "larger than" in problem
    os.mkfifo(tmp_path / "pipe")
    (problem,) = problems({"FOREMAN_TOKENS_FILE": str(tmp_path / "pipe")})
    assert "regular file" in problem
    (tmp_path / "binary").write_bytes(b"\xff")
    (problem,) = problems({"FOREMAN_TOKENS_FILE": str(tmp_path / "binary")})
    assert "not UTF-8 text" in problem


@pytest.mark.parametrize("name", ["FOREMAN_AUTH_TOKEN", "FOREMAN_ADMIN_TOKEN"])
def test_a_short_token_is_refused_where_others_can_try_and_warned_of_elsewhere(name: str) -> None:
    for token in ("x", "seven77", '"seven77"'):
        for listen in (":8080", "[::]:8080", "systemd:domain=INET:index=0"):
            (problem,) = problems({"FOREMAN_LISTEN": listen, name: token})
            assert problem.startswith(f"{name}: has fewer than 8 characters")
        (warning,) = warnings(load({name: token}))
        assert warning.startswith(f"{name}: has fewer than 8 characters")
    assert not list(warnings(load({"FOREMAN_LISTEN": ":8080", name: "eight888"})))


# -- what does not fit together, and what is no setting


@pytest.mark.parametrize(("part", "whole"), [("BUFFER", "BUFFER_TOTAL"), ("MAX_BODY", "BODY_BUDGET")])
def test_one_cannot_be_larger_than_all(part: str, whole: str) -> None:
    (problem,) = problems({f"FOREMAN_{part}": "2MiB", f"FOREMAN_{whole}": "1MiB"})
    assert problem.startswith(f"FOREMAN_{whole}:")


def test_a_setting_that_cannot_be_read_is_not_judged_a_second_time() -> None:
    (problem,) = problems({"FOREMAN_LISTEN": ":8080", "FOREMAN_AUTH_TOKEN": "two words"})
    assert problem.startswith("FOREMAN_AUTH_TOKEN:")


def test_variables_of_the_command_line_and_of_kubernetes_are_not_mistaken_for_settings() -> None:
    load(
        {
            "FOREMAN_URL": "http://box:8080",
            "FOREMAN_TOKEN": "x",
            "FOREMAN_SERVICE_HOST": "10.0.0.7",
            "FOREMAN_SERVICE_PORT_HTTP": "8080",
            "FOREMAN_PORT": "tcp://10.0.0.7:8080",
            "FOREMAN_PORT_8080_TCP_ADDR": "10.0.0.7",
            "FOREMANX": "somebody else's",
        }
    )
    assert problems({"FOREMAN_PORT": "9090"})[0].startswith("FOREMAN_PORT:")


# -- the target, by the rules of OLLAMA_HOST


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        ("example.com", "http://example.com:11434"),
        (":1234", "http://127.0.0.1:1234"),
        (":66000", "http://127.0.0.1:11434"),
        (":-1", "http://127.0.0.1:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("http://1.2.3.4", "http://1.2.3.4"),
        ("http://1.2.3.4:11434/", "http://1.2.3.4:11434"),
        ("https://example.com/ollama", "https://example.com/ollama"),
        ("https://example.com:8443/a/b/", "https://example.com:8443/a/b"),
        ("HTTP://box", "http://box"),
        ("ollama.com", "https://ollama.com"),
        (' "http://box:1" ', "http://box:1"),
        ("my_box:1234", "http://my_box:1234"),
    ],
)
def test_the_target_is_read_as_ollama_reads_its_host(text: str, url: str) -> None:
    assert load({"FOREMAN_TARGET_URL": text}).target.url == url


def test_the_host_header_has_the_port_unless_it_is_the_schemes_own() -> None:
    assert TargetAddress("http", "127.0.0.1", 11434).authority == b"127.0.0.1:11434"
    assert TargetAddress("http", "box", 80).authority == b"box"
    assert TargetAddress("https", "box", 443).authority == b"box"
    assert TargetAddress("https", "box", 80).authority == b"box:80"
    assert TargetAddress("http", "::1", 11434).authority == b"[::1]:11434"


@pytest.mark.parametrize(
    "text",
    [
        "ftp://box",
        "unix:///run/x",
        "http://me:secret@box",
        "http://me:se/cret@box",
        "http://box/a@b",
        "http://box/?a=1",
        "http://box/#x",
        "b\u00f6x",
        "http://a b",
    ],
)
def test_a_target_that_cannot_be_asked_is_refused(text: str) -> None:
    assert problems({"FOREMAN_TARGET_URL": text})[0].startswith("FOREMAN_TARGET_URL:")


@given(
    scheme=st.sampled_from(["http", "https"]),
    host=st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z]{2,4})?", fullmatch=True)),
    port=st.integers(0, 65535),
    path=st.from_regex(r"(/[a-z0-9._~-]{1,5}){0,3}", fullmatch=True),
)
def test_a_target_written_out_reads_back_as_itself(scheme: str, host: str, port: int, path: str) -> None:
    address = TargetAddress(scheme, host, port, path)
    assert target_address.parse_target(address.url) == address
    assert target_address.parse_target(address.url + "/") == address


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_a_problem_in_words(text: str) -> None:
    try:
        address = target_address.parse_target(text)
    except ValueError as problem:
        assert str(problem)  # noqa: PT017 - either outcome is right
        return
    assert re.fullmatch(rb"[A-Za-z0-9._-]+(:\d+)?|\[[0-9a-f:.]+\](:\d+)?", address.authority)
    assert target_address.parse_target(address.url) == address


@given(st.text(max_size=40))
def test_any_text_is_somewhere_to_listen_or_a_problem_in_words(text: str) -> None:
    try:
        description = listen_address.endpoint_description(text)
    except ValueError:
        return
    assert listen_address.is_private(description) in {True, False}
    assert ":" in description


@given(st.ip_addresses(), st.integers(0, 65535))
def test_a_listener_is_private_when_its_address_is_loopback(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    written = f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
    assert listen_address.is_private(listen_address.endpoint_description(written)) == ip.is_loopback


def test_a_credential_in_the_path_of_a_target_is_not_shown() -> None:
    address = load({"FOREMAN_TARGET_URL": "http://box:1/k/correct-horse-battery/x"}).target
    assert (address.path, address.masked_url) == ("/k/correct-horse-battery/x", "http://box:1/k/***/x")


# -- durations and sizes


@given(st.integers(0, 30), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int, millis: int) -> None:
    written = f"{hours}h{minutes}m{seconds}s{millis}ms"
    assert parsers.seconds(written) == pytest.approx(hours * 3600 + minutes * 60 + seconds + millis / 1000)


@given(st.floats(0, 10**6))
def test_a_bare_number_is_seconds(value: float) -> None:
    written = f"{value:.3f}"
    assert parsers.seconds(written) == float(written)


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1 h", "5 minutes", "1e9", "nan", "inf", "\u0663s", "9999999d", "9" * 400]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|year"):
        parsers.seconds(text)


@given(st.integers(1, 2**50))
def test_a_bare_number_is_bytes(value: int) -> None:
    assert parsers.size(str(value)) == value


@given(st.integers(1, 1000), st.sampled_from("kmgKMG"))
def test_sizes_count_by_1024_but_for_the_decimal_units(value: int, letter: str) -> None:
    power = "kmg".index(letter.lower()) + 1
    assert parsers.size(f"{value}{letter}") == parsers.size(f"{value}{letter}iB") == value * 1024**power
    assert parsers.size(f"{value}{letter}B") == value * 1000**power


@pytest.mark.parametrize("text", ["", "0", "-1", "8 bytes", "8MiBs", "0.1", "1e3", "\u0663", "2000TiB", "9" * 400])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|between"):
        parsers.size(text)


@given(st.text(max_size=12), st.sampled_from([parsers.seconds, parsers.size, parsers.count]))
def test_any_text_is_a_number_or_a_problem_in_words(text: str, parse: object) -> None:
    assert callable(parse)
    try:
        value = parse(text)
    except ValueError:
        return
    assert math.isfinite(value)
    assert value >= 0


# -- what people read


def test_the_example_environment_has_every_variable_with_its_default_and_no_other() -> None:
    written = re.findall(r"^#?(FOREMAN_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert written == [(setting.variable, setting.default) for setting in SETTINGS]


def test_the_page_of_settings_has_every_variable_with_its_default_and_no_other() -> None:
    rows = re.findall(r"^\| `(FOREMAN_\w+)` \| (.*?) \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    expected = [(setting.variable, f"`{setting.default}`" if setting.default else "–") for setting in SETTINGS]
    assert sorted(rows) == sorted(expected)


def test_a_config_is_a_value() -> None:
    assert evolve(Config(), turns=2) == Config(turns=2)
