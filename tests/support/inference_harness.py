"""One request through the gate to a fake target and back, on a clock that the test moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from foreman import errors
from foreman.protocol import request_body
from foreman.protocol.routes import Route, classify
from foreman.proxy.access_record import RequestRecord
from foreman.proxy.inference import Inference
from foreman.proxy.relay import Limits
from foreman.proxy.request import TargetRequest
from foreman.proxy.target import Target
from foreman.scheduling.estimates import Estimates
from foreman.scheduling.gate import Gate
from foreman.scheduling.policy import Ticket
from foreman.scheduling.queue_status import QueuePosition, QueueStatus
from foreman.target.inventory import Inventory
from foreman.util.byte_budget import ByteBudget
from foreman.util.clock import EpochSeconds
from support.fake_target import FakeTarget


class RecordingResponder:
    """Records the response to one request."""

    def __init__(self) -> None:
        self.status = 0
        self.pieces: list[bytes] = []
        self.transition: Any = None
        self.producer: Any = None
        self.place: Callable[[], QueuePosition] | None = None
        self.pause_at = -1

    def queued(self, position: Callable[[], QueuePosition]) -> None:
        self.place = position

    def begin(self, status: int, phrase: bytes, headers: Any, kind: str) -> None:
        self.status = status

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)
        if len(self.pieces) == self.pause_at:
            self.producer.pauseProducing()

    def finish(self) -> None:
        self.transition = "finished"

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        self.transition = problem

    def set_producer(self, producer: Any) -> None:
        self.producer = producer


class RunningRequest:
    """One request, while it runs and after."""

    def __init__(self, work: InferenceHarness, path: str, body: bytes, responder: RecordingResponder) -> None:
        self.responder = responder
        found = classify(b"POST", path.encode())
        assert isinstance(found, Route)
        wanted = request_body.read(path, body, None, b"application/json", b"")
        target_request = TargetRequest(b"POST", path.encode(), [], body, len(body), found, wanted)
        id_ = str(len(work.requests))
        self.record = RequestRecord(id_, "someone", path, found.lane.value, work.clock.seconds(), wanted.model)
        self.ticket = Ticket(id_, "someone", wanted.model, path, EpochSeconds(0.0))
        self.results: list[Any] = []
        self.running = Deferred.fromCoroutine(work.inference.run(target_request, responder, self.record, self.ticket))
        self.running.addBoth(self.results.append)

    def leave(self) -> None:
        self.running.cancel()
        assert isinstance(self.problem, CancelledError)

    @property
    def problem(self) -> Any:
        return self.results[0].value


class InferenceHarness:
    """Gate and inference on a clock, in front of a fake target that has ``llama3`` loaded."""

    def __init__(self, turns: int = 1, target_wait: float = 0.0, max_queue: int = 10_000) -> None:
        self.clock = Clock()
        self.target = FakeTarget()
        inventory = Inventory(self.clock, self.target, 30)  # type: ignore[arg-type]
        inventory.refresh()
        self.buffers = ByteBudget(1_000_000)
        gate, estimates = Gate(self.clock, turns, max_queue), Estimates()
        target = Target(
            self.target,  # type: ignore[arg-type]
            inventory,
            gate,
            Gate(self.clock, 8, max_queue),
            estimates,
            QueueStatus(self.clock, gate, inventory, estimates),
        )
        self.inference = Inference(
            self.clock,
            target,
            Limits(1000, silence=600, stall=60),
            target_wait,
            self.buffers,
        )
        self.requests: list[RunningRequest] = []

    def ask(
        self,
        path: str = "/api/chat",
        responder: RecordingResponder | None = None,
        body: bytes | None = None,
        **more: Any,
    ) -> RunningRequest:
        value = {
            "model": "llama3",
            "messages": [{"role": "user", "content": "hi"}],
            "input": "hi",
            "prompt": "hi",
            **more,
        }
        text = json.dumps(value).encode() if body is None else body
        self.requests.append(RunningRequest(self, path, text, responder or RecordingResponder()))
        return self.requests[-1]

    def turn(self) -> None:
        """Run what is due now."""
        self.clock.advance(0)

    def check_nothing_is_left(self) -> None:
        inference = self.inference
        assert (inference.target.gate.running, inference.target.gate.waiting, inference.target.embeddings.running) == (
            [],
            [],
            [],
        )
        assert inference.when_idle().called
        assert self.buffers.used == 0
        assert self.clock.getDelayedCalls() == []
