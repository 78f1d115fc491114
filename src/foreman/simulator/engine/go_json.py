"""JSON as Go reads and writes it, with Go's error texts (contract 2.0)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from foreman.simulator.engine.errors import Malformed

_SPACE = " \t\r\n"
_ESCAPES = re.compile("[<>&\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAMED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}


def dumps(value: Any) -> str:
    """One JSON value as Go's encoder writes it: no spaces, ``<``, ``>`` and ``&`` escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _ESCAPES.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def encode(value: Any) -> bytes:
    """The bytes of ``dumps``."""
    return dumps(value).encode("utf-8", "replace")


def loads(body: bytes) -> Any:
    """The first JSON value of a body; what follows it is ignored.

    :raises Malformed: with Go's error text.
    """
    text = body.decode("utf-8", "replace")
    start = len(text) - len(text.lstrip(_SPACE))
    if start == len(text):
        raise Malformed(Malformed.texts[False], empty=True)
    try:
        value, _ = _decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        raise Malformed(describe_error(body)) from None
    return _without_surrogates(value) if "\\u" in text else value


def _without_surrogates(value: Any) -> Any:
    """``value`` with U+FFFD for each lone surrogate."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(_SURROGATE.sub("\ufffd", text)) if _SURROGATE.search(text) else value


def loads_whole(body: bytes) -> Any:
    """The JSON value of a body that contains nothing else.

    :raises Malformed: with Go's error text.
    """
    value = loads(body)
    text = body.decode("utf-8", "replace")
    _, end = _decoder.raw_decode(text, len(text) - len(text.lstrip(_SPACE)))
    if rest := text[end:].lstrip(_SPACE):
        raise Malformed(f"invalid character {quote(rest[0])} after top-level value")
    return value


def _last_wins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are in the order of their last occurrence."""
    members: dict[str, Any] = {}
    for key, value in pairs:
        members.pop(key, None)
        members[key] = value
    return members


def _no_constant(text: str) -> Any:
    raise ValueError(text)


_decoder = json.JSONDecoder(object_pairs_hook=_last_wins, parse_constant=_no_constant)


def quote(character: str) -> str:
    """A character as Go's error texts show it."""
    if character == "'":
        return "'\\''"
    if character in _NAMED:
        return f"'{_NAMED[character]}'"
    code = ord(character)
    return f"'\\x{code:02x}'" if code < 0x20 or code == 0x7F else f"'{character}'"


class _SyntaxError(Exception):
    """A syntax error, with Go's text."""


class _Scanner:
    """Scans JSON the way Go's scanner does, only to describe its first error."""

    def __init__(self, body: bytes) -> None:
        self.text = body.decode("latin-1")  # Go scans bytes
        self.at = 0

    def next(self) -> str:
        if self.at >= len(self.text):
            raise _SyntaxError("unexpected EOF")
        self.at += 1
        return self.text[self.at - 1]

    def significant(self) -> str:
        while (c := self.next()) in _SPACE:
            pass
        return c

    def fail(self, c: str, where: str) -> None:
        raise _SyntaxError(f"invalid character {quote(c)} {where}")

    def value(self, c: str, depth: int = 0) -> None:
        if depth > 10_000:
            raise _SyntaxError("exceeded max depth")
        kinds: dict[str, Callable[[], None]] = {
            "{": lambda: self.members(depth),
            "[": lambda: self.items(depth),
            '"': self.string,
            "t": lambda: self.literal("true"),
            "f": lambda: self.literal("false"),
            "n": lambda: self.literal("null"),
        }
        if c in kinds:
            kinds[c]()
        elif c in "-0123456789":
            self.number(c)
        else:
            self.fail(c, "looking for beginning of value")

    def members(self, depth: int) -> None:
        c = self.significant()
        while c != "}":
            if c != '"':
                self.fail(c, "looking for beginning of object key string")
            self.string()
            if (c := self.significant()) != ":":
                self.fail(c, "after object key")
            self.value(self.significant(), depth + 1)
            c = self.significant()
            if c == ",":
                if (c := self.significant()) == "}":
                    self.fail(c, "looking for beginning of object key string")
            elif c != "}":
                self.fail(c, "after object key:value pair")

    def items(self, depth: int) -> None:
        c = self.significant()
        while c != "]":
            self.value(c, depth + 1)
            c = self.significant()
            if c == ",":
                if (c := self.significant()) == "]":
                    self.fail(c, "looking for beginning of value")
            elif c != "]":
                self.fail(c, "after array element")

    def string(self) -> None:
        while (c := self.next()) != '"':
            if c == "\\":
                if (c := self.next()) == "u":
                    for _ in range(4):
                        if (c := self.next()) not in "0123456789abcdefABCDEF":
                            self.fail(c, "in \\u hexadecimal character escape")
                elif c not in 'bfnrt\\/"':
                    self.fail(c, "in string escape code")
            elif c < " ":
                self.fail(c, "in string literal")

    def literal(self, word: str) -> None:
        for expected in word[1:]:
            if (c := self.next()) != expected:
                self.fail(c, f"in literal {word} (expecting {quote(expected)})")

    def number(self, c: str) -> None:
        if c == "-" and (c := self.next()) not in "0123456789":
            self.fail(c, "in numeric literal")
        if c != "0":
            self.digits()
        if self.peek() == ".":
            self.next()
            self.one_digit("after decimal point in numeric literal")
        if self.peek() in {"e", "E"}:
            self.next()
            if self.peek() in {"+", "-"}:
                self.next()
            self.one_digit("in exponent of numeric literal")

    def one_digit(self, where: str) -> None:
        if (c := self.next()) not in "0123456789":
            self.fail(c, where)
        self.digits()

    def digits(self) -> None:
        while self.peek() in set("0123456789"):
            self.at += 1

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]


def describe_error(body: bytes) -> str:
    """Go's error text for a body that is not JSON."""
    scanner = _Scanner(body)
    try:
        scanner.value(scanner.significant())
    except _SyntaxError as error:
        return str(error)
    except RecursionError:
        return "exceeded max depth"
    return "unexpected EOF"
