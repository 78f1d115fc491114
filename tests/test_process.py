"""The real command: how it starts, stops, speaks of itself, and gets on without its target."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.processes import (
    ENDLESS_MODEL,
    LOOPBACK,
    SCRIPTS,
    SERVE,
    ForemanProcess,
    ask,
    chat,
    clean_environment,
    endless_chat,
    free_port,
    is_complete,
    run_foreman,
    run_process,
    run_target,
    until,
)
from support.raw_http import Response

TAC = Path(__file__).parents[1] / "foreman.tac"
TWISTD = str(SCRIPTS / "twistd")
WAYS = {
    "serve": SERVE,
    "twistd": (TWISTD, "--nodaemon", "--pidfile=", "foreman"),
    "twist": (str(SCRIPTS / "twist"), "foreman"),
    "tac": (TWISTD, "--pidfile=", "-ny", str(TAC)),
}
WELL = {"status": "ok", "degraded": False}
FAMILIES = {"/api/chat": "ollama", "/v1/chat/completions": "openai", "/v1/messages": "anthropic"}


def error_of(path: str, response: Response) -> str:
    """The text of an error that is in the shape of its route's family."""
    value = json.loads(response.body)
    match FAMILIES[path]:
        case "ollama":
            assert value.keys() == {"error"}
            return str(value["error"])
        case "openai":
            assert value["error"].keys() == {"message", "type", "param", "code"}
        case _:
            assert value["type"] == "error"
            assert value["error"].keys() == {"type", "message"}
    return str(value["error"]["message"])


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_start_serves_outlives_a_hangup_and_drains_at_a_signal(way: str, tmp_path: Path) -> None:
    with run_target(tmp_path, rate=100) as simulator, run_foreman(tmp_path, simulator.url, WAYS[way]) as daemon:
        assert "llama3.2:3b" in {model["name"] for model in daemon.get("/api/tags")["models"]}
        daemon.signal(signal.SIGHUP)
        with daemon.call("/api/chat", chat("hello", model=ENDLESS_MODEL, tokens=50, stream=True)) as running:
            running.read_until(b'"content"')
            daemon.signal(signal.SIGTERM)
            assert is_complete(running.rest())
        assert daemon.wait() == -signal.SIGTERM
        assert "Traceback" not in daemon.output()


def test_serve_in_front_of_simulate_needs_nothing_but_the_two_commands(tmp_path: Path) -> None:
    port = free_port()
    simulate = (SERVE[0], "simulate", "--listen", f"{LOOPBACK}:{port}", "--rate", "0", "--load-time", "0")
    with run_process(simulate, tmp_path) as simulator:
        until(partial(simulator.responds, port, "/"), "the simulator answers")
        with run_foreman(tmp_path, f"{LOOPBACK}:{port}") as daemon:
            answer = daemon.ask("POST", "/api/chat", chat("the first try", stream=True))
            assert is_complete(answer)
            assert b" try" in answer.body
        simulator.signal(signal.SIGTERM)
        assert simulator.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_answer_finish_and_sends_away_who_waits(
    number: signal.Signals, tmp_path: Path
) -> None:
    with run_target(tmp_path, rate=100) as simulator, run_foreman(tmp_path, simulator.url) as daemon:
        idle = socket.create_connection((LOOPBACK, daemon.port))
        with idle, daemon.call("/api/chat", chat("it runs", model=ENDLESS_MODEL, tokens=150, stream=True)) as running:
            running.read_until(b'"content"')
            waiting = [(path, daemon.call(path, chat("it waits", stream=True))) for path in FAMILIES]
            daemon.wait_for_queue(3)
            daemon.signal(number)
            for path, call in waiting:
                answer = call.rest()
                assert answer.status == 503
                assert int(answer.header("Retry-After") or 0) > 0
                assert "stopping" in error_of(path, answer)
            idle.settimeout(5)
            assert idle.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                ask(daemon.port, "GET", "/healthz")
            assert simulator.requests("it runs")[0].outcome == "open"
            assert is_complete(running.rest())
        assert daemon.wait() == -number
        assert not simulator.requests("it waits")
        assert daemon.log_lines("stopping: 1 running, 3 queued")


@pytest.mark.parametrize("drain_timeout", ["1s", "1h"], ids=["drain-time-over", "second-signal"])
def test_what_still_runs_in_the_end_is_broken_off_visibly(drain_timeout: str, tmp_path: Path) -> None:
    settings = {"drain_timeout": drain_timeout, "turns": "4"}
    with (
        run_target(tmp_path, rate=100, parallel=4) as simulator,
        run_foreman(tmp_path, simulator.url, **settings) as daemon,
    ):
        streams = {path: daemon.call(path, endless_chat("for ever")) for path in FAMILIES}
        for stream in streams.values():
            stream.read_until(b"each")
        unstreamed = daemon.call("/api/chat", endless_chat("for ever") | {"stream": False})
        until(lambda: simulator.running() == 4, "all are being answered")
        daemon.signal(signal.SIGTERM)
        hurried = drain_timeout == "1h"
        if hurried:
            daemon.log_lines("stopping: 4 running")
            daemon.signal(signal.SIGTERM)
        for stream in streams.values():
            answer = stream.rest()
            assert not is_complete(answer)
            last = answer.body.rstrip().splitlines()[-1].removeprefix(b"data: ")
            assert (hurried and answer.torn) or "error" in json.loads(last)
        assert unstreamed.rest().status in ((0, 503) if hurried else (503,))
        assert daemon.wait() == -signal.SIGTERM
        until(lambda: all(each.ended_at for each in simulator.requests("for ever")), "the target sees all leave")


def test_a_port_that_is_taken_ends_the_start_with_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with run_process(SERVE, tmp_path, {"listen": f"{LOOPBACK}:{port}"}) as child:
            assert child.wait() not in (0, -signal.SIGTERM)
            (line,) = [line for line in child.output().splitlines() if "info]" not in line]
            assert line.startswith("foreman cannot listen on")
            assert str(port) in line
            assert "in use" in line


def test_settings_that_cannot_be_used_are_all_named_and_no_secret_is_shown(tmp_path: Path) -> None:
    wrong = {
        "turns": "none",
        "poll_interval": "soon",
        "target_url": "gopher://box",
        "auth_token": "se cr et",
        "bufer": "1",
    }
    with run_process(SERVE, tmp_path, wrong) as child:
        assert child.wait() == 2
        lines = child.output().splitlines()
    assert len(lines) == len(wrong)
    for name in wrong:
        assert [line for line in lines if f"FOREMAN_{name.upper()}:" in line]
    assert "se cr et" not in "".join(lines)


def test_without_a_token_nobody_beyond_this_machine_is_served_unless_that_is_wanted(tmp_path: Path) -> None:
    settings = {"listen": f"0.0.0.0:{free_port()}"}
    with run_process(SERVE, tmp_path, settings) as child:
        assert child.wait() == 2
        assert "FOREMAN_AUTH_TOKEN" in child.output()
        assert "FOREMAN_ALLOW_OPEN=1" in child.output()
    for cure in ({"auth_token": "a-long-enough-token"}, {"allow_open": "1"}):
        port = free_port()
        with run_process(SERVE, tmp_path, {"listen": f"0.0.0.0:{port}", **cure}) as child:
            until(partial(child.responds, port, "/healthz"), f"foreman serves with {cure}")


def test_a_target_that_is_not_there_yet_is_told_and_its_coming_is_noticed(tmp_path: Path) -> None:
    settings = {"poll_interval": "1s", "embedder_model": "nomic-embed-text"}
    with run_target(tmp_path, running=False) as simulator, run_foreman(tmp_path, simulator.url, **settings) as daemon:

        def warmed(times: int) -> bool:
            asked = [json.loads(each.body or "{}") for each in simulator.requests("/api/embed")]
            return asked == [{"model": "nomic-embed-text", "keep_alive": -1}] * times

        until(lambda: daemon.get("/healthz")["degraded"], "foreman sees that nobody is there")
        health = daemon.ask("GET", "/healthz")
        assert health.status == 200
        value = json.loads(health.body)
        assert value["since"].endswith("Z")
        assert value == {"status": "ok", "degraded": True, "reason": "refused", "since": value["since"]}
        for path in ("/api/tags", "/api/ps"):
            answer = daemon.ask("GET", path)
            assert answer.status == 503
            assert "models" not in json.loads(answer.body)
            assert int(answer.header("Retry-After") or 0) > 0
        for times in (1, 2):
            simulator.start()
            until(lambda: daemon.get("/healthz") == WELL, "the target is back")
            assert len(daemon.get("/api/tags")["models"]) > 10
            until(partial(warmed, times), "the embedding model is loaded to stay")
            assert "nomic-embed-text:latest" in {
                model["name"] for model in json.loads(ask(simulator.port, "GET", "/api/ps").body)["models"]
            }
            simulator.kill()
            until(lambda: daemon.get("/healthz")["degraded"], "foreman sees that it has gone")


def test_while_the_target_is_away_its_models_stay_known_and_chats_are_told_when_to_come_back(tmp_path: Path) -> None:
    with run_target(tmp_path) as simulator, run_foreman(tmp_path, simulator.url, poll_interval="7s") as daemon:
        known = {path: daemon.ask("GET", path).body for path in ("/api/tags", "/api/ps")}
        simulator.kill()
        for path in FAMILIES:
            for stream in (False, True):
                answer = daemon.ask("POST", path, chat("hello", stream=stream))
                assert answer.status == 502
                assert answer.header("Retry-After") == "7"
                assert "refuses connections" in error_of(path, answer)
        for path, body in known.items():
            answer = daemon.ask("GET", path)
            assert (answer.status, answer.body) == (200, body)
        assert daemon.get("/healthz")["reason"] == "refused"
        simulator.start()
        # The first request that succeeds shows that it is back.
        assert daemon.ask("POST", "/api/chat", chat("hello")).status == 200
        assert daemon.get("/healthz") == WELL


TOKEN = "canary-of-the-token"
LEFT, FAILED = "client left", "target failed"


def ask_all_sorts(daemon: ForemanProcess, simulator: Any) -> list[tuple[str, str, int, str]]:
    """Ask with a canary wherever one can be; lane, route, status and outcome of each, the last one not readable."""
    prompt, query = "canary-of-the-prompt", "?secret=canary-of-the-query"
    daemon.ask("POST", f"/api/chat{query}", chat(prompt, stream=True))
    daemon.ask("POST", "/v1/chat/completions", chat(prompt))
    daemon.ask("POST", f"/api/embed{query}", {"model": "nomic-embed-text", "input": prompt})
    ask(daemon.port, "GET", f"/k/{TOKEN}/api/tags{query}", headers={"Cookie": "canary-of-the-cookie"})
    daemon.ask("GET", f"/api/ps{query}")
    daemon.ask("GET", f"/api/version{query}")
    daemon.ask("GET", f"/api/unheard-of{query}")
    basic = b64encode(b"me:canary-of-the-password").decode()
    for stranger in ({}, {"Authorization": "Bearer canary-of-the-wrong-token"}, {"Authorization": f"Basic {basic}"}):
        ask(daemon.port, "POST", f"/api/chat{query}", chat(prompt), headers=stranger)
    daemon.ask("POST", "/api/chat", chat(prompt, model="nobody-has-it"))
    daemon.ask("POST", "/api/chat", {"model": "llama3.2:3b", "messages": prompt})
    simulator.inject_fault("error-line", at_line=3, text=f"failed on {prompt}")
    daemon.ask("POST", "/api/chat", chat(prompt, stream=True))
    simulator.inject_fault("reset", at_line=3)
    daemon.ask("POST", "/api/chat", chat(prompt, stream=True))
    with daemon.call("/api/chat", endless_chat(prompt)) as leaver:
        leaver.read_until(b'"content"')
    daemon.log_lines(LEFT)
    with socket.create_connection((LOOPBACK, daemon.port)) as nonsense:
        nonsense.sendall(b"canary-of-the-nonsense\r\n\r\n")
        nonsense.recv(1000)
    daemon.log_lines("status=400", "outcome='refused'")
    return [
        ("gate", "/api/chat", 200, "complete"),
        ("gate", "/v1/chat/completions", 200, "complete"),
        ("embedding", "/api/embed", 200, "complete"),
        ("inventory", "/api/tags", 200, "complete"),
        ("inventory", "/api/ps", 200, "complete"),
        ("metadata", "/api/version", 200, "complete"),
        ("metadata", "/api/unheard-of", 404, "complete"),
        *[("gate", "/api/chat", 401, "refused")] * 3,
        ("gate", "/api/chat", 404, "refused"),
        ("gate", "/api/chat", 400, "complete"),
        ("gate", "/api/chat", 200, FAILED),
        ("gate", "/api/chat", 200, FAILED),
        ("gate", "/api/chat", 200, LEFT),
        ("foreman", "", 400, "refused"),
    ]


def fields(line: str) -> tuple[str, str, int, str]:
    """Lane, route, status and outcome out of a line for people."""
    words = line.partition("] ")[2].split()
    named = dict(word.split("=", 1) for word in words if "=" in word)
    outcome = line.partition("outcome='")[2].partition("'")[0]
    return words[0], words[1], int(named["status"]), outcome


def test_the_log_has_one_line_for_each_answer_and_no_secret(tmp_path: Path) -> None:
    with run_target(tmp_path, rate=400) as simulator, run_foreman(tmp_path, simulator.url, auth_token=TOKEN) as daemon:
        expected = ask_all_sorts(daemon, simulator)
        lines = [line for line in daemon.log_lines("outcome=") if "/healthz" not in line]
        assert "canary" not in daemon.output()
    *told, (lane, _, status, outcome) = [fields(line) for line in lines]
    assert [*told, (lane, "", status, outcome)] == expected
    first = dict(word.split("=", 1) for word in lines[0].split() if "=" in word)
    assert first["model"] == "llama3.2:3b"
    assert all(float(first[name].removesuffix("s")) >= 0 for name in ("wait", "first", "total"))
    assert int(first["in"]) > 0
    assert int(first["out"]) > 10
    assert 0 < float(first["rate"].removesuffix("/s")) < 1000


def test_the_log_for_machines_is_one_object_a_line_and_has_no_secret_either(tmp_path: Path) -> None:
    settings = {"auth_token": TOKEN, "log_format": "json"}
    with run_target(tmp_path, rate=400) as simulator, run_foreman(tmp_path, simulator.url, **settings) as daemon:
        expected = ask_all_sorts(daemon, simulator)
        daemon.signal(signal.SIGTERM)
        daemon.wait()
        assert "canary" not in daemon.output()
        events = [json.loads(line) for line in daemon.output().splitlines()]
    assert all({"time", "level", "system", "message"} <= event.keys() for event in events)
    answers = [event for event in events if "outcome" in event and event["route"] != "/healthz"]
    answers[-1]["route"] = ""
    assert [(event["lane"], event["route"], event["status"], event["outcome"]) for event in answers] == expected
    assert answers[0]["model"] == "llama3.2:3b"
    assert 0 <= answers[0]["wait"] <= answers[0]["first"] <= answers[0]["total"]
    assert all(answers[0][name] > 0 for name in ("tokens_in", "tokens_out", "rate"))


@pytest.mark.parametrize("level", ["info", "debug"])
def test_probes_are_in_the_log_of_who_asks_for_them(tmp_path: Path, level: str) -> None:
    with run_target(tmp_path) as simulator, run_foreman(tmp_path, simulator.url, log_level=level) as daemon:
        assert daemon.get("/healthz") == WELL
        daemon.get("/queue")
        lines = daemon.log_lines("outcome=")
    assert any("foreman /queue " in line for line in lines)
    assert any("foreman /healthz " in line for line in lines) == (level == "debug")


def test_ps_shows_who_has_the_turn_who_waits_and_what_is_loaded(tmp_path: Path) -> None:
    def ps(*options: str) -> subprocess.CompletedProcess[str]:
        command = [SERVE[0], "ps", "--url", daemon.url, *options]
        environment = clean_environment({"token": TOKEN})
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, env=environment, capture_output=True, text=True, check=False, timeout=30
        )

    with run_target(tmp_path, rate=100) as simulator, run_foreman(tmp_path, simulator.url, auth_token=TOKEN) as daemon:
        with daemon.call("/api/chat", endless_chat("it runs")) as running:
            running.read_until(b'"content"')
            waiting = daemon.call("/v1/messages", chat("it waits"))
            daemon.wait_for_queue(1)
            table = ps()
            assert table.returncode == 0, table.stderr
            rows = [line.split() for line in table.stdout.splitlines()]
            (first,) = [row for row in rows if "answering" in row]
            (second,) = [row for row in rows if "/v1/messages" in row]
            assert {ENDLESS_MODEL, "/api/chat"} <= set(first)
            assert {"llama3.2:3b", "queued"} <= set(second)
            value = json.loads(ps("--json").stdout)
            assert value["health"] == WELL
            assert [each["state"] for each in value["queue"]["running"]] == ["answering"]
            assert [each["position"] for each in value["queue"]["waiting"]] == [1]
            assert f"{ENDLESS_MODEL}:latest" in {model["name"] for model in value["models"]}
        assert waiting.rest().status == 200
        daemon.signal(signal.SIGTERM)
        daemon.wait()
        gone = ps()
        assert gone.returncode == 1
        assert gone.stderr.startswith(f"foreman ps: nothing listens at {daemon.url}")
        assert gone.stderr.count("\n") == 1


def test_a_pause_of_foreman_counts_as_the_silence_of_nobody(tmp_path: Path) -> None:
    """As after SIGSTOP, ``docker pause``, ctrl-Z or a machine that stalls: what came meanwhile is read before a limit ends."""
    limits = dict.fromkeys(("silence_timeout", "head_timeout", "body_timeout", "job_silence", "stall_timeout"), "2s")
    body = json.dumps(chat("embedded")).encode()
    with run_target(tmp_path, rate=20) as simulator, run_foreman(tmp_path, simulator.url, **limits) as daemon:
        job = {"endpoint": "/api/chat", "payload": chat("a job", model=ENDLESS_MODEL, tokens=10)}
        stream = daemon.call("/api/chat", chat("a stream", model=ENDLESS_MODEL, tokens=60, stream=True))
        stream.read_until(b'"content"')
        id_ = json.loads(daemon.ask("POST", "/jobs", job).body)["id"]
        with (
            socket.create_connection((LOOPBACK, daemon.port)) as in_head,
            socket.create_connection((LOOPBACK, daemon.port)) as in_body,
        ):
            in_head.sendall(b"GET /api/version HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            in_body.sendall(
                b"POST /api/show HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:1]
            )
            assert daemon.ask("GET", "/healthz").status == 200  # it has read both
            daemon.signal(signal.SIGSTOP)
            time.sleep(1)
            in_head.sendall(b"\r\n")
            in_body.sendall(body[1:])
            time.sleep(3.5)
            daemon.signal(signal.SIGCONT)
            for waiting in (in_head, in_body):
                waiting.settimeout(20)
                assert waiting.recv(12) == b"HTTP/1.1 200"
        assert is_complete(stream.rest())
        assert until(lambda: daemon.get(f"/jobs/{id_}")["state"] not in ("queued", "running"), "the job ended")
        assert daemon.get(f"/jobs/{id_}")["attempt"] == 1
        assert daemon.get(f"/jobs/{id_}")["state"] == "succeeded"
        assert "degraded" not in daemon.output()
