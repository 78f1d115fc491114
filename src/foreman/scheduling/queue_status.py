"""Who has a turn and who waits, and how long that will usually take."""

from __future__ import annotations

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from foreman.protocol.model_names import canonical, same_model
from foreman.scheduling.estimates import Estimates, Range
from foreman.scheduling.gate import Gate, Turn
from foreman.scheduling.policy import Ticket
from foreman.target.inventory import Inventory
from foreman.util.clock import NEVER, Monotonic, now

#: How long one look at the line serves everybody who asks where they stand, in seconds.
SHARED_FOR = 1.0


@frozen
class QueuePosition:
    """Where a request stands.

    :ivar position: 1 is next, 0 has its turn; :ivar wait: until its turn ends the waiting, None where unknown.
    """

    position: int
    wait: Range | None


@define(eq=False)
class QueueStatus:
    """What can be told of the line, and of each place in it."""

    _clock: IReactorTime
    _gate: Gate
    _inventory: Inventory
    _estimates: Estimates
    _places: dict[Ticket, QueuePosition] = field(factory=dict, init=False)
    _looked_at: Monotonic = field(default=NEVER, init=False)

    def place_of(self, ticket: Ticket) -> QueuePosition:
        """Where ``ticket`` stands, or stood less than a second ago: thousands may ask at once."""
        moment = now(self._clock)
        if moment - self._looked_at >= SHARED_FOR or ticket not in self._places:
            line = enumerate(self.line(), 1)
            self._places = {waiting: QueuePosition(position, wait) for position, (waiting, wait) in line}
            self._looked_at = moment
        return self._places.get(ticket, QueuePosition(0, None))

    def line(self) -> list[tuple[Ticket, Range | None]]:
        """Who waits, in order, and how long each will usually have to."""
        places: list[tuple[Ticket, Range | None]] = []
        usual: dict[str | None, Range | None] = {}
        wait: Range | None = self._until_free()
        for ticket in self._gate.waiting:
            places.append((ticket, wait))
            if wait is not None:
                model = None if ticket.model is None else canonical(ticket.model)
                if model not in usual:
                    usual[model] = self.usual(ticket)
                wait = _sum(wait, usual[model])
        return places

    def usual(self, ticket: Ticket) -> Range | None:
        """How long the chat of ``ticket`` usually takes once it has its turn."""
        if ticket.model is None:
            return None
        return self._estimates.answer_time(ticket.model, loaded=self._inventory.is_running(ticket.model))

    def usual_load(self, ticket: Ticket) -> float | None:
        """How long the model of ``ticket`` usually takes to load, in seconds."""
        return None if ticket.model is None else self._estimates.load_time(ticket.model)

    def state_of(self, turn: Turn) -> str:
        """What a turn is doing: ``loading`` its model, ``reading`` the prompt, or ``answering``."""
        if turn.answering:
            return "answering"
        model = turn.ticket.model
        return "reading" if model is not None and self._inventory.is_running(model) else "loading"

    def is_load_wanted(self, turn: Turn) -> bool:
        """Whether ``turn`` is loading a model that somebody who waits wants."""
        model = turn.ticket.model
        if model is None or self.state_of(turn) != "loading":
            return False
        waiting = (*self._gate.waiting, *self._gate.waiting_jobs)
        return any(ticket.model is not None and same_model(ticket.model, model) for ticket in waiting)

    def is_overtime(self, turn: Turn) -> bool:
        """Whether ``turn`` has taken longer than usual, so that nobody knows when it will end."""
        left = self._left(turn)
        return left is not None and left.high <= 0

    def overdue_since(self, limit: float) -> Monotonic | None:
        """Since when the oldest turn has waited for its first byte, if that is longer than ``limit`` seconds."""
        before = self._clock.seconds() - limit
        began = [turn.began_at for turn in self._gate.running if not turn.answering and turn.began_at < before]
        return min(began, default=None)

    def _until_free(self) -> Range | None:
        """Until the first running turn ends; None where it is not known of one of them, or all have taken too long."""
        running = self._gate.running
        if len(running) < self._gate.turns:
            return Range(0.0, 0.0)
        left = [self._left(turn) for turn in running]
        known = [one for one in left if one is not None]
        in_time = [one for one in known if one.high > 0]
        if len(known) < len(left) or not in_time:
            return None
        first = min(in_time, key=lambda one: one.high)
        return first if len(in_time) == len(left) else Range(0.0, first.high)

    def _left(self, turn: Turn) -> Range | None:
        """How long ``turn`` will usually go on; 0 to 0 where it has taken longer than usual."""
        usual = self.usual(turn.ticket)
        if usual is None:
            return None
        load = self.usual_load(turn.ticket)
        if turn.cold and load is not None and self.state_of(turn) != "loading":
            usual += Range(load, load)  # it has loaded since
        took = self._clock.seconds() - turn.began_at
        return Range(max(0.0, usual.low - took), max(0.0, usual.high - took))


def _sum(one: Range | None, other: Range | None) -> Range | None:
    return None if one is None or other is None else one + other
