"""A body of any size on its way to the target while it arrives: a model file, which is kept neither in memory nor on disk."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer


@implementer(IBodyProducer, IPushProducer)
@define(eq=False)
class Upload:
    """Hands on what the client sends, at the pace of the target.

    :ivar client: the client's connection, which is paused while the target does not take more;
    :ivar size: of the body in bytes, None when the client sends it in chunks: then it goes on in chunks.
    """

    _client: IPushProducer
    size: int | None
    length: Any = field(init=False)
    paused: bool = field(default=False, init=False)
    _held_up: bool = field(default=False, init=False)
    _consumer: IConsumer | None = field(default=None, init=False)
    _waiting: list[bytes] = field(factory=list, init=False)
    _is_whole: bool = field(default=False, init=False)
    _is_over: bool = field(default=False, init=False)
    _sent: Deferred[None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.length = UNKNOWN_LENGTH if self.size is None else self.size
        self._sent = Deferred(lambda _: self.stopProducing())

    # the client's side

    def feed(self, data: bytes) -> None:
        """A part of the body has come."""
        if self._is_over:
            return
        if self._consumer is None:
            self._waiting.append(data)
            self.pauseProducing()
        else:
            self._write(data)
            if self.paused:
                self._client.pauseProducing()  # somebody else had it resumed

    def end(self) -> None:
        """The body has come to its end."""
        self._is_whole = True
        if self._consumer is not None and not self._is_over:
            self._finish()

    @property
    def waiting(self) -> int:
        """Bytes that are held here until the connection to the target is made."""
        return sum(map(len, self._waiting))

    def was_held_up(self) -> bool:
        """Whether the target has taken its time since this was asked last."""
        held_up, self._held_up = self._held_up, self.paused
        return held_up

    # the target's side

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """The connection to the target is made; the Deferred fires when everything has been handed over."""
        self._consumer = consumer
        consumer.registerProducer(self, True)
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._write(data)
        if self._is_whole:
            self._finish()
        else:
            self.resumeProducing()
        return self._sent

    def pauseProducing(self) -> None:
        """Take no more from the client for now."""
        if not self.paused and not self._is_whole:
            self.paused = self._held_up = True
            self._client.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on."""
        if self.paused:
            self.paused = False
            self._client.resumeProducing()

    def stopProducing(self) -> None:
        """The target wants no more of it; what still comes is forgotten."""
        self._is_over = True
        self._waiting.clear()
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
