"""One Ollama server behind foreman, with its gates and estimates."""

from __future__ import annotations

from attrs import frozen

from foreman.scheduling.estimates import Estimates
from foreman.scheduling.gate import Gate
from foreman.scheduling.queue_status import QueueStatus
from foreman.target.client import TargetClient
from foreman.target.inventory import Inventory


@frozen(eq=False)
class Target:
    """One target.

    :ivar client: sends requests to it; :ivar inventory: its models, and whether it answers;
    :ivar gate: where chats wait for their turns at it; :ivar embeddings: the gate of embeddings, beside it (ADR-0013);
    :ivar estimates: how long its models usually take; :ivar queue_status: the queue at ``gate``.
    """

    client: TargetClient
    inventory: Inventory
    gate: Gate
    embeddings: Gate
    estimates: Estimates
    queue_status: QueueStatus
