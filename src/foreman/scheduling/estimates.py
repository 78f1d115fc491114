"""How long a chat usually takes: moving medians of what each model did lately, kept in memory only."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from statistics import median, quantiles

from attrs import define, field, frozen

from foreman.protocol.model_names import canonical
from foreman.protocol.usage import AnswerEnd

#: How many answers of a model count, and of how many models.
ANSWERS = 31
MODELS = 256
#: With fewer answers than this there is nothing to say.
ENOUGH = 3
#: A load shorter than this was none: Ollama counts its own bookkeeping as loading (contract 2.3).
REAL_LOAD = 0.5


@frozen
class Range:
    """Between ``low`` and ``high`` seconds."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)


@frozen
class Answered:
    """What one answer took; None where the target did not say.

    :ivar seconds: from its turn to its end, by foreman's clock; :ivar load: seconds of loading the model.
    """

    seconds: float
    load: float | None = None
    prompt_tokens: int | None = None
    prompt_seconds: float | None = None
    tokens: int | None = None
    token_seconds: float | None = None

    @classmethod
    def of(cls, seconds: float, told: AnswerEnd) -> Answered:
        """What is remembered of an answer that took so many seconds and told ``told`` at its end."""
        load, prompt, tokens = told.load_seconds, told.prompt_tokens, told.completion_tokens
        return cls(seconds, load, prompt, told.prompt_seconds, tokens, told.eval_seconds)


@define(eq=False)
class _Model:
    loads: deque[float] = field(factory=lambda: deque(maxlen=ANSWERS))
    answers: deque[float] = field(factory=lambda: deque(maxlen=ANSWERS))
    prompts: deque[float] = field(factory=lambda: deque(maxlen=ANSWERS))
    lengths: deque[int] = field(factory=lambda: deque(maxlen=ANSWERS))
    rates: deque[float] = field(factory=lambda: deque(maxlen=ANSWERS))
    load: float | None = None


@define(eq=False)
class Estimates:
    """What is known of the models that were used lately, by their names in any spelling."""

    _models: OrderedDict[str, _Model] = field(factory=OrderedDict, init=False)

    def learn(self, model: str, answered: Answered) -> None:
        """Remember one whole answer."""
        model = canonical(model)
        seen = self._models.setdefault(model, _Model())
        self._models.move_to_end(model)
        if len(self._models) > MODELS:
            self._models.popitem(last=False)
        load = answered.load if answered.load is not None and answered.load >= REAL_LOAD else 0.0
        if load:
            seen.loads.append(load)
            seen.load = median(seen.loads)
        seen.answers.append(max(0.0, answered.seconds - load))
        if answered.prompt_seconds:
            seen.prompts.append(answered.prompt_seconds)
        if answered.tokens and answered.token_seconds:
            seen.lengths.append(answered.tokens)
            seen.rates.append(answered.tokens / answered.token_seconds)

    def load_times(self) -> dict[str, float]:
        """How long each model usually takes to load, in seconds, by its canonical name, as far as that is known."""
        return {model: seen.load for model, seen in self._models.items() if seen.load is not None}

    def load_time(self, model: str) -> float | None:
        """How long the model usually takes to load, in seconds."""
        seen = self._models.get(canonical(model))
        return None if seen is None else seen.load

    def answer_time(self, model: str, *, loaded: bool) -> Range | None:
        """How long a chat with the model usually takes from its turn to its end; None where too little is known."""
        seen = self._models.get(canonical(model))
        if seen is None or len(seen.answers) < ENOUGH:
            return None
        took = _middle(seen.answers)
        if len(seen.rates) >= ENOUGH:
            # Length and speed vary on their own: today's rate with the usual lengths tells more than whole durations.
            rate = median(seen.rates)
            prompt = median(seen.prompts) if seen.prompts else 0.0
            lengths = _middle(seen.lengths)
            took = Range(prompt + lengths.low / rate, prompt + lengths.high / rate)
        if loaded:
            return took
        load = self.load_time(model)
        return None if load is None else took + Range(load, load)


def _middle(values: Iterable[float]) -> Range:
    """The middle half of ``values``."""
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Range(low, high)
