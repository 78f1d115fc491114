"""The settings of a simulator."""

from __future__ import annotations

import re

from attrs import frozen

from foreman.simulator.engine.faults import Fault

#: The models of the recorded exchanges.
RECORDED = (
    "tiny-bad",
    "tiny-embed",
    "tiny-slow",
    "tiny-loop",
    "tiny-jinja",
    "tiny-think",
    "tiny-chat",
    "tiny-chat2",
    "tiny-other",
    "tiny-tools",
    "tiny-compact",
)
#: The version in which much changed (contract 1.1).
_NEWER = (0, 34)
#: Models under well-known names.
FRIENDLY = ("llama3.2:3b", "qwen3:8b", "nomic-embed-text:latest", "llava:7b")


@frozen
class Settings:
    """The settings of a simulator; with the defaults it responds at once.

    :ivar rate: tokens per second of each response, 0 for as fast as possible.
    :ivar load_time: seconds to load a model; :ivar prompt_time: seconds from a loaded model to its first token.
    :ivar models: the installed models; a name that is not in the catalogue gets a plain chat model.
    :ivar keep_alive: seconds that an unused model stays loaded, unless a request says otherwise.
    :ivar max_queue: how many requests may wait for a load; :ivar max_loaded: how many models may be loaded at once.
    :ivar parallel: the slots of each model.
    :ivar version: the version of Ollama to simulate: up to 0.33 as 0.33.0, later as 0.34.4.
    :ivar seed: of all random choices.
    :ivar misbehave: the faults to begin with.
    :ivar check_hosts: refuse foreign ``Host`` names, as an Ollama that listens on loopback does.
    :ivar remember: how many requests are kept for inspection.
    """

    rate: float = 0.0
    load_time: float = 0.0
    prompt_time: float = 0.0
    models: tuple[str, ...] = FRIENDLY + RECORDED
    keep_alive: float = 300.0
    max_queue: int = 512
    max_loaded: int = 3
    parallel: int = 1
    version: str = "0.34.4"
    seed: int = 1
    misbehave: tuple[Fault, ...] = ()
    check_hosts: bool = True
    remember: int = 10_000

    @property
    def newer(self) -> bool:
        """Whether to behave like v0.34 and later."""
        numbers = [int(part) for part in re.findall(r"\d+", self.version)[:2]]
        return tuple(numbers) >= _NEWER
