"""The installed models: their names, capabilities, and entries in Ollama's lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from attrs import Factory, astuple, define, evolve, frozen

from foreman.simulator.engine.model_names import Name, split_name
from foreman.simulator.engine.text_generator import TextStyle

STORE = "/usr/share/ollama/.ollama/models"


def digest_of(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


@frozen
class Model:
    """One installed model.

    :ivar weights: the digest of its weights; models with the same weights share one runner.
    :ivar seconds: when it was made, in seconds since the epoch; :ivar nanos: the digits of the fraction.
    """

    name: Name
    text_style: TextStyle
    digest: str
    weights: str
    capabilities: tuple[str, ...] = ("completion",)
    family: str = "llama"
    parameter_size: str = "3.2B"
    parameter_count: int = 3_212_749_888
    quantization: str = "Q4_K_M"
    loaded_quantization: str = "Q4_K_M"
    size: int = 2_019_393_189
    loaded_size: int = 2_800_000_000
    vram: int = 2_800_000_000
    context_length: int = 131_072
    embedding_length: int = 3_072
    num_ctx: int = 4_096
    num_predict: int = -1
    feed_forward_length: int = 8_192
    vocab_size: int = 128_256
    template: str = "{{ .Prompt }}"
    parameters: tuple[tuple[str, str], ...] = ()
    system: str = ""
    seconds: int = 1_795_470_298
    nanos: str = ""
    extras: dict[str, Any] = Factory(dict)

    @property
    def modified_at(self) -> str:
        """When it was made, as in ``/api/tags``."""
        return f"{datetime.fromtimestamp(self.seconds, UTC):%Y-%m-%dT%H:%M:%S}{self.nanos and '.' + self.nanos}Z"

    def details(self, *, loaded: bool, newer: bool, file: bool = False) -> dict[str, Any]:
        """The ``details`` of ``/api/ps`` and ``/api/show`` (loaded), or of ``/api/tags``, which has more.

        :param newer: v0.34 and later read them from the model file; :param file: include the name of that file.
        """
        details: dict[str, Any] = {
            "parent_model": self.extras.get("file", "") if newer and file else "",
            "format": "gguf",
            "family": self.family,
            "families": [self.family],
            "parameter_size": self.parameter_size,
            "quantization_level": self.loaded_quantization if loaded and not newer else self.quantization,
        }
        if not loaded:
            details |= {"context_length": self.context_length, "embedding_length": self.embedding_length}
        return details

    def tags_entry(self, *, newer: bool) -> dict[str, Any]:
        """Its entry in ``/api/tags``."""
        return {
            "name": self.name.short,
            "model": self.name.short,
            "modified_at": self.modified_at,
            "size": self.size,
            "digest": self.digest,
            "details": self.details(loaded=False, newer=newer, file=True),
            "capabilities": list(self.capabilities),
        }


@define(eq=False)
class Inventory:
    """The installed models, by name."""

    _models: dict[tuple[str, str, str, str], Model] = Factory(dict)

    def add(self, models: Iterable[Model]) -> None:
        """Install models; they replace those of the same name."""
        for model in models:
            self._models[model.name.key] = model

    def remove(self, name: Name) -> bool:
        """Remove a model; returns whether it was installed."""
        return self._models.pop(name.key, None) is not None

    def find(self, name: Name) -> Model | None:
        """The model of that name, compared without regard to case."""
        return self._models.get(name.key)

    def find_exactly(self, name: Name) -> Model | None:
        """The model of exactly that name (for ``/api/embeddings``: contract 2.8)."""
        model = self.find(name)
        return model if model is not None and model.name == name else None

    def with_installed_spelling(self, name: Name) -> Name:
        """A new name, the start of which is spelled as in the installed models (contract 2.8.5)."""
        for count in (4, 3, 2, 1):
            for model in self._models.values():
                if model.name.key[:count] == name.key[:count]:
                    there, typed = astuple(model.name), astuple(name)
                    return Name(*there[:count], *typed[count:])
        return name

    def copy(self, model: Model, name: Name, **changes: Any) -> Model:
        """Install a copy of a model under another name, with ``changes``."""
        copied = evolve(model, name=name, **changes)
        self._models[name.key] = copied
        return copied

    def newest_first(self) -> list[Model]:
        """All models, the newest first; those of the same second in the order of installation."""
        return sorted(self._models.values(), key=lambda model: -model.seconds)


def parse_name(text: str) -> Name:
    """The parts of a valid name.

    :raises ValueError: if it is not valid.
    """
    name = split_name(text)
    if name is None:
        raise ValueError(f"{text!r} is not a model name")
    return name
