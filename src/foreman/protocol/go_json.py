"""JSON as Go's ``encoding/json`` reads and writes it: the members of an object (contract 2.0), and the escapes of texts.

The reader is slower than a parser in C, and used where that one could be wrong: keys match without regard to case,
duplicates count, bytes that are not UTF-8 and lone surrogates are accepted, bytes after the first value are ignored, and a
value that is cut short is distinguished from one that is wrong. Members that the caller does not name are not decoded.

The work grows with the length of the body and with nothing else: each regular expression here looks at a bounded number
of bytes, and none can backtrack over more than those. It is done in slices, so that a large body does not block the reactor.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Collection
from typing import Any

import msgspec
from attrs import define, field, frozen

from foreman.util.slices import Slices, at_once

Body = bytes | memoryview | mmap.mmap

#: How many values are read before giving up: 1.5 s of work in all, in slices.
MAX_STEPS = 1_000_000
#: How many duplicates of a requested member an object may have.
MAX_DUPLICATES = 64
#: The work of one slice, in bytes of a string without escapes: 1 to 4 ms.
SLICE = 256 * 1024
#: The cost of one step, in the same unit.
_STEP_WORK = 256
#: The depth that Go allows, without the object itself.
_MAX_DEPTH = 9_999
#: The longest spelling of a requested key, in bytes: ten letters, each written ``\uXXXX``, and two quotes.
_LONGEST_KEY = 62

_SPACE = rb"[ \t\r\n]{0,64}"
_UNESCAPED = rb'[^"\\\x00-\x1f]'
# Longer numbers are valid, but nobody sends them.
_INTEGER = rb"-?(?:0|[1-9][0-9]{0,999})"
_NUMBER = _INTEGER + rb"(?:\.[0-9]{1,1000})?(?:[eE][+-]?[0-9]{1,1000})?(?![0-9.eE+-])"

_BLANKS = re.compile(rb"[ \t\r\n]{0,65536}")
#: A value. Groups: an opening brace, an opening bracket, the quote that begins a string, and its final quote if it is near.
_VALUE = re.compile(
    _SPACE + rb"(?:([{])|([\[])|(\")" + _UNESCAPED + rb"{0,1024}(\"?)|" + _NUMBER + rb"|true|false|null)"
)
_FIRST_KEY = re.compile(_SPACE + rb"(?:(})|(?=\"))")
_NEXT_KEY = re.compile(_SPACE + rb"(?:(})|,)")
_KEY = re.compile(_SPACE + rb"(\")" + _UNESCAPED + rb"{0,1024}(\"?)")
_COLON = re.compile(_SPACE + rb":")
_NO_ITEM = re.compile(_SPACE + rb"(?:(])|(?=[^ \t\r\n]))")
_NEXT_ITEM = re.compile(_SPACE + rb"(?:(])|,)")

_LETTERS = re.compile(_UNESCAPED + rb"{1,65536}")
_ESCAPES = re.compile(rb"(?:\\(?:[\"\\/bfnrt]|u[0-9A-Fa-f]{4})" + _UNESCAPED + rb"{0,16}){1,1024}")
#: What a body that was cut short may end with.
_PART_OF_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?")
_PART_OF_VALUE = re.compile(
    _SPACE + rb"(?:-|" + _INTEGER + rb"(?:\.|(?:\.[0-9]{1,1000})?[eE][+-]?)|t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?)"
)

#: Go folds ASCII letters, and the two other characters whose simple case folding is an ASCII letter.
_FOLD = str.maketrans(
    {**{letter: letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}, "\u017f": "s", "\u212a": "k"}
)

#: What Go's ``json.Encoder`` escapes by default beside what JSON itself demands.
_GO_ESCAPES = tuple((character.encode(), b"\\u%04x" % ord(character)) for character in "<>&\u2028\u2029")
_SURROGATE = re.compile("[\ud800-\udfff]")

Span = tuple[int, int]


class Empty(ValueError):
    """The body is empty, or white space only."""


class Truncated(ValueError):
    """The body is the beginning of JSON."""


class Unreadable(ValueError):
    """The body is not JSON, or not an object, or too complex to be read here."""


class TooComplex(Unreadable):
    """The body has too many values, is nested too deeply, or repeats one member too often."""


@frozen
class Members:
    """Where the requested members of an object are.

    :ivar spans: the positions of their values, duplicates in their order, by folded name;
    :ivar end: the position behind the object.
    """

    spans: dict[str, list[Span]]
    end: int


def members(body: Body, names: Collection[str]) -> Members:
    """Find the members ``names`` of the object with which ``body`` begins; see ``members_in_slices``."""
    return at_once(members_in_slices(body, names))


def members_in_slices(body: Body, names: Collection[str]) -> Slices[Members]:
    """Find the members ``names`` of the object with which ``body`` begins.

    ``null`` has no members. Keys are folded; ``names`` consist of ASCII letters in lower case and underscores.

    :raises Empty, Truncated, Unreadable: see these classes.
    """
    scanner = _Scanner(body)
    at = yield from scanner.skip_blanks(0)
    if at == len(body):
        raise Empty
    opening = yield from scanner.match(_VALUE, at)
    if opening[1] is None:
        end = yield from scanner.skip_value(at)
        if bytes(body[at : at + 4]) == b"null":
            return Members({}, end)
        raise Unreadable
    found: dict[str, list[Span]] = {}
    at = opening.end()
    due = _FIRST_KEY
    while (separator := (yield from scanner.match(due, at)))[1] is None:
        name, at = yield from scanner.key(separator.end())
        start = yield from scanner.skip_blanks(at)
        at = yield from scanner.skip_value(start)
        if name in names:
            spans = found.setdefault(name, [])
            spans.append((start, at))
            if len(spans) > MAX_DUPLICATES:
                raise TooComplex
        due = _NEXT_KEY
    return Members(found, separator.end())


def text(raw: bytes) -> str:
    """The text of a JSON string (with its quotes) that ``members`` found; bad characters are read as U+FFFD."""
    quoted = raw.decode("utf-8", "surrogateescape")  # one for each byte that is not UTF-8, as in Go
    value: str = json.loads(quoted) if "\\" in quoted else quoted[1:-1]
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def encode(value: Any) -> bytes:
    """``value`` as JSON with the escapes of Go's encoder, so that texts look as from Ollama."""
    return escape(msgspec.json.encode(value))


def escape(json_text: bytes) -> bytes:
    """JSON in UTF-8 with the escapes of Go's encoder: of ``<``, ``>``, ``&``, U+2028 and U+2029, which only stand in strings."""
    for character, escaped in _GO_ESCAPES:
        json_text = json_text.replace(character, escaped)
    return json_text


@define(eq=False)
class _Scanner:
    """Scans a body, and pauses after each slice of work."""

    body: Body
    _steps: int = field(default=0, init=False)
    _slice_began_at: int = field(default=0, init=False)

    def match(self, due: re.Pattern[bytes], at: int) -> Slices[re.Match[bytes]]:
        """Match ``due`` at ``at``, after white space.

        :raises Truncated, Unreadable: when it does not match.
        """
        found = due.match(self.body, at)
        if found is None:
            at = yield from self.skip_blanks(at)
            found = due.match(self.body, at)
        if found is not None:
            return found
        if at == len(self.body) or (due is _VALUE and _PART_OF_VALUE.fullmatch(self.body, at)):
            raise Truncated
        raise Unreadable

    def skip_blanks(self, at: int) -> Slices[int]:
        """The position behind the white space at ``at``."""
        while (end := _end(_BLANKS, self.body, at)) > at:
            at = end
            if self._is_slice_done(at):
                yield
        return at

    def key(self, at: int) -> Slices[tuple[str, int]]:
        """The folded name of the key at ``at`` (empty where it is longer than any requested one), and the position of its value."""
        opening = yield from self.match(_KEY, at)
        start, end = opening.start(1), opening.end()
        if not opening[2]:
            end = yield from self._string_end(end)
        name = ""
        if end - start <= _LONGEST_KEY:
            name = text(bytes(self.body[start:end])).translate(_FOLD)
        colon = yield from self.match(_COLON, end)
        return name, colon.end()

    def skip_value(self, at: int) -> Slices[int]:
        """The position behind the value at ``at``."""
        in_object: list[bool] = []  # one entry for each open bracket
        while True:
            self._steps += 1
            if self._is_slice_done(at):
                yield
            value = yield from self.match(_VALUE, at)
            if self._steps > MAX_STEPS or (len(in_object) == _MAX_DEPTH and (value[1] or value[2])):
                raise TooComplex
            at = value.end()
            if value[1] is not None:
                key = yield from self.match(_FIRST_KEY, at)
                at = key.end()
                if key[1] is None:
                    _, at = yield from self.key(at)
                    in_object.append(True)
                    continue
            elif value[2] is not None:
                none = yield from self.match(_NO_ITEM, at)
                at = none.end()
                if none[1] is None:
                    in_object.append(False)
                    continue
            elif value[3] is not None and not value[4]:
                at = yield from self._string_end(at)
            while in_object:
                after = yield from self.match(_NEXT_KEY if in_object[-1] else _NEXT_ITEM, at)
                at = after.end()
                if after[1] is None:
                    if in_object[-1]:
                        _, at = yield from self.key(at)
                    break
                in_object.pop()
            else:
                return at

    def _string_end(self, at: int) -> Slices[int]:
        """The position behind the string that contains ``at``."""
        body = self.body
        while at < len(body):
            letter = body[at : at + 1]
            if letter == b'"':
                return at + 1
            end = _end(_ESCAPES if letter == b"\\" else _LETTERS, body, at)
            if end == at:
                break
            at = end
            if self._is_slice_done(at):
                yield
        if at == len(body) or _PART_OF_ESCAPE.fullmatch(body, at):
            raise Truncated
        raise Unreadable

    def _is_slice_done(self, at: int) -> bool:
        done = at + self._steps * _STEP_WORK
        if done - self._slice_began_at < SLICE:
            return False
        self._slice_began_at = done
        return True


def _end(pattern: re.Pattern[bytes], body: Body, at: int) -> int:
    found = pattern.match(body, at)
    return at if found is None else found.end()
