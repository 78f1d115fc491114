"""Makes a ``ModelRequest`` of a request's fields: the checks that all inference routes share, in Ollama's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, frozen

from foreman.simulator.api.inference import ModelRequest
from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.fields import Fields, check_level, check_options, kind
from foreman.simulator.engine.go_json import dumps
from foreman.simulator.engine.model_names import parse_reference
from foreman.simulator.engine.models import Model
from foreman.simulator.engine.prompts import count_tokens, truncated_length
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import MAX_REPEATS, MAX_REPEATS_SINCE_0_34, Prompt

#: A response without a limit ends after this many times the context size (contract 2.1).
_MAX_CONTEXTS = 10
CLOUD = "ollama cloud is disabled: remote model is unavailable"


@frozen
class Parameters:
    """The parameters of a request besides its text.

    :ivar output_format: as received; :ivar think: as received, ``None`` if absent.
    :ivar relaxed: a model that cannot think ignores the request to, instead of refusing it.
    """

    options: Mapping[str, Any] = Factory(dict)
    keep_alive: float | None = None
    think: bool | str | None = None
    tools: Sequence[Any] = ()
    output_format: Any = None
    truncate: bool = True
    images: int = 0
    relaxed: bool = False


def find_model(state: SimulatorState, model_name: str, *, absent: str = "model '{}' not found") -> Model:
    """The installed model of that name.

    :raises Refused: if the name is invalid, means the cloud, or is not installed; ``absent`` is the text of the last.
    """
    reference = parse_reference(model_name)
    if reference.cloud:
        raise Refused(403, CLOUD, native=True)
    model = state.inventory.find(reference.name)
    if model is None:
        raise Refused(404, absent.format(model_name))
    return model


def messages_of(fields: Fields) -> list[dict[str, Any]]:
    """The messages of ``/api/chat``."""
    messages = []
    for item in fields.array("messages", "[]api.Message"):
        if not isinstance(item, dict) and item is not None:
            raise fields.type_error("messages", item, "api.Message")
        message = Fields.of("Alias", item)
        messages.append(
            {
                "role": message.string("role").lower(),
                "content": message.string("content"),
                "thinking": message.string("thinking"),
                "tool_calls": message.array("tool_calls", "[]api.ToolCall"),
                "images": message.images(),
            }
        )
    return messages


def check_logprobs(fields: Fields) -> int | None:
    """How many alternatives to return for each token; ``None`` for no log probabilities."""
    top = fields.integer("top_logprobs") or 0
    if not 0 <= top <= 20:
        raise Refused(400, "top_logprobs must be between 0 and 20")
    return top if fields.boolean("logprobs") else None


def uses_thinking(model: Model, model_name: str, parameters: Parameters) -> bool:
    """Whether the response contains thinking.

    :raises Refused: if the request asks for it and the model does not support it.
    """
    check_level(parameters.think)
    if "thinking" in model.capabilities:
        return parameters.think is not False
    if parameters.think and not parameters.relaxed:
        raise Refused(400, f'"{model_name}" does not support thinking')
    return False


def check_capable(model: Model, model_name: str, what: str, tools: Sequence[Any] = ()) -> None:
    """Refuse what the model does not support."""
    if "completion" not in model.capabilities:
        raise Refused(400, f'"{model_name}" does not support {what}')
    if tools and "tools" not in model.capabilities:
        raise Refused(400, f"{model.name.full} does not support tools")


def _error_after_load(model: Model, parameters: Parameters, count: int, num_ctx: int) -> Refused | None:
    """The error that Ollama finds only once the model is loaded, if any."""
    if (
        parameters.output_format not in {None, "", "json"}
        if not isinstance(parameters.output_format, dict | list)
        else isinstance(parameters.output_format, list)
    ):
        quoted = dumps(dumps(parameters.output_format))
        return Refused(500, f'invalid format: {quoted}; expected "json" or a valid JSON Schema object', flushed=True)
    if parameters.images and "vision" not in model.capabilities:
        text = "Multimodal data provided, but model does not support multimodal requests."
        inner = {"error": {"code": 400, "message": text, "type": "invalid_request_error"}}
        return Refused(400, dumps(inner), flushed=True)
    if count > num_ctx and not parameters.truncate:
        text = f"request ({count} tokens) exceeds the available context size ({num_ctx} tokens), try increasing it"
        stats = {"n_prompt_tokens": count, "n_ctx": num_ctx}
        return Refused(
            400, dumps({"error": {"code": 400, "message": text, "type": "exceed_context_size_error", **stats}})
        )
    return None


def make_request(
    state: SimulatorState,
    model: Model,
    model_name: str,
    parameters: Parameters,
    text: str,
    last: Mapping[str, Any],
    *,
    temperature: float = 0.8,
    before: int = 0,
) -> ModelRequest:
    """The request to the model: ``text`` is the whole prompt, ``last`` its last message.

    :param temperature: the default; :param before: the number of context tokens before the text.
    """
    check_options(parameters.options, newer=state.settings.newer)
    options = {key: value for key, value in parameters.options.items() if value is not None}
    think = uses_thinking(model, model_name, parameters)
    num_ctx = int(options.get("num_ctx", model.num_ctx))
    limit = int(options.get("num_predict", model.num_predict))
    count = count_tokens(model, text) + before
    output_format = None if parameters.output_format in (None, "") else parameters.output_format
    prompt = Prompt(
        last=str(last.get("content", "")),
        temperature=float(options.get("temperature", temperature)),
        seed=int(options.get("seed", state.settings.seed)),
        think=think,
        tools=[tool for tool in parameters.tools if isinstance(tool, Mapping)],
        after_tool_result=last.get("role") == "tool",
        output_format=output_format,
        stop=tuple(options.get("stop") or ()),
        limit=limit if limit >= 0 else _MAX_CONTEXTS * num_ctx,
        repeats_end="jinja" not in model.template,
        max_repeats=MAX_REPEATS_SINCE_0_34 if state.settings.newer else MAX_REPEATS,
    )
    error_after_load = _error_after_load(model, parameters, count, num_ctx)
    return ModelRequest(
        model, options, parameters.keep_alive, prompt, truncated_length(num_ctx, count), error_after_load, text
    )


def check_tools(fields: Fields) -> list[Any]:
    """The tools of a request; each must be an object."""
    tools = fields.array("tools", "[]api.Tool")
    for tool in tools:
        if not isinstance(tool, dict):
            raise Malformed(
                f"json: cannot unmarshal {kind(tool)} into Go struct field {fields.struct}.tools of type api.Tool"
            )
    return tools
