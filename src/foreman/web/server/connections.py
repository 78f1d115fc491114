"""The connections of clients: how many there may be, and which is closed for a new one when all places are taken."""

from __future__ import annotations

from collections import Counter, OrderedDict
from ipaddress import ip_address
from itertools import islice
from math import inf
from typing import Generic, Protocol, TypeVar

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from foreman.util.tracked_set import TrackedSet
from foreman.web.server.body_rate import BodyRate
from foreman.web.server.phases import Phase, Place

#: At most one line is logged in this time about too many connections, in seconds.
LOG_INTERVAL = 60.0
#: The most connections beyond the limit: the head of a request is read on each; ``/healthz`` is answered, every other request
#: is refused with the reason.
MAX_ON_STANDBY = 256
#: The most connections that linger, see ``web.server.linger``.
MAX_LINGERING = 256
#: A body that arrives at this many bytes a second is not slow. So that the check holds up no other request, at most so many
#: bodies are checked, those that began first, and for new connections not more often than this, in seconds.
SLOW_RATE = 64 * 1024
MAX_BODIES_CHECKED = 2048
CHECK_INTERVAL = 0.25
#: A connection keeps its place for this long after it was accepted or its last answer ended, in seconds: the request that it
#: has sent may not have been read yet. Not so where such connections of one address have more than half of all places.
QUIET_GRACE = 0.1
#: What all connections together may hold of heads, of requests sent ahead, and of model files that wait for the target, in
#: bytes. A connection that holds at most ``FAIR_HELD`` is not closed because of that.
MAX_HELD = 32 * 1024 * 1024
FAIR_HELD = 4 * 1024

#: Phases in which a connection has no whole head of a request, and those in which it always keeps its place.
QUIET = frozenset({Phase.NEW, Phase.IDLE, Phase.HEAD})
BUSY = frozenset({Phase.RESPONDING, Phase.REFUSING})


class TrackedConnection(Protocol):
    """What ``Connections`` needs of each of them.

    :ivar address: whose connections count together, see ``address_of``; :ivar arrival: how the body arrives;
    :ivar held: what it holds of ``MAX_HELD``, in bytes; :ivar quiet_since: in seconds of the clock. ``phase``, ``place``,
        ``held`` and ``quiet_since`` are kept by ``Connections``.
    """

    address: str
    arrival: BodyRate
    phase: Phase
    place: Place
    held: int
    quiet_since: float

    def make_room(self, status: int, why: str) -> None:
        """Close, since others need the place; with ``status`` and ``why``, if a request has begun."""

    def drain(self) -> None:
        """foreman is stopping: close now, or after the answer that is under way."""

    def abort(self) -> None:
        """Cut the connection."""


C = TypeVar("C", bound=TrackedConnection)


@define(eq=False)
class Connections(Generic[C]):
    """All connections.

    Where all places are taken, a new connection gets the place of one that does nothing useful: first of one that lingers;
    then of the oldest without a whole head, of the address with the most connections, or of one whose body arrives slowly,
    whichever of these are more; then of one whose client reads its last answer slowly. Requests that wait or are answered
    keep their places. One address may have seven eighths of all places.

    :ivar limit: the number of places; :ivar open: every connection, those on standby and the evicted included.
    """

    _clock: IReactorTime
    limit: int
    open: TrackedSet[C] = field(factory=TrackedSet, init=False)
    _counted: int = field(default=0, init=False)
    #: How many are counted of each address.
    _of_address: Counter[str] = field(factory=Counter, init=False)
    _quiet: dict[str, OrderedDict[C, None]] = field(factory=dict, init=False)
    #: The addresses in ``_quiet`` by their number of connections; there are at most as many numbers as the root of twice
    #: ``limit``.
    _by_count: dict[int, OrderedDict[str, None]] = field(factory=dict, init=False)
    #: Those that are neither quiet nor busy, the oldest first: the counted by their phase, the others by their place.
    _lists: dict[Phase | Place, OrderedDict[C, None]] = field(init=False)
    #: Those whose bodies came slowly when they were last checked, the slowest first.
    _slow: dict[C, None] = field(factory=dict, init=False)
    _check_again_at: float = field(default=-inf, init=False)
    _held: int = field(default=0, init=False)
    _sent_away: int = field(default=0, init=False)
    _logged_at: float = field(default=-inf, init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        keys: list[Phase | Place] = [phase for phase in Phase if phase not in QUIET | BUSY]
        self._lists = {key: OrderedDict() for key in [*keys, Place.STANDBY, Place.EVICTED]}

    @property
    def on_standby(self) -> int:
        """The most connections beyond ``limit``."""
        return max(16, min(MAX_ON_STANDBY, self.limit // 8))

    # from accepting to closing

    def admit(self, connection: C) -> None:
        """Give ``connection`` a place, or put it on standby."""
        self.open.add(connection)
        self._counted += 1
        self._count_at(connection.address, 1)
        self._insert(connection)
        over_share = self._of_address[connection.address] > self.limit - self.limit // 8
        if not (over_share or self._counted > self.limit):
            return
        victim = self._victim(connection, connection.address if over_share else None)
        if victim is not None:
            self.evict(victim, "this request arrived slowly, and others need its place (FOREMAN_MAX_CONNECTIONS)")
        else:
            self._uncount(connection, Place.STANDBY)
            self._log_full()
            self._trim(Place.STANDBY, self.on_standby)

    def move(self, connection: C, phase: Phase) -> None:
        """``connection`` enters ``phase``."""
        before = connection.phase
        is_alike = before is phase or (before in QUIET and phase in QUIET) or (before in BUSY and phase in BUSY)
        if is_alike or connection.place is not Place.COUNTED:
            connection.phase = phase
            return
        self._take_out(connection)
        connection.phase = phase
        self._insert(connection)
        if phase is Phase.LINGERING:
            self._trim(phase, MAX_LINGERING)

    def remove(self, connection: C) -> None:
        """``connection`` is lost."""
        self.count_held(connection, 0)
        if connection.place is Place.COUNTED:
            self._discount(connection)
        self._take_out(connection)
        self.open.discard(connection)

    def evict(self, connection: C, why: str) -> None:
        """Close ``connection``, with the reason ``why`` where an answer can still be given."""
        place, phase = connection.place, connection.phase
        self._uncount(connection, Place.EVICTED)
        if place is not Place.STANDBY:  # those were counted for the log when they came
            self._log_full()
        if place is Place.STANDBY or phase in (Phase.LINGERING, Phase.CLOSING):
            self._take_out(connection)
            connection.abort()
            return
        connection.make_room(503, why)
        # Those that take their time to close are bounded, too.
        self._trim(Place.EVICTED, self.on_standby)

    def _trim(self, key: Phase | Place, most: int) -> None:
        while len(self._lists[key]) > most:
            connection, _ = self._lists[key].popitem(last=False)
            if key is not Place.EVICTED:
                self.evict(connection, "")
            else:
                connection.abort()

    # which connection makes room

    def is_slow(self, connection: C) -> bool:
        """Whether the body of ``connection`` arrives slowly."""
        return connection.phase is Phase.BODY and connection.arrival.rate(self._clock.seconds()) < SLOW_RATE

    def slow_bodies(self) -> list[C]:
        """The connections whose bodies arrive slowly, the slowest first."""
        now = self._clock.seconds()
        oldest = islice(self._lists[Phase.BODY], MAX_BODIES_CHECKED)
        rates = [(connection.arrival.rate(now), number, connection) for number, connection in enumerate(oldest)]
        return [connection for _, _, connection in sorted(rate for rate in rates if rate[0] < SLOW_RATE)]

    def _victim(self, newcomer: C, own: str | None) -> C | None:
        """The connection that is to close, so that ``newcomer`` has a place; ``own``: only one of this address may be chosen."""
        # Slow bodies are closed first where there are more of them than quiet connections of the newcomer's address. If quiet
        # ones always were, thousands of slow bodies would keep their places, and new connections would be closed before
        # their requests are read.
        bodies_first = len(self._lists[Phase.BODY]) > len(self._quiet[newcomer.address])
        return (
            self._first(Phase.LINGERING, own)
            or (self._slowest_body(own) if bodies_first else None)
            or self._oldest_quiet(newcomer, own)
            or self._slowest_body(own)
            or self._first(Phase.CLOSING, own)
        )

    def _first(self, phase: Phase, own: str | None) -> C | None:
        connections = self._lists[phase]
        return next((connection for connection in connections if own is None or connection.address == own), None)

    def _oldest_quiet(self, newcomer: C, own: str | None) -> C | None:
        address = own if own is not None else next(iter(self._by_count[max(self._by_count)]))
        alike = self._quiet[address]
        oldest = next(iter(alike))
        if self._clock.seconds() - oldest.quiet_since < QUIET_GRACE and len(alike) <= self.limit // 2:
            return None
        return oldest if oldest is not newcomer else None

    def _slowest_body(self, own: str | None) -> C | None:
        found, now = self._known_slow(own), self._clock.seconds()
        if found is None and now >= self._check_again_at:
            self._check_again_at = now + CHECK_INTERVAL
            self._slow = dict.fromkeys(self.slow_bodies())
            found = self._known_slow(own)
        return found

    def _known_slow(self, own: str | None) -> C | None:
        faster: list[C] = []
        found = None
        for connection in self._slow:
            if own is not None and connection.address != own:
                continue
            if self.is_slow(connection):
                found = connection
                break
            faster.append(connection)
        for connection in faster:
            del self._slow[connection]
        return found

    # memory for heads and data sent ahead

    def count_held(self, connection: C, count: int) -> None:
        """``connection`` holds ``count`` bytes, see ``MAX_HELD``; where all hold too much, it is evicted."""
        more, connection.held = count - connection.held, count
        if not more:
            return
        self._held += more
        if self._held > MAX_HELD and more > 0 and count > FAIR_HELD and connection.place is not Place.EVICTED:
            self.evict(connection, "the heads of requests take up too much memory; try again soon")

    # bookkeeping

    def _uncount(self, connection: C, place: Place) -> None:
        if connection.place is Place.COUNTED:
            self._discount(connection)
        self._take_out(connection)
        connection.place = place
        self._insert(connection)

    def _discount(self, connection: C) -> None:
        self._counted -= 1
        self._count_at(connection.address, -1)

    def _count_at(self, address: str, more: int) -> None:
        if address in self._quiet:
            self._take_from_count(address)
        self._of_address[address] += more
        if address in self._quiet:
            self._by_count.setdefault(self._of_address[address], OrderedDict())[address] = None
        if not self._of_address[address]:
            del self._of_address[address]

    def _take_from_count(self, address: str) -> None:
        count = self._of_address[address]
        alike = self._by_count[count]
        del alike[address]
        if not alike:
            del self._by_count[count]

    def _insert(self, connection: C) -> None:
        if connection.place is Place.COUNTED and connection.phase in QUIET:
            connection.quiet_since = self._clock.seconds()
            if connection.address not in self._quiet:
                self._quiet[connection.address] = OrderedDict()
                count = self._of_address[connection.address]
                self._by_count.setdefault(count, OrderedDict())[connection.address] = None
            self._quiet[connection.address][connection] = None
        elif (connections := self._list_of(connection)) is not None:
            connections[connection] = None

    def _take_out(self, connection: C) -> None:
        self._slow.pop(connection, None)
        if connection.place is not Place.COUNTED or connection.phase not in QUIET:
            if (connections := self._list_of(connection)) is not None:
                connections.pop(connection, None)
            return
        alike = self._quiet.get(connection.address)
        if alike is not None:
            alike.pop(connection, None)
            if not alike:
                self._take_from_count(connection.address)
                del self._quiet[connection.address]

    def _list_of(self, connection: C) -> OrderedDict[C, None] | None:
        return self._lists.get(connection.phase if connection.place is Place.COUNTED else connection.place)

    def _log_full(self) -> None:
        self._sent_away += 1
        now = self._clock.seconds()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            self._log.warn(
                "{count} connections are open (FOREMAN_MAX_CONNECTIONS): {sent_away} were refused, or closed to make room",
                count=self._counted,
                sent_away=self._sent_away,
            )
            self._sent_away = 0


def address_of(host: str) -> str:
    """The key by which connections are counted: an IPv4 address, an IPv6 network of 64 bits, or ``host`` of anything else."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return host
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else address.packed[:8].hex()
