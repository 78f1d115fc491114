"""Read the input of ``foreman submit``: its prompt, its files and standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from attrs import frozen

from foreman.cli.client.job_request import Prompt, chat_payload, embed_payload, read_payload
from foreman.config.parsers import path as parse_path

_NEEDS_MODEL = "give a model with --model NAME; foreman models lists them"


@frozen
class PromptInput:
    """The options that make up the request; a path may be ``-`` for standard input."""

    prompt: str | None
    files: Sequence[str]
    model: str | None
    system: str | None
    images: Sequence[str]
    schema: str | None
    options: Sequence[tuple[str, Any]]
    embed: bool
    payload: str | None
    endpoint: str | None

    def request(self) -> tuple[str, bytes]:
        """The endpoint and the payload.

        :raises click.UsageError: if the options contradict each other, or a file cannot be read.
        """
        if self.payload is not None:
            return self._as_it_is(self.payload)
        if self.endpoint is not None:
            raise click.UsageError("--endpoint needs --payload FILE")
        if not self.model:
            raise click.UsageError(_NEEDS_MODEL)
        if self.embed and (self.system is not None or self.images or self.schema is not None):
            raise click.UsageError("--system, --image and --schema cannot be used with --embed")
        texts = self._texts()
        if not any(text.strip() for text in texts) and not self.images:
            raise click.UsageError("the prompt is empty")
        images = [_read_bytes(path, "--image") for path in self.images]
        prompt = Prompt(self.model, texts, self.system, images, _read_schema(self.schema), dict(self.options))
        return ("/api/embed", embed_payload(prompt)) if self.embed else ("/api/chat", chat_payload(prompt))

    def _as_it_is(self, path: str) -> tuple[str, bytes]:
        others = (self.prompt, self.model, self.system, self.schema)
        if any(value is not None for value in others) or self.files or self.images or self.options or self.embed:
            raise click.UsageError(
                "--payload is the whole request: it cannot be used with a prompt, a model or other parts of one"
            )
        if self.endpoint is None:
            raise click.UsageError("--payload needs --endpoint PATH, such as /v1/chat/completions")
        try:
            return self.endpoint, read_payload(_read_bytes(path, "--payload"))
        except ValueError as problem:
            raise click.UsageError(f"--payload: {path} {problem}") from None

    def _texts(self) -> list[str]:
        prompt = [] if self.prompt in {None, "-"} else [str(self.prompt)]
        files = (["-"] if self.prompt == "-" else []) + list(self.files)
        if files.count("-") > 1:
            raise click.UsageError("standard input can be read only once")
        if not prompt and not files:
            # Waiting for input from a terminal would look like a hang.
            if sys.stdin.isatty():
                raise click.UsageError("there is no prompt: give a PROMPT, or a file with --file")
            files = ["-"]
        return prompt + [_read_text(path) for path in files]


def _read_schema(schema: str | None) -> Any:
    if schema is None or schema == "json":
        return schema
    given = schema if schema.lstrip().startswith("{") else _read_text(schema, "--schema")
    try:
        value = json.loads(given)
    except (ValueError, RecursionError) as problem:
        raise click.UsageError(f"--schema is not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise click.UsageError("--schema is not a JSON object")
    return value


def _read_text(path: str, option: str = "--file") -> str:
    try:
        # The newline at the end of a file, or of the output of echo, is not part of the prompt.
        return _read_bytes(path, option).decode("utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError:
        raise click.UsageError(f"{option}: {_shown_name(path)} is not text (UTF-8)") from None


def _read_bytes(path: str, option: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else parse_path(path).read_bytes()
    except ValueError as problem:
        raise click.UsageError(f"{option}: {_shown_name(path)} {problem}") from None
    except OSError as problem:
        raise click.UsageError(f"{option}: {_shown_name(path)} cannot be read: {problem.strerror}") from None


def _shown_name(path: str) -> str:
    return "standard input" if path == "-" else path
