"""What pull, push and create tell while they are at it: a stream of states, or only how it ended (contract 1.4)."""

from __future__ import annotations

from typing import Any

from attrs import define

from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.go_json import encode
from foreman.simulator.server.error_shapes import NDJSON, PLAIN_JSON
from foreman.simulator.server.exchange import Exchange


@define(eq=False)
class Progress:
    """The answer of a long task."""

    _exchange: Exchange
    _stream: bool

    def tell(self, status: str, **more: Any) -> None:
        """How far it is."""
        if self._stream:
            if not self._exchange.begun:
                self._exchange.start(200, NDJSON)
            self._exchange.write(encode({"status": status, **more}) + b"\n")

    def succeed(self) -> None:
        """It is done."""
        self.tell("success")
        if self._stream:
            self._exchange.finish()
        else:
            self._exchange.respond(200, PLAIN_JSON, encode({"status": "success"}))

    def fail(self, text: str, status: int = 500) -> None:
        """It has failed; ``status`` is said only where nothing has been told yet.

        :raises Refused: there, if there is to be a stream.
        """
        if not self._stream:
            self._exchange.respond(status, PLAIN_JSON, encode({"error": text}))
        elif self._exchange.begun:
            self._exchange.write(encode({"error": text}) + b"\n")
            self._exchange.finish()
        else:
            raise Refused(status, text, flushed=True)
