"""``/v1/audio/transcriptions``: a form with a file, which no model in the catalogue understands (contract 1.4)."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

from foreman.simulator.api.inference import infer
from foreman.simulator.api.model_request import Parameters, check_capable, find_model, make_request
from foreman.simulator.api.openai import OpenAIEncoder
from foreman.simulator.engine.errors import Malformed
from foreman.simulator.engine.prompts import render_prompt
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.exchange import Exchange


def _form(exchange: Exchange) -> dict[str, bytes]:
    """The fields of a multipart form."""
    kind = exchange.header("content-type") or ""
    if not kind.lower().startswith("multipart/form-data"):
        raise Malformed("request Content-Type isn't multipart/form-data")
    form = message_from_bytes(b"Content-Type: " + kind.encode("latin-1") + b"\r\n\r\n" + exchange.body)
    parts = [part for part in form.walk() if isinstance(part, Message) and not part.is_multipart()]
    return {str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True) for part in parts}  # type: ignore[misc]


async def transcriptions(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/audio/transcriptions``."""
    form = _form(exchange)
    model_name = form.get("model", b"").decode("utf-8", "replace")
    if not model_name:
        raise Malformed("model is required")
    if "file" not in form:
        raise Malformed("file is required")
    model = find_model(state, model_name)
    check_capable(model, model_name, "chat")
    messages = [{"role": "user", "content": form.get("prompt", b"").decode("utf-8", "replace")}]
    parameters = Parameters(images=1)
    model_request = make_request(state, model, model_name, parameters, render_prompt(model, messages), messages[-1])
    await infer(state, exchange, model_request, OpenAIEncoder(state, exchange, "text", model_name, stream=False))
