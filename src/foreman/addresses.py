"""Read where the target is, and where foreman listens."""

from __future__ import annotations

import ipaddress
import re
import socket

from attrs import frozen

_DEFAULT_PORTS = {"http": 80, "https": 443}
_OLLAMA_PORT = 11434
_LAST_PORT = 65535
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LISTEN = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*):(?P<port>[0-9]+)")
#: What an endpoint description can begin with where ``word:number`` would else look like ``host:port``.
_ENDPOINTS_WITH_PORT = frozenset({"tcp", "tcp6", "ssl"})


@frozen
class TargetAddress:
    """Where the target is.

    :ivar scheme: ``http`` or ``https``; :ivar host: a name or an IP address, without brackets; :ivar port: its port;
    :ivar path: what goes in front of every path, without a slash at its end; most often empty.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> bytes:
        """The value of the ``Host`` header.

        Without the scheme's own port (RFC 9110 section 4.2.3), as browsers and httpx send it; Go's client would keep it.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode("ascii")

    @property
    def url(self) -> str:
        """The address as a URL without a slash at its end."""
        return f"{self.scheme}://{self.authority.decode('ascii')}{self.path}"


def target(text: str) -> TargetAddress:
    """Read an address as Ollama reads ``OLLAMA_HOST`` (contract 5).

    A port that cannot be read becomes the default one, as there. What there becomes a broken host is refused here.

    :raises ValueError: with a phrase that says what is wrong.
    """
    text = text.strip().strip("\"'").strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = ("https", "ollama.com:443") if text == "ollama.com" else ("http", text)
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise ValueError("is neither an http:// nor an https:// address")
    default_port = _DEFAULT_PORTS[scheme] if separator else _OLLAMA_PORT
    host_and_port, _, path = rest.partition("/")
    if "@" in host_and_port:
        raise ValueError("has a user name in it; give the target's token in FOREMAN_TARGET_TOKEN")
    if not re.fullmatch(r"[!-~]*", path) or "?" in rest or "#" in rest:
        raise ValueError("may only have a scheme, a host, a port and a path")
    host, port = _split(host_and_port)
    base = f"/{path}".rstrip("/")
    return TargetAddress(scheme, _host(host), _port(port, default_port), base)


def _split(text: str) -> tuple[str, str]:
    """Host and port; an IPv6 address may stand without brackets where it has no port."""
    bare = text.strip("[]")
    if _is_ip(bare):
        return bare, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = text.partition(":")
    return host, port


def _host(text: str) -> str:
    if not text:
        return "127.0.0.1"
    if _is_ip(text):
        return str(ipaddress.ip_address(text))
    if not _NAME.fullmatch(text):
        raise ValueError(f"has {text!r}, which is not the name of a host")
    return text


def _port(text: str, default: int) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > _LAST_PORT:
        return default
    return int(text)


def _is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in str(address)


def endpoint(text: str) -> str:
    """Where to listen, as a Twisted endpoint description; ``host:port`` becomes one, anything else stays as it is.

    No host is every IPv4 address of the machine.

    :raises ValueError: with a phrase that says what is wrong.
    """
    match = _LISTEN.fullmatch(text)
    if match is None or match["host"] in _ENDPOINTS_WITH_PORT:
        if ":" not in text:
            raise ValueError("is neither host:port nor an endpoint description, such as tcp:8080:interface=127.0.0.1")
        return text
    host, port = match["host"].strip("[]"), int(match["port"])
    if port > _LAST_PORT:
        raise ValueError(f"has a port above {_LAST_PORT}")
    if _is_ip(host) and ":" in host:
        return f"tcp6:{port}:interface={host.replace(':', chr(92) + ':')}"
    if host in {"", "*"}:
        return f"tcp:{port}"
    if host == "localhost":
        host = "127.0.0.1"
    if not _NAME.fullmatch(host):
        raise ValueError(f"has {host!r}, which is not an address of this machine")
    return f"tcp:{port}:interface={host}"


def url_of(description: str) -> str | None:
    """Where a client on this machine finds an HTTP endpoint; None where that is no URL, or not known before."""
    kind, port, interface = _parts(description)
    if kind not in {"tcp", "tcp6"} or not port.isdigit() or int(port) == 0:
        return None
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(interface)  # noqa: S104 - it is read, not bound
    if host is None:
        host = f"[{interface}]" if ":" in interface else interface
    return f"http://{host}:{port}"


def is_private(description: str) -> bool:
    """Whether only this machine can connect to the endpoint: loopback, a Unix socket, or standard input.

    What cannot be told (an inherited descriptor, a plugin's endpoint) is not.
    """
    kind, _, interface = _parts(description)
    if kind == "haproxy":
        return is_private(description.partition(":")[2])
    if kind in {"unix", "stdio"}:
        return True
    if kind not in _ENDPOINTS_WITH_PORT:
        return False
    return interface == "localhost" or (_is_ip(interface) and ipaddress.ip_address(interface).is_loopback)


def leads_back(description: str, target: TargetAddress) -> bool:
    """Whether a request to ``target`` would arrive where foreman listens.

    Names are looked up, and addresses held against those of this machine, only where the ports are the same.

    :param description: of the endpoint on which foreman listens; what is not TCP, or not known before, is not the target.
    """
    if description.startswith("haproxy:"):
        return leads_back(description.partition(":")[2], target)
    kind, port, interface = _parts(description)
    if kind not in _ENDPOINTS_WITH_PORT or not port.isdigit() or not 0 < int(port) == target.port:
        return False
    listening = _look_up(interface) if interface else {ipaddress.IPv4Address(0)}
    everywhere = {address.version for address in listening if address.is_unspecified}
    if 6 in everywhere:
        everywhere.add(4)  # such a socket takes IPv4 too
    for address in _look_up(target.host):
        reached = _LOOPBACK[address.version] if address.is_unspecified else address
        if reached in listening or (reached.version in everywhere and _is_of_this_machine(reached)):
            return True
    return False


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Where a connection to "every address" goes.
_LOOPBACK: dict[int, _Address] = {4: ipaddress.IPv4Address("127.0.0.1"), 6: ipaddress.IPv6Address("::1")}


def _look_up(host: str) -> set[_Address]:
    """The addresses of a name or of an address; none where they cannot be found."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    addresses = {ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found}
    return {getattr(address, "ipv4_mapped", None) or address for address in addresses}


def _is_of_this_machine(address: _Address) -> bool:
    """Whether the address belongs to an interface of this machine: only such a one can be bound."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _parts(description: str) -> tuple[str, str, str]:
    """Kind, first field and ``interface`` of an endpoint description, whose fields have their colons escaped."""
    kind, *fields = [part.replace("\\:", ":") for part in re.split(r"(?<!\\):", description)]
    interface = next((field.removeprefix("interface=") for field in fields if field.startswith("interface=")), "")
    port = next((field.removeprefix("port=") for field in fields if field.startswith("port=")), "")
    return kind, port or (fields[0] if fields else ""), interface
