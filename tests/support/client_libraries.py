"""The real client libraries behind one interface."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import anthropic
import ollama
import openai
from langchain_ollama import ChatOllama

from support.processes import TIMEOUT

MODEL = "llama3.2:3b"


class ClientLibrary(Protocol):
    """One client library in front of foreman."""

    def __init__(self, url: str, token: str | None = None) -> None: ...

    def whole(self, model: str, text: str, tokens: int = 100) -> str:
        """The text of a response in one piece."""

    def stream(self, model: str, text: str, tokens: int = 100) -> Iterator[str]:
        """The text of a streamed response, piece by piece."""

    async def whole_later(self, model: str, text: str, tokens: int = 100) -> str:
        """Like ``whole``, with the asynchronous client of the library."""

    def stream_later(self, model: str, text: str, tokens: int = 100) -> AsyncIterator[str]:
        """Like ``stream``, with the asynchronous client of the library."""

    def close(self) -> None:
        """Close its connections."""


def user_message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


class Ollama:
    def __init__(self, url: str, token: str | None = None) -> None:
        self.how: Any = {"host": url, "headers": bearer(token)}
        self.client = ollama.Client(**self.how)

    def whole(self, model: str, text: str, tokens: int = 100) -> str:
        return self.client.chat(model, user_message(text), options={"num_predict": tokens}).message.content or ""

    def stream(self, model: str, text: str, tokens: int = 100) -> Iterator[str]:
        for part in self.client.chat(model, user_message(text), stream=True, options={"num_predict": tokens}):
            yield part.message.content or ""

    async def whole_later(self, model: str, text: str, tokens: int = 100) -> str:
        async with ollama.AsyncClient(**self.how) as client:
            return (await client.chat(model, user_message(text), options={"num_predict": tokens})).message.content or ""

    async def stream_later(self, model: str, text: str, tokens: int = 100) -> AsyncIterator[str]:
        async with ollama.AsyncClient(**self.how) as client:
            async for part in await client.chat(
                model, user_message(text), stream=True, options={"num_predict": tokens}
            ):
                yield part.message.content or ""

    def close(self) -> None:
        self.client.close()


class OpenAI:
    def __init__(self, url: str, token: str | None = None) -> None:
        self.how: Any = {"base_url": f"{url}/v1", "api_key": token or "ollama", "max_retries": 0, "timeout": TIMEOUT}
        self.client: Any = openai.OpenAI(**self.how)

    def whole(self, model: str, text: str, tokens: int = 100) -> str:
        answer = self.client.chat.completions.create(model=model, messages=user_message(text), max_tokens=tokens)
        return str(answer.choices[0].message.content)

    def stream(self, model: str, text: str, tokens: int = 100) -> Iterator[str]:
        with self.client.chat.completions.create(
            model=model, messages=user_message(text), max_tokens=tokens, stream=True
        ) as stream:
            for part in stream:
                yield part.choices[0].delta.content or ""

    async def whole_later(self, model: str, text: str, tokens: int = 100) -> str:
        async with openai.AsyncOpenAI(**self.how) as client:
            messages: Any = user_message(text)
            answer = await client.chat.completions.create(model=model, messages=messages, max_tokens=tokens)
            return answer.choices[0].message.content or ""

    async def stream_later(self, model: str, text: str, tokens: int = 100) -> AsyncIterator[str]:
        async with openai.AsyncOpenAI(**self.how) as client:
            messages: Any = user_message(text)
            async for part in await client.chat.completions.create(
                model=model, messages=messages, max_tokens=tokens, stream=True
            ):
                yield part.choices[0].delta.content or ""

    def close(self) -> None:
        self.client.close()


class OpenAIResponses(OpenAI):
    def whole(self, model: str, text: str, tokens: int = 100) -> str:
        return str(self.client.responses.create(model=model, input=text, max_output_tokens=tokens).output_text)

    def stream(self, model: str, text: str, tokens: int = 100) -> Iterator[str]:
        with self.client.responses.create(model=model, input=text, max_output_tokens=tokens, stream=True) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    yield event.delta

    async def whole_later(self, model: str, text: str, tokens: int = 100) -> str:
        async with openai.AsyncOpenAI(**self.how) as client:
            return (await client.responses.create(model=model, input=text, max_output_tokens=tokens)).output_text

    async def stream_later(self, model: str, text: str, tokens: int = 100) -> AsyncIterator[str]:
        async with openai.AsyncOpenAI(**self.how) as client:
            async for event in await client.responses.create(
                model=model, input=text, max_output_tokens=tokens, stream=True
            ):
                if event.type == "response.output_text.delta":
                    yield event.delta


class Anthropic:
    def __init__(self, url: str, token: str | None = None) -> None:
        self.how: Any = {"base_url": url, "api_key": token or "ollama", "max_retries": 0, "timeout": TIMEOUT}
        self.client: Any = anthropic.Anthropic(**self.how)

    def whole(self, model: str, text: str, tokens: int = 100) -> str:
        answer = self.client.messages.create(model=model, messages=user_message(text), max_tokens=tokens)
        return "".join(block.text for block in answer.content if block.type == "text")

    def stream(self, model: str, text: str, tokens: int = 100) -> Iterator[str]:
        with self.client.messages.stream(model=model, messages=user_message(text), max_tokens=tokens) as stream:
            yield from stream.text_stream

    async def whole_later(self, model: str, text: str, tokens: int = 100) -> str:
        async with anthropic.AsyncAnthropic(**self.how) as client:
            messages: Any = user_message(text)
            answer = await client.messages.create(model=model, messages=messages, max_tokens=tokens)
            return "".join(block.text for block in answer.content if block.type == "text")

    async def stream_later(self, model: str, text: str, tokens: int = 100) -> AsyncIterator[str]:
        async with anthropic.AsyncAnthropic(**self.how) as client:
            messages: Any = user_message(text)
            async with client.messages.stream(model=model, messages=messages, max_tokens=tokens) as stream:
                async for part in stream.text_stream:
                    yield part

    def close(self) -> None:
        self.client.close()


class LangChain:
    def __init__(self, url: str, token: str | None = None) -> None:
        self.how: Any = {"base_url": url, "client_kwargs": {"headers": bearer(token)}}
        self._made: list[ChatOllama] = []

    def model(self, model: str, tokens: int = 100, **more: Any) -> ChatOllama:
        self._made.append(ChatOllama(model=model, num_predict=tokens, **self.how, **more))
        return self._made[-1]

    def whole(self, model: str, text: str, tokens: int = 100) -> str:
        return self.model(model, tokens).invoke(text).text

    def stream(self, model: str, text: str, tokens: int = 100) -> Iterator[str]:
        for part in self.model(model, tokens).stream(text):
            yield part.text

    async def whole_later(self, model: str, text: str, tokens: int = 100) -> str:
        return (await self.model(model, tokens).ainvoke(text)).text

    async def stream_later(self, model: str, text: str, tokens: int = 100) -> AsyncIterator[str]:
        async for part in self.model(model, tokens).astream(text):
            yield part.text

    def close(self) -> None:
        for made in self._made:
            made._client.close()


LIBRARIES: dict[str, type[ClientLibrary]] = {
    "ollama": Ollama,
    "openai": OpenAI,
    "openai-responses": OpenAIResponses,
    "anthropic": Anthropic,
    "langchain": LangChain,
}


WAITING_SECONDS = float(os.environ.get("WAITING_SECONDS", "4"))
