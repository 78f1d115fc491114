"""What needs ollama.com, which the simulator cannot reach: accounts, web search, recommendations (contract 1.2)."""

from __future__ import annotations

from typing import Any

from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.go_json import encode
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.content_types import JSON
from foreman.simulator.server.exchange import Exchange


def _cloud(model: str, description: str, context: int, output: int) -> dict[str, Any]:
    return {"model": model, "description": description, "context_length": context, "max_output_tokens": output}


_CODE = "Reasoning and code generation"
_SWARM = "State-of-the-art coding, long-horizon execution, and multimodal agent swarm capability"
_RECOMMENDED: list[dict[str, Any]] = [
    _cloud("kimi-k2.6:cloud", _SWARM, 262_144, 262_144),
    _cloud("glm-5.1:cloud", _CODE, 202_752, 131_072),
    _cloud("qwen3.5:cloud", "Reasoning, coding, and agentic tool use with vision", 262_144, 32_768),
    _cloud("minimax-m2.7:cloud", "Fast, efficient coding and real-world productivity", 204_800, 128_000),
    {"model": "gemma4", "description": f"{_CODE} locally", "vram_bytes": 12_000_000_000},
    {
        "model": "qwen3.5",
        "description": "Reasoning, coding, and visual understanding locally",
        "vram_bytes": 14_000_000_000,
    },
]


async def me(_: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/me``."""
    del exchange
    raise Refused(503, "account unavailable")


async def signout(_: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/signout`` and ``DELETE /api/user/keys/:key``."""
    del exchange
    raise Refused(500, "there was an error signing out")


async def web(_: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/experimental/web_search`` and ``web_fetch``."""
    what = exchange.path.rpartition("/")[2].replace("_", " ")
    raise Refused(403, f"ollama cloud is disabled: {what} is unavailable")


async def recommendations(_: SimulatorState, exchange: Exchange) -> None:
    """``GET /api/experimental/model-recommendations``."""
    exchange.respond(200, JSON, encode({"recommendations": _RECOMMENDED}))
