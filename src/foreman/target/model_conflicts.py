"""Which models the target cannot hold at once, learnt from its lists of what is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime

from attrs import define, field

from foreman import errors
from foreman.protocol import model_names
from foreman.protocol.headers import RawHeaders
from foreman.protocol.model_names import Key
from foreman.target.listings import Running

#: How long it is believed that two models do not fit together, in seconds: memory may have become free.
BELIEVED = 600.0
#: How long after a model was evicted the one that comes may be the reason, in seconds: it has to be loaded first.
LOADING = 120.0
#: For how long an answer says that its model was loaded, in seconds.
USED = 10.0
#: How many pairs, and how many loaded models, are looked at.
_MAX_PAIRS, _MAX_LOADED = 256, 64


@define(eq=False)
class ModelConflicts:
    """What the lists told.

    A model that is gone before it has expired, when another has come, made room for that one. So did a model that has just
    answered and is not listed, since the target unloads none so early for another reason.
    """

    _loaded: dict[Key, str] = field(factory=dict, init=False)
    _used: dict[Key, tuple[str, float]] = field(factory=dict, init=False)
    _evicted: dict[Key, float] = field(factory=dict, init=False)
    _pairs: dict[frozenset[Key], float] = field(factory=dict, init=False)

    def answered(self, typed: str, digest: str, at: float) -> None:
        """A model has begun to answer; ``digest`` is that of its weights, which may be loaded by another name."""
        with suppress(errors.InvalidName):
            self._used.pop(key := model_names.parse(typed).key, None)
            self._used[key] = (digest, at)

    def saw(self, running: Sequence[Running], headers: RawHeaders, asked_at: float, at: float) -> None:
        """The target has listed what is loaded.

        :param headers: of its answer, with its own ``Date``; without one nothing is learnt;
        :param asked_at, at: when it was asked, and when it answered, in seconds of the clock.
        """
        before, self._loaded = self._loaded, _by_key(running[:_MAX_LOADED])
        date = _date(headers)
        for key in before.keys() - self._loaded.keys():
            if date is not None and _is_later(before[key], date):
                self._evicted[key] = at
        for key in self._loaded:
            self._evicted.pop(key, None)
        self._evicted = {key: since for key, since in self._evicted.items() if at - since <= LOADING}
        staying = {key for key, until in self._loaded.items() if date is not None and _is_later(until, date)}
        for come in self._loaded.keys() - before.keys():
            self._learn(come, self._evicted, at)
        for stays in staying:
            self._learn(stays, self._missing({model.digest for model in running}, asked_at), at)
        self._used = {
            key: (digest, since)
            for key, (digest, since) in list(self._used.items())[-_MAX_LOADED:]
            if since > asked_at or not (staying or key in self._loaded)
        }
        self._pairs = {
            pair: since
            for pair, since in list(self._pairs.items())[-_MAX_PAIRS:]
            if at - since <= BELIEVED and not pair <= self._loaded.keys()
        }

    def _learn(self, come: Key, gone: Iterable[Key], at: float) -> None:
        for other in gone:
            pair = frozenset((come, other))
            self._pairs.pop(pair, None)
            self._pairs[pair] = at

    def _missing(self, digests: Collection[str], asked_at: float) -> list[Key]:
        """The models that have answered just before the target was asked, and that it does not list."""
        return [
            key
            for key, (digest, since) in self._used.items()
            if since <= asked_at <= since + USED and key not in self._loaded and (not digest or digest not in digests)
        ]

    def unloaded(self, typed: str) -> None:
        """Somebody asked for the model to be unloaded: that it is gone tells nothing."""
        with suppress(errors.InvalidName):
            key = model_names.parse(typed).key
            self._loaded.pop(key, None)
            self._used.pop(key, None)

    def of(self, typed: str, at: float) -> frozenset[Key]:
        """The models that the target cannot hold together with ``typed``, as far as is known at ``at``."""
        if not self._pairs:
            return frozenset()
        try:
            key = model_names.parse(typed).key
        except errors.InvalidName:
            return frozenset()
        found = [pair - {key} for pair, since in self._pairs.items() if key in pair and at - since <= BELIEVED]
        return frozenset().union(*found)


def _by_key(running: Sequence[Running]) -> dict[Key, str]:
    """When each loaded model expires, as it was written."""
    found = {}
    for model in running:
        try:
            found[model_names.parse(model.name).key] = model.expires_at
        except errors.InvalidName:
            continue
    return found


def _date(headers: RawHeaders) -> datetime | None:
    """The time of the target's clock."""
    value = next((value for name, value in headers if name.lower() == b"date"), b"")
    try:
        date = parsedate_to_datetime(value[:64].decode("latin-1"))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return None if date.tzinfo is None else date


def _is_later(moment: str, date: datetime) -> bool:
    """Whether a time of Ollama's is later than ``date``; it is to the second only."""
    try:
        return (datetime.fromisoformat(moment[:64]) - date).total_seconds() > 1
    except (ValueError, TypeError, OverflowError):
        return False
