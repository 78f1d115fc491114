"""How long a chat usually takes: moving medians of the last answers of each model, kept in memory only."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from statistics import median, quantiles

from attrs import define, field, frozen

from foreman.protocol.answer_end import AnswerEnd
from foreman.protocol.model_names import canonical

#: How many answers of a model are kept, and of how many models.
MAX_ANSWERS, MAX_MODELS = 31, 256
#: There is no estimate from fewer answers than this.
MIN_ANSWERS = 3
#: A shorter load does not count as one, in seconds: Ollama counts its own bookkeeping as loading (contract 2.3).
MIN_LOAD = 0.5


@frozen
class Range:
    """A duration between ``low`` and ``high`` seconds."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)


@frozen
class Timing:
    """How long one answer took, and why; None where the target did not report it.

    :ivar seconds: from the beginning of its turn to its end, by foreman's clock; :ivar load: for loading the model.
    """

    seconds: float
    load: float | None = None
    prompt_tokens: int | None = None
    prompt_seconds: float | None = None
    tokens: int | None = None
    token_seconds: float | None = None

    @classmethod
    def of(cls, seconds: float, end: AnswerEnd) -> Timing:
        """The timing of an answer that took so many seconds, with what the target reported at its ``end``."""
        load, prompt, tokens = end.load_seconds, end.prompt_tokens, end.completion_tokens
        return cls(seconds, load, prompt, end.prompt_seconds, tokens, end.eval_seconds)


@define(eq=False)
class _History:
    loads: deque[float] = field(factory=lambda: deque(maxlen=MAX_ANSWERS))
    answers: deque[float] = field(factory=lambda: deque(maxlen=MAX_ANSWERS))
    prompts: deque[float] = field(factory=lambda: deque(maxlen=MAX_ANSWERS))
    lengths: deque[int] = field(factory=lambda: deque(maxlen=MAX_ANSWERS))
    rates: deque[float] = field(factory=lambda: deque(maxlen=MAX_ANSWERS))
    load: float | None = None


@define(eq=False)
class Estimates:
    """The estimates for the models that were used lately, whose names may be given in any spelling."""

    _models: OrderedDict[str, _History] = field(factory=OrderedDict, init=False)

    def record(self, model: str, timing: Timing) -> None:
        """Remember the timing of one complete answer."""
        model = canonical(model)
        history = self._models.setdefault(model, _History())
        self._models.move_to_end(model)
        if len(self._models) > MAX_MODELS:
            self._models.popitem(last=False)
        load = timing.load if timing.load is not None and timing.load >= MIN_LOAD else 0.0
        if load:
            history.loads.append(load)
            history.load = median(history.loads)
        history.answers.append(max(0.0, timing.seconds - load))
        if timing.prompt_seconds:
            history.prompts.append(timing.prompt_seconds)
        if timing.tokens and timing.token_seconds:
            history.lengths.append(timing.tokens)
            history.rates.append(timing.tokens / timing.token_seconds)

    def load_times(self) -> dict[str, float]:
        """How long each model usually takes to load, in seconds, by its canonical name; without those not known."""
        return {model: history.load for model, history in self._models.items() if history.load is not None}

    def load_time(self, model: str) -> float | None:
        """How long the model usually takes to load, in seconds; None where that is not known."""
        history = self._models.get(canonical(model))
        return None if history is None else history.load

    def answer_time(self, model: str, *, loaded: bool) -> Range | None:
        """How long a chat with the model usually takes from its turn to its end; None after too few answers."""
        history = self._models.get(canonical(model))
        if history is None or len(history.answers) < MIN_ANSWERS:
            return None
        usual = _middle_half(history.answers)
        if len(history.rates) >= MIN_ANSWERS:
            # Length and speed vary independently: the present speed with the usual lengths predicts better than durations.
            rate = median(history.rates)
            prompt = median(history.prompts) if history.prompts else 0.0
            lengths = _middle_half(history.lengths)
            usual = Range(prompt + lengths.low / rate, prompt + lengths.high / rate)
        if loaded:
            return usual
        load = self.load_time(model)
        return None if load is None else usual + Range(load, load)


def _middle_half(values: Iterable[float]) -> Range:
    """The middle half of ``values``."""
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Range(low, high)
