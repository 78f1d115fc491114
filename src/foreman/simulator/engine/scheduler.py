"""Which models are loaded, who waits for a load, and who has a model's slot (contract 4)."""

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
    """The places in which a loaded model answers, given in the order they were asked for."""

    _free: int
    _line: deque[Deferred[None]] = Factory(deque)
    _passing: bool = False

    def acquire(self) -> Deferred[None]:
        """A place. It is given back by ``release``; cancelling leaves the line.

        :raises Crashed: (in the Deferred) if the model dies meanwhile.
        """
        if self._free > 0:
            self._free -= 1
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._line.remove)
        self._line.append(waiting)
        return waiting

    def release(self) -> None:
        """Give a place to the next in line. Those who are done at once do not pile up on the stack."""
        self._free += 1
        if self._passing:
            return
        self._passing = True
        while self._free > 0 and self._line:
            self._free -= 1
            self._line.popleft().callback(None)
        self._passing = False

    def crash(self) -> None:
        """The model has died: nobody gets a place any more."""
        while self._line:
            self._line.popleft().errback(Crashed())


@define(eq=False)
class Runner:
    """A loaded model.

    :ivar model: the model whose name it was loaded under.
    :ivar stay: seconds that it stays loaded when nobody uses it; :ivar users: how many requests hold it.
    :ivar expires: when it is due to go, on the simulator's clock; :ivar crashed: who must know when it dies;
    :ivar prompt: the last one, whose beginning need not be read again.
    """

    model: Model
    options: tuple[Any, ...]
    stay: float
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
        """It is in use again."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


@define(eq=False)
class _Waiting:
    """A request that needs a load. One that has left keeps its place until its turn comes (contract 0.4)."""

    model: Model
    options: tuple[Any, ...]
    stay: float | None
    granted: Deferred[Runner]
    left: bool = False


@define(eq=False)
class Scheduler:
    """Loads one model after the other, in the order they were asked for."""

    _clock: IReactorTime
    _settings: Settings
    runners: list[Runner] = Factory(list)
    _line: deque[_Waiting] = Factory(deque)
    _current: _Waiting | None = None
    _loading: IDelayedCall | None = None
    _going_on: bool = False

    def runner_of(self, model: Model) -> Runner | None:
        """What is loaded for a model, also under the name of another one with the same weights."""
        return next((runner for runner in self.runners if runner.model.weights == model.weights), None)

    def acquire(self, model: Model, options: Mapping[str, Any], stay: float | None) -> Deferred[Runner]:
        """The model, loaded. Whoever got it must give it to ``release``.

        :param stay: what the request says about ``keep_alive``, in seconds.
        :raises Refused: at once if too many wait, and in the Deferred if the model cannot be loaded.
        """
        wanted = tuple(options.get(name) for name in _RELOADS)
        runner = self.runner_of(model)
        if runner is not None and runner.options == wanted:
            return succeed(self._use(runner, stay))
        if len(self._line) >= self._settings.max_queue and self._current is not None:
            raise Refused(503, BUSY)
        waiting = _Waiting(model, wanted, stay, Deferred(lambda _: self._leave(waiting)))
        self._line.append(waiting)
        self._next()
        return waiting.granted

    def release(self, runner: Runner) -> None:
        """A request is done with a model."""
        runner.users -= 1
        if runner.users == 0 and runner in self.runners:
            self._rest(runner)
        self._next()

    def expire(self, model: Model) -> None:
        """Unload a model, when its last request has ended."""
        runner = self.runner_of(model)
        if runner is not None:
            runner.stay = 0.0
            if runner.users == 0:
                self._unload(runner)
                self._next()

    def crash(self) -> None:
        """Kill the processes of all loaded models."""
        for runner in list(self.runners):
            self._unload(runner)
            runner.slots.crash()
            for tell in list(runner.crashed):
                tell()
        self._next()

    def stop(self) -> None:
        """Forget everything that is loaded or waits."""
        if self._loading is not None and self._loading.active():
            self._loading.cancel()
        for runner in list(self.runners):
            self._unload(runner)
        self._line.clear()
        self._current = self._loading = None

    def _use(self, runner: Runner, stay: float | None) -> Runner:
        runner.stop_timer()
        runner.users += 1
        if stay is not None:
            runner.stay = stay
        runner.expires = self._clock.seconds() + runner.stay
        return runner

    def _rest(self, runner: Runner) -> None:
        """Nobody uses it: it goes after its time, or at once."""
        runner.expires = self._clock.seconds() + runner.stay
        if runner.stay <= 0:
            self._unload(runner)
        elif runner.stay != FOREVER:
            runner._timer = self._clock.callLater(runner.stay, self._expired, runner)  # noqa: SLF001

    def _expired(self, runner: Runner) -> None:
        self._unload(runner)
        self._next()

    def _unload(self, runner: Runner) -> None:
        runner.stop_timer()
        if runner in self.runners:
            self.runners.remove(runner)

    def _leave(self, waiting: _Waiting) -> None:
        waiting.left = True
        if waiting is self._current and self._loading is not None:  # the load is given up
            self._loading.cancel()
            self._current = self._loading = None
            self._next()

    def _next(self) -> None:
        """Go on with the line as far as that is possible now. Those who are done at once do not pile up on the stack."""
        if self._going_on:
            return
        self._going_on = True
        while self._loading is None and (self._current is not None or self._line):
            if self._current is None:
                self._current = self._line.popleft()
            if not self._serve(self._current):
                break
        self._going_on = False

    def _serve(self, waiting: _Waiting) -> bool:
        """Begin what the first in line needs; ``False`` if a model in use is in the way."""
        runner = self.runner_of(waiting.model)
        if waiting.left:
            self._current = None
        elif runner is not None and runner.options == waiting.options:
            self._current = None
            waiting.granted.callback(self._use(runner, waiting.stay))
        elif not self._room(runner):
            return False
        elif self._settings.load_time > 0:
            self._loading = self._clock.callLater(self._settings.load_time, self._loaded, waiting)
        else:
            self._loaded(waiting)
        return True

    def _room(self, same: Runner | None) -> bool:
        """Whether there is room for one more, after unloading what is idle and in the way."""
        if same is None and len(self.runners) < self._settings.max_loaded:
            return True
        victims = [same] if same is not None else sorted(self.runners, key=lambda runner: runner.stay)
        idle = next((runner for runner in victims if runner.users == 0), None)
        if idle is None:
            return False
        self._unload(idle)
        return True

    def _loaded(self, waiting: _Waiting) -> None:
        self._current = self._loading = None
        if waiting.model.speech == "bad":
            waiting.granted.errback(Refused(500, _BAD))
        else:
            runner = Runner(waiting.model, waiting.options, self._settings.keep_alive, Slots(self._settings.parallel))
            self.runners.append(runner)
            waiting.granted.callback(self._use(runner, waiting.stay))
        self._next()
