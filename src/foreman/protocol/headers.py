"""Which headers cross, and in which direction (RFC 9110 section 7.6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: Names and values in the order, case and repetition of the wire.
RawHeaders = list[tuple[bytes, bytes]]

#: Meant for the next hop only, whether or not ``Connection`` names them.
_HOP_BY_HOP = frozenset({
    b"connection",
    b"keep-alive",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"http2-settings",
})  # fmt: skip
#: What foreman says itself, what is foreman's own business, and credentials that a cloud model would carry on to
#: ollama.com. Ollama would judge ``Origin`` by its own address and put ``X-Forwarded-Prefix`` into redirects; for its log,
#: and for a proxy that trusts foreman's address, all of ``X-Forwarded-`` would be foreman's word for what a client made up.
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
_NOT_FOR_THE_TARGET_BEGINNINGS = (b"proxy-", b"x-forwarded-")
#: Naming these in ``Connection`` would take away what tells where a body ends, or what it is.
_STAYING = frozenset({b"content-length", b"content-type", b"content-encoding"})


def to_target(
    raw: Sequence[tuple[bytes, bytes]],
    *,
    host: bytes,
    token: str | None,
    length: int | None,
    via: bytes = b"1.1 foreman",
) -> RawHeaders:
    """The headers of a request on its way to the target.

    :param host: the target's own name; on loopback Ollama refuses others (contract 3).
    :param token: a bearer token for the target, or None.
    :param length: of the body in bytes; None sends no Content-Length.
    :param via: what foreman adds to ``Via`` (RFC 9110 section 7.6.3), behind what the client's proxies have said there.
    """
    said: list[bytes] = []
    crossing = [
        (b"Host", host),
        *_crossing(raw, _NOT_FOR_THE_TARGET, _NOT_FOR_THE_TARGET_BEGINNINGS, said),
        (b"Via", b", ".join((*filter(None, said), via))),
        (b"Accept-Encoding", b"identity"),
    ]
    if token is not None:
        crossing.append((b"Authorization", b"Bearer " + token.encode("utf-8")))
    if length is not None:
        crossing.append((b"Content-Length", b"%d" % length))
    return crossing


def to_client(raw: Sequence[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers of an answer on their way to the client; CORS is foreman's own, so the target's is dropped."""
    return _crossing(raw, _HOP_BY_HOP, (b"proxy-", b"access-control-"))


def has_passed_through(via: Iterable[bytes], mark: bytes) -> bool:
    """Whether a request with these values of ``Via`` was sent by the foreman whose pseudonym is ``mark``."""
    return any(mark in value and mark in value.replace(b",", b" ").split() for value in via)


def _crossing(
    raw: Sequence[tuple[bytes, bytes]],
    dropped: frozenset[bytes],
    beginnings: tuple[bytes, ...],
    via: list[bytes] | None = None,
) -> RawHeaders:
    """Those of ``raw`` that go on; the values of ``Via`` go into ``via`` instead, where that is given."""
    names = [name.lower() for name, _ in raw]
    if b"connection" in names:
        dropped |= _named_by_connection(zip(names, raw, strict=True))
    crossing: RawHeaders = []
    for name, pair in zip(names, raw, strict=True):
        if name in dropped or name.startswith(beginnings) or not _is_one_line(pair[1]):
            continue
        if via is not None and name == b"via":
            via.append(pair[1])
        else:
            crossing.append(pair)
    return crossing


def _named_by_connection(named: Iterable[tuple[bytes, tuple[bytes, bytes]]]) -> frozenset[bytes]:
    values = b",".join(value for name, (_, value) in named if name == b"connection")
    return frozenset(option.strip(b" \t").lower() for option in values.split(b",")) - _STAYING


def _is_one_line(value: bytes) -> bool:
    return b"\n" not in value and b"\r" not in value and b"\0" not in value
