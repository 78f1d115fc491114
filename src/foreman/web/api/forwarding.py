"""What a request asks, and of whom: from a visit to a question for the target."""

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


def read_body(request: ClientRequest, room: ByteBudget) -> Slices[RequestBody]:
    """What the body of a request asks for.

    :param room: for all compressed bodies that are read.

    :raises errors.BadBody: where Ollama would refuse it at once.
    """
    encoding = next(iter(request.headers_named(b"content-encoding")), None)
    content_type = next(iter(request.headers_named(b"content-type")), None)
    query = request.target.partition(b"?")[2]
    body = request.body()
    if isinstance(body, bytes):
        return (yield from request_body.read_in_slices(request.route.path, body, encoding, content_type, query, room))
    with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return (yield from request_body.read_in_slices(request.route.path, view, encoding, content_type, query, room))


def target_request(request: ClientRequest, wanted: RequestBody | None) -> TargetRequest:
    """A request as it goes to the target; ``wanted`` is what its body asks for, where somebody needs to know.

    The headers are the question's from here on, so that they can be forgotten while the request waits.
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
            wanted,
            chunked=chunked,
            version=version,
        )
    body = request.body()
    length = len(body) if isinstance(body, bytes) else request.content.length
    if wanted is not None and wanted.length is not None and wanted.length < length:
        length = wanted.length
        body = _cut(body, length)
    announced = length or request.has_length
    return TargetRequest(
        request.method,
        request.target,
        headers,
        body if isinstance(body, bytes) else FileBody(body, length),
        length if announced else None,
        request.route,
        wanted,
        version=version,
    )


def _cut(body: bytes | BinaryIO, length: int) -> bytes | BinaryIO:
    """The first ``length`` bytes of a body; a file, which nobody else reads, is made as short."""
    if isinstance(body, bytes):
        return body[:length]
    body.truncate(length)
    return body
