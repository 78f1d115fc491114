"""Build the body of ``POST /jobs`` from the options of ``foreman submit``."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen


@frozen
class Prompt:
    """The content of a chat or of a request for embeddings.

    :ivar texts: the prompt and the text files; :ivar images: the bytes of the image files.
    """

    model: str
    texts: Sequence[str]
    system: str | None = None
    images: Sequence[bytes] = ()
    schema: Any = None
    options: Mapping[str, Any] | None = None


def chat_payload(prompt: Prompt) -> bytes:
    """The payload of ``/api/chat``: several texts become one prompt, with blank lines between them."""
    message: dict[str, Any] = {"role": "user", "content": "\n\n".join(prompt.texts)}
    if prompt.images:
        message["images"] = [base64.b64encode(image).decode() for image in prompt.images]
    messages = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    payload: dict[str, Any] = {"model": prompt.model, "messages": [*messages, message]}
    if prompt.schema is not None:
        payload["format"] = prompt.schema
    if prompt.options:
        payload["options"] = dict(prompt.options)
    return _json(payload)


def embed_payload(prompt: Prompt) -> bytes:
    """The payload of ``/api/embed``: each text is an input of its own."""
    payload: dict[str, Any] = {"model": prompt.model}
    payload["input"] = prompt.texts[0] if len(prompt.texts) == 1 else list(prompt.texts)
    if prompt.options:
        payload["options"] = dict(prompt.options)
    return _json(payload)


def job_body(endpoint: str, payload: bytes, fields: Mapping[str, Any]) -> bytes:
    """The body of ``POST /jobs``, with the bytes of ``payload`` unchanged.

    :param fields: the other fields; those that are None are left out.
    """
    head = {"endpoint": endpoint} | {name: value for name, value in fields.items() if value is not None}
    return _json(head)[:-1] + b', "payload": ' + payload + b"}"


def read_payload(payload: bytes) -> bytes:
    """The payload in a file, without a byte order mark and white space around it.

    :raises ValueError: with a phrase, if it is not a JSON object.
    """
    payload = payload.removeprefix(b"\xef\xbb\xbf").strip()
    try:
        value = json.loads(payload.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"is not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - it is the input that is wrong, not a type
    return payload


def parse_option(text: str) -> tuple[str, Any]:
    """Parse ``KEY=VALUE``; a value that is not JSON is a string.

    :raises ValueError: with a phrase, if it is not of this form.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError("is not KEY=VALUE")
    try:
        # Python also reads NaN and Infinity, which are not JSON: Ollama would reject them.
        return name, json.loads(value, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        return name, value


def _no_constant(word: str) -> None:
    raise ValueError(word)


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, from an escape in the JSON input: it stays an escape
        return json.dumps(value).encode("ascii")
