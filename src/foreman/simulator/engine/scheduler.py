"""Loads and unloads models, and hands out their slots, both in order of arrival (contract 4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from attrs import Factory, define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from foreman.simulator.engine.errors import BUSY, Crashed, Refused
from foreman.simulator.engine.fields import FOREVER
from foreman.simulator.engine.models import Model
from foreman.simulator.engine.settings import Settings

_RELOADS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")
_NO_TENSOR = "error loading model: check_tensor_dims: tensor 'blk.0.ffn_down.weight' not found"
_BAD = (
    f"llama-server process has terminated: exit status 1: {_NO_TENSOR}\n{_NO_TENSOR}\n"
    "Error: Failed to init server, please check the input params."
)


@define(eq=False)
class Slots:
    """The slots of a loaded model, granted in order of arrival."""

    _free: int
    _queue: deque[Deferred[None]] = Factory(deque)
    _releasing: bool = False

    def acquire(self) -> Deferred[None]:
        """A slot, which ``release`` gives back; cancelling leaves the queue.

        :raises Crashed: (in the Deferred) if the model crashes meanwhile.
        """
        if self._free > 0:
            self._free -= 1
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._queue.remove)
        self._queue.append(waiting)
        return waiting

    def release(self) -> None:
        """Give the slot to the next in the queue; a loop, so that those that finish at once do not nest."""
        self._free += 1
        if self._releasing:
            return
        self._releasing = True
        while self._free > 0 and self._queue:
            self._free -= 1
            self._queue.popleft().callback(None)
        self._releasing = False

    def crash(self) -> None:
        """The model has crashed: fail all that wait for a slot."""
        while self._queue:
            self._queue.popleft().errback(Crashed())


@define(eq=False)
class Runner:
    """A loaded model.

    :ivar model: the model whose name it was loaded under.
    :ivar keep_alive: seconds that it stays loaded while unused; :ivar users: how many requests use it.
    :ivar expires: when it is unloaded, on the simulator's clock; :ivar crashed: callbacks for when it crashes.
    :ivar prompt: the last one, which is in the prompt cache.
    """

    model: Model
    options: tuple[Any, ...]
    keep_alive: float
    slots: Slots
    expires: float = 0.0
    users: int = 0
    crashed: list[Callable[[], None]] = Factory(list)
    prompt: str | None = None
    _timer: IDelayedCall | None = None

    @property
    def num_ctx(self) -> int:
        """The size of its context, in tokens."""
        return int(self.options[0]) if self.options[0] is not None else self.model.num_ctx

    def stop_timer(self) -> None:
        """Do not unload: the model is in use again."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


@define(eq=False)
class _QueuedLoad:
    """A request that waits for a load. A cancelled one keeps its place until its turn comes (contract 0.4)."""

    model: Model
    options: tuple[Any, ...]
    keep_alive: float | None
    granted: Deferred[Runner]
    cancelled: bool = False


@define(eq=False)
class Scheduler:
    """Loads one model at a time, in order of arrival."""

    _clock: IReactorTime
    _settings: Settings
    runners: list[Runner] = Factory(list)
    _queue: deque[_QueuedLoad] = Factory(deque)
    _current: _QueuedLoad | None = None
    _loading: IDelayedCall | None = None
    _advancing: bool = False

    def runner_of(self, model: Model) -> Runner | None:
        """The runner of a model, or of another one with the same weights."""
        return next((runner for runner in self.runners if runner.model.weights == model.weights), None)

    def acquire(self, model: Model, options: Mapping[str, Any], keep_alive: float | None) -> Deferred[Runner]:
        """The loaded model, which must be given back with ``release``.

        :param keep_alive: of the request, in seconds.
        :raises Refused: at once if too many requests wait, in the Deferred if the model cannot be loaded.
        """
        load_options = tuple(options.get(name) for name in _RELOADS)
        runner = self.runner_of(model)
        if runner is not None and runner.options == load_options:
            return succeed(self._use(runner, keep_alive))
        if len(self._queue) >= self._settings.max_queue and self._current is not None:
            raise Refused(503, BUSY)
        waiting = _QueuedLoad(model, load_options, keep_alive, Deferred(lambda _: self._cancel(waiting)))
        self._queue.append(waiting)
        self._advance()
        return waiting.granted

    def release(self, runner: Runner) -> None:
        """A request no longer uses a model."""
        runner.users -= 1
        if runner.users == 0 and runner in self.runners:
            self._start_expiry(runner)
        self._advance()

    def expire(self, model: Model) -> None:
        """Unload a model as soon as no request uses it."""
        runner = self.runner_of(model)
        if runner is not None:
            runner.keep_alive = 0.0
            if runner.users == 0:
                self._unload(runner)
                self._advance()

    def crash(self) -> None:
        """Kill the processes of all loaded models."""
        for runner in list(self.runners):
            self._unload(runner)
            runner.slots.crash()
            for notify in list(runner.crashed):
                notify()
        self._advance()

    def stop(self) -> None:
        """Unload everything, and drop the queue."""
        if self._loading is not None and self._loading.active():
            self._loading.cancel()
        for runner in list(self.runners):
            self._unload(runner)
        self._queue.clear()
        self._current = self._loading = None

    def _use(self, runner: Runner, keep_alive: float | None) -> Runner:
        runner.stop_timer()
        runner.users += 1
        if keep_alive is not None:
            runner.keep_alive = keep_alive
        runner.expires = self._clock.seconds() + runner.keep_alive
        return runner

    def _start_expiry(self, runner: Runner) -> None:
        """The model is unused: unload it after its ``keep_alive``, or at once."""
        runner.expires = self._clock.seconds() + runner.keep_alive
        if runner.keep_alive <= 0:
            self._unload(runner)
        elif runner.keep_alive != FOREVER:
            runner._timer = self._clock.callLater(runner.keep_alive, self._expired, runner)  # noqa: SLF001

    def _expired(self, runner: Runner) -> None:
        self._unload(runner)
        self._advance()

    def _unload(self, runner: Runner) -> None:
        runner.stop_timer()
        if runner in self.runners:
            self.runners.remove(runner)

    def _cancel(self, waiting: _QueuedLoad) -> None:
        waiting.cancelled = True
        if waiting is self._current and self._loading is not None:  # abandon the load
            self._loading.cancel()
            self._current = self._loading = None
            self._advance()

    def _advance(self) -> None:
        """Serve the queue as far as possible now; a loop, so that requests that finish at once do not nest."""
        if self._advancing:
            return
        self._advancing = True
        while self._loading is None and (self._current is not None or self._queue):
            if self._current is None:
                self._current = self._queue.popleft()
            if not self._serve(self._current):
                break
        self._advancing = False

    def _serve(self, waiting: _QueuedLoad) -> bool:
        """Start what the first in the queue needs; returns ``False`` if a model in use is in the way."""
        runner = self.runner_of(waiting.model)
        if waiting.cancelled:
            self._current = None
        elif runner is not None and runner.options == waiting.options:
            self._current = None
            waiting.granted.callback(self._use(runner, waiting.keep_alive))
        elif not self._make_room(runner):
            return False
        elif self._settings.load_time > 0:
            self._loading = self._clock.callLater(self._settings.load_time, self._loaded, waiting)
        else:
            self._loaded(waiting)
        return True

    def _make_room(self, same: Runner | None) -> bool:
        """Make room for one more model by unloading an idle one; returns whether there is room."""
        if same is None and len(self.runners) < self._settings.max_loaded:
            return True
        candidates = [same] if same is not None else sorted(self.runners, key=lambda runner: runner.keep_alive)
        idle = next((runner for runner in candidates if runner.users == 0), None)
        if idle is None:
            return False
        self._unload(idle)
        return True

    def _loaded(self, waiting: _QueuedLoad) -> None:
        self._current = self._loading = None
        if waiting.model.text_style == "bad":
            waiting.granted.errback(Refused(500, _BAD))
        else:
            runner = Runner(waiting.model, waiting.options, self._settings.keep_alive, Slots(self._settings.parallel))
            self.runners.append(runner)
            waiting.granted.callback(self._use(runner, waiting.keep_alive))
        self._advance()
