"""Keep the embedding model loaded at the target."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from foreman import errors
from foreman.target.client import TargetClient


@define(eq=False)
class Warmer:
    """Loads one model with ``keep_alive: -1``, which pins it (contract 2.6).

    :ivar model: its name; None: nothing is loaded; :ivar verify_target: called when what answered may not be Ollama.
    """

    _client: TargetClient
    _model: str | None
    _verify_target: Callable[[], object] = lambda: None
    _loading: Deferred[object] | None = field(default=None, init=False)
    _again: bool = field(default=False, init=False)
    _log = Logger()

    def warm(self) -> None:
        """Load the model; a failure is only logged. Called while a load is under way: if that fails, load once more."""
        if self._model is None:
            return
        if self._loading is not None:
            self._again = True
            return
        self._again = False
        self._log.info("loading {model} for embeddings, to stay loaded", model=self._model)
        warming = self._loading = Deferred.fromCoroutine(self._load(self._model))
        warming.addCallbacks(self._loaded, self._failed)

    def stop(self) -> None:
        """Cancel a load that is under way."""
        if self._loading is not None:
            self._loading.cancel()

    async def _load(self, model: str) -> None:
        answer = await self._client.embed({"model": model, "keep_alive": -1})
        if answer and answer.keys().isdisjoint({"embeddings", "model"}):
            raise errors.ConnectionError("garbage", "the server does not load models as Ollama does")

    def _loaded(self, _: object) -> None:
        self._loading = None
        self._log.info("{model} is loaded", model=self._model)

    def _failed(self, reason: Failure) -> None:
        self._loading = None
        if reason.check(CancelledError):
            return
        if reason.check(errors.TargetError):
            self._log.warn("{model} could not be loaded: {why}", model=self._model, why=reason.getErrorMessage())
        else:
            self._log.failure("loading {model} failed", reason, model=self._model)
        self._verify_target()
        if self._again:
            self.warm()
