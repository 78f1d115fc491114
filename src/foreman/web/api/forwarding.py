"""From a client's request to the request for the target, and the parsing of its body."""

from __future__ import annotations

import mmap
from typing import BinaryIO

from foreman.protocol import request_body
from foreman.protocol.request_body import RequestBody
from foreman.proxy.request import TargetRequest
from foreman.target.file_body import FileBody
from foreman.util.byte_budget import ByteBudget
from foreman.util.slices import Slices
from foreman.web.server.request import ClientRequest


def parse_body(request: ClientRequest, budget: ByteBudget) -> Slices[RequestBody]:
    """Parse the body of a request, in slices of work.

    :param budget: the memory for all compressed bodies that are being parsed.
    :raises errors.BadBody: where Ollama would refuse the body at once.
    """
    encoding = next(iter(request.headers_named(b"content-encoding")), None)
    content_type = next(iter(request.headers_named(b"content-type")), None)
    query = request.target.partition(b"?")[2]
    body = request.body()
    if isinstance(body, bytes):
        return (yield from request_body.read_in_slices(request.route.path, body, encoding, content_type, query, budget))
    with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return (yield from request_body.read_in_slices(request.route.path, view, encoding, content_type, query, budget))


def target_request(request: ClientRequest, parsed: RequestBody | None) -> TargetRequest:
    """The request as it goes to the target.

    The headers are moved to it, so that they can be freed while the request waits.

    :param parsed: the parsed body; None where nothing needs to know it.
    """
    headers, request.raw_headers = request.raw_headers, []
    version = request.clientproto.removeprefix(b"HTTP/")
    if request.upload is not None:
        upload = request.upload
        chunked = upload.size is None
        return TargetRequest(
            request.method,
            request.target,
            headers,
            upload,
            upload.size,
            request.route,
            parsed,
            chunked=chunked,
            version=version,
        )
    body = request.body()
    length = len(body) if isinstance(body, bytes) else request.content.length
    if parsed is not None and parsed.length is not None and parsed.length < length:
        length = parsed.length
        body = _truncated(body, length)
    has_content_length = length or request.has_length
    return TargetRequest(
        request.method,
        request.target,
        headers,
        body if isinstance(body, bytes) else FileBody(body, length),
        length if has_content_length else None,
        request.route,
        parsed,
        version=version,
    )


def _truncated(body: bytes | BinaryIO, length: int) -> bytes | BinaryIO:
    """The first ``length`` bytes of a body; a file is truncated, because nothing else reads it."""
    if isinstance(body, bytes):
        return body[:length]
    body.truncate(length)
    return body
