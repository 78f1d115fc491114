"""The HTTP status of each failure that comes before the answer: one table for all error formats."""

from __future__ import annotations

from foreman import errors
from foreman.proxy.request import ModelMissing
from foreman.store.errors import (
    ArtifactsTooLarge,
    KeyReused,
    StoreUnavailable,
    TooManyArtifacts,
    TooManyJobs,
    TooMuchStored,
    WrongState,
)

STATUS: dict[type[errors.ForemanError], int] = {
    ModelMissing: 404,
    errors.BadBody: 400,
    errors.InvalidName: 400,
    errors.QueueFull: 503,
    errors.Draining: 503,
    errors.Cancelled: 410,
    errors.Revoked: 401,
    errors.ConnectionError: 502,
    StoreUnavailable: 503,
    WrongState: 409,
    TooManyArtifacts: 409,
    ArtifactsTooLarge: 413,
    TooMuchStored: 507,
    TooManyJobs: 429,
    KeyReused: 422,
}


def status_of(failure: errors.ForemanError) -> int:
    """The status of ``failure``; 500 where it has none of its own."""
    if isinstance(failure, StoreUnavailable) and failure.condition == "full":
        return 507
    return next((status for kind, status in STATUS.items() if isinstance(failure, kind)), 500)
