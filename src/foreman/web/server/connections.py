"""The connections of clients: how many there may be, and which of them makes room when all places are taken."""

from __future__ import annotations

from collections import Counter, OrderedDict
from enum import Enum
from ipaddress import ip_address
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from foreman.util.tracked_set import TrackedSet

if TYPE_CHECKING:
    from foreman.web.server.connection import ClientConnection

#: How often it is said that there are too many connections, in seconds.
CROWDED_SILENCE = 60.0
#: The most connections beyond the limit: each is read for its head, is answered where it asks for ``/healthz``, and else
#: gets to see why it is refused.
MAX_ON_STANDBY = 256
#: The most connections that linger, see ``web.linger``.
MAX_LINGERING = 256
#: A body that comes at this many bytes a second is not slow. To hold up nobody else, at most so many bodies are looked at,
#: those that began first, and for newcomers not more often than this, in seconds.
SLOW = 64 * 1024
BODIES_LOOKED_AT = 2048
BETWEEN_LOOKS = 0.25
#: A connection keeps its place for this long after it was accepted or its last answer ended, in seconds: the request that it
#: sends may not have been read yet. The limit does not hold where one address has more than half of all places like that.
TIME_FOR_A_HEAD = 0.1
#: What all connections may hold of heads, of requests sent ahead, and of files that wait for the target, in bytes; a
#: connection that holds less than ``ORDINARY`` is not at fault for it.
HEADS_IN_ALL = 32 * 1024 * 1024
ORDINARY = 4 * 1024


class Stage(Enum):
    """What a connection is doing.

    QUIET: it has no whole head of a request; BODY: its body arrives; BUSY: it is answered; LINGERING: it was refused, and
    goes on sending; CLOSING: the rest of its answer goes out; STANDBY: it is one too many; GONE: it was told to go.
    """

    QUIET = "quiet"
    BODY = "body"
    BUSY = "busy"
    LINGERING = "lingering"
    CLOSING = "closing"
    STANDBY = "standby"
    GONE = "gone"


#: Stages that take no place.
UNCOUNTED = (Stage.STANDBY, Stage.GONE)


@define(eq=False)
class Connections:
    """All connections.

    A new one that finds all places taken gets the place of one that does nothing useful: first of one that lingers, then
    of one that has no whole head of a request, the oldest of the address with the most connections, or of one whose body
    comes slowly, whichever are more, then of one that takes its last answer slowly. Requests that are answered keep their places. One
    address may have seven eighths of all places.

    :ivar most: places; :ivar open: whoever is there, those on standby and those told to go included.
    """

    _clock: IReactorTime
    most: int
    open: TrackedSet[ClientConnection] = field(factory=TrackedSet, init=False)
    _taken: int = field(default=0, init=False)
    _at: Counter[str] = field(factory=Counter, init=False)
    _quiet: dict[str, OrderedDict[ClientConnection, None]] = field(factory=dict, init=False)
    #: The addresses in ``_quiet`` by their number of connections; there are at most as many numbers as the root of twice ``most``.
    _by_count: dict[int, OrderedDict[str, None]] = field(factory=dict, init=False)
    _others: dict[Stage, OrderedDict[ClientConnection, None]] = field(init=False)
    #: Those whose bodies came slowly when they were last looked at, the slowest first.
    _slow: dict[ClientConnection, None] = field(factory=dict, init=False)
    _look_again_at: float = field(default=-inf, init=False)
    _heads: int = field(default=0, init=False)
    _sent_away: int = field(default=0, init=False)
    _said_at: float = field(default=-inf, init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._others = {stage: OrderedDict() for stage in Stage if stage not in (Stage.QUIET, Stage.BUSY)}

    @property
    def on_standby(self) -> int:
        """The most connections beyond ``most``."""
        return max(16, min(MAX_ON_STANDBY, self.most // 8))

    # coming, going on, leaving

    def admit(self, connection: ClientConnection) -> None:
        """Give ``connection`` a place, or put it on standby."""
        self.open.add(connection)
        self._taken += 1
        self._count_at(connection.address, 1)
        self._put(connection, Stage.QUIET)
        over_share = self._at[connection.address] > self.most - self.most // 8
        if not (over_share or self._taken > self.most):
            return
        victim = self._victim(connection, connection.address if over_share else None)
        if victim is not None:
            self.send_away(victim, "this request came slowly, and others need its place (FOREMAN_MAX_CONNECTIONS)")
        else:
            self._count_out(connection)
            self._put(connection, Stage.STANDBY)
            self._say_crowded()
            self._trim(Stage.STANDBY, self.on_standby)

    def move(self, connection: ClientConnection, stage: Stage) -> None:
        """``connection`` goes on to ``stage``; on standby, and told to go, it stays what it is."""
        if connection.stage not in UNCOUNTED and connection.stage is not stage:
            self._put(connection, stage)
            if stage is Stage.LINGERING:
                self._trim(stage, MAX_LINGERING)

    def left(self, connection: ClientConnection) -> None:
        """The connection of ``connection`` is gone."""
        self.count_held(connection, 0)
        if connection.stage not in UNCOUNTED:
            self._count_out(connection)
        self._take_out(connection)
        self.open.discard(connection)

    def send_away(self, connection: ClientConnection, why: str) -> None:
        """Close the connection of ``connection``, in words where an answer can still be given."""
        if connection.stage not in UNCOUNTED:
            self._count_out(connection)
        if connection.stage is not Stage.STANDBY:  # it was counted when it came
            self._say_crowded()
        if connection.stage in (Stage.LINGERING, Stage.CLOSING, Stage.STANDBY):
            self._take_out(connection)
            connection.stage = Stage.GONE
            connection.abort()
            return
        self._put(connection, Stage.GONE)
        connection.make_way(503, why)
        # Those who take their time to go are bounded, too.
        self._trim(Stage.GONE, self.on_standby)

    def _trim(self, stage: Stage, most: int) -> None:
        while len(self._others[stage]) > most:
            connection, _ = self._others[stage].popitem(last=False)
            if stage is not Stage.GONE:
                self.send_away(connection, "")
            else:
                connection.abort()

    # who makes room

    def is_slow(self, connection: ClientConnection) -> bool:
        """Whether ``connection`` has a body that comes slowly."""
        return connection.stage is Stage.BODY and connection.arrival.rate(self._clock.seconds()) < SLOW

    def slow_bodies(self) -> list[ClientConnection]:
        """Those whose bodies come slowly, the slowest first."""
        now = self._clock.seconds()
        oldest = islice(self._others[Stage.BODY], BODIES_LOOKED_AT)
        rates = [(connection.arrival.rate(now), number, connection) for number, connection in enumerate(oldest)]
        return [connection for _, _, connection in sorted(rate for rate in rates if rate[0] < SLOW)]

    def _victim(self, newcomer: ClientConnection, own: str | None) -> ClientConnection | None:
        """Who goes, so that ``newcomer`` has a place; ``own``: only connections of this address may."""
        # Slow bodies go first where there are more of them than of quiet connections of the newcomer's address. If quiet ones
        # always went first, thousands of slow bodies would keep their places, and new connections would be closed before
        # their requests are read.
        bodies_first = len(self._others[Stage.BODY]) > len(self._quiet[newcomer.address])
        return (
            self._first(Stage.LINGERING, own)
            or (self._slowest_body(own) if bodies_first else None)
            or self._oldest_quiet(newcomer, own)
            or self._slowest_body(own)
            or self._first(Stage.CLOSING, own)
        )

    def _first(self, stage: Stage, own: str | None) -> ClientConnection | None:
        return next(
            (connection for connection in self._others[stage] if own is None or connection.address == own), None
        )

    def _oldest_quiet(self, newcomer: ClientConnection, own: str | None) -> ClientConnection | None:
        address = own if own is not None else next(iter(self._by_count[max(self._by_count)]))
        alike = self._quiet[address]
        oldest = next(iter(alike))
        if self._clock.seconds() - oldest.quiet_since < TIME_FOR_A_HEAD and len(alike) <= self.most // 2:
            return None
        return oldest if oldest is not newcomer else None

    def _slowest_body(self, own: str | None) -> ClientConnection | None:
        found, now = self._known_slow(own), self._clock.seconds()
        if found is None and now >= self._look_again_at:
            self._look_again_at = now + BETWEEN_LOOKS
            self._slow = dict.fromkeys(self.slow_bodies())
            found = self._known_slow(own)
        return found

    def _known_slow(self, own: str | None) -> ClientConnection | None:
        faster: list[ClientConnection] = []
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

    # what is held beside bodies

    def count_held(self, connection: ClientConnection, count: int) -> None:
        """``connection`` holds ``count`` bytes, of which ``HEADS_IN_ALL`` speaks; too much in all, and it is sent away."""
        more, connection.held = count - connection.held, count
        if not more:
            return
        self._heads += more
        if self._heads > HEADS_IN_ALL and more > 0 and count > ORDINARY and connection.stage is not Stage.GONE:
            self.send_away(connection, "the heads of requests take too much room; try again soon")

    # the books

    def _count_out(self, connection: ClientConnection) -> None:
        self._taken -= 1
        self._count_at(connection.address, -1)

    def _count_at(self, address: str, more: int) -> None:
        if address in self._quiet:
            self._take_from_count(address)
        self._at[address] += more
        if address in self._quiet:
            self._by_count.setdefault(self._at[address], OrderedDict())[address] = None
        if not self._at[address]:
            del self._at[address]

    def _take_from_count(self, address: str) -> None:
        count = self._at[address]
        alike = self._by_count[count]
        del alike[address]
        if not alike:
            del self._by_count[count]

    def _put(self, connection: ClientConnection, stage: Stage) -> None:
        self._take_out(connection)
        connection.stage = stage
        if stage is Stage.QUIET:
            connection.quiet_since = self._clock.seconds()
            if connection.address not in self._quiet:
                self._quiet[connection.address] = OrderedDict()
                self._by_count.setdefault(self._at[connection.address], OrderedDict())[connection.address] = None
            self._quiet[connection.address][connection] = None
        elif stage is not Stage.BUSY:
            self._others[stage][connection] = None

    def _take_out(self, connection: ClientConnection) -> None:
        self._slow.pop(connection, None)
        if connection.stage is not Stage.QUIET:
            if connection.stage is not Stage.BUSY:
                self._others[connection.stage].pop(connection, None)
            return
        alike = self._quiet.get(connection.address)
        if alike is not None:
            alike.pop(connection, None)
            if not alike:
                self._take_from_count(connection.address)
                del self._quiet[connection.address]

    def _say_crowded(self) -> None:
        self._sent_away += 1
        now = self._clock.seconds()
        if now - self._said_at >= CROWDED_SILENCE:
            self._said_at = now
            self._log.warn(
                "{count} connections are open (FOREMAN_MAX_CONNECTIONS): {sent_away} were refused, or closed to make room",
                count=self._taken,
                sent_away=self._sent_away,
            )
            self._sent_away = 0


def address_of(host: str) -> str:
    """Whose connections count together: those of one IPv4 address, of one network of IPv6 (64 bits), of a Unix socket."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return host
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else address.packed[:8].hex()
