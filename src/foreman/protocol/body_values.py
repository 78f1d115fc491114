"""The values of those members of a request body that foreman needs: by a fast reader, or by a careful one (ADR-0008).

An ordinary body is read by ``msgspec``, which takes the last of duplicate members, as Go does. A body with anything
unusual, such as a key in another spelling, is left to ``go_json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import zstandard
from attrs import frozen
from msgspec import Raw

from foreman.protocol import go_json
from foreman.protocol.go_json import Body, Members
from foreman.util.byte_budget import ByteBudget
from foreman.util.slices import Slices

#: How much of a compressed body Ollama decompresses, in bytes (contract 1.5).
MAX_DECOMPRESSED = 20 * 1024 * 1024
#: How much all bodies together may have that are decompressed to be read, in bytes; a small one can become 20 MiB.
DECOMPRESSED_TOTAL = 64 * 1024 * 1024
#: The largest window that Ollama's decoder accepts, in bytes.
_LARGEST_WINDOW = 8 * 1024 * 1024
#: How much of a body is decompressed or examined in one slice, in bytes. A body of this size is decoded at once: 3 ms.
_PIECE = 1024 * 1024
#: What decoding costs, in nanoseconds: each byte, escape and value; and how much of that is allowed in one slice.
_BYTE_COST, _ESCAPE_COST, _VALUE_COST = 0.25, 2, 8
_QUICK_COST = 10_000_000
#: The same for JSON that is decoded as a whole or not at all: that of jobs, and of their answers.
MAX_DECODE_COST = 20_000_000
#: A model name has at most some 600 bytes (contract 2.8); much longer values are not kept for errors and logs.
LONGEST = 8_000
MEMBERS = ("model", "name", "stream", "keep_alive", "messages", "prompt")
#: Other members that clients send, which the fast reader knows: contract 2.1, 2.2, 2.5, 2.9.
_OTHER_MEMBERS = (
    "format options tools think truncate shift logprobs top_logprobs suffix system template context raw images "
    "input dimensions encoding_format insecure username password files adapters parameters quantize source destination "
    "verbose stream_options temperature top_p top_k max_tokens max_completion_tokens max_output_tokens stop "
    "stop_sequences n seed user presence_penalty frequency_penalty logit_bias response_format tool_choice "
    "parallel_tool_calls reasoning reasoning_effort metadata store service_tier instructions include text "
    "previous_response_id truncation thinking best_of echo prompt_cache_key safety_identifier verbosity functions "
    "function_call modalities audio prediction background conversation max_tool_calls output_config context_management "
    "mcp_servers container cache_control license quantization remote_host renderer parser"
).split()
_ABSENT = Raw()
_Ordinary = msgspec.defstruct(
    "_Ordinary", [(name, Raw, _ABSENT) for name in (*MEMBERS, *_OTHER_MEMBERS)], forbid_unknown_fields=True
)
_decode_ordinary: Callable[[Body], Any] = msgspec.json.Decoder(_Ordinary).decode

#: White space of JSON; and how many bytes of it are searched where there is hardly ever any.
_BLANK, _NEAR = b" \t\r\n", 1000
_NULL = b"null"
#: Members where null resets the value of an earlier duplicate (a pointer or a slice in Go); elsewhere it changes nothing.
_RESET_BY_NULL = frozenset({"keep_alive", "messages"})
#: The values of each member, duplicates in their order, each up to LONGEST bytes.
MemberValues = dict[str, list[bytes]]


@frozen
class Values:
    """What a body has of the members that foreman needs.

    :ivar by_name: the values by folded name; :ivar length: of the JSON object, in bytes; :ivar is_plain: ``model``, if it
        is present, has exactly this spelling, and only white space follows the object.
    """

    by_name: MemberValues
    length: int
    is_plain: bool


def values_in_slices(body: Body) -> Slices[Values]:
    """The values of the object with which a body begins.

    :raises go_json.Empty, go_json.Truncated, go_json.Unreadable: as ``go_json.members`` does.
    """
    found = yield from _ordinary(body)
    length = yield from _length_without_blanks(body)
    if found is not None:
        return Values(found, length, is_plain=True)
    members = yield from go_json.members_in_slices(body, MEMBERS)
    is_plain = length == members.end and _names_model_plainly(body, members)
    return Values(_values(body, members), members.end, is_plain)


def decompress_in_slices(body: Body, budget: ByteBudget) -> Slices[bytes]:
    """Decompress a zstd body, up to the size that Ollama allows.

    :param budget: for all decompressed bodies; what is returned is counted in it, for the caller to give back.
    :raises go_json.Unreadable: when it cannot be decompressed, is too large, or exceeds the budget.
    """
    taken = 0
    try:
        pieces = []
        for piece in _decompressed(body):
            taken += len(piece)
            if not budget.take(len(piece)) or taken > MAX_DECOMPRESSED:
                raise go_json.Unreadable  # noqa: TRY301 - what was taken is given back below
            pieces.append(piece)
            yield
        return b"".join(pieces)
    except BaseException:
        budget.give(taken)
        raise


def _decompressed(body: Body) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(
        memoryview(body), read_across_frames=True
    )
    try:
        while piece := reader.read(_PIECE):
            yield piece
    except zstandard.ZstdError:
        raise go_json.Unreadable from None


def _ordinary(body: Body) -> Slices[MemberValues | None]:
    """The values by the fast reader; None where it could be wrong, or would take too long at once."""
    if len(body) > _PIECE and not (yield from is_quickly_decoded(body)):
        return None
    try:
        values = _decode_ordinary(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found: MemberValues = {}
    for name in MEMBERS:
        raw = getattr(values, name)
        if raw is not _ABSENT:
            value = bytes(raw) if len(raw) <= LONGEST else bytes(memoryview(raw)[:LONGEST])
            if value == _NULL and name not in _RESET_BY_NULL:
                return None  # an earlier duplicate would count
            found[name] = [value]
    return found


def is_quickly_decoded(body: Body, limit: int = _QUICK_COST) -> Slices[bool]:
    """Whether ``msgspec`` decodes a body in about ``limit`` nanoseconds, estimated from its bytes, escapes and values."""
    cost = len(body) * _BYTE_COST
    for start in range(0, len(body), _PIECE):
        if cost > limit:
            return False
        piece = bytes(body[start : start + _PIECE])
        cost += piece.count(b"\\") * _ESCAPE_COST
        cost += (piece.count(b",") + piece.count(b"[") + piece.count(b"{")) * _VALUE_COST
        yield
    return cost <= limit


def _names_model_plainly(body: Body, members: Members) -> bool:
    """Whether an object has ``model``, and in exactly this spelling."""
    spans = members.spans.get("model", ())
    keys = [bytes(body[max(0, start - _NEAR) : start]).rstrip(_BLANK) for start, _ in spans]
    return bool(keys) and all(key.endswith(b":") and key[:-1].rstrip(_BLANK).endswith(b'"model"') for key in keys)


def _values(body: Body, members: Members) -> MemberValues:
    return {
        name: [bytes(body[start : min(end, start + LONGEST)]) for start, end in spans]
        for name, spans in members.spans.items()
    }


def _length_without_blanks(body: Body) -> Slices[int]:
    """The length of a body without the white space at its end."""
    end = len(body)
    while end:
        start = max(0, end - _PIECE)
        kept = bytes(body[start:end]).rstrip(_BLANK)
        if kept:
            return start + len(kept)
        end = start
        yield
    return 0
