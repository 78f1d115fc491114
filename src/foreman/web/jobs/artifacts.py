"""The artifacts of a job: uploads, and downloads of a whole artifact or a range of it."""

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
from foreman.web.jobs.artifact_reader import ArtifactReader, ReaderLimit
from foreman.web.jobs.flow_control import FlowControl
from foreman.web.jobs.problems import Problem
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import PHRASES

#: The artifacts that callers put to one job may together have this many times FOREMAN_MAX_ARTIFACT.
MAX_PER_JOB = 10
#: The longest name and the longest content type of an artifact, in characters.
MAX_NAME, MAX_TYPE = 128, 255
DEFAULT_TYPE = "application/octet-stream"

_RANGE = re.compile(
    rb"[ \t]*+bytes[ \t]*+=[ \t]*+(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))[ \t]*+", re.IGNORECASE
)


def check_upload(request: ClientRequest, name: str, limit: int) -> None:
    """Check the name, content type and size of an upload.

    :param limit: its largest size, in bytes.
    :raises Problem: where the artifact cannot be stored.
    """
    check_name(name)
    content_type(request)
    length = request.content.length
    if length > limit:
        raise Problem(413, f"the artifact has {length} bytes; at most {limit} are allowed (FOREMAN_MAX_ARTIFACT)")


def from_request(request: ClientRequest, name: str) -> Artifact | ArtifactFile:
    """The uploaded artifact; a large one stays in its file, which the caller of this function closes.

    :raises Problem: where the artifact cannot be stored.
    """
    type_, body = content_type(request), request.body()
    if isinstance(body, bytes):
        return Artifact(name, type_, body)
    try:  # a copy, because the request closes its own file when the client disconnects
        file = os.fdopen(os.dup(body.fileno()), "rb", buffering=0)
    except OSError as problem:
        raise Problem(503, f"the artifact cannot be stored now ({problem.strerror}); try again soon") from None
    return ArtifactFile(name, type_, file)


def check_name(name: str) -> None:
    """Check the name of a caller's artifact.

    :raises Problem: where it is not allowed.
    """
    if len(name) > MAX_NAME or not name.isprintable() or name.isspace():
        raise Problem(400, f"the name of an artifact must have 1 to {MAX_NAME} printable characters")
    if name in OWN_ARTIFACTS:
        raise Problem(
            409,
            f"{errors.excerpt(name)} is a name that foreman uses itself ({', '.join(sorted(OWN_ARTIFACTS))}); choose another",
        )


def content_type(request: ClientRequest) -> str:
    """The content type of an upload.

    :raises Problem: when it is too long, or the body is compressed.
    """
    request_headers.check_uncompressed(request, "must be identity; send the artifact uncompressed")
    values = request.headers_named(b"content-type")
    text = values[0].decode("latin-1") if values else ""
    if len(text) > MAX_TYPE:
        raise Problem(400, f"Content-Type: may have at most {MAX_TYPE} characters")
    return text or DEFAULT_TYPE


def artifact_path(id_: str, name: str) -> str:
    """The URL path of an artifact."""
    return f"/jobs/{id_}/artifacts/{quote(name, safe='')}"


async def send(
    request: ClientRequest,
    clock: IReactorTime,
    stall_timeout: float,
    store: JobStore,
    reader_limit: ReaderLimit,
    stored: StoredArtifact,
) -> int:
    """Answer with an artifact, or the requested range of it.

    :param stall_timeout: how long the reader may read nothing, in seconds.
    :return: the HTTP status.
    :raises Problem: for a range outside of the artifact, and when too many artifacts are being read.
    :raises ArtifactGone: when the artifact is deleted or replaced while it is sent; the answer is then incomplete.
    """
    info = stored.info
    etag = b'"%b"' % info.sha256.encode("ascii")
    headers: RawHeaders = [
        (b"ETag", etag),
        (b"Accept-Ranges", b"bytes"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Date", request.http_date()),
    ]
    if _matches_etag(request, etag):
        request.begin(304, PHRASES[304], headers, "other")
        request.finish()
        return 304
    status, part = 200, _requested_range(request, etag, info.bytes)
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
        with reader_limit.reserve(request.caller):
            request.begin(status, PHRASES[status], headers, "other")
            flow_control = FlowControl(clock, stall_timeout)
            await _write(request, flow_control, ArtifactReader(store, flow_control, stored, request.caller, span))
    request.finish()
    return status


async def _write(request: ClientRequest, flow_control: FlowControl, artifact: ArtifactReader) -> None:
    request.set_producer(flow_control)
    try:
        while piece := await artifact.next():
            request.write(piece)
    finally:
        request.set_producer(None)


def _matches_etag(request: ClientRequest, etag: bytes) -> bool:
    etags = b",".join(request.headers_named(b"if-none-match"))
    return any(item.strip().removeprefix(b"W/") in {etag, b"*"} for item in etags.split(b","))


def _requested_range(request: ClientRequest, etag: bytes, size: int) -> range | None:
    """The requested range; None for the whole artifact, also where several ranges are requested (RFC 9110 section 14.2)."""
    ranges, conditions = request.headers_named(b"range"), request.headers_named(b"if-range")
    found = _RANGE.fullmatch(ranges[0]) if len(ranges) == 1 and request.method == b"GET" else None
    if found is None or any(condition.strip() != etag for condition in conditions):
        return None
    first, last, suffix = (None if text is None else int(text) for text in found.groups())
    if first is None:
        part = range(max(0, size - (suffix or 0)), size)
    elif last is not None and last < first:
        return None
    else:
        part = range(first, size if last is None else min(last + 1, size))
    if not part:
        headers = [(b"Content-Range", b"bytes */%d" % size)]
        raise Problem(416, f"Range: the artifact has {size} bytes, and none of them are in this range", headers=headers)
    return part
