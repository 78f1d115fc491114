"""Holds embeddings back while chats run whose model does not fit into the target's memory beside the embedding model.

Otherwise each of them would evict the other's model, and the target would do nothing but load (ADR-0013). Embeddings that
were held back then run together.
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

#: How long an embedding is held back at most, in seconds.
MAX_HOLD = 15.0
#: Embeddings with the same model may follow those that were held back until so many seconds after the first answer to one
#: of these.
FOLLOW_TIME = 5.0
#: For how long they may follow at most, in seconds, whether one is answered or not.
MAX_FOLLOW_TIME = 60.0
#: How often it is checked whether the chats have ended, in seconds.
RECHECK = 0.25
#: How many of the waiting chats are considered.
_MAX_WAITING = 16


@define(eq=False)
class EvictionGuard:
    """Holds embeddings back before they enter their gate, which counts them as waiting."""

    _clock: IReactorTime
    _conflicts: ModelConflicts
    _gate: Gate
    _embeddings: Gate
    _held: dict[Deferred[None], tuple[str, float]] = field(factory=dict, init=False)
    _open_until: dict[Key, float] = field(factory=dict, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

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
            self._open_until[key] = min(self._open_until[key], self._clock.seconds() + FOLLOW_TIME)

    def close(self) -> None:
        """Let all that are held back enter their gate, which refuses them once it is closed."""
        held, self._held = self._held, {}
        self._stop_timer()
        for released in held:
            if not released.called:
                released.callback(None)

    def _until_free(self, model: str) -> Deferred[None]:
        """Wait until an embedding with ``model`` may enter; cancelling removes it."""
        released: Deferred[None] = Deferred(self._remove)
        self._held[released] = (model, self._clock.seconds())
        if self._timer is None:
            self._timer = self._clock.callLater(RECHECK, self._release)
        return released

    def _has_to_wait(self, model: str) -> bool:
        now = self._clock.seconds()
        conflicting = self._conflicts.of(model, now)
        if not conflicting:
            return False
        self._open_until = {key: until for key, until in self._open_until.items() if until > now}
        if _key(model) in self._open_until:
            return False
        tickets = [turn.ticket for turn in self._gate.running]
        tickets += islice(self._gate.waiting, _MAX_WAITING)
        tickets += self._gate.waiting_jobs
        return any(_key(typed) in conflicting for typed in {ticket.model for ticket in tickets} if typed is not None)

    def _release(self) -> None:
        """Release those that no longer have to wait, or have waited for too long."""
        self._timer = None
        now = self._clock.seconds()
        models = dict(reversed(self._held.values()))  # of each model the embedding that has waited for longest
        free = set()
        for model, since in models.items():
            if not self._has_to_wait(model):
                free.add(model)
            elif now - since >= MAX_HOLD and (key := _key(model)) is not None:
                self._open_until[key] = now + MAX_FOLLOW_TIME
                free.add(model)
        for released, (model, _) in list(self._held.items()):
            if model in free and self._held.pop(released, None) is not None:
                released.callback(None)
        if self._held and self._timer is None:
            self._timer = self._clock.callLater(RECHECK, self._release)

    def _remove(self, released: Deferred[None]) -> None:
        self._held.pop(released, None)
        if not self._held:
            self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _key(typed: str) -> Key | None:
    try:
        return model_names.parse(typed).key
    except errors.InvalidName:
        return None
