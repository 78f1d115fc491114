"""A request that waits or runs, and how it is stopped."""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.internet.defer import Deferred

from foreman import errors
from foreman.proxy.concurrency import Permit
from foreman.proxy.relay import Relay


@define(eq=False)
class ActiveRequest:
    """A request that waits for its turn or runs.

    :ivar id: of the request, or of the job; :ivar caller: whose it is; :ivar pending: what it waits for;
    :ivar relay: its answer, once that has begun; :ivar permit: its place at the target, where it takes no turn;
    :ivar why_stopped: set where it was stopped.
    """

    id: str
    caller: str
    pending: Deferred[Any] | None = None
    relay: Relay | None = None
    permit: Permit | None = None
    why_stopped: errors.ForemanError | None = None

    def release_permit(self) -> None:
        """The target has finished, whether or not the reader has: others may have the place."""
        if self.permit is not None:
            self.permit.release()

    def stop(self, why: errors.ForemanError) -> None:
        """End it, whether it waits or runs, because of ``why``."""
        self.why_stopped = why
        if self.relay is not None:
            self.relay.fail(why)
        elif self.pending is not None:
            self.pending.cancel()
