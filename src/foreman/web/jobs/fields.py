"""The fields of a job that is handed over, each checked by itself; all that is wrong is told at once."""

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
from foreman.web.jobs.request_headers import KEY_LENGTH

T = TypeVar("T")

MAX_JOBS = 1000
MAX_ATTEMPTS = 100
MAX_METADATA, METADATA_NAME, METADATA_TEXT = 16, 64, 512

FIELDS = (
    "endpoint", "payload", "priority", "run_at", "deadline", "max_attempts", "metadata", "idempotency_key",
)  # fmt: skip

#: The longest member beside the payload, in bytes: metadata with every character escaped, and blanks.
LONGEST_MEMBER = 128 * 1024
#: Of an object up to this size every unknown member is named; bytes.
_SMALL = 64 * 1024
_ABSENT = Raw()
_job_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct("_Job", [(name, Raw, _ABSENT) for name in FIELDS], forbid_unknown_fields=True)
)
_lenient_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct("_Members", [(name, Raw, _ABSENT) for name in FIELDS])
)
#: A list would be built whole, whatever its length, before anybody could count it.
_ELEMENTS = tuple(f"element{number}" for number in range(MAX_JOBS))
_array_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct(
        "_Elements", [(name, Raw, _ABSENT) for name in _ELEMENTS], array_like=True, forbid_unknown_fields=True
    )
)
_READABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MISTAKE = "cannot be read"


class _Wrong(ValueError):
    """A value that a field cannot have; says what it must be."""


@define(eq=False)
class Fields:
    """The members of one job of a body.

    :ivar pointer: where the job stands in the body; :ivar field_errors: what was wrong so far, of all jobs; :ivar late: likewise,
        but for what was right when it was sent the first time.
    """

    members: Mapping[str, Raw]
    pointer: str
    field_errors: FieldErrors
    late: FieldErrors
    _own: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        known = ", ".join(FIELDS)
        for name in (name for name in self.members if name not in FIELDS):
            self.wrong(_escaped(shortened(name, MAX_EXCERPT)), f"is not a field of a job; there are {known}")

    @property
    def sound(self) -> bool:
        """Whether nothing was wrong with this job so far."""
        return not self._own

    def wrong(self, name: str, detail: str, status: int = 400) -> None:
        """Note what is wrong with a member."""
        self._own += 1
        self.field_errors.add(FieldError(f"{self.pointer}/{name}", detail, status))

    def size(self, name: str) -> int:
        """How long a member is, in bytes; 0 where it is not there."""
        raw = self.members.get(name)
        return 0 if raw is None else len(raw)

    def raw(self, name: str) -> bytes | None:
        """The bytes of a member as they came; None where it is not there, or null."""
        raw = self.members.get(name)
        value = b"" if raw is None else bytes(raw)
        return None if value in {b"", b"null"} else value

    def read(self, name: str, judge: Callable[[Any], T], default: T) -> T:
        """The value of a member, ``default`` where there is none; what is wrong is noted."""
        if self.size(name) > LONGEST_MEMBER:
            self.wrong(name, f"may have {LONGEST_MEMBER} bytes, and has {self.size(name)}")
            return default
        raw = self.raw(name)
        if raw is None:
            return default
        try:
            return judge(msgspec.json.decode(raw))
        except _Wrong as problem:
            self.wrong(name, str(problem))
        except _READABLE:
            self.wrong(name, _MISTAKE)
        return default


def members_of(raw: bytes | Raw) -> Mapping[str, Raw] | None:
    """The members of a JSON object, each as it came; None where it is no object that can be read.

    Of those that no job has, only the first is there where the object is large: a million of them cost memory.
    """
    try:
        return _given(_job_decoder.decode(raw))
    except msgspec.ValidationError as problem:
        try:
            if len(raw) <= _SMALL:
                return msgspec.json.decode(raw, type=dict[str, Raw])
            return {**_given(_lenient_decoder.decode(raw)), _unknown_in(problem): Raw(b"null")}
        except _READABLE:
            return None
    except _READABLE:
        return None


def elements_of(raw: bytes) -> list[Raw] | None:
    """The elements of a JSON array, each as it came; None where it is no array that can be read.

    :raises Problem: where there are more than MAX_JOBS, which are not read.
    """
    try:
        found = _array_decoder.decode(raw)
    except msgspec.ValidationError:
        raise Problem(400, f"an array may have 1 to {MAX_JOBS} jobs, and has more") from None
    except _READABLE:
        return None
    elements = (getattr(found, name) for name in _ELEMENTS)
    return list(takewhile(lambda element: element is not _ABSENT, elements))


def _given(job: msgspec.Struct) -> dict[str, Raw]:
    return {name: value for name in FIELDS if (value := getattr(job, name)) is not _ABSENT}


def _unknown_in(problem: msgspec.ValidationError) -> str:
    """The name that msgspec found to be unknown: it stands between the first and the last backtick, and may have some."""
    return str(problem).partition("`")[2].rpartition("`")[0]


def endpoint(value: Any) -> str:
    """The path that the payload is for."""
    if value not in SUBMITTABLE:
        raise _Wrong(f"must be one of {', '.join(SUBMITTABLE)}")
    return str(value)


def priority(value: Any) -> int:
    """How urgent it is."""
    if type(value) is not int or value not in PRIORITIES:
        raise _Wrong("must be a whole number from 0 to 9")
    return value


def attempts(value: Any) -> int:
    """How often it may be tried."""
    if type(value) is not int or not 1 <= value <= MAX_ATTEMPTS:
        raise _Wrong(f"must be a whole number from 1 to {MAX_ATTEMPTS}")
    return value


def moment(value: Any) -> int:
    """A moment, in milliseconds since the epoch."""
    read = timestamps.parse(value) if isinstance(value, str) else None
    if read is None:
        raise _Wrong(timestamps.EXPECTED)
    return read


def key(value: Any) -> str:
    """What tells a repetition."""
    if not isinstance(value, str) or not 1 <= len(value) <= KEY_LENGTH or "\0" in value:
        # SQLite's functions for JSON, by which keys are looked up, end a text at a NUL.
        raise _Wrong(f"must be a text of 1 to {KEY_LENGTH} characters, none of them NUL")
    return value


def metadata(value: Any) -> Mapping[str, str]:
    """Texts by name."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _Wrong("must be an object whose values are texts")
    if len(value) > MAX_METADATA:
        raise _Wrong(f"may have {MAX_METADATA} members, and has {len(value)}")
    if not all(1 <= len(name) <= METADATA_NAME for name in value):
        raise _Wrong(f"must have names of 1 to {METADATA_NAME} characters")
    if any(len(text) > METADATA_TEXT for text in value.values()):
        raise _Wrong(f"must have texts of up to {METADATA_TEXT} characters")
    return value


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
