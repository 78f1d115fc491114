"""What a try of a job has come to, judged by what the target said."""

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
from foreman.protocol.answer_origin import MAX_EXAMINED, Origin, origin, says_model_missing
from foreman.protocol.body_values import MAX_DECODE_COST, is_quickly_decoded
from foreman.protocol.error_text import MAX_BYTES, error_text
from foreman.protocol.framing import BodyFraming
from foreman.protocol.usage import MEMBERS, AnswerEnd, answer_end
from foreman.util.slices import Slices

_STATUS_CLASSES: dict[int, ErrorClass] = {401: "unauthorized", 403: "unauthorized", 429: "busy", 503: "busy"}

#: What is looked at in any case, in bytes.
_LARGE = 64 * 1024
#: How a transcription may come that is not JSON (contract 1.4).
_TEXTS = frozenset({"text/plain", "text/vtt", "application/x-subrip"})


@define
class AttemptResponse:
    """What was heard of one answer.

    :ivar status: None where no answer began; :ivar retry_after: in seconds; :ivar pieces: the body, of a stream line by
        line; :ivar problem: why it broke off, None where it came to its end; :ivar in_lines: a stream was asked for;
        :ivar endpoint: the path that was asked, empty where that is not known.
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
        """The lines with anything in them. The pieces are lines; of a very long one they are parts."""
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
        """Whose answer it is, as far as it shows."""
        if self.status is None:
            return "ollama"
        return origin(self.endpoint, self.status, self.content_type, self.beginning(MAX_EXAMINED))


@define
class Success:
    """An answer, as artifacts, and what it cost."""

    artifacts: Sequence[Artifact]
    usage: Usage


def classify(heard: AttemptResponse) -> Slices[Success | AttemptError]:
    """Whether there is an answer; a success has its whole and its end. A large one is looked at in slices."""
    if heard.status is None:
        return _unanswered(heard.problem)
    if not 200 <= heard.status < 300:
        return _refused(heard)
    if isinstance(heard.problem, errors.ConnectionError):
        silent = heard.problem.why == "silence"
        return AttemptError("silent" if silent else "truncated", str(heard.problem))
    if heard.problem is not None:
        return AttemptError("target_error", str(heard.problem))
    body = heard.body()
    if len(body) > _LARGE:
        yield
    end = yield from _end(heard, body)
    told = answer_end(heard.kind, end)
    if told.error:
        return AttemptError("target_error", error_text(end))
    is_foreign = heard.origin() == "foreign"
    if is_foreign and told.done:
        return AttemptError("target_error", f"{heard.status}: this is not an answer of Ollama's: {error_text(body)}")
    if is_foreign or not (told.done or _is_text(heard)):
        return AttemptError("truncated", "the target's answer ended without its end marker")
    try:
        return Success((yield from _artifacts(heard, body)), _usage(told))
    except ValueError as problem:
        return AttemptError("target_error", f"the target's stream cannot be read: {problem}")


def partial_artifacts(heard: AttemptResponse, mishap: AttemptError) -> list[Artifact]:
    """What is kept of a try that did not succeed: what the target said of it, and the lines until then."""
    kept = []
    if heard.status is not None and not 200 <= heard.status < 300:
        kept.append(Artifact(ERROR, heard.content_type or "application/octet-stream", heard.body()))
    else:
        told = msgspec.json.encode({"class": mishap.error_class, "message": mishap.message})
        kept.append(Artifact(ERROR, "application/json", told))
        kept += until_then(heard)
    return kept


def until_then(heard: AttemptResponse) -> list[Artifact]:
    """What an answer had said when it was broken off."""
    if heard.status is None or not 200 <= heard.status < 300 or not heard.pieces:
        return []
    return [Artifact(PARTIAL, heard.content_type or "application/octet-stream", heard.body())]


def _unanswered(problem: errors.ForemanError | None) -> AttemptError:
    if isinstance(problem, errors.ConnectionError):
        if problem.why == "silence":
            return AttemptError("silent", str(problem))
        return AttemptError("unreachable", str(problem), reached=problem.why not in errors.NOT_CONNECTED)
    return AttemptError("target_error", str(problem))


def _refused(heard: AttemptResponse) -> AttemptError:
    status = heard.status or 0
    body = heard.beginning(MAX_BYTES)
    text = f"{status}: {error_text(body)}"
    if says_model_missing(status, body):
        return AttemptError("model_missing", text)
    by_status = _STATUS_CLASSES.get(status, "target_error" if status >= 500 else "refused")
    return AttemptError(by_status, text, retry_after=heard.retry_after)


def _artifacts(heard: AttemptResponse, body: bytes) -> Slices[list[Artifact]]:
    if heard.kind != "ndjson" or not heard.in_lines:
        return [Artifact(RESPONSE, heard.content_type or "application/octet-stream", body)]
    return [
        Artifact(RESPONSE, "application/json; charset=utf-8", (yield from aggregate(heard.lines()))),
        Artifact(STREAM, heard.content_type or NDJSON, body),
    ]


def _end(heard: AttemptResponse, body: bytes) -> Slices[bytes]:
    """The part of the body that tells how it ended: of a large one not all of it."""
    if heard.kind == "sse":
        return b"".join(_first_and_last(heard.pieces))
    end = _last_line(heard.pieces) if heard.kind == "ndjson" else body
    if len(end) <= _LARGE or (yield from is_quickly_decoded(end, MAX_DECODE_COST)):
        return end
    try:
        members = (yield from go_json.members_in_slices(end, MEMBERS)).spans
    except go_json.TooIntricate:
        return _behind_last_list(end[-_LARGE:])
    except ValueError:
        return end[-_LARGE:]
    told = {name: Raw(end[slice(*spans[-1])]) for name, spans in members.items()}
    return msgspec.json.encode({name: value for name, value in told.items() if len(value) <= _LARGE})


def _behind_last_list(tail: bytes) -> bytes:
    """The members behind the numbers of an answer that has too many to be read here, as an object."""
    if not tail.rstrip().endswith((b"}", b"]")):
        return tail
    members = b"{" + tail.rpartition(b"]")[2].strip(b" \t\r\n,")
    try:
        msgspec.json.decode(members, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b"{}"
    return members


def _last_line(pieces: Sequence[bytes]) -> bytes:
    """The last line with anything in it; of a very long line the pieces are parts."""
    last: list[bytes] = []
    for piece in reversed(pieces):
        if piece.endswith(b"\n") and any(part.strip() for part in last):
            break
        last.append(piece)
    return b"".join(reversed(last)).rstrip().rpartition(b"\n")[2]


def _first_and_last(pieces: Sequence[bytes]) -> Sequence[bytes]:
    """The events at the beginning, which may tell of the prompt, and those at the end."""
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


def _is_text(heard: AttemptResponse) -> bool:
    """Whether the answer is one that has no end of its own, such as a transcription as text."""
    if heard.kind == "ndjson":  # what Ollama calls a transcription, whatever it is (contract 1.4)
        return not heard.in_lines and any(piece.strip() for piece in heard.pieces)
    return heard.kind == "other" and heard.content_type.partition(";")[0].strip().lower() in _TEXTS


def _usage(told: AnswerEnd) -> Usage:
    return Usage(
        told.prompt_tokens,
        told.completion_tokens,
        _ms(told.load_seconds),
        _ms(told.total_seconds),
        told.cached_tokens,
    )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
