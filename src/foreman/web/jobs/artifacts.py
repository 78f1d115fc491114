"""What belongs to a job, as a download: whole or in part, and at the pace of its reader."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from twisted.internet.interfaces import IReactorTime

from foreman import errors
from foreman.jobs.artifacts import OWN_ARTIFACTS, Artifact, ArtifactFile, StoredArtifact
from foreman.protocol.headers import RawHeaders
from foreman.store.job_store import JobStore
from foreman.web.jobs import request_headers
from foreman.web.jobs.artifact_reader import ArtifactReader, Readers
from foreman.web.jobs.flow_control import FlowControl
from foreman.web.jobs.problems import Problem
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import PHRASES

#: How many times FOREMAN_MAX_ARTIFACT the callers' artifacts of one job may have together.
OF_A_JOB = 10
LONGEST_NAME = 128
LONGEST_TYPE = 255
USUAL_TYPE = "application/octet-stream"

_RANGE = re.compile(
    rb"[ \t]*+bytes[ \t]*+=[ \t]*+(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))[ \t]*+", re.IGNORECASE
)


def check_received(request: ClientRequest, name: str, most: int) -> None:
    """Whether the artifact that a request brings can be kept.

    :param most: how many bytes it may have.
    :raises Problem: where it cannot.
    """
    check_name(name)
    kept_type(request)
    length = request.content.length
    if length > most:
        raise Problem(413, f"an artifact may have {most} bytes, and this has {length} (FOREMAN_MAX_ARTIFACT)")


def received(request: ClientRequest, name: str) -> Artifact | ArtifactFile:
    """The artifact that a request brings; a large one stays in its file, which whoever asks for it closes.

    :raises Problem: for what cannot be kept.
    """
    type_, body = kept_type(request), request.body()
    if isinstance(body, bytes):
        return Artifact(name, type_, body)
    try:  # the request closes its own when its client leaves, whoever reads it
        file = os.fdopen(os.dup(body.fileno()), "rb", buffering=0)
    except OSError as problem:
        raise Problem(503, f"this cannot be kept now: {problem.strerror}; try again soon") from None
    return ArtifactFile(name, type_, file)


def check_name(name: str) -> None:
    """Whether an artifact of a caller's may have this name.

    :raises Problem: where it may not.
    """
    if len(name) > LONGEST_NAME or not name.isprintable() or name.isspace():
        raise Problem(400, f"the name of an artifact has 1 to {LONGEST_NAME} printable characters")
    if name in OWN_ARTIFACTS:
        raise Problem(
            409, f"{errors.excerpt(name)} is one of the names that foreman gives: {', '.join(sorted(OWN_ARTIFACTS))}"
        )


def kept_type(request: ClientRequest) -> str:
    """The content type of an artifact that is sent.

    :raises Problem: when it cannot be kept as it was sent.
    """
    request_headers.check_plain(request, "an artifact is kept as its bytes are; send it uncompressed")
    values = request.headers_named(b"content-type")
    text = values[0].decode("latin-1") if values else ""
    if len(text) > LONGEST_TYPE:
        raise Problem(400, f"Content-Type: may have {LONGEST_TYPE} characters")
    return text or USUAL_TYPE


def path_of(id_: str, name: str) -> str:
    """The path of an artifact."""
    return f"/jobs/{id_}/artifacts/{quote(name, safe='')}"


async def send(
    request: ClientRequest,
    clock: IReactorTime,
    patience: float,
    store: JobStore,
    readers: Readers,
    stored: StoredArtifact,
) -> int:
    """Answer with an artifact, or the part of it that is asked for.

    :param patience: how long the reader may take nothing, in seconds.
    :return: the status.
    :raises Problem: for a part that is not there, and when too many are read already.
    :raises ArtifactGone: when it is deleted or replaced while it is sent, so that not all of it has come.
    """
    info = stored.info
    etag = b'"%b"' % info.sha256.encode("ascii")
    headers: RawHeaders = [
        (b"ETag", etag),
        (b"Accept-Ranges", b"bytes"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Date", request.http_date()),
    ]
    if _is_known(request, etag):
        request.begin(304, PHRASES[304], headers, "other")
        request.finish()
        return 304
    status, part = 200, _part(request, etag, info.bytes)
    if part is not None:
        status = 206
        headers.append((b"Content-Range", b"bytes %d-%d/%d" % (part.start, part.stop - 1, info.bytes)))
    span = range(info.bytes) if part is None else part
    headers += [
        (b"Content-Type", info.type.encode("latin-1", "replace")),
        (b"Content-Disposition", b"attachment; filename*=UTF-8''%b" % quote(info.name, safe="").encode("ascii")),
        (b"Content-Length", b"%d" % len(span)),
    ]
    if request.method == b"HEAD":
        request.begin(status, PHRASES[status], headers, "other")
    else:
        with readers.one_more(request.caller):
            request.begin(status, PHRASES[status], headers, "other")
            flow_control = FlowControl(clock, patience)
            await _write(request, flow_control, ArtifactReader(store, flow_control, stored, request.caller, span))
    request.finish()
    return status


async def _write(request: ClientRequest, flow_control: FlowControl, pieces: ArtifactReader) -> None:
    request.set_producer(flow_control)
    try:
        while piece := await pieces.next():
            request.write(piece)
    finally:
        request.set_producer(None)


def _is_known(request: ClientRequest, etag: bytes) -> bool:
    asked = b",".join(request.headers_named(b"if-none-match"))
    return any(one.strip().removeprefix(b"W/") in {etag, b"*"} for one in asked.split(b","))


def _part(request: ClientRequest, etag: bytes, size: int) -> range | None:
    """The part that is asked for; None for the whole, also where several are (RFC 9110 section 14.2)."""
    ranges, conditions = request.headers_named(b"range"), request.headers_named(b"if-range")
    found = _RANGE.fullmatch(ranges[0]) if len(ranges) == 1 and request.method == b"GET" else None
    if found is None or any(condition.strip() != etag for condition in conditions):
        return None
    first, last, of_end = (None if text is None else int(text) for text in found.groups())
    if first is None:
        part = range(max(0, size - (of_end or 0)), size)
    elif last is not None and last < first:
        return None
    else:
        part = range(first, size if last is None else min(last + 1, size))
    if not part:
        headers = [(b"Content-Range", b"bytes */%d" % size)]
        raise Problem(416, f"there are {size} bytes, and none in this range", headers=headers)
    return part
