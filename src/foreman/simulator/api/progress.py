"""The progress of pull, push and create: a stream of states, or only the last one (contract 1.4)."""

from __future__ import annotations

from typing import Any

from attrs import define

from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.go_json import encode
from foreman.simulator.server.content_types import NDJSON, PLAIN_JSON
from foreman.simulator.server.exchange import Exchange


@define(eq=False)
class Progress:
    """The response of a long task."""

    _exchange: Exchange
    _stream: bool

    def report(self, status: str, **more: Any) -> None:
        """Report a state."""
        if self._stream:
            if not self._exchange.started:
                self._exchange.start(200, NDJSON)
            self._exchange.write(encode({"status": status, **more}) + b"\n")

    def succeed(self) -> None:
        """Report success, and end the response."""
        self.report("success")
        if self._stream:
            self._exchange.finish()
        else:
            self._exchange.respond(200, PLAIN_JSON, encode({"status": "success"}))

    def fail(self, text: str, status: int = 500) -> None:
        """Report a failure, and end the response; ``status`` is used only if nothing has been sent yet.

        :raises Refused: in that case, if the response is a stream.
        """
        if not self._stream:
            self._exchange.respond(status, PLAIN_JSON, encode({"error": text}))
        elif self._exchange.started:
            self._exchange.write(encode({"error": text}) + b"\n")
            self._exchange.finish()
        else:
            raise Refused(status, text, flushed=True)
