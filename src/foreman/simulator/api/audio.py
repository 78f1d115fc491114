"""``/v1/audio/transcriptions``: a form with a file, which no model in the catalogue understands (contract 1.4)."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

from foreman.simulator.api.inference import infer
from foreman.simulator.api.inference_request import Terms, check_capable, inquiry, installed
from foreman.simulator.api.openai import OpenAIVoice
from foreman.simulator.engine.errors import Malformed
from foreman.simulator.engine.prompts import rendered
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
    typed = form.get("model", b"").decode("utf-8", "replace")
    if not typed:
        raise Malformed("model is required")
    if "file" not in form:
        raise Malformed("file is required")
    model = installed(state, typed)
    check_capable(model, typed, "chat")
    messages = [{"role": "user", "content": form.get("prompt", b"").decode("utf-8", "replace")}]
    terms = Terms(images=1)
    question = inquiry(state, model, typed, terms, rendered(model, messages), messages[-1])
    await infer(state, exchange, question, OpenAIVoice(state, exchange, "text", typed, stream=False))
