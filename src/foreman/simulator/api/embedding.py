"""``/api/embed``, ``/api/embeddings`` and ``/v1/embeddings`` (contract 2.4)."""

from __future__ import annotations

import base64
import struct
from typing import Any

from twisted.internet.task import deferLater

from foreman.simulator.api.model_request import CLOUD, find_model
from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.fields import Fields, check_options
from foreman.simulator.engine.go_json import encode
from foreman.simulator.engine.model_names import parse_reference
from foreman.simulator.engine.models import Model
from foreman.simulator.engine.prompts import count_tokens
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import text_vector, truncated
from foreman.simulator.server.content_types import JSON, PLAIN_JSON
from foreman.simulator.server.exchange import Exchange

_ABSENT = 'model "{}" not found, try pulling it first'
_NO_POOLING = "This server does not support embeddings. Start it with `--embeddings`"


def _texts(value: Any) -> list[str]:
    """The texts of an ``input``.

    :raises Refused: if it is neither a string nor a list of strings.
    """
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise Refused(400, "invalid input type")


async def _vectors(
    state: SimulatorState,
    model: Model,
    texts: list[str],
    options: dict[str, Any],
    keep_alive: float | None,
    *,
    status: int = 501,
) -> tuple[list[list[float]], int, int]:
    """The vectors of some texts, the number of their tokens, and how long the model took to load, in nanoseconds."""
    check_options(options, newer=state.settings.newer)
    started_waiting = state.clock.seconds()
    runner = await state.scheduler.acquire(model, options, keep_alive)
    try:
        load = max(int((state.clock.seconds() - started_waiting) * 1e9), 1_000)
        if not texts:
            return [], 0, load
        if "embedding" not in model.capabilities:
            raise Refused(status, _NO_POOLING)
        await runner.slots.acquire()
        state.inference_started()
        try:
            if state.settings.prompt_time > 0:
                await deferLater(state.clock, state.settings.prompt_time)
            vectors = [text_vector(text, model.embedding_length) for text in texts]
        finally:
            state.inference_ended()
            runner.slots.release()
        return vectors, sum(count_tokens(model, text) for text in texts), load
    finally:
        state.scheduler.release(runner)


def _check_length(model: Model, texts: list[str], *, truncate: bool) -> None:
    if not truncate and any(len(text.split()) + 2 > model.context_length for text in texts):
        raise Refused(400, "the input length exceeds the context length")


async def embed(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/embed``."""
    started = state.clock.seconds()
    fields = Fields.read("EmbedRequest", exchange.body)
    model_name = fields.string("model")
    keep_alive, truncate = fields.keep_alive(), fields.boolean("truncate") is not False
    dimensions, options = fields.integer("dimensions") or 0, fields.object("options")
    texts = _texts(fields.raw("input"))
    if not model_name.strip():
        raise Refused(404, f"model '{model_name}' not found")
    model = find_model(state, model_name, absent=_ABSENT)
    _check_length(model, texts, truncate=truncate)
    vectors, count, load = await _vectors(state, model, texts, options, keep_alive)
    answer: dict[str, Any] = {
        "model": model_name,
        "embeddings": [truncated(v, dimensions) if dimensions else v for v in vectors],
    }
    if vectors:
        answer["total_duration"] = max(int((state.clock.seconds() - started) * 1e9), 1_000)
        answer["load_duration"] = load
        answer["prompt_eval_count"] = count
    exchange.respond(200, JSON, encode(answer))


async def embeddings(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/embeddings``, which compares names exactly."""
    fields = Fields.read("EmbeddingRequest", exchange.body)
    model_name, text = fields.string("model"), fields.string("prompt")
    keep_alive, options = fields.keep_alive(), fields.object("options")
    reference = parse_reference(model_name)
    if reference.cloud:
        raise Refused(403, CLOUD)
    model = state.inventory.find_exactly(reference.name)
    if model is None:
        raise Refused(404, _ABSENT.format(model_name))
    vectors, _, _ = await _vectors(state, model, [text] if text else [], options, keep_alive, status=500)
    full_vector = _as_float32(vectors[0]) if vectors else []
    exchange.respond(200, JSON, encode({"embedding": full_vector}))


def _as_float32(numbers: list[float]) -> list[float]:
    """The numbers rounded to ``float32``, as JSON shows them."""
    form = f"<{len(numbers)}f"
    return list(struct.unpack(form, struct.pack(form, *numbers)))


async def openai_embeddings(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/embeddings``: here an empty text is embedded too."""
    fields = Fields.read("EmbedRequest", exchange.body, "openai")
    model_name, form = fields.string("model"), fields.string("encoding_format")
    dimensions = fields.integer("dimensions") or 0
    value = fields.raw("input")
    if value is None or value == []:
        raise Malformed("invalid input")
    texts = [""] if value == "" else _texts(value)
    if form not in {"", "float", "base64"}:
        raise Malformed("invalid encoding format. Please use 'float' or 'base64'")
    if not model_name.strip():
        raise Refused(404, f"model '{model_name}' not found")
    model = find_model(state, model_name, absent=_ABSENT)
    vectors, count, _ = await _vectors(state, model, texts, {}, None)
    data = []
    for index, full_vector in enumerate(vectors):
        numbers = truncated(full_vector, dimensions) if dimensions else full_vector
        encoded = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode() if form == "base64" else numbers
        data.append({"object": "embedding", "embedding": encoded, "index": index})
    usage = {"prompt_tokens": count, "total_tokens": count}
    answer = {"object": "list", "data": data, "model": model_name, "usage": usage}
    exchange.respond(200, PLAIN_JSON, encode(answer) + b"\n")
