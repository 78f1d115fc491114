"""How a simulator is set up."""

from __future__ import annotations

import re

from attrs import frozen

from foreman.simulator.engine.faults import Misbehaviour

#: The models of the recorded exchanges, and some under names that people know.
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
#: The version from which on much is different (contract 1.1).
_NEWER = (0, 34)
FRIENDLY = ("llama3.2:3b", "qwen3:8b", "nomic-embed-text:latest", "llava:7b")


@frozen
class Settings:
    """What may be chosen; the defaults answer at once.

    :ivar rate: tokens per second of each answer, 0 for as fast as it goes.
    :ivar load_time: seconds until a model that was not loaded is; :ivar prompt_time: seconds before the first token.
    :ivar models: the names of what is installed; a name that is not in the catalogue gets a plain chat model.
    :ivar keep_alive: seconds that a model stays loaded unless a request says otherwise.
    :ivar max_queue: how many requests may wait for a load; :ivar max_loaded: how many models stay loaded at once.
    :ivar parallel: how many answers one model gives at once.
    :ivar version: what it says that it is; up to 0.33 it answers as that did.
    :ivar seed: what everything that looks like chance follows from.
    :ivar misbehave: what goes wrong from the beginning.
    :ivar check_hosts: refuse foreign ``Host`` names, as an Ollama that listens on loopback does.
    :ivar remember: how many of the last requests are kept to be looked at.
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
    misbehave: tuple[Misbehaviour, ...] = ()
    check_hosts: bool = True
    remember: int = 10_000

    @property
    def newer(self) -> bool:
        """Whether it is to answer as v0.34 and later do."""
        numbers = [int(part) for part in re.findall(r"\d+", self.version)[:2]]
        return tuple(numbers) >= _NEWER
