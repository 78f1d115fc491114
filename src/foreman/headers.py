"""Which headers cross, and in which direction (RFC 9110 section 7.6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

RawHeaders = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-connection"}
)
#: What the target must not see: foreman's own business, and credentials that a cloud model would carry on to ollama.com.
_NOT_FOR_THE_TARGET = _HOP_BY_HOP | {
    b"host",
    b"origin",
    b"x-forwarded-prefix",
    b"prefer",
    b"cookie",
    b"authorization",
    b"x-api-key",
    b"proxy-authorization",
    b"proxy-authenticate",
    b"expect",
    b"accept-encoding",
    b"content-length",
}


def to_target(
    raw: Sequence[tuple[bytes, bytes]], *, host: bytes, token: str | None, length: int | None
) -> RawHeaders:
    """The headers of a request on its way to the target; names, order and repetition as the client wrote them.

    :param host: the target's own name; on loopback Ollama refuses others (contract 3).
    :param token: a bearer token for the target, or None.
    :param length: of the body in bytes; None sends no Content-Length.
    """
    dropped = _NOT_FOR_THE_TARGET | _named_by_connection(raw)
    crossing = [(b"Host", host)]
    crossing += [pair for pair in raw if pair[0].lower() not in dropped]
    crossing.append((b"Accept-Encoding", b"identity"))
    if token is not None:
        crossing.append((b"Authorization", b"Bearer " + token.encode("utf-8")))
    if length is not None:
        crossing.append((b"Content-Length", b"%d" % length))
    return crossing


def to_client(raw: Sequence[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers of an answer on their way to the client; CORS is foreman's own, so the target's is dropped."""
    dropped = _HOP_BY_HOP | _named_by_connection(raw)
    return [pair for pair in raw if (name := pair[0].lower()) not in dropped and not name.startswith(b"access-control-")]


def _named_by_connection(raw: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    names = [
        name.strip().lower()
        for header, value in raw
        if len(header) == len(b"connection") and header.lower() == b"connection"
        for name in value.split(b",")
    ]
    # Naming the length would take away the framing, and with it the end of the body.
    return frozenset(names) - {b"content-length", b"content-type"} if names else frozenset()
