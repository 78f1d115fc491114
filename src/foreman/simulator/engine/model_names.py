"""Model names, read as Ollama reads them (contract 2.8)."""

from __future__ import annotations

import re

from attrs import frozen

from foreman.simulator.engine.errors import Refused

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}\Z")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}\Z")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}\Z")


@frozen
class Name:
    """The name of a model: four parts, compared without regard to case."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The same for all spellings of a name."""
        return (self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower())

    @property
    def full(self) -> str:
        """All four parts, as some error texts have them."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def short(self) -> str:
        """The shortest spelling, always with its tag."""
        if self.host.lower() != HOST:
            return self.full
        if self.namespace.lower() != NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def path(self) -> str:
        """The path of its manifest, below the folder of all manifests."""
        return f"{self.host}/{self.namespace}/{self.model}/{self.tag}"


@frozen
class ModelReference:
    """A name as a client wrote it: which model, and whether it means the one in the cloud."""

    name: Name
    cloud: bool


def split_name(text: str) -> Name | None:
    """The four parts of a name, with defaults filled in; ``None`` for a name that Ollama refuses."""
    rest = text.split("://", 1)[-1]
    tag, namespace, host = TAG, NAMESPACE, HOST
    before, colon, after = rest.rpartition(":")
    if colon and "/" not in after:
        rest, tag = before, after
    before, slash, model = rest.rpartition("/")
    if slash:
        before, slash, namespace = before.rpartition("/")
        if slash:
            host = before
    whole = _PART.match(model) and _PART.match(tag) and _NAMESPACE.match(namespace) and _HOST.match(host)
    return Name(host, namespace, model, tag) if whole else None


def _source(text: str) -> tuple[str, str | None]:
    """A name without its ``:cloud``, ``:local`` or ``-cloud``, and which of the two it had."""
    before, colon, after = text.rpartition(":")
    last = after.strip().lower()
    if colon and last in {"cloud", "local"}:
        return before, last
    if colon and "/" not in last and last.endswith("-cloud"):
        return f"{before}:{after.strip()[: -len('-cloud')]}", "cloud"
    return text, None


def parse_reference(text: str) -> ModelReference:
    """The model that a client means by ``text``.

    :raises Refused: 400 with Ollama's text, if the name is missing, malformed or contradicts itself.
    """
    typed = text.strip()
    if not typed:
        raise Refused(400, "model is required")
    rest, source = _source(typed)
    if source is not None and _source(rest)[1] is not None:
        raise Refused(400, f'use either :local or :cloud, not both: "{typed}"')
    name = split_name(rest)
    if name is None:
        raise Refused(400, "invalid model name")
    return ModelReference(name, source == "cloud")
