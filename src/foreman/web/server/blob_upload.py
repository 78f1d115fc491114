"""A model file of any size, which is forwarded to the target while it arrives, and kept neither in memory nor on disk."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer


@implementer(IBodyProducer, IPushProducer)
@define(eq=False)
class BlobUpload:
    """Passes on the body that a client sends, as fast as the target reads it.

    :ivar client: the client's connection, which is paused while the target reads nothing; :ivar size: of the body in bytes;
        None when the client sends it in chunks: then it goes on in chunks; :ivar length: the same for Twisted;
    :ivar paused: the target reads nothing now.
    """

    _client: IPushProducer
    size: int | None
    length: Any = field(init=False)
    paused: bool = field(default=False, init=False)
    _was_paused: bool = field(default=False, init=False)
    _consumer: IConsumer | None = field(default=None, init=False)
    _buffer: list[bytes] = field(factory=list, init=False)
    _is_whole: bool = field(default=False, init=False)
    _is_stopped: bool = field(default=False, init=False)
    _sent: Deferred[None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.length = UNKNOWN_LENGTH if self.size is None else self.size
        self._sent = Deferred(lambda _: self.stopProducing())

    # the client's side

    def feed(self, data: bytes) -> None:
        """A part of the body has arrived."""
        if self._is_stopped:
            return
        if self._consumer is None:
            self._buffer.append(data)
            self.pauseProducing()
        else:
            self._write(data)
            if self.paused:
                self._client.pauseProducing()  # something else has resumed it

    def end(self) -> None:
        """The body is whole."""
        self._is_whole = True
        if self._consumer is not None and not self._is_stopped:
            self._finish()

    @property
    def buffered(self) -> int:
        """The bytes that wait here until the connection to the target is made."""
        return sum(map(len, self._buffer))

    def was_paused(self) -> bool:
        """Whether the upload was paused at any time since the last call, or is."""
        held_up, self._was_paused = self._was_paused, self.paused
        return held_up

    # the target's side

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """The connection to the target is made; the Deferred fires when the whole body has been written to it."""
        self._consumer = consumer
        consumer.registerProducer(self, True)
        buffered, self._buffer = self._buffer, []
        for data in buffered:
            self._write(data)
        if self._is_whole:
            self._finish()
        else:
            self.resumeProducing()
        return self._sent

    def pauseProducing(self) -> None:
        """Read no more from the client for now."""
        if not self.paused and not self._is_whole:
            self.paused = self._was_paused = True
            self._client.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            self._client.resumeProducing()

    def stopProducing(self) -> None:
        """The target reads no more; what still arrives is dropped."""
        self._is_stopped = True
        self._buffer.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()
        self.resumeProducing()

    def _write(self, data: bytes) -> None:
        if self._consumer is not None:
            self._consumer.write(data if self.size is not None else b"%x\r\n%b\r\n" % (len(data), data))

    def _finish(self) -> None:
        if self.size is None and self._consumer is not None:
            self._consumer.write(b"0\r\n\r\n")
        self.stopProducing()
        self._sent.callback(None)
