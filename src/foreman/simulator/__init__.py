"""A pretended Ollama: for trying foreman without a GPU, for tests, and for benchmarks.

Begin with ``simulator.Simulator``, the factory to listen with, which tests also look at and command; ``program.run`` listens with
one. ``settings`` says what can be chosen, ``misbehave`` what may go wrong.

A request goes through ``server`` (HTTP), ``router`` and ``routes`` (which handler), a handler (``native``, ``openai``, ``responses``,
``anthropic``, ``embedding``, ``metadata``, ``manage``, ``blobs``, ``account``, ``admin``), for inference ``asking`` (the checks that
the handlers share), ``scheduler`` (loading and slots) and ``inference`` (tokens at their pace, which come from ``words``), and
back through ``exchange`` and ``wire``, or ``spoil`` where something is to go wrong.

It knows nothing of the rest of foreman.
"""

from foreman.simulator.engine.faults import Misbehaviour
from foreman.simulator.engine.settings import FRIENDLY, RECORDED, Settings
from foreman.simulator.server.request_log import LostConnection, RequestLog
from foreman.simulator.simulator import NEW_YEAR, Simulator

__all__ = ["FRIENDLY", "NEW_YEAR", "RECORDED", "LostConnection", "Misbehaviour", "RequestLog", "Settings", "Simulator"]
