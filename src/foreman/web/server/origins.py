"""Which host names and which web pages may reach foreman: Ollama's rules for ``Host`` and ``Origin`` (contract 3).

Behind a proxy on loopback Ollama's own guard against DNS rebinding sees only local requests, so foreman has the same guard
where no token is required.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from attrs import field, frozen

from foreman.protocol.headers import RawHeaders

_NAME_AND_PORT = re.compile(r"(\[[^\]]*+\]|[^:\[\]]*+)(?::[0-9]*+)?")
#: Returns whether an origin matches.
Pattern = Callable[[str], bool]
_HOST_CHARACTERS, _PORT = "[a-z0-9._-]*", "(?::[0-9]{1,5})?"
#: A host name has 253 characters at most.
_MAX_ORIGIN = 300
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - an origin, nothing is bound
_DEFAULT_ORIGINS = (
    *(f"{scheme}://{host}{port}" for scheme in ("http", "https") for host in _HOSTS for port in ("", ":*")),
    "app://*",
    "file://*",
    "tauri://*",
    "vscode-webview://*",
    "vscode-file://*",
)

#: The answer to a preflight of an allowed origin, word by word as Ollama gives it.
PREFLIGHT: RawHeaders = [
    (
        b"Access-Control-Allow-Headers",
        (
            b"Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
            b"X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
            b"X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
            b"X-Stainless-Runtime-Version,X-Stainless-Timeout"
        ),
    ),
    (b"Access-Control-Allow-Methods", b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    (b"Access-Control-Max-Age", b"43200"),
]
#: What a page may also send: the headers that foreman reads, and those of client libraries that Ollama's list lacks.
EXTRA_REQUEST_HEADERS = (
    b"Prefer",
    b"Idempotency-Key",
    b"X-Api-Key",
    b"Last-Event-ID",
    b"Range",
    b"If-Range",
    b"If-None-Match",
    b"Content-Encoding",
    b"Anthropic-Version",
    b"Anthropic-Beta",
    b"Anthropic-Dangerous-Direct-Browser-Access",
    b"OpenAI-Organization",
    b"OpenAI-Project",
)
#: Libraries keep adding headers with these prefixes; a page may send any of them: no guard depends on them.
_ALLOWED_FAMILY = re.compile(rb"(?:anthropic|openai|x-stainless)-[a-z0-9-]{1,64}", re.IGNORECASE)
_MAX_FAMILY_HEADERS = 32
#: Response headers that a page may read besides those that every browser shows: those that foreman adds, and those that
#: clients look for. A new header of foreman's goes in here; a test finds those that are missing.
EXPOSED_HEADERS = (
    b"Accept-Ranges",
    b"Allow",
    b"Content-Disposition",
    b"Content-Range",
    b"Date",
    b"ETag",
    b"Idempotency-Replayed",
    b"Location",
    b"Preference-Applied",
    b"Retry-After",
    b"Server-Timing",
    b"WWW-Authenticate",
    b"X-Foreman-Attempt",
    b"X-Foreman-Position",
    b"X-Foreman-Wait",
    b"X-Request-Id",
)
PREFLIGHT_VARY: RawHeaders = [
    (b"Vary", b"Origin"),
    (b"Vary", b"Access-Control-Request-Method"),
    (b"Vary", b"Access-Control-Request-Headers"),
]


def _name_in(host: str) -> str:
    """The name in a well-formed ``Host``, or in a setting: without port, brackets and the dot of the root."""
    parts = _NAME_AND_PORT.fullmatch(host)
    name = parts[1] if parts is not None else host
    return name.removeprefix("[").removesuffix("]").removesuffix(".").lower()


def _names_in(hosts: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_name_in, hosts))


@frozen
class OriginPolicy:
    """The rules for ``Host`` and ``Origin``.

    :ivar hosts: names allowed besides Ollama's own, lower case, without a port; :ivar origins: those allowed besides
        Ollama's own; both with at most one ``*`` each, see ``origin_pattern``; :ivar hostname: of this machine.
    """

    hosts: frozenset[str] = field(default=(), converter=_names_in)
    origins: tuple[str, ...] = ()
    hostname: str = ""
    _patterns: tuple[Pattern, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_patterns", tuple(map(origin_pattern, (*self.origins, *_DEFAULT_ORIGINS))))

    def host_allowed(self, header: bytes, own_address: str) -> bool:
        """Whether a ``Host`` header names this machine, and not a stranger's name that resolves to it.

        :param own_address: the address that the client connected to.
        """
        name = _name_in(header.decode("latin-1"))
        if self._is_local(name) or name == own_address.lower():
            return True
        if any(_is_host(pattern, name) for pattern in self.hosts):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or address.is_private or address.is_unspecified

    def is_local_name(self, header: bytes) -> bool:
        """Whether a ``Host`` header has one of the names, not of the addresses, that Ollama takes for this machine."""
        return self._is_local(_name_in(header.decode("latin-1")))

    def _is_local(self, name: str) -> bool:
        return name in ("", "localhost", self.hostname.lower()) or name.endswith(_LOCAL_SUFFIXES)

    def origin_allowed(self, origin: bytes, host: bytes) -> bool:
        """Whether a page from ``origin`` may send requests; ``null`` may not."""
        text = origin.decode("latin-1")
        return same_origin(origin, host) or any(matches(text) for matches in self._patterns)

    def cors_headers(self, origin: bytes, host: bytes) -> RawHeaders:
        """The headers of an answer to an allowed ``origin``; none for foreman's own pages."""
        if same_origin(origin, host):
            return []
        exposed = (b"Access-Control-Expose-Headers", b",".join(EXPOSED_HEADERS))
        if "*" in self.origins:
            return [(b"Access-Control-Allow-Origin", b"*"), exposed]
        return [(b"Access-Control-Allow-Origin", origin), exposed, (b"Vary", b"Origin")]

    def preflight_headers(self, origin: bytes, requested: Iterable[bytes] = ()) -> RawHeaders:
        """The headers of the answer to a preflight from an allowed ``origin``.

        :param requested: the values of ``Access-Control-Request-Headers``.
        """
        (name, of_ollama), *rest = PREFLIGHT
        headers = [(name, b",".join((of_ollama, *EXTRA_REQUEST_HEADERS, *_family_headers(requested)))), *rest]
        if "*" in self.origins:
            return [*headers, (b"Access-Control-Allow-Origin", b"*")]
        return [*headers, (b"Access-Control-Allow-Origin", origin), *PREFLIGHT_VARY]


def joined(headers: RawHeaders, added: RawHeaders) -> RawHeaders:
    """The headers of an answer and those of ``cors_headers``, with the values of all ``Vary`` in one."""
    vary = [value for name, value in headers if name.lower() == b"vary"]
    if not (added and vary):
        return [*headers, *added]
    names: dict[bytes, bytes] = {}
    for value in (*vary, *(value for name, value in added if name == b"Vary")):
        for name in value.split(b","):
            names.setdefault(name.strip().lower(), name.strip())
    names.pop(b"", None)
    kept = [pair for pair in (*headers, *added) if pair[0].lower() != b"vary"]
    return [*kept, (b"Vary", b"*" if b"*" in names else b", ".join(names.values()))]


def _family_headers(requested: Iterable[bytes]) -> list[bytes]:
    found: list[bytes] = []
    for value in requested:
        for name in value.split(b",", maxsplit=4 * _MAX_FAMILY_HEADERS):
            if len(found) < _MAX_FAMILY_HEADERS and _ALLOWED_FAMILY.fullmatch(name.strip()):
                found.append(name.strip())
    return found


def same_origin(origin: bytes, host: bytes) -> bool:
    """Whether ``origin`` is the page's own server."""
    return bool(host) and origin in (b"http://" + host, b"https://" + host)


def origin_pattern(pattern: str) -> Pattern:
    """A function that says whether an origin matches ``pattern``.

    As in Ollama, a pattern may have one ``*``, and ``*`` alone matches everything. In an http or https origin it matches less
    than in Ollama, since that is what people mean: after the colon digits, elsewhere letters, digits, dots, dashes and
    underscores of a host name. At the end of a host it matches a port (``http://localhost*``), or the rest of an address and
    a port (``http://192.168.*``). In other origins (``app://*``) it matches anything.
    """
    before, star, after = pattern.partition("*")
    scheme, separator, host = before.partition("://")
    if scheme.lower() not in ("http", "https") or not separator:
        if not star:
            return lambda origin: origin == pattern
        return lambda origin: _surrounded(before, origin, after) is not None
    before, after = before.lower(), after.lower()
    if not star:
        return lambda origin: origin == before
    form = re.compile(_star_of(host, after))

    def matches(origin: str) -> bool:
        between = _surrounded(before, origin, after) if len(origin) <= _MAX_ORIGIN else None
        return between is not None and form.fullmatch(between) is not None

    return matches


def _star_of(host: str, after: str) -> str:
    """A regular expression for what a ``*`` between ``host`` and ``after`` matches in an http or https origin."""
    if ":" in host.rpartition("]")[2]:
        return "[0-9]{1,5}" if host.endswith(":") else "[0-9]{0,4}"
    if after and not after.startswith(":"):
        return _HOST_CHARACTERS
    port = "" if after else _PORT
    if not host:
        return rf"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\]){port}"
    if re.fullmatch(r"[0-9.]+", host):
        return "[0-9.]*" + port
    return (_HOST_CHARACTERS if host.endswith(".") else "") + port


def _is_host(pattern: str, name: str) -> bool:
    """Whether a name matches a ``pattern`` of the settings, in which ``*`` stands for characters of a host name."""
    before, star, after = pattern.partition("*")
    if not star or pattern == "*":
        return bool(star) or name == pattern
    between = _surrounded(before, name, after)
    return between is not None and re.fullmatch(_HOST_CHARACTERS, between) is not None


def _surrounded(before: str, text: str, after: str) -> str | None:
    """The part of ``text`` between ``before`` and ``after``; None where it does not begin and end with them."""
    if len(text) < len(before) + len(after) or not (text.startswith(before) and text.endswith(after)):
        return None
    return text[len(before) : len(text) - len(after)]
