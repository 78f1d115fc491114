"""What may go wrong with an answer, and where (stub)."""
from __future__ import annotations
from attrs import frozen
@frozen
class Misbehaviour:
    what: str
