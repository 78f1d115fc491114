"""The fields of a submitted job: each is checked by itself, and all errors are reported together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any, TypeVar

import msgspec
from attrs import define, field
from msgspec import Raw

from foreman.errors import MAX_EXCERPT, shortened
from foreman.jobs.job import PRIORITIES
from foreman.protocol.endpoints import SUBMITTABLE
from foreman.util import timestamps
from foreman.web.jobs.problems import FieldError, FieldErrors, Problem
from foreman.web.jobs.request_headers import MAX_KEY

T = TypeVar("T")

MAX_JOBS = 1000
MAX_ATTEMPTS = 100
MAX_METADATA, MAX_METADATA_NAME, MAX_METADATA_TEXT = 16, 64, 512

FIELDS = (
    "endpoint", "payload", "priority", "run_at", "deadline", "max_attempts", "metadata", "idempotency_key",
)  # fmt: skip

#: The longest field besides the payload, in bytes: enough for metadata with every character escaped, and blanks.
MAX_MEMBER_BYTES = 128 * 1024
#: In an object up to this size, in bytes, every unknown member is reported.
_SMALL_OBJECT = 64 * 1024
_ABSENT = Raw()
_job_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct("_Job", [(name, Raw, _ABSENT) for name in FIELDS], forbid_unknown_fields=True)
)
_lenient_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct("_Members", [(name, Raw, _ABSENT) for name in FIELDS])
)
#: Decoded into a struct with MAX_JOBS members, because a list would be built whole before it could be counted.
_ELEMENTS = tuple(f"element{number}" for number in range(MAX_JOBS))
_array_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct(
        "_Elements", [(name, Raw, _ABSENT) for name in _ELEMENTS], array_like=True, forbid_unknown_fields=True
    )
)
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_UNREADABLE = "is not valid JSON in UTF-8"


class _InvalidValue(ValueError):
    """A value that a field cannot have; the text says what it must be."""


@define(eq=False)
class Fields:
    """The members of one submitted job.

    :ivar pointer: the JSON pointer of the job in the body; :ivar field_errors: the errors of all jobs of the body so far;
    :ivar expired: deadlines in the past, which are no error of a request that was accepted before and is repeated.
    """

    members: Mapping[str, Raw]
    pointer: str
    field_errors: FieldErrors
    expired: FieldErrors
    _error_count: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        known = ", ".join(FIELDS)
        for name in (name for name in self.members if name not in FIELDS):
            self.add_error(_escaped(shortened(name, MAX_EXCERPT)), f"is not a field of a job; the fields are {known}")

    @property
    def is_valid(self) -> bool:
        """Whether this job has had no error so far."""
        return not self._error_count

    def add_error(self, name: str, detail: str, status: int = 400) -> None:
        """Add an error of a member."""
        self._error_count += 1
        self.field_errors.add(FieldError(f"{self.pointer}/{name}", detail, status))

    def size(self, name: str) -> int:
        """The length of a member, in bytes; 0 where it is missing."""
        raw = self.members.get(name)
        return 0 if raw is None else len(raw)

    def raw(self, name: str) -> bytes | None:
        """The bytes of a member as received; None where it is missing or null."""
        raw = self.members.get(name)
        value = b"" if raw is None else bytes(raw)
        return None if value in {b"", b"null"} else value

    def read(self, name: str, check: Callable[[Any], T], default: T) -> T:
        """The value of a member, checked; ``default`` where it is missing, null or invalid. Errors are added.

        :param check: returns the value of the decoded JSON, or raises ``_InvalidValue``.
        """
        if self.size(name) > MAX_MEMBER_BYTES:
            self.add_error(name, f"has {self.size(name)} bytes; at most {MAX_MEMBER_BYTES} are allowed")
            return default
        raw = self.raw(name)
        if raw is None:
            return default
        try:
            return check(msgspec.json.decode(raw))
        except _InvalidValue as problem:
            self.add_error(name, str(problem))
        except _DECODE_ERRORS:
            self.add_error(name, _UNREADABLE)
        return default


def members_of(raw: bytes | Raw) -> Mapping[str, Raw] | None:
    """The members of a JSON object, undecoded; None where ``raw`` is no valid JSON object.

    Of a large object only the first unknown member is returned: a million of them would cost memory.
    """
    try:
        return _members(_job_decoder.decode(raw))
    except msgspec.ValidationError as problem:
        try:
            if len(raw) <= _SMALL_OBJECT:
                return msgspec.json.decode(raw, type=dict[str, Raw])
            return {**_members(_lenient_decoder.decode(raw)), _unknown_name(problem): Raw(b"null")}
        except _DECODE_ERRORS:
            return None
    except _DECODE_ERRORS:
        return None


def elements_of(raw: bytes) -> list[Raw] | None:
    """The elements of a JSON array, undecoded; None where ``raw`` is no valid JSON array.

    :raises Problem: where there are more than MAX_JOBS; the rest is not parsed.
    """
    try:
        found = _array_decoder.decode(raw)
    except msgspec.ValidationError:
        raise Problem(400, f"the array has too many jobs; it must have 1 to {MAX_JOBS}") from None
    except _DECODE_ERRORS:
        return None
    elements = (getattr(found, name) for name in _ELEMENTS)
    return list(takewhile(lambda element: element is not _ABSENT, elements))


def _members(job: msgspec.Struct) -> dict[str, Raw]:
    return {name: value for name in FIELDS if (value := getattr(job, name)) is not _ABSENT}


def _unknown_name(problem: msgspec.ValidationError) -> str:
    """The unknown member in msgspec's message: between the first and the last backtick, and it may contain backticks."""
    return str(problem).partition("`")[2].rpartition("`")[0]


def endpoint(value: Any) -> str:
    """Check ``endpoint``: the path that the payload is for."""
    if value not in SUBMITTABLE:
        raise _InvalidValue(f"must be one of {', '.join(SUBMITTABLE)}")
    return str(value)


def priority(value: Any) -> int:
    """Check ``priority``: 0, most urgent, to 9."""
    if type(value) is not int or value not in PRIORITIES:
        raise _InvalidValue("must be a whole number from 0 to 9")
    return value


def max_attempts(value: Any) -> int:
    """Check ``max_attempts``."""
    if type(value) is not int or not 1 <= value <= MAX_ATTEMPTS:
        raise _InvalidValue(f"must be a whole number from 1 to {MAX_ATTEMPTS}")
    return value


def timestamp(value: Any) -> int:
    """Check a timestamp of RFC 3339; returns milliseconds since the epoch."""
    read = timestamps.parse(value) if isinstance(value, str) else None
    if read is None:
        raise _InvalidValue(timestamps.EXPECTED)
    return read


def key(value: Any) -> str:
    """Check ``idempotency_key``."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_KEY or "\0" in value:
        # Keys are looked up by SQLite's JSON functions, which end a string at a NUL.
        raise _InvalidValue(f"must be a string of 1 to {MAX_KEY} characters without NUL")
    return value


def metadata(value: Any) -> Mapping[str, str]:
    """Check ``metadata``: strings by name."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _InvalidValue("must be an object whose values are strings")
    if len(value) > MAX_METADATA:
        raise _InvalidValue(f"has {len(value)} members; at most {MAX_METADATA} are allowed")
    if not all(1 <= len(name) <= MAX_METADATA_NAME for name in value):
        raise _InvalidValue(f"must have names of 1 to {MAX_METADATA_NAME} characters")
    if any(len(text) > MAX_METADATA_TEXT for text in value.values()):
        raise _InvalidValue(f"must have values of at most {MAX_METADATA_TEXT} characters")
    return value


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
