"""Which headers are forwarded, in each direction (RFC 9110 section 7.6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: Names and values in the order and case in which they were sent, with duplicates.
RawHeaders = list[tuple[bytes, bytes]]

#: Meant for one connection only, whether or not ``Connection`` names them.
_HOP_BY_HOP = frozenset({
    b"connection",
    b"keep-alive",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"http2-settings",
})  # fmt: skip
#: Headers that foreman sets itself or that are meant for foreman, and credentials, which Ollama would send on to ollama.com
#: for a cloud model. Ollama would check ``Origin`` against its own address and put ``X-Forwarded-Prefix`` into redirects.
#: ``X-Forwarded-*`` of a client would be believed by Ollama's log, and by a proxy that trusts foreman's address.
_NOT_FOR_THE_TARGET = _HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"accept-encoding",
    b"expect",
    b"authorization",
    b"x-api-key",
    b"cookie",
    b"origin",
    b"prefer",
    b"forwarded",
    b"x-real-ip",
}
_NOT_FOR_THE_TARGET_PREFIXES = (b"proxy-", b"x-forwarded-")
#: Forwarded even if ``Connection`` names them: they say where a body ends, or what it is.
_ALWAYS_FORWARDED = frozenset({b"content-length", b"content-type", b"content-encoding"})


def to_target(
    raw: Sequence[tuple[bytes, bytes]],
    *,
    host: bytes,
    token: str | None,
    length: int | None,
    via: bytes = b"1.1 foreman",
) -> RawHeaders:
    """The headers of a request as they are sent to the target.

    :param host: the address of the target; on loopback Ollama refuses other hosts (contract 3).
    :param token: a bearer token for the target, or None.
    :param length: of the body in bytes; None sends no Content-Length.
    :param via: what foreman appends to ``Via`` (RFC 9110 section 7.6.3), behind the entries of the client's proxies.
    """
    via_values: list[bytes] = []
    forwarded = [
        (b"Host", host),
        *_forwarded(raw, _NOT_FOR_THE_TARGET, _NOT_FOR_THE_TARGET_PREFIXES, via_values),
        (b"Via", b", ".join((*filter(None, via_values), via))),
        (b"Accept-Encoding", b"identity"),
    ]
    if token is not None:
        forwarded.append((b"Authorization", b"Bearer " + token.encode("utf-8")))
    if length is not None:
        forwarded.append((b"Content-Length", b"%d" % length))
    return forwarded


def to_client(raw: Sequence[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers of an answer as they are sent to the client; foreman does CORS itself, so that the target's is dropped."""
    return _forwarded(raw, _HOP_BY_HOP, (b"proxy-", b"access-control-"))


def has_passed_through(via: Iterable[bytes], mark: bytes) -> bool:
    """Whether a request with these values of ``Via`` was sent by the foreman whose pseudonym is ``mark``."""
    return any(mark in value and mark in value.replace(b",", b" ").split() for value in via)


def _forwarded(
    raw: Sequence[tuple[bytes, bytes]],
    dropped: frozenset[bytes],
    prefixes: tuple[bytes, ...],
    via: list[bytes] | None = None,
) -> RawHeaders:
    """The headers of ``raw`` that are forwarded; the values of ``Via`` are appended to ``via`` instead, where that is given."""
    names = [name.lower() for name, _ in raw]
    if b"connection" in names:
        dropped |= _named_by_connection(zip(names, raw, strict=True))
    forwarded: RawHeaders = []
    for name, pair in zip(names, raw, strict=True):
        if name in dropped or name.startswith(prefixes) or not _is_one_line(pair[1]):
            continue
        if via is not None and name == b"via":
            via.append(pair[1])
        else:
            forwarded.append(pair)
    return forwarded


def _named_by_connection(named: Iterable[tuple[bytes, tuple[bytes, bytes]]]) -> frozenset[bytes]:
    values = b",".join(value for name, (_, value) in named if name == b"connection")
    return frozenset(option.strip(b" \t").lower() for option in values.split(b",")) - _ALWAYS_FORWARDED


def _is_one_line(value: bytes) -> bool:
    return b"\n" not in value and b"\r" not in value and b"\0" not in value
