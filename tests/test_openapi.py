"""The OpenAPI document matches the code, and docs/api.md matches the document."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jsonschema_rs
import pytest
import pytest_twisted
import schemathesis
from klein import Klein

from foreman import DISTRIBUTION
from foreman.jobs.job import ENDED, STATES
from foreman.protocol.endpoints import SUBMITTABLE
from foreman.protocol.routes import allowed_methods
from foreman.web.api.routes import Api
from foreman.web.jobs import fields, problems, query_params, serialization
from foreman.web.jobs.routes import JobsApi
from foreman.web.openapi.document import BYTES, document
from foreman.web.openapi.page import page
from foreman.web.openapi.responses import HEADERS
from foreman.web.openapi.schemas import ID_PATTERN
from foreman.web.server.responses import PHRASES
from support.in_memory_foreman import in_memory_foreman
from support.jobs_api import CHAT, JOB_MEMBERS, jobs_api_harness
from support.processes import SCRIPTS, clean_environment, run_foreman, run_target
from support.raw_http import request

HERE = Path(__file__).parent
DOCUMENT = document()
PATHS: dict[str, Any] = DOCUMENT["paths"]
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
#: What else can stand beside the methods of a path.
BESIDE = {"parameters"}
TOKEN = "correct-horse-battery"
#: What goes to the target, or is answered for it.
OLLAMAS = re.compile(r"/(api|v1)/|/\{_\}")


def methods_of(path: str) -> set[str]:
    return {method.upper() for method in PATHS[path] if method not in BESIDE}


def routes_of(app: Klein) -> Iterator[tuple[str, set[str]]]:
    """The paths of an app as the document writes them, with their methods."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        if rule.methods and not OLLAMAS.match(path):
            yield path, set(rule.methods)


def operations() -> Iterator[tuple[str, str, Any]]:
    for path, item in PATHS.items():
        for method in item.keys() - BESIDE:
            yield path, method, item[method]


def test_every_route_of_foreman_is_in_it_and_nothing_else() -> None:
    routes: dict[str, set[str]] = {}
    for app in (Api.app, JobsApi.app):
        for path, methods in routes_of(app):
            routes.setdefault(path, set()).update(methods)
    assert routes == {path: methods_of(path) for path in PATHS}


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/queue/{id}"])
def test_the_methods_of_a_path_are_those_that_are_let_in(path: str) -> None:
    assert methods_of(path) == set(allowed_methods(path.replace("{id}", "01KBTWZ5M0XJ3Q9V7D2E8R4A6C")))


def test_it_is_valid_and_names_foremans_version() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"]["version"] == version(DISTRIBUTION)
    assert json.loads(BYTES) == DOCUMENT


def test_every_example_is_what_its_schema_says() -> None:
    for name, schema in SCHEMAS.items():
        whole = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
        for example in schema.get("examples", ()):
            jsonschema_rs.validate(whole, example, validate_formats=True)


def test_everything_that_is_defined_is_used() -> None:
    used = set(re.findall(r'"#/components/(\w+/[\w-]+)"', BYTES.decode()))
    # An event is one line of an answer that is not JSON as a whole.
    used |= {"schemas/Event", "headers/Preference-Applied"}
    kinds = ("schemas", "headers", "responses")
    assert used == {f"{kind}/{name}" for kind in kinds for name in DOCUMENT["components"][kind]}


def test_every_name_of_an_operation_is_one_of_its_own_and_every_status_has_a_phrase() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    for _, _, operation in operations():
        assert {int(status) for status in operation["responses"]} <= PHRASES.keys()


def test_a_job_has_the_members_that_are_shown_in_their_order() -> None:
    assert list(SCHEMAS["Job"]["properties"]) == JOB_MEMBERS == SCHEMAS["Job"]["required"]
    assert list(SCHEMAS["NewJob"]["properties"]) == list(fields.FIELDS)
    assert SCHEMAS["NewJob"]["properties"]["endpoint"]["enum"] == list(SUBMITTABLE)


def test_artifacts_events_and_problems_have_the_members_that_are_shown() -> None:
    from foreman.jobs.artifacts import ArtifactInfo
    from foreman.jobs.queries import Event
    from foreman.web.jobs.problems import FieldError

    info = ArtifactInfo("a", "b", 1, "c", 2)
    flawed = json.loads(problems.problem_reply(problems.invalid_fields([FieldError("/a", "b")])).body)
    for name, value in (
        ("Artifact", serialization.artifact_value(info)),
        ("Event", serialization.event_value(Event(1, 2, "queued", 0, None))),
        ("Problem", flawed),
        ("Flaw", flawed["errors"][0]),
    ):
        assert list(SCHEMAS[name]["properties"]) == list(value)


def test_the_parameters_of_the_list_and_of_pruning_are_those_that_are_read() -> None:
    listed = {one["name"]: one for one in PATHS["/jobs"]["get"]["parameters"]}
    assert list(listed) == [*query_params.LIST_PARAMETERS, query_params.METADATA_PREFIX.removesuffix(".")]
    assert listed["state"]["schema"]["items"]["enum"] == [*STATES, "active", "ended"]
    assert listed["limit"]["schema"]["maximum"] == query_params.MAX_LIMIT
    pruned = {one["name"]: one for one in PATHS["/jobs"]["delete"]["parameters"]}
    assert tuple(pruned) == query_params.PRUNE_PARAMETERS
    assert pruned["state"]["schema"]["items"]["enum"] == [*ENDED, "ended"]


@pytest.mark.parametrize(
    "text", ["01KBTWZ5M0XJ3Q9V7D2E8R4A6C", "01kbtwz5m0xj3q9v7d2e8r4a6c", "8" * 26, "0" * 25, "0" * 25 + "I"]
)
def test_an_id_is_what_is_taken_for_one(text: str) -> None:
    assert bool(re.search(ID_PATTERN, text)) == (query_params.ulid(text) is not None)


@pytest_twisted.ensureDeferred
async def test_headers_that_come_are_named(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        await bench.ask("PUT", f"/jobs/{id_}/artifacts/mine", b"0123")
        usual = {"content-type", "content-length", "date", "connection", "transfer-encoding", "allow"}
        usual |= {"x-accel-buffering", "cache-control", "x-content-type-options"}
        told = {name.lower() for name in HEADERS}
        for asked in (
            bench.ask("POST", "/jobs", CHAT),
            bench.ask("GET", f"/jobs/{id_}/artifacts/mine", b"", ("Range", "bytes=1-2")),
            bench.ask("GET", f"/jobs/{id_}/artifacts/mine", b"", ("Range", "bytes=9-")),
            bench.ask("HEAD", f"/jobs/{id_}/stream"),
            bench.ask("GET", "/jobs", token="nobody-knows-this-token"),
        ):
            answer = await asked
            assert {name.lower() for name, _ in answer.headers} <= usual | told


def test_it_is_served_to_whoever_may_come_in() -> None:
    with in_memory_foreman() as step:
        answer = step.ask_once(request("GET", "/openapi.json"), "GET")
        assert (answer.status, answer.header("Content-Type"), answer.body) == (200, "application/json", BYTES)
        head = step.ask_once(request("HEAD", "/openapi.json"), "HEAD")
        assert (head.status, head.header("Content-Length"), head.body) == (200, str(len(BYTES)), b"")


def test_without_its_token_it_is_a_problem() -> None:
    with in_memory_foreman(auth_token=TOKEN) as step:
        answer = step.ask_once(request("GET", "/openapi.json"), "GET")
        assert (answer.status, answer.header("Content-Type")) == (401, "application/problem+json")


def test_the_page_is_what_the_generator_gives() -> None:
    made = HERE.parent / "docs" / "api.md"
    assert made.read_text("utf-8") == page() + "\n", "python -m foreman.web.openapi.page > docs/api.md"


# -- schemathesis, and a real foreman

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
Kind = Literal["questions", "stories"]
#: A foreman that answers every unknown token with 401, however many come.
WITHOUT_BRAKE = (
    sys.executable,
    "-c",
    "from foreman.auth import throttle; throttle.FREE_GUESSES = 10**9; from foreman.cli.main import main; main()",
    "serve",
)
#: Questions are asked by themselves; in stories jobs are handed over, and what then can be done is done with them.
RUNS: dict[Kind, tuple[str, ...]] = {
    "questions": ("--phases", "examples,coverage,fuzzing", "--max-examples", "500" if THOROUGH else "10"),
    "stories": ("--phases", "stateful", "--max-examples", "500" if THOROUGH else "10"),
}


def looked(kind: Kind, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Have schemathesis look at a foreman."""
    folder.mkdir()
    repeatable = ("--generation-database", "none") if THOROUGH else ("--generation-deterministic",)
    command = (
        str(SCRIPTS / "schemathesis"), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {TOKEN}", "--no-color", "--request-timeout", "20", *repeatable, *RUNS[kind],
    )  # fmt: skip
    # To the routes HEAD is GET, and to ask twice takes twice as long.
    more = ("--exclude-method", "HEAD")
    return subprocess.run(
        [*command, *more],
        stdin=subprocess.DEVNULL,
        cwd=folder,  # it writes down what it found
        env=clean_environment({}) | {"PYTHONPATH": str(HERE), "PROBING": kind},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600 if THOROUGH else 120,
    )


def test_whatever_is_asked_the_answer_is_one_of_the_document(tmp_path: Path) -> None:
    settings = {"auth_token": TOKEN, "db_path": str(tmp_path / "jobs.db")}
    with (
        run_target(tmp_path, rate=0, load_time=0) as simulator,
        run_foreman(tmp_path, simulator.url, WITHOUT_BRAKE, **settings) as daemon,
    ):
        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(looked, kind, daemon.url, tmp_path / kind) for kind in RUNS]
            found = [run.result() for run in runs]
        assert [run.returncode for run in found] == [0, 0], "\n".join(run.stdout + run.stderr for run in found)
        assert "Traceback" not in daemon.output()
        assert daemon.get("/healthz")["status"] == "ok"
