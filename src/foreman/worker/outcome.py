"""The outcome of an attempt: a success or an error, decided from the target's answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from attrs import define, field
from msgspec import Raw

from foreman import errors
from foreman.jobs.artifacts import ERROR, NDJSON, PARTIAL, RESPONSE, STREAM, Artifact
from foreman.jobs.job import ErrorClass, Usage
from foreman.jobs.retry_policy import AttemptError
from foreman.protocol import go_json
from foreman.protocol.aggregate import aggregate
from foreman.protocol.answer_end import MEMBERS, AnswerEnd, answer_end
from foreman.protocol.answer_origin import MAX_EXAMINED, Origin, origin, says_model_missing
from foreman.protocol.body_values import MAX_DECODE_COST, is_quickly_decoded
from foreman.protocol.error_text import MAX_BYTES, error_text
from foreman.protocol.framing import BodyFraming
from foreman.util.slices import Slices

_STATUS_CLASSES: dict[int, ErrorClass] = {401: "unauthorized", 403: "unauthorized", 429: "busy", 503: "busy"}

#: How much of a body is read at once, in bytes.
_LARGE = 64 * 1024
#: The types of a transcription that is not JSON (contract 1.4).
_TEXTS = frozenset({"text/plain", "text/vtt", "application/x-subrip"})


@define
class AttemptResponse:
    """The target's answer to one attempt, as far as it arrived.

    :ivar status: None where no answer began; :ivar retry_after: in seconds; :ivar pieces: the body, of a stream line by
        line; :ivar problem: why it broke off, None where it came to its end; :ivar in_lines: a stream was requested;
        :ivar endpoint: the path of the request, empty where that is not known.
    """

    status: int | None = None
    content_type: str = ""
    kind: BodyFraming = "other"
    retry_after: float | None = None
    pieces: list[bytes] = field(factory=list)
    problem: errors.ForemanError | None = None
    in_lines: bool = True
    endpoint: str = ""
    _body: bytes | None = field(default=None, init=False)

    def body(self) -> bytes:
        """The whole body of an answer that has ended, joined at the first call."""
        if self._body is None:
            self._body = b"".join(self.pieces)
        return self._body

    def beginning(self, size: int) -> bytes:
        """The body, or a beginning of it that is longer than ``size`` bytes."""
        found, left = [], size
        for piece in self.pieces:
            found.append(piece)
            left -= len(piece)
            if left < 0:
                break
        return b"".join(found)

    def lines(self) -> Iterator[bytes]:
        """The lines that are not blank. Each piece is a line, or a part of a very long one."""
        parts: list[bytes] = []
        for piece in self.pieces:
            parts.append(piece)
            if piece.endswith(b"\n"):
                line, parts = piece if len(parts) == 1 else b"".join(parts), []
                if not line.isspace():
                    yield from (line,) if line.count(b"\n") == 1 else filter(bytes.strip, line.split(b"\n"))
        if any(part.strip() for part in parts):
            yield b"".join(parts)

    def origin(self) -> Origin:
        """Whether the answer is Ollama's own, as far as it shows."""
        if self.status is None:
            return "ollama"
        return origin(self.endpoint, self.status, self.content_type, self.beginning(MAX_EXAMINED))


@define
class Success:
    """A complete answer, as artifacts, and its usage."""

    artifacts: Sequence[Artifact]
    usage: Usage


def classify(response: AttemptResponse) -> Slices[Success | AttemptError]:
    """The outcome of an attempt with this answer; a success is complete and has its end marker. A large one takes slices."""
    if response.status is None:
        return _unanswered(response.problem)
    if not 200 <= response.status < 300:
        return _refused(response)
    if isinstance(response.problem, errors.ConnectionError):
        silent = response.problem.why == "silence"
        return AttemptError("silent" if silent else "truncated", str(response.problem))
    if response.problem is not None:
        return AttemptError("target_error", str(response.problem))
    body = response.body()
    if len(body) > _LARGE:
        yield
    end = yield from _end(response, body)
    reported = answer_end(response.kind, end)
    if reported.error:
        return AttemptError("target_error", error_text(end))
    is_foreign = response.origin() == "foreign"
    if is_foreign and reported.done:
        return AttemptError("target_error", f"{response.status}: this is not an answer of Ollama's: {error_text(body)}")
    if is_foreign or not (reported.done or _is_text(response)):
        return AttemptError("truncated", "the target's answer ended without its end marker")
    try:
        return Success((yield from _artifacts(response, body)), _usage(reported))
    except ValueError as problem:
        return AttemptError("target_error", f"the target's stream cannot be read: {problem}")


def partial_artifacts(response: AttemptResponse, error: AttemptError) -> list[Artifact]:
    """What is stored of an attempt that failed with ``error``: the error, and the answer until then."""
    kept = []
    if response.status is not None and not 200 <= response.status < 300:
        kept.append(Artifact(ERROR, response.content_type or "application/octet-stream", response.body()))
    else:
        text = msgspec.json.encode({"class": error.error_class, "message": error.message})
        kept.append(Artifact(ERROR, "application/json", text))
        kept += partial_answer(response)
    return kept


def partial_answer(response: AttemptResponse) -> list[Artifact]:
    """The part of an answer that had arrived when it was broken off."""
    if response.status is None or not 200 <= response.status < 300 or not response.pieces:
        return []
    return [Artifact(PARTIAL, response.content_type or "application/octet-stream", response.body())]


def _unanswered(problem: errors.ForemanError | None) -> AttemptError:
    if isinstance(problem, errors.ConnectionError):
        if problem.why == "silence":
            return AttemptError("silent", str(problem))
        return AttemptError("unreachable", str(problem), reached=problem.why not in errors.NOT_CONNECTED)
    return AttemptError("target_error", str(problem))


def _refused(response: AttemptResponse) -> AttemptError:
    status = response.status or 0
    body = response.beginning(MAX_BYTES)
    text = f"{status}: {error_text(body)}"
    if says_model_missing(status, body):
        return AttemptError("model_missing", text)
    by_status = _STATUS_CLASSES.get(status, "target_error" if status >= 500 else "refused")
    return AttemptError(by_status, text, retry_after=response.retry_after)


def _artifacts(response: AttemptResponse, body: bytes) -> Slices[list[Artifact]]:
    if response.kind != "ndjson" or not response.in_lines:
        return [Artifact(RESPONSE, response.content_type or "application/octet-stream", body)]
    return [
        Artifact(RESPONSE, "application/json; charset=utf-8", (yield from aggregate(response.lines()))),
        Artifact(STREAM, response.content_type or NDJSON, body),
    ]


def _end(response: AttemptResponse, body: bytes) -> Slices[bytes]:
    """The part of the body that shows how it ended: of a large body not all of it."""
    if response.kind == "sse":
        return b"".join(_first_and_last(response.pieces))
    end = _last_line(response.pieces) if response.kind == "ndjson" else body
    if len(end) <= _LARGE or (yield from is_quickly_decoded(end, MAX_DECODE_COST)):
        return end
    try:
        members = (yield from go_json.members_in_slices(end, MEMBERS)).spans
    except go_json.TooComplex:
        return _behind_last_list(end[-_LARGE:])
    except ValueError:
        return end[-_LARGE:]
    values = {name: Raw(end[slice(*spans[-1])]) for name, spans in members.items()}
    return msgspec.json.encode({name: value for name, value in values.items() if len(value) <= _LARGE})


def _behind_last_list(tail: bytes) -> bytes:
    """The members after the last list of an answer that has too many values to be parsed, as an object."""
    if not tail.rstrip().endswith((b"}", b"]")):
        return tail
    members = b"{" + tail.rpartition(b"]")[2].strip(b" \t\r\n,")
    try:
        msgspec.json.decode(members, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b"{}"
    return members


def _last_line(pieces: Sequence[bytes]) -> bytes:
    """The last line that is not blank; the pieces of a very long line are joined."""
    last: list[bytes] = []
    for piece in reversed(pieces):
        if piece.endswith(b"\n") and any(part.strip() for part in last):
            break
        last.append(piece)
    return b"".join(reversed(last)).rstrip().rpartition(b"\n")[2]


def _first_and_last(pieces: Sequence[bytes]) -> Sequence[bytes]:
    """The events at the beginning, which may report the prompt's tokens, and those at the end."""
    first, at = [], 0
    room = _LARGE
    while at < len(pieces) and room > 0:
        first.append(pieces[at])
        room -= len(pieces[at])
        at += 1
    last, room = [], _LARGE
    for piece in reversed(pieces[at:]):
        last.append(piece)
        room -= len(piece)
        if room <= 0:
            break
    return [*first, *reversed(last)]


def _is_text(response: AttemptResponse) -> bool:
    """Whether the answer has no end marker, such as a transcription as text."""
    if response.kind == "ndjson":  # Ollama's type for every transcription (contract 1.4)
        return not response.in_lines and any(piece.strip() for piece in response.pieces)
    return response.kind == "other" and response.content_type.partition(";")[0].strip().lower() in _TEXTS


def _usage(end: AnswerEnd) -> Usage:
    return Usage(
        end.prompt_tokens,
        end.completion_tokens,
        _ms(end.load_seconds),
        _ms(end.total_seconds),
        end.cached_tokens,
    )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
