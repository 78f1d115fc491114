"""The fields of a request body, read as leniently as Go does, with Go's error texts (contract 2.0 and 2.6)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from attrs import define

from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.go_json import loads

FOREVER = float("inf")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_STEP = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")
NO_TYPICAL_P = "typical_p is no longer supported"
_LEVELS = ("high", "medium", "low", "max")


def kind(value: Any) -> str:
    """The name of a JSON value's kind in Go."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


@define(eq=False)
class Fields:
    """The members of one JSON object; names are compared without regard to case.

    :ivar struct: the name that Go's error texts have for the object, for example ``ChatRequest``.
    """

    struct: str
    _members: dict[str, Any]

    @classmethod
    def of(cls, struct: str, value: Any, package: str = "api") -> Fields:
        """The members of a value.

        :raises Malformed: if it is neither an object nor null.
        """
        if value is None:
            return cls(struct, {})
        if not isinstance(value, dict):
            type_ = f"{package}.{struct}"
            if struct.startswith("."):
                type_ = f'struct {{ *{package}{struct}; Think json.RawMessage "json:\\"think\\"" }}'
            raise Malformed(f"json: cannot unmarshal {kind(value)} into Go value of type {type_}")
        return cls(struct, {key.lower(): member for key, member in value.items()})

    @classmethod
    def read(cls, struct: str, body: bytes, package: str = "api") -> Fields:
        """The members of a body."""
        return cls.of(struct, loads(body), package)

    def raw(self, name: str) -> Any:
        """A member as received, or ``None``."""
        return self._members.get(name)

    def _typed(self, name: str, expected: type | tuple[type, ...], type_: str) -> Any:
        value = self._members.get(name)
        if value is None or (isinstance(value, expected) and not (isinstance(value, bool) and expected is not bool)):
            return value
        raise self.type_error(name, value, type_)

    def type_error(self, name: str, value: Any, type_: str) -> Malformed:
        """The error for a member of the wrong type; ``type_`` is Go's name of the right one."""
        return Malformed(
            f"json: cannot unmarshal {kind(value)} into Go struct field {self.struct}.{name} of type {type_}"
        )

    def string(self, name: str) -> str:
        """A string; empty if absent."""
        return self._typed(name, str, "string") or ""

    def boolean(self, name: str) -> bool | None:
        """A boolean, or ``None``."""
        value: bool | None = self._typed(name, bool, "bool")
        return value

    def integer(self, name: str, type_: str = "int") -> int | None:
        """An integer, or ``None``."""
        value = self._typed(name, (int, float), type_)
        if isinstance(value, float) and not value.is_integer():
            raise Malformed(
                f"json: cannot unmarshal number {value} into Go struct field {self.struct}.{name} of type {type_}"
            )
        return None if value is None else int(value)

    def number(self, name: str) -> float | None:
        """A number, or ``None``."""
        value: float | None = self._typed(name, (int, float), "float64")
        return value

    def array(self, name: str, type_: str) -> list[Any]:
        """A list; empty if absent. ``type_`` is its type in Go, for example ``[]api.Message``."""
        return self._typed(name, list, type_) or []

    def object(self, name: str) -> dict[str, Any]:
        """An object with any members; empty if absent."""
        return self._typed(name, dict, "map[string]interface {}") or {}

    def images(self, name: str = "images") -> int:
        """The number of images; each must be base64 without a ``data:`` prefix."""
        images = self.array(name, "[]api.ImageData")
        for image in images:
            if not isinstance(image, str):
                raise self.type_error(name, image, "[]uint8")
            check_base64(image)
        return len(images)

    def keep_alive(self) -> float | None:
        """How long the model stays loaded after the response: seconds, ``FOREVER``, or ``None`` for the default."""
        value = self._members.get("keep_alive")
        match value:
            case None:
                return None
            case bool() | list() | dict():
                go = {"bool": "bool", "array": "[]interface {}", "object": "map[string]interface {}"}[kind(value)]
                raise Malformed(f"Unsupported type: '{go}'")
            case str():
                seconds = duration(value)
            case _:
                seconds = float(value)
        return FOREVER if seconds < 0 else seconds

    def think(self) -> bool | str | None:
        """On, off, a level, or ``None`` if absent."""
        value = self._members.get("think")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            check_level(value)
            return value
        raise Malformed('think must be a boolean or string ("high", "medium", "low", "max", true, or false)')

    def level(self) -> bool | str | None:
        """Like ``think``, but an unknown level is only refused later."""
        value = self._members.get("think")
        if value is None or isinstance(value, bool | str):
            return value
        raise Malformed("think must be a boolean or string")


def check_level(value: bool | str | None) -> None:
    """Refuse an unknown level of thinking."""
    if isinstance(value, str) and value not in _LEVELS:
        raise Malformed(f'invalid think value: "{value}" (must be "high", "medium", "low", "max", true, or false)')


def check_base64(text: str) -> None:
    """Refuse what is not base64, naming the first invalid byte."""
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        at = next((i for i, c in enumerate(text) if not (c.isascii() and (c.isalnum() or c in "+/="))), len(text))
        raise Malformed(f"illegal base64 data at input byte {at}") from None


def duration(text: str) -> float:
    """The seconds of a Go duration such as ``1h30m``.

    :raises Malformed: with Go's error text.
    """
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return 0.0
    invalid = Malformed(f'time: invalid duration "{text}"')
    if not rest:
        raise invalid
    seconds, at = 0.0, 0
    while at < len(rest):
        step = _STEP.match(rest, at)
        if step is None:
            raise invalid
        if not step[2]:
            raise Malformed(f'time: missing unit in duration "{text}"')
        if step[2] not in _UNITS:
            raise Malformed(f'time: unknown unit "{step[2]}" in duration "{text}"')
        seconds += float(step[1]) * _UNITS[step[2]]
        at = step.end()
    return -seconds if text[0] == "-" else seconds


_OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(("num_keep", "seed", "num_predict", "top_k", "repeat_last_n"), "integer"),
    **dict.fromkeys(("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict"), "integer"),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "temperature"), "float32"),
    **dict.fromkeys(("repeat_penalty", "presence_penalty", "frequency_penalty"), "float32"),
    "use_mmap": "boolean",
    "stop": "array",
}


def check_options(options: Mapping[str, Any], *, newer: bool) -> None:
    """Refuse an option of the wrong type; unknown options are ignored (contract 1.5).

    :param newer: v0.34 and later also refuse ``typical_p``, which was removed.
    """
    if newer and options.get("typical_p") is not None:
        raise Refused(400, NO_TYPICAL_P)
    for name, value in options.items():
        expected = _OPTIONS.get(name)
        if expected is None or value is None:
            continue
        found = {"bool": "boolean", "number": expected if expected in {"integer", "float32"} else "number"}.get(
            kind(value), kind(value)
        )
        if found != expected:
            raise Refused(500, f'option "{name}" must be of type {expected}')
        if expected == "array" and not all(isinstance(item, str) for item in value):
            raise Refused(500, f'option "{name}" must be of an array of strings')
