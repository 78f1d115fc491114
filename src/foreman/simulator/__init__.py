"""A simulated Ollama server: for trying foreman without a GPU, for tests, and for benchmarks.

Start reading at ``simulator.Simulator``, the Twisted factory to listen with, which tests also inspect and control;
``main.run`` is the program around it. ``engine.settings`` has what can be configured, ``engine.faults`` what can go wrong.

A request passes through:

1. ``server.connection``, which parses it, and ``server.router``, which finds its handler in ``api.routes``;
2. the handler in ``api`` (``native``, ``openai``, ``responses``, ``anthropic``, ``embedding``, ``metadata``, ``manage``,
   ``blobs``, ``cloud``, ``admin``); for inference ``api.model_request`` has the checks that the handlers share;
3. ``engine.scheduler`` (loads models, hands out slots) and ``api.inference``, which sends the tokens of
   ``engine.text_generator`` at their rate;
4. ``server.exchange`` and ``server.response_writer``, or ``server.fault_injection`` where a fault was asked for.

The simulator imports nothing of the rest of foreman. "Contract 1.4" in its docstrings is a section of the notes on the
behaviour of a real Ollama that it was written from; the recorded exchanges in ``tests/golden`` are the evidence.
"""

from foreman.simulator.engine.faults import Fault
from foreman.simulator.engine.settings import FRIENDLY, RECORDED, Settings
from foreman.simulator.server.request_log import LoggedRequest, LostConnection
from foreman.simulator.simulator import NEW_YEAR, Simulator

__all__ = ["FRIENDLY", "NEW_YEAR", "RECORDED", "Fault", "LoggedRequest", "LostConnection", "Settings", "Simulator"]
