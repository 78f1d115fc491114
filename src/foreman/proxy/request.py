"""What is asked of the target, and who asks."""

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
    """What goes to the target.

    :ivar target: raw path and query; :ivar headers: as the client sent them; :ivar length: of the body in bytes, None
        when no Content-Length is to be sent; :ivar asked: what the body asks for, None where nobody needs to know;
    :ivar chunked: the body goes in chunks; :ivar version: of HTTP, in which the client asked.
    """

    method: bytes
    target: bytes
    headers: RawHeaders
    body: bytes | IBodyProducer
    length: int | None
    route: Route
    asked: RequestBody | None
    chunked: bool = False
    version: bytes = b"1.1"


class Responder(Reader, Protocol):
    """Who asks: a reader that is also told of its waiting, and of the head of the answer."""

    def waits(self, place: Callable[[], QueuePosition]) -> None:
        """The request was found good, and waits for its turn and its first byte; ``place`` tells where it stands."""

    def begin(self, status: int, phrase: bytes, headers: RawHeaders, kind: BodyFraming) -> None:
        """The target has begun to answer; ``headers`` are those that may cross, ``kind`` as of ``ndjson.kind_for``."""


class ModelMissing(errors.ForemanError):
    """The target does not have the model; ``str()`` is Ollama's own text."""
