"""The status of a queue: positions, usual waits, and what each turn does."""

from __future__ import annotations

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from foreman.protocol.model_names import canonical, same_model
from foreman.scheduling.estimates import Estimates, Range
from foreman.scheduling.gate import Gate, Turn
from foreman.scheduling.policy import Ticket
from foreman.target.inventory import Inventory
from foreman.util.clock import NEVER, Monotonic, now

#: How long the positions are kept once they were computed, in seconds: thousands of requests may need theirs at once.
KEPT_FOR = 1.0


@frozen
class QueuePosition:
    """The place of a request in the queue.

    :ivar position: 1 is next, 0 has its turn; :ivar wait: how long until its turn, None where unknown.
    """

    position: int
    wait: Range | None


@define(eq=False)
class QueueStatus:
    """The queue of one gate, and each place in it."""

    _clock: IReactorTime
    _gate: Gate
    _inventory: Inventory
    _estimates: Estimates
    _positions: dict[Ticket, QueuePosition] = field(factory=dict, init=False)
    _computed_at: Monotonic = field(default=NEVER, init=False)

    def position_of(self, ticket: Ticket) -> QueuePosition:
        """The place of ``ticket``, which may be up to ``KEPT_FOR`` seconds old."""
        moment = now(self._clock)
        if moment - self._computed_at >= KEPT_FOR or ticket not in self._positions:
            queue = enumerate(self.queue(), 1)
            self._positions = {waiting: QueuePosition(position, wait) for position, (waiting, wait) in queue}
            self._computed_at = moment
        return self._positions.get(ticket, QueuePosition(0, None))

    def queue(self) -> list[tuple[Ticket, Range | None]]:
        """The tickets that wait, in order, with how long each usually has to wait."""
        places: list[tuple[Ticket, Range | None]] = []
        usual: dict[str | None, Range | None] = {}
        wait: Range | None = self._until_free()
        for ticket in self._gate.waiting:
            places.append((ticket, wait))
            if wait is not None:
                model = None if ticket.model is None else canonical(ticket.model)
                if model not in usual:
                    usual[model] = self.usual_time(ticket)
                wait = _sum(wait, usual[model])
        return places

    def usual_time(self, ticket: Ticket) -> Range | None:
        """How long the chat of ``ticket`` usually takes once it has its turn."""
        if ticket.model is None:
            return None
        return self._estimates.answer_time(ticket.model, loaded=self._inventory.is_running(ticket.model))

    def usual_load(self, ticket: Ticket) -> float | None:
        """How long the model of ``ticket`` usually takes to load, in seconds."""
        return None if ticket.model is None else self._estimates.load_time(ticket.model)

    def state_of(self, turn: Turn) -> str:
        """What a turn does: ``loading`` its model, ``reading`` the prompt, or ``answering``."""
        if turn.answering:
            return "answering"
        model = turn.ticket.model
        return "reading" if model is not None and self._inventory.is_running(model) else "loading"

    def is_load_wanted(self, turn: Turn) -> bool:
        """Whether ``turn`` is loading a model for which others wait."""
        model = turn.ticket.model
        if model is None or self.state_of(turn) != "loading":
            return False
        waiting = (*self._gate.waiting, *self._gate.waiting_jobs)
        return any(ticket.model is not None and same_model(ticket.model, model) for ticket in waiting)

    def is_overtime(self, turn: Turn) -> bool:
        """Whether ``turn`` has taken longer than usual, so that its end cannot be predicted."""
        left = self._left(turn)
        return left is not None and left.high <= 0

    def overdue_since(self, limit: float) -> Monotonic | None:
        """Since when the oldest turn has waited for its first byte, if that is longer than ``limit`` seconds."""
        before = self._clock.seconds() - limit
        began = [turn.began_at for turn in self._gate.running if not turn.answering and turn.began_at < before]
        return min(began, default=None)

    def _until_free(self) -> Range | None:
        """How long until the first turn ends; None where one cannot be estimated, or all take longer than usual."""
        running = self._gate.running
        if len(running) < self._gate.turns:
            return Range(0.0, 0.0)
        left = [self._left(turn) for turn in running]
        known = [time for time in left if time is not None]
        in_time = [time for time in known if time.high > 0]
        if len(known) < len(left) or not in_time:
            return None
        first = min(in_time, key=lambda time: time.high)
        return first if len(in_time) == len(left) else Range(0.0, first.high)

    def _left(self, turn: Turn) -> Range | None:
        """How long ``turn`` usually goes on from now; 0 to 0 where it takes longer than usual."""
        usual = self.usual_time(turn.ticket)
        if usual is None:
            return None
        load = self.usual_load(turn.ticket)
        if turn.cold and load is not None and self.state_of(turn) != "loading":
            usual += Range(load, load)  # it has loaded meanwhile
        elapsed = self._clock.seconds() - turn.began_at
        return Range(max(0.0, usual.low - elapsed), max(0.0, usual.high - elapsed))


def _sum(first: Range | None, second: Range | None) -> Range | None:
    return None if first is None or second is None else first + second
