"""Model names, read as Ollama reads them (contract 2.8)."""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import Literal

from attrs import frozen

from foreman.errors import InvalidName

Source = Literal["", "local", "cloud"]

#: Host, namespace, model and tag, folded: two names with the same key are one model.
Key = tuple[str, str, str, str]

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")

_DEFAULT_HOST, _DEFAULT_NAMESPACE, _DEFAULT_TAG = "registry.ollama.ai", "library", "latest"


@frozen
class ModelName:
    """The parts of a name, defaults filled in, in the spelling that was typed.

    :ivar source: ``cloud`` or ``local`` where the name says so by its suffix.
    """

    host: str
    namespace: str
    model: str
    tag: str
    source: Source = ""

    @cached_property
    def key(self) -> Key:
        """What identifies the model: Ollama compares part by part without regard to case."""
        return self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower()

    @property
    def is_cloud(self) -> bool:
        """Whether the name asks for a model that runs elsewhere, installed or not."""
        return self.source == "cloud"


@lru_cache(maxsize=1024)
def parse(typed: str) -> ModelName:
    """Read a name as a person or a program typed it.

    :raises InvalidName: where Ollama would refuse it, with its text.
    """
    text, source = _source(typed.strip())
    if source and _source(text)[1]:
        raise InvalidName(f'use either :local or :cloud, not both: "{typed.strip()}"')
    _, scheme, rest = text.rpartition("://")
    if not scheme:
        rest = text
    tag = _DEFAULT_TAG
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        rest, tag = rest[:colon], rest[colon + 1 :]
    *before, model = rest.split("/")
    namespace = before.pop() if before else _DEFAULT_NAMESPACE
    host = "/".join(before) if before else _DEFAULT_HOST
    valid = _HOST.fullmatch(host) and _NAMESPACE.fullmatch(namespace) and _PART.fullmatch(model) and _PART.fullmatch(tag)
    if not valid:
        raise InvalidName("invalid model name")
    return ModelName(host, namespace, model, tag, source)


def _source(text: str) -> tuple[str, Source]:
    """Take the source suffix off (contract 2.8, step 2): ``:cloud``, ``:local``, or ``-cloud`` at the end of a tag."""
    before, colon, last = text.rpartition(":")
    if not colon:
        return text, ""
    last = last.strip()
    folded = last.lower()
    if folded == "cloud":
        return before, "cloud"
    if folded == "local":
        return before, "local"
    if "/" not in last and folded.endswith("-cloud"):
        return f"{before}:{last[: -len('-cloud')]}", "cloud"
    return text, ""
