"""A large request body that is sent to the target from its file, piece by piece."""

from __future__ import annotations

from typing import BinaryIO

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPullProducer
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

#: In bytes; pieces of this size delay other streams by 5 ms at most while 25 MB are sent.
PIECE = 128 * 1024


@implementer(IBodyProducer, IPullProducer)
@define(eq=False)
class FileBody:
    """The first ``length`` bytes of ``file``; a pull producer, so that each piece is sent when the connection can take it."""

    _file: BinaryIO
    length: int
    _consumer: IConsumer | None = field(default=None, init=False)
    _sent: Deferred[None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._sent = Deferred(lambda _: self.stopProducing())

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Begin; the Deferred fires when the last byte has been written to ``consumer``."""
        self._file.seek(0)
        self._consumer = consumer
        consumer.registerProducer(self, False)
        return self._sent

    def resumeProducing(self) -> None:
        """Write the next piece."""
        if self._consumer is None:
            return
        piece = self._file.read(PIECE)
        if piece:
            self._consumer.write(piece)
        else:
            self.stopProducing()
            self._sent.callback(None)

    def pauseProducing(self) -> None:
        """Nothing to do: a pull producer writes only when asked."""

    def stopProducing(self) -> None:
        """Write nothing more."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()
