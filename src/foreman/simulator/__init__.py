"""A pretended Ollama: for trying foreman without a GPU, for tests, and for benchmarks.

Begin with ``simulator.Simulator``, the factory to listen with; ``program.run`` listens with one. ``settings`` says what can be
chosen. A request goes through ``server`` (HTTP), ``router`` and ``routes`` (which handler), a handler (``native``, ``openai``,
``responses``, ``anthropic``, ``embedding``, ``metadata``), ``asking`` (the checks they share), ``scheduler`` (loading and
slots), ``inference`` (tokens at their pace, which come from ``words``) and back through ``exchange``.

It knows nothing of the rest of foreman.
"""

from foreman.simulator.misbehave import Misbehaviour
from foreman.simulator.seen import Lost, Seen
from foreman.simulator.settings import FRIENDLY, RECORDED, Settings
from foreman.simulator.simulator import NEW_YEAR, Simulator

__all__ = ["FRIENDLY", "NEW_YEAR", "RECORDED", "Lost", "Misbehaviour", "Seen", "Settings", "Simulator"]
