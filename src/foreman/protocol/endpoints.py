"""The table of endpoints: all that foreman knows of one endpoint of Ollama, or of its own, is in one row.

Everything that depends on the endpoint is derived from its row: lane, reading of bodies, streams and their end markers,
jobs, the OpenAPI document, the command line. A new endpoint is a row here, and a route in ``web/api/routes.py`` if it takes
a turn, is an embedding, or is answered by foreman itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Literal

from attrs import field, frozen

#: The error format of a route (contract 1.5).
Family = Literal["ollama", "openai", "anthropic", "foreman"]


class Lane(Enum):
    """How a request is handled; the value is the word in logs."""

    GATE = "gate"
    EMBEDDING = "embedding"
    INVENTORY = "inventory"
    METADATA = "metadata"
    MANAGEMENT = "management"
    FOREMAN = "foreman"


class Streaming(Enum):
    """When an endpoint answers in pieces; the first two follow the member ``stream`` of the body."""

    BY_DEFAULT = "unless the body says false"
    ON_REQUEST = "if the body says true"
    NEVER = "never"


class JobSource(Enum):
    """How a job for an endpoint is submitted."""

    PAYLOAD = "by POST /jobs, or by the request itself with Prefer: respond-async"
    REQUEST = "only by the request itself with Prefer: respond-async"
    NONE = "not at all"


class BodyFormat(Enum):
    """How Ollama reads a request body (contract 2.0)."""

    JSON = "JSON"
    #: Its decoder stops behind the first value. While more of the body is unread, Go's server does not watch whether the
    #: client leaves (contract 0.2, 0.19), so that nothing else of the body is sent.
    FIRST_VALUE = "the first JSON value, whatever follows"
    #: From v0.34 on: names of members in exactly their spelling, and refusals in words of their own.
    STRICT = "strict JSON"
    FORM = "multipart/form-data"


#: End markers: a member of the last line of NDJSON, or the data of the last event. Others are types of events.
DONE_MEMBER, DONE_EVENT = ("done",), ("[DONE]",)
_READ, _GET, _POST = ("HEAD", "GET"), ("GET",), ("POST",)


@frozen(eq=False)
class Endpoint:
    """One row of the table: what holds for requests to a path with one of its methods."""

    #: Percent-decoded, without query.
    path: str
    #: In the order of Ollama's ``Allow``.
    methods: tuple[str, ...]
    lane: Lane
    body: BodyFormat = BodyFormat.JSON
    #: The model may also stand in the member ``name``, its old key.
    takes_name: bool = False
    #: The member without which a request only loads its model, or unloads it (contract 2.6).
    content: Literal["messages", "prompt"] | None = None
    streaming: Streaming = Streaming.NEVER
    #: ``"stream": null`` resets the value of an earlier duplicate (in Go a pointer).
    null_resets_stream: bool = False
    #: What ends a complete stream: ``DONE_MEMBER``, ``DONE_EVENT`` or the types of the last event; empty: it has no marker.
    end_marker: tuple[str, ...] = ()
    #: The members of an NDJSON line that adds nothing to the answer, for a heartbeat.
    empty_line: Mapping[str, Any] = field(factory=dict)
    job: JobSource = JobSource.NONE
    #: A job is run as a stream, whose lines can be followed; its answer is put together from them.
    is_followable: bool = False
    #: A query that clients add and Ollama ignores, so that a job may drop it.
    ignored_query: bytes | None = None
    #: Each JSON answer of Ollama has one of these; empty: they are not known.
    answer_members: frozenset[str] = frozenset()
    #: An answer may be text instead of JSON.
    answers_text: bool = False
    #: Versions of Ollama that have it.
    versions: Literal["all", "newer", "older"] = "all"

    @property
    def family(self) -> Family:
        """Its error format."""
        return family_of(self.path)


_OPENAI_MEMBERS = frozenset({"object", "choices", "error"})
_EMBEDDING_MEMBERS = frozenset({"embeddings", "embedding", "object", "data", "error"})
_CHAT = Endpoint(
    "/api/chat",
    _POST,
    Lane.GATE,
    body=BodyFormat.FIRST_VALUE,
    content="messages",
    streaming=Streaming.BY_DEFAULT,
    null_resets_stream=True,
    end_marker=DONE_MEMBER,
    empty_line={"message": {"role": "assistant", "content": ""}},
    job=JobSource.PAYLOAD,
    is_followable=True,
    answer_members=frozenset({"message", "done", "error"}),
)
_GENERATE = Endpoint(
    "/api/generate",
    _POST,
    Lane.GATE,
    body=BodyFormat.FIRST_VALUE,
    content="prompt",
    streaming=Streaming.BY_DEFAULT,
    null_resets_stream=True,
    end_marker=DONE_MEMBER,
    empty_line={"response": ""},
    job=JobSource.PAYLOAD,
    is_followable=True,
    answer_members=frozenset({"response", "done", "error"}),
)
_RESPONSES = Endpoint(
    "/v1/responses",
    _POST,
    Lane.GATE,
    body=BodyFormat.STRICT,
    streaming=Streaming.ON_REQUEST,
    null_resets_stream=True,
    end_marker=("response.completed", "response.incomplete", "response.failed"),
    job=JobSource.PAYLOAD,
    answer_members=frozenset({"object", "output", "error"}),
)
_COMPACT = Endpoint(
    "/v1/responses/compact", _POST, Lane.GATE, body=BodyFormat.STRICT, job=JobSource.PAYLOAD, versions="newer"
)
_MESSAGES = Endpoint(
    "/v1/messages",
    _POST,
    Lane.GATE,
    streaming=Streaming.ON_REQUEST,
    end_marker=("message_stop",),
    job=JobSource.PAYLOAD,
    ignored_query=b"beta=true",
    answer_members=frozenset({"type", "content", "error"}),
)
_TRANSCRIPTIONS = Endpoint(
    "/v1/audio/transcriptions",
    _POST,
    Lane.GATE,
    body=BodyFormat.FORM,
    job=JobSource.REQUEST,
    answer_members=frozenset({"text", "error"}),
    answers_text=True,
)


def _completions(path: str) -> Endpoint:
    return Endpoint(
        path,
        _POST,
        Lane.GATE,
        streaming=Streaming.ON_REQUEST,
        end_marker=DONE_EVENT,
        job=JobSource.PAYLOAD,
        answer_members=_OPENAI_MEMBERS,
    )


def _images(path: str) -> Endpoint:
    return Endpoint(path, _POST, Lane.GATE, job=JobSource.REQUEST, versions="older")


def _embedding(path: str, body: BodyFormat) -> Endpoint:
    return Endpoint(path, _POST, Lane.EMBEDDING, body=body, job=JobSource.PAYLOAD, answer_members=_EMBEDDING_MEMBERS)


def _transfer(path: str) -> Endpoint:
    """A model is downloaded, uploaded or created, and its progress is streamed."""
    return Endpoint(
        path, _POST, Lane.MANAGEMENT, takes_name=True, streaming=Streaming.BY_DEFAULT, null_resets_stream=True
    )


#: Every endpoint by its path. Routes with a free segment in their path are in ``routes.py``.
ENDPOINTS: Mapping[str, Endpoint] = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("/", _READ, Lane.FOREMAN),
        Endpoint("/healthz", _READ, Lane.FOREMAN),
        Endpoint("/queue", _READ, Lane.FOREMAN),
        Endpoint("/openapi.json", _READ, Lane.FOREMAN),
        Endpoint("/api/version", _READ, Lane.METADATA),
        # Settings and statistics, which some versions of Ollama have (contract 0.20).
        Endpoint("/metrics", _READ, Lane.MANAGEMENT),
        Endpoint("/api/usage", _GET, Lane.MANAGEMENT),
        Endpoint("/api/config", _GET, Lane.MANAGEMENT),
        Endpoint("/api/status", _GET, Lane.METADATA),
        Endpoint("/api/tags", _READ, Lane.INVENTORY),
        Endpoint("/api/ps", _GET, Lane.INVENTORY),
        Endpoint("/api/show", _POST, Lane.METADATA, takes_name=True),
        _CHAT,
        _GENERATE,
        _completions("/v1/chat/completions"),
        _completions("/v1/completions"),
        _RESPONSES,
        _COMPACT,
        _images("/v1/images/generations"),
        _images("/v1/images/edits"),
        _MESSAGES,
        _TRANSCRIPTIONS,
        _embedding("/api/embed", BodyFormat.FIRST_VALUE),
        _embedding("/api/embeddings", BodyFormat.FIRST_VALUE),
        _embedding("/v1/embeddings", BodyFormat.JSON),
        _transfer("/api/pull"),
        _transfer("/api/push"),
        _transfer("/api/create"),
        Endpoint("/api/copy", _POST, Lane.MANAGEMENT),
        Endpoint("/api/delete", ("DELETE",), Lane.MANAGEMENT, takes_name=True),
        Endpoint("/api/me", _POST, Lane.MANAGEMENT),
        Endpoint("/api/signout", _POST, Lane.MANAGEMENT),
        Endpoint("/api/experimental/web_search", _POST, Lane.MANAGEMENT),
        Endpoint("/api/experimental/web_fetch", _POST, Lane.MANAGEMENT),
        Endpoint("/api/experimental/model-recommendations", _GET, Lane.MANAGEMENT),
        Endpoint("/v1/models", _GET, Lane.METADATA),
    )
}
_UNKNOWN = Endpoint("", (), Lane.METADATA)
_JOBS = "/jobs"


def endpoint_of(path: str) -> Endpoint:
    """The row of a path; for a path that is not in the table, a row with nothing but defaults."""
    return ENDPOINTS.get(path, _UNKNOWN)


def paths(predicate: Callable[[Endpoint], bool]) -> tuple[str, ...]:
    """The paths of the endpoints for which ``predicate`` holds, in the order of the table."""
    return tuple(path for path, endpoint in ENDPOINTS.items() if predicate(endpoint))


def family_of(path: str) -> Family:
    """The error format of a path, whether or not it is in the table."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return "anthropic"
    if is_of_jobs(path) or path == "/openapi.json":
        return "foreman"
    return "openai" if path.startswith("/v1/") else "ollama"


def is_of_jobs(path: str) -> bool:
    """Whether a path is foreman's own, about jobs."""
    return path == _JOBS or path.startswith(f"{_JOBS}/")


#: What ``POST /jobs`` takes as ``endpoint``, and what a job may have there.
SUBMITTABLE = paths(lambda endpoint: endpoint.job is JobSource.PAYLOAD)
OF_JOBS = (*SUBMITTABLE, *paths(lambda endpoint: endpoint.job is JobSource.REQUEST))
#: Endpoints whose jobs run as a stream, whose lines can be followed.
FOLLOWABLE = frozenset(paths(lambda endpoint: endpoint.is_followable))
#: Endpoints whose streams have an end marker: without it, a stream is incomplete.
MARKED = frozenset(paths(lambda endpoint: bool(endpoint.end_marker)))
