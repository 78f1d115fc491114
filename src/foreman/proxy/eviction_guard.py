"""Embeddings wait a little while chats run whose model the target cannot hold beside theirs, and then run together.

Otherwise each of them would evict the other's model, and the target would do nothing but load (ADR-0013).
"""

from __future__ import annotations

from itertools import islice

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from foreman import errors
from foreman.protocol import model_names
from foreman.protocol.model_names import Key
from foreman.scheduling.gate import Gate, Turn
from foreman.scheduling.policy import Ticket
from foreman.target.model_conflicts import ModelConflicts

#: How long an embedding waits at most, in seconds.
HOLD = 15.0
#: Others of the same model may follow those that have waited until so many seconds after the first answer to one of them.
TOGETHER = 5.0
#: They may follow for so many seconds at most, whether one is answered or not.
AT_MOST = 60.0
#: How often it is looked whether the chats are over, in seconds.
LOOK = 0.25
#: How many of the chats that wait are looked at.
_NEXT = 16


@define(eq=False)
class EvictionGuard:
    """Where embeddings wait for chats, before they enter their own gate, which counts them among those that wait there."""

    _clock: IReactorTime
    _exclusive: ModelConflicts
    _gate: Gate
    _embeddings: Gate
    _waiting: dict[Deferred[None], tuple[str, float]] = field(factory=dict, init=False)
    _open_until: dict[Key, float] = field(factory=dict, init=False)
    _look: IDelayedCall | None = field(default=None, init=False)

    async def turn_for(self, ticket: Ticket) -> Turn:
        """Wait for a turn of an embedding; raises as ``Gate.enter``."""
        model, held = ticket.model, self._embeddings.held
        try:
            if model is not None and self._has_to_wait(model):
                if not ticket.is_job:
                    if not self._embeddings.has_place_for(ticket.caller):
                        raise errors.QueueFull("server busy, please try again.  maximum pending requests exceeded")
                    held[ticket] = None
                await self._until_free(model)
            return await self._embeddings.enter(ticket)
        finally:
            held.pop(ticket, None)

    def answered(self, model: str | None) -> None:
        """The target has begun to answer an embedding with ``model``."""
        key = None if model is None else _key(model)
        if key in self._open_until:
            self._open_until[key] = min(self._open_until[key], self._clock.seconds() + TOGETHER)

    def close(self) -> None:
        """Let everybody go on: their own line sends them away."""
        waiting, self._waiting = self._waiting, {}
        self._stop_looking()
        for entered in waiting:
            if not entered.called:
                entered.callback(None)

    def _until_free(self, model: str) -> Deferred[None]:
        """Wait until an embedding with ``model`` may go on; cancelling ends the waiting."""
        entered: Deferred[None] = Deferred(self._forget)
        self._waiting[entered] = (model, self._clock.seconds())
        if self._look is None:
            self._look = self._clock.callLater(LOOK, self._reads)
        return entered

    def _has_to_wait(self, model: str) -> bool:
        now = self._clock.seconds()
        exclusive = self._exclusive.of(model, now)
        if not exclusive:
            return False
        self._open_until = {key: until for key, until in self._open_until.items() if until > now}
        if _key(model) in self._open_until:
            return False
        tickets = [turn.ticket for turn in self._gate.running]
        tickets += islice(self._gate.waiting, _NEXT)
        tickets += self._gate.waiting_jobs
        return any(_key(typed) in exclusive for typed in {ticket.model for ticket in tickets} if typed is not None)

    def _reads(self) -> None:
        self._look = None
        now = self._clock.seconds()
        models = dict(reversed(self._waiting.values()))  # of each the one that has waited for longest
        free = set()
        for model, since in models.items():
            if not self._has_to_wait(model):
                free.add(model)
            elif now - since >= HOLD and (key := _key(model)) is not None:
                self._open_until[key] = now + AT_MOST
                free.add(model)
        for entered, (model, _) in list(self._waiting.items()):
            if model in free and self._waiting.pop(entered, None) is not None:
                entered.callback(None)
        if self._waiting and self._look is None:
            self._look = self._clock.callLater(LOOK, self._reads)

    def _forget(self, entered: Deferred[None]) -> None:
        self._waiting.pop(entered, None)
        if not self._waiting:
            self._stop_looking()

    def _stop_looking(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None


def _key(typed: str) -> Key | None:
    try:
        return model_names.parse(typed).key
    except errors.InvalidName:
        return None
