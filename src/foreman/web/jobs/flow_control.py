"""Flow control: writing no faster than the reader reads."""

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
    """Waits while the connection's write buffer is full.

    :ivar stall_timeout: how long a reader may read nothing, in seconds.
    """

    _clock: IReactorTime
    _stall_timeout: float
    _paused: bool = field(default=False, init=False)
    _resumed: Deferred[None] | None = field(default=None, init=False)

    async def ready(self) -> None:
        """Wait until the connection can take more.

        :raises errors.ReaderStalled: when the reader reads nothing for too long.
        """
        if not self._paused:
            return
        resumed: Deferred[None] = Deferred()
        self._resumed = resumed
        deadline = Deadline(self._clock)
        deadline.set(self._stall_timeout, resumed.cancel)
        try:
            await resumed
        except CancelledError:
            if deadline.is_set:  # the deadline has not fired: the reader has disconnected
                raise
            raise errors.ReaderStalled(f"the reader took nothing for {self._stall_timeout:g} s") from None
        finally:
            self._resumed = None
            deadline.clear()

    # IPushProducer, called by the connection

    def pauseProducing(self) -> None:
        """The write buffer is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The write buffer is empty again."""
        self._paused = False
        if self._resumed is not None and not self._resumed.called:
            self._resumed.callback(None)

    def stopProducing(self) -> None:
        """The reader has disconnected; the request cancels its route by itself."""
