"""From a request's fields to what a model is asked: the checks that all inference routes share, in Ollama's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, frozen

from foreman.simulator.api.inference import Inquiry
from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.fields import Fields, check_level, check_options, kind
from foreman.simulator.engine.go_json import dumps
from foreman.simulator.engine.model_names import read
from foreman.simulator.engine.models import Model
from foreman.simulator.engine.prompts import kept, pieces_of
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import SAME_AT_MOST, SAME_AT_MOST_SINCE, Prompt

#: An answer without a limit of its own ends after so many contexts (contract 2.1).
_MAX_CONTEXTS = 10
CLOUD = "ollama cloud is disabled: remote model is unavailable"


@frozen
class Terms:
    """What a request says beside its text.

    :ivar form: as it came; :ivar think: as it came, ``None`` where nothing was said.
    :ivar relaxed: thinking is not refused, but left out, by a model that cannot.
    """

    options: Mapping[str, Any] = Factory(dict)
    stay: float | None = None
    think: bool | str | None = None
    tools: Sequence[Any] = ()
    form: Any = None
    truncate: bool = True
    images: int = 0
    relaxed: bool = False


def installed(state: SimulatorState, typed: str, *, absent: str = "model '{}' not found") -> Model:
    """The model that a client means.

    :raises Refused: where the name is bad, means the cloud, or is not there; ``absent`` is the text of the last.
    """
    asked = read(typed)
    if asked.cloud:
        raise Refused(403, CLOUD, native=True)
    model = state.inventory.find(asked.name)
    if model is None:
        raise Refused(404, absent.format(typed))
    return model


def messages_of(fields: Fields) -> list[dict[str, Any]]:
    """The messages of ``/api/chat``."""
    messages = []
    for item in fields.items("messages", "[]api.Message"):
        if not isinstance(item, dict) and item is not None:
            raise fields.wrong("messages", item, "api.Message")
        message = Fields.of("Alias", item)
        messages.append(
            {
                "role": message.text("role").lower(),
                "content": message.text("content"),
                "thinking": message.text("thinking"),
                "tool_calls": message.items("tool_calls", "[]api.ToolCall"),
                "images": message.images(),
            }
        )
    return messages


def check_logprobs(fields: Fields) -> int | None:
    """How many alternatives to each token are wanted; ``None`` if no probabilities are."""
    top = fields.number("top_logprobs") or 0
    if not 0 <= top <= 20:
        raise Refused(400, "top_logprobs must be between 0 and 20")
    return top if fields.truth("logprobs") else None


def thinks(model: Model, typed: str, terms: Terms) -> bool:
    """Whether the answer shows how the model thinks.

    :raises Refused: if that was asked of one that does not.
    """
    check_level(terms.think)
    if "thinking" in model.capabilities:
        return terms.think is not False
    if terms.think and not terms.relaxed:
        raise Refused(400, f'"{typed}" does not support thinking')
    return False


def check_capable(model: Model, typed: str, what: str, tools: Sequence[Any] = ()) -> None:
    """Nothing, or a refusal of what the model cannot do."""
    if "completion" not in model.capabilities:
        raise Refused(400, f'"{typed}" does not support {what}')
    if tools and "tools" not in model.capabilities:
        raise Refused(400, f"{model.name.full} does not support tools")


def _late(model: Model, terms: Terms, count: int, num_ctx: int) -> Refused | None:
    """What goes wrong only once the model has been loaded."""
    if (
        terms.form not in {None, "", "json"}
        if not isinstance(terms.form, dict | list)
        else isinstance(terms.form, list)
    ):
        quoted = dumps(dumps(terms.form))
        return Refused(500, f'invalid format: {quoted}; expected "json" or a valid JSON Schema object', flushed=True)
    if terms.images and "vision" not in model.capabilities:
        text = "Multimodal data provided, but model does not support multimodal requests."
        inner = {"error": {"code": 400, "message": text, "type": "invalid_request_error"}}
        return Refused(400, dumps(inner), flushed=True)
    if count > num_ctx and not terms.truncate:
        text = f"request ({count} tokens) exceeds the available context size ({num_ctx} tokens), try increasing it"
        counts = {"n_prompt_tokens": count, "n_ctx": num_ctx}
        return Refused(
            400, dumps({"error": {"code": 400, "message": text, "type": "exceed_context_size_error", **counts}})
        )
    return None


def inquiry(
    state: SimulatorState,
    model: Model,
    typed: str,
    terms: Terms,
    text: str,
    last: Mapping[str, Any],
    *,
    temperature: float = 0.8,
    before: int = 0,
) -> Inquiry:
    """What the model is asked: ``text`` is the whole prompt, ``last`` its last message.

    :param temperature: what it is when the options do not say; :param before: tokens in front of the text.
    """
    check_options(terms.options, newer=state.settings.newer)
    options = {key: value for key, value in terms.options.items() if value is not None}
    think = thinks(model, typed, terms)
    num_ctx = int(options.get("num_ctx", model.num_ctx))
    limit = int(options.get("num_predict", model.num_predict))
    count = pieces_of(model, text) + before
    form = None if terms.form in (None, "") else terms.form
    prompt = Prompt(
        last=str(last.get("content", "")),
        temperature=float(options.get("temperature", temperature)),
        seed=int(options.get("seed", state.settings.seed)),
        think=think,
        tools=[tool for tool in terms.tools if isinstance(tool, Mapping)],
        answered=last.get("role") == "tool",
        form=form,
        stop=tuple(options.get("stop") or ()),
        limit=limit if limit >= 0 else _MAX_CONTEXTS * num_ctx,
        repeats_end="jinja" not in model.template,
        same_at_most=SAME_AT_MOST_SINCE if state.settings.newer else SAME_AT_MOST,
    )
    late = _late(model, terms, count, num_ctx)
    return Inquiry(model, options, terms.stay, prompt, kept(num_ctx, count), late, text)


def check_tools(fields: Fields) -> list[Any]:
    """The tools of a request; each must be an object."""
    tools = fields.items("tools", "[]api.Tool")
    for tool in tools:
        if not isinstance(tool, dict):
            raise Malformed(
                f"json: cannot unmarshal {kind(tool)} into Go struct field {fields.struct}.tools of type api.Tool"
            )
    return tools
