"""A request to the target, and the protocol of the reader of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen
from twisted.web.iweb import IBodyProducer

from foreman import errors
from foreman.protocol.framing import BodyFraming
from foreman.protocol.headers import RawHeaders
from foreman.protocol.request_body import RequestBody
from foreman.protocol.routes import Route
from foreman.proxy.relay import Reader
from foreman.scheduling.queue_status import QueuePosition


@frozen
class TargetRequest:
    """A request to the target.

    :ivar target: raw path and query; :ivar headers: as the client sent them; :ivar length: of the body in bytes, None
        when no Content-Length is to be sent; :ivar parsed_body: what foreman needs to know of the body, None on routes where
        that does not matter; :ivar chunked: the body is sent in chunks; :ivar version: of HTTP in the client's request.
    """

    method: bytes
    target: bytes
    headers: RawHeaders
    body: bytes | IBodyProducer
    length: int | None
    route: Route
    parsed_body: RequestBody | None
    chunked: bool = False
    version: bytes = b"1.1"


class Responder(Reader, Protocol):
    """A reader that is also notified when its request waits, and when its answer begins."""

    def queued(self, position: Callable[[], QueuePosition]) -> None:
        """The request was accepted, and waits for its turn and its first byte; ``position`` returns its place in the queue."""

    def begin(self, status: int, phrase: bytes, headers: RawHeaders, kind: BodyFraming) -> None:
        """The target has begun to answer; ``headers`` are for the client, ``kind`` is of ``framing.framing_of``."""


class ModelMissing(errors.ForemanError):
    """The target does not have the model; ``str()`` is Ollama's own text for that."""
