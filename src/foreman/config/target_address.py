"""The address of the target, parsed as Ollama parses ``OLLAMA_HOST``."""

from __future__ import annotations

import ipaddress
import re

from attrs import frozen

_DEFAULT_PORTS = {"http": 80, "https": 443}
_OLLAMA_PORT = 11434
LAST_PORT = 65535
HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")
#: A credential in the path of a target that is itself a foreman; it is masked.
_CREDENTIAL = re.compile(r"/k/[^/]+")


@frozen
class TargetAddress:
    """The address of the target.

    :ivar scheme: ``http`` or ``https``; :ivar host: a name or an IP address, without brackets; :ivar port: its port;
    :ivar path: the prefix of every path, without a slash at its end; most often empty.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> bytes:
        """The value of the ``Host`` header.

        Without the default port of the scheme (RFC 9110 section 4.2.3), as browsers and httpx send it; Go's client keeps it.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode("ascii")

    @property
    def url(self) -> str:
        """The address as a URL without a slash at its end."""
        return f"{self.scheme}://{self.authority.decode('ascii')}{self.path}"

    @property
    def masked_url(self) -> str:
        """The address for logs and people: a credential in its path is masked. An address with a user name is refused."""
        return f"{self.scheme}://{self.authority.decode('ascii')}{_CREDENTIAL.sub('/k/***', self.path, count=1)}"


def parse_target(text: str) -> TargetAddress:
    """Parse an address as Ollama parses ``OLLAMA_HOST`` (contract 5).

    An invalid port becomes the default one, as in Ollama. What Ollama would turn into a broken host is refused.

    :raises ValueError: with a phrase that says what is wrong.
    """
    text = text.strip().strip("\"'").strip()
    if "@" in text:
        # The caller does not show such an address. An @ behind a slash counts, too: the slash may belong to the password.
        raise ValueError("has a user name or a password in it; give the target's token in FOREMAN_TARGET_TOKEN")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = ("https", "ollama.com:443") if text == "ollama.com" else ("http", text)
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise ValueError("must be an http:// or https:// address")
    default_port = _DEFAULT_PORTS[scheme] if separator else _OLLAMA_PORT
    host_and_port, _, path = rest.partition("/")
    if not re.fullmatch(r"[!-~]*", path) or "?" in rest or "#" in rest:
        raise ValueError("may only have a scheme, a host, a port and a path, without spaces, query or fragment")
    host, port = _split(host_and_port)
    base = f"/{path}".rstrip("/")
    return TargetAddress(scheme, _host(host), _port(port, default_port), base)


def _split(text: str) -> tuple[str, str]:
    """Host and port; an IPv6 address without a port needs no brackets."""
    bare = text.strip("[]")
    if is_ip(bare):
        return bare, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = text.partition(":")
    return host, port


def _host(text: str) -> str:
    if not text:
        return "127.0.0.1"
    if is_ip(text):
        return str(ipaddress.ip_address(text))
    if not HOST_NAME.fullmatch(text):
        raise ValueError(f"has {text!r}, which is not a host name")
    return text


def _port(text: str, default: int) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > LAST_PORT:
        return default
    return int(text)


def is_ip(text: str) -> bool:
    """Whether ``text`` is an IP address without a zone."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in str(address)


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address or ``localhost``."""
    if not is_ip(host):
        return host == "localhost"
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
