"""Writing no faster than the reader takes it."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from foreman import errors
from foreman.util.deadline import Deadline


@implementer(IPushProducer)
@define(eq=False)
class FlowControl:
    """Is told by a connection when it is full.

    :ivar patience: how long a reader may take nothing, in seconds.
    """

    _clock: IReactorTime
    _patience: float
    _paused: bool = field(default=False, init=False)
    _taken: Deferred[None] | None = field(default=None, init=False)

    async def ready(self) -> None:
        """Wait until the reader takes more.

        :raises errors.ReaderStalled: when it takes nothing.
        """
        if not self._paused:
            return
        taken: Deferred[None] = Deferred()
        self._taken = taken
        stall = Deadline(self._clock)
        stall.set(self._patience, taken.cancel)
        try:
            await taken
        except CancelledError:
            if stall.is_set:  # its reader has left
                raise
            raise errors.ReaderStalled(f"the reader took nothing for {self._patience:g} s") from None
        finally:
            self._taken = None
            stall.clear()

    # the connection tells

    def pauseProducing(self) -> None:
        """It is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It is empty again."""
        self._paused = False
        if self._taken is not None and not self._taken.called:
            self._taken.callback(None)

    def stopProducing(self) -> None:
        """Its reader is gone; the route is cancelled by others."""
