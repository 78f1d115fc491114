"""``/api/embed``, ``/api/embeddings`` and ``/v1/embeddings`` (contract 2.4)."""

from __future__ import annotations

import base64
import struct
from typing import Any

from twisted.internet.task import deferLater

from foreman.simulator.api.inference_request import CLOUD, installed
from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.fields import Fields, check_options
from foreman.simulator.engine.go_json import encode
from foreman.simulator.engine.model_names import read
from foreman.simulator.engine.models import Model
from foreman.simulator.engine.prompts import pieces_of
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import shortened, vector
from foreman.simulator.server.error_shapes import JSON, PLAIN_JSON
from foreman.simulator.server.exchange import Exchange

_ABSENT = 'model "{}" not found, try pulling it first'
_NO_POOLING = "This server does not support embeddings. Start it with `--embeddings`"


def _texts(value: Any) -> list[str]:
    """The texts of an ``input``.

    :raises Refused: if it is neither a text nor a list of texts.
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
    stay: float | None,
    *,
    status: int = 501,
) -> tuple[list[list[float]], int, int]:
    """The vectors of some texts, how many tokens these were, and the nanoseconds until the model was there."""
    check_options(options, newer=state.settings.newer)
    asked = state.clock.seconds()
    runner = await state.scheduler.acquire(model, options, stay)
    try:
        load = max(int((state.clock.seconds() - asked) * 1e9), 1_000)
        if not texts:
            return [], 0, load
        if "embedding" not in model.capabilities:
            raise Refused(status, _NO_POOLING)
        await runner.slots.acquire()
        state.began()
        try:
            if state.settings.prompt_time > 0:
                await deferLater(state.clock, state.settings.prompt_time)
            vectors = [vector(text, model.embedding_length) for text in texts]
        finally:
            state.ended()
            runner.slots.release()
        return vectors, sum(pieces_of(model, text) for text in texts), load
    finally:
        state.scheduler.release(runner)


def _check_length(model: Model, texts: list[str], *, truncate: bool) -> None:
    if not truncate and any(len(text.split()) + 2 > model.context_length for text in texts):
        raise Refused(400, "the input length exceeds the context length")


async def embed(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/embed``."""
    started = state.clock.seconds()
    fields = Fields.read("EmbedRequest", exchange.body)
    typed = fields.text("model")
    stay, truncate = fields.keep_alive(), fields.truth("truncate") is not False
    dimensions, options = fields.number("dimensions") or 0, fields.table("options")
    texts = _texts(fields.raw("input"))
    if not typed.strip():
        raise Refused(404, f"model '{typed}' not found")
    model = installed(state, typed, absent=_ABSENT)
    _check_length(model, texts, truncate=truncate)
    vectors, count, load = await _vectors(state, model, texts, options, stay)
    answer: dict[str, Any] = {
        "model": typed,
        "embeddings": [shortened(v, dimensions) if dimensions else v for v in vectors],
    }
    if vectors:
        answer["total_duration"] = max(int((state.clock.seconds() - started) * 1e9), 1_000)
        answer["load_duration"] = load
        answer["prompt_eval_count"] = count
    exchange.respond(200, JSON, encode(answer))


async def embeddings(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/embeddings``, which minds the case of a name."""
    fields = Fields.read("EmbeddingRequest", exchange.body)
    typed, text = fields.text("model"), fields.text("prompt")
    stay, options = fields.keep_alive(), fields.table("options")
    asked = read(typed)
    if asked.cloud:
        raise Refused(403, CLOUD)
    model = state.inventory.find_exactly(asked.name)
    if model is None:
        raise Refused(404, _ABSENT.format(typed))
    vectors, _, _ = await _vectors(state, model, [text] if text else [], options, stay, status=500)
    whole = _as_float32(vectors[0]) if vectors else []
    exchange.respond(200, JSON, encode({"embedding": whole}))


def _as_float32(numbers: list[float]) -> list[float]:
    """The same numbers with the digits that they have as ``float32``."""
    form = f"<{len(numbers)}f"
    return list(struct.unpack(form, struct.pack(form, *numbers)))


async def openai_embeddings(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/embeddings``: here an empty text is embedded too."""
    fields = Fields.read("EmbedRequest", exchange.body, "openai")
    typed, form = fields.text("model"), fields.text("encoding_format")
    dimensions = fields.number("dimensions") or 0
    value = fields.raw("input")
    if value is None or value == []:
        raise Malformed("invalid input")
    texts = [""] if value == "" else _texts(value)
    if form not in {"", "float", "base64"}:
        raise Malformed("invalid encoding format. Please use 'float' or 'base64'")
    if not typed.strip():
        raise Refused(404, f"model '{typed}' not found")
    model = installed(state, typed, absent=_ABSENT)
    vectors, count, _ = await _vectors(state, model, texts, {}, None)
    data = []
    for index, whole in enumerate(vectors):
        numbers = shortened(whole, dimensions) if dimensions else whole
        shown = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode() if form == "base64" else numbers
        data.append({"object": "embedding", "embedding": shown, "index": index})
    usage = {"prompt_tokens": count, "total_tokens": count}
    answer = {"object": "list", "data": data, "model": typed, "usage": usage}
    exchange.respond(200, PLAIN_JSON, encode(answer) + b"\n")
