"""Which models do not fit into the target's memory together, learnt from its lists of loaded models."""

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

#: How long two models count as conflicting, in seconds: memory may have become free since.
REMEMBERED = 600.0
#: A model that is loaded so many seconds after the eviction of another may be its reason: loading takes time.
LOAD_TIME = 120.0
#: A model that has answered counts as loaded for so many seconds.
LOADED_AFTER_ANSWER = 10.0
#: How many pairs are remembered, and how many loaded models are read.
_MAX_PAIRS, _MAX_LOADED = 256, 64


@define(eq=False)
class ModelConflicts:
    """Pairs of models of which one was evicted for the other.

    A model that is no longer listed before it has expired, while a new one is, was evicted for the new one. So was a model
    that has just answered and is not listed, since the target unloads none so early for another reason.
    """

    _loaded: dict[Key, str] = field(factory=dict, init=False)
    _answered: dict[Key, tuple[str, float]] = field(factory=dict, init=False)
    _evicted: dict[Key, float] = field(factory=dict, init=False)
    _pairs: dict[frozenset[Key], float] = field(factory=dict, init=False)

    def record_answer(self, typed: str, digest: str, at: float) -> None:
        """A model has begun to answer at ``at``; ``digest`` is of its weights, which may be listed by another name."""
        with suppress(errors.InvalidName):
            self._answered.pop(key := model_names.parse(typed).key, None)
            self._answered[key] = (digest, at)

    def record_list(self, running: Sequence[Running], headers: RawHeaders, asked_at: float, at: float) -> None:
        """The target has listed its loaded models.

        :param headers: of its answer; nothing is learnt without a ``Date``, the time of its own clock;
        :param asked_at, at: when it was asked, and when it answered, in seconds of the reactor's clock.
        """
        before, self._loaded = self._loaded, _by_key(running[:_MAX_LOADED])
        date = _date(headers)
        for key in before.keys() - self._loaded.keys():
            if date is not None and _is_later(before[key], date):
                self._evicted[key] = at
        for key in self._loaded:
            self._evicted.pop(key, None)
        self._evicted = {key: since for key, since in self._evicted.items() if at - since <= LOAD_TIME}
        staying = {key for key, until in self._loaded.items() if date is not None and _is_later(until, date)}
        for loaded in self._loaded.keys() - before.keys():
            self._learn(loaded, self._evicted, at)
        for loaded in staying:
            self._learn(loaded, self._unlisted({model.digest for model in running}, asked_at), at)
        self._answered = {
            key: (digest, since)
            for key, (digest, since) in list(self._answered.items())[-_MAX_LOADED:]
            if since > asked_at or not (staying or key in self._loaded)
        }
        self._pairs = {
            pair: since
            for pair, since in list(self._pairs.items())[-_MAX_PAIRS:]
            if at - since <= REMEMBERED and not pair <= self._loaded.keys()
        }

    def _learn(self, loaded: Key, evicted: Iterable[Key], at: float) -> None:
        for key in evicted:
            pair = frozenset((loaded, key))
            self._pairs.pop(pair, None)
            self._pairs[pair] = at

    def _unlisted(self, digests: Collection[str], asked_at: float) -> list[Key]:
        """The models that answered just before the list was requested from the target, and are not in it."""
        return [
            key
            for key, (digest, since) in self._answered.items()
            if since <= asked_at <= since + LOADED_AFTER_ANSWER
            and key not in self._loaded
            and (not digest or digest not in digests)
        ]

    def record_unload(self, typed: str) -> None:
        """A request unloads the model: nothing follows from its absence."""
        with suppress(errors.InvalidName):
            key = model_names.parse(typed).key
            self._loaded.pop(key, None)
            self._answered.pop(key, None)

    def of(self, typed: str, at: float) -> frozenset[Key]:
        """The models that do not fit into the target's memory together with ``typed``, as far as is known at ``at``."""
        if not self._pairs:
            return frozenset()
        try:
            key = model_names.parse(typed).key
        except errors.InvalidName:
            return frozenset()
        found = [pair - {key} for pair, since in self._pairs.items() if key in pair and at - since <= REMEMBERED]
        return frozenset().union(*found)


def _by_key(running: Sequence[Running]) -> dict[Key, str]:
    """When each loaded model expires, as the target wrote it."""
    found = {}
    for model in running:
        try:
            found[model_names.parse(model.name).key] = model.expires_at
        except errors.InvalidName:
            continue
    return found


def _date(headers: RawHeaders) -> datetime | None:
    """The time of the target's own clock when it sent the headers."""
    value = next((value for name, value in headers if name.lower() == b"date"), b"")
    try:
        date = parsedate_to_datetime(value[:64].decode("latin-1"))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return None if date.tzinfo is None else date


def _is_later(moment: str, date: datetime) -> bool:
    """Whether a time of Ollama's is later than ``date``, which has whole seconds only."""
    try:
        return (datetime.fromisoformat(moment[:64]) - date).total_seconds() > 1
    except (ValueError, TypeError, OverflowError):
        return False
