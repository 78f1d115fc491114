"""One request that runs or waits, as those see it who may stop it."""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.internet.defer import Deferred

from foreman import errors
from foreman.proxy.concurrency import Permit
from foreman.proxy.relay import Relay


@define(eq=False)
class ActiveRequest:
    """One request that runs, or waits for its turn, so that it can be stopped.

    :ivar id: of the request, or of the job; :ivar caller: whose it is; :ivar passed: its place at the target, where it
        takes no turn.
    """

    id: str
    caller: str
    pending: Deferred[Any] | None = None
    relay: Relay | None = None
    passed: Permit | None = None
    why_stopped: errors.ForemanError | None = None

    def is_done_at_target(self) -> None:
        """The target has finished, whatever the reader does: others may have the place."""
        if self.passed is not None:
            self.passed.release()

    def stop(self, why: errors.ForemanError) -> None:
        """End it, wherever it is."""
        self.why_stopped = why
        if self.relay is not None:
            self.relay.give_up(why)
        elif self.pending is not None:
            self.pending.cancel()
