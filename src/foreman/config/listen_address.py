"""The address that foreman listens on: Twisted's endpoint descriptions, and who can reach them."""

from __future__ import annotations

import ipaddress
import re
import socket

from foreman.config.target_address import HOST_NAME, LAST_PORT, TargetAddress, is_ip, is_loopback

_LISTEN = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*):(?P<port>[0-9]+)")
#: The fields of Twisted's endpoints, in the order in which they may be given without names.
_FIELDS = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (
        "port",
        "privateKey",
        "certKey",
        "sslmethod",
        "interface",
        "backlog",
        "extraCertChain",
        "dhParameters",
    ),
    "tls": ("path", "port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "stdio": (),
}
#: The kind of an endpoint that a plugin of Twisted adds: a word, not an address.
_KIND = re.compile(r"[a-z][a-z0-9_+-]*")
#: Kinds that come with Twisted, but whose fields are not examined here.
_OTHER_KINDS = frozenset({"haproxy", "systemd"})
_WITH_INTERFACE = frozenset({"tcp", "tcp6", "ssl", "tls"})


def endpoint_description(text: str) -> str:
    """The address to listen on as a Twisted endpoint description; ``host:port`` is converted, anything else is kept.

    Without a host it is every IPv4 address of the machine.

    :raises ValueError: with a phrase that says what is wrong.
    """
    match = _LISTEN.fullmatch(text)
    if match is None or match["host"].lower() in _FIELDS:
        if "://" in text:
            raise ValueError("is a URL; write only host:port, such as 127.0.0.1:8080")
        if ":" not in text:
            raise ValueError("is neither host:port nor an endpoint description, such as tcp:8080:interface=127.0.0.1")
        return _checked(text)
    host, port = match["host"].strip("[]"), int(match["port"])
    if port > LAST_PORT:
        raise ValueError(f"has a port above {LAST_PORT}")
    if is_ip(host) and ":" in host:
        return f"tcp6:{port}:interface={host.replace(':', chr(92) + ':')}"
    if host in {"", "*"}:
        return f"tcp:{port}"
    if host == "localhost":
        host = "127.0.0.1"
    if not HOST_NAME.fullmatch(host):
        raise ValueError(f"has {host!r}, which is neither an IP address nor a host name")
    return f"tcp:{port}:interface={host}"


def url_of(description: str) -> str | None:
    """The URL by which a client on this machine reaches an HTTP endpoint; None where there is none, or the port is not fixed."""
    kind, fields = _read(description)
    port, interface = fields.get("port", ""), fields.get("interface", "::" if kind == "tcp6" else "")
    if kind not in {"tcp", "tcp6"} or not _is_port(port) or int(port) == 0:
        return None
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(interface)  # noqa: S104 - it is read, not bound
    if host is None:
        host = f"[{interface}]" if ":" in interface else interface
    return f"http://{host}:{port}"


def is_private(description: str) -> bool:
    """Whether only this machine can connect to the endpoint: loopback, a Unix socket, or standard input.

    It is read as Twisted reads it. Where that is not known in advance (a host name, an inherited descriptor, a plugin's endpoint),
    the endpoint is not private.
    """
    kind, fields = _read(description)
    if kind == "haproxy":
        return is_private(description.partition(":")[2])
    if kind in {"unix", "stdio"}:
        return True
    return kind in _WITH_INTERFACE and is_loopback(fields.get("interface", ""))


def is_known(description: str) -> bool:
    """Whether the kind of the endpoint comes with Twisted; others need a plugin."""
    return _read(description)[0] in _FIELDS.keys() | _OTHER_KINDS


def with_backlog(description: str, backlog: int) -> str:
    """The endpoint description with a backlog of ``backlog`` connections, unless it already has one.

    :raises ValueError: for a description that Twisted could not read.
    """
    kind, fields = _read(description)
    if kind == "haproxy":
        return f"haproxy:{with_backlog(description.partition(':')[2], backlog)}"
    is_open = "backlog" in _FIELDS.get(kind, ()) and "backlog" not in fields
    return f"{description}:backlog={backlog}" if is_open else description


def would_loop(description: str, target: TargetAddress) -> bool:
    """Whether a request to ``target`` would arrive at foreman itself.

    Names are resolved, and addresses compared with those of this machine, only where the ports are equal.

    :param description: of the endpoint that foreman listens on; one that is not TCP, or has no fixed port, is not the target.
    """
    if description.startswith("haproxy:"):
        return would_loop(description.partition(":")[2], target)
    kind, fields = _read(description)
    port, interface = fields.get("port", ""), fields.get("interface", "")
    if kind not in _WITH_INTERFACE or not _is_port(port) or not 0 < int(port) == target.port:
        return False
    listening = _look_up(interface) if interface else {ipaddress.IPv4Address(0)}
    everywhere = {address.version for address in listening if address.is_unspecified}
    if 6 in everywhere:
        everywhere.add(4)  # such a socket accepts IPv4, too
    for address in _look_up(target.host):
        reached = _LOOPBACK[address.version] if address.is_unspecified else address
        if reached in listening or (reached.version in everywhere and _is_of_this_machine(reached)):
            return True
    return False


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Where a connection to the unspecified address goes.
_LOOPBACK: dict[int, _Address] = {4: ipaddress.IPv4Address("127.0.0.1"), 6: ipaddress.IPv6Address("::1")}


def _look_up(host: str) -> set[_Address]:
    """The addresses of a host name or an IP address; none where it cannot be resolved."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    addresses = {ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found}
    return {getattr(address, "ipv4_mapped", None) or address for address in addresses}


def _is_of_this_machine(address: _Address) -> bool:
    """Whether the address belongs to an interface of this machine: only then can a socket be bound to it."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _checked(description: str) -> str:
    """The endpoint description if it is valid, with its kind in lower case, as Twisted expects it.

    :raises ValueError: with a phrase that says what is wrong.
    """
    kind, fields = _read(description)
    if kind == "localhost" or not _KIND.fullmatch(kind):
        raise ValueError("is neither host:port with a number as its port, nor an endpoint description of Twisted")
    if kind in _WITH_INTERFACE and not _is_port(fields.get("port", "443" if kind == "tls" else "")):
        raise ValueError(f"has no port from 0 to {LAST_PORT}")
    if not re.fullmatch(r"[0-9]{1,9}", fields.get("backlog", "50")):
        raise ValueError("has a backlog that is not a whole number")
    if kind == "unix" and not fields.get("address"):
        raise ValueError("has no path for the socket")
    if kind == "unix" and not re.fullmatch(r"0?[0-7]{3}", fields.get("mode", "666")):
        raise ValueError("has a mode that is not three octal digits, such as 660")
    if kind == "haproxy":
        return f"haproxy:{_checked(description.partition(':')[2])}"
    return kind + description[len(kind) :]


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and int(text) <= LAST_PORT


def _read(description: str) -> tuple[str, dict[str, str]]:
    """Kind and fields of an endpoint description, read as ``twisted.internet.endpoints`` does; of other kinds, only the
    fields that are given with names.

    :raises ValueError: for a description that Twisted could not read, or with a field twice: Twisted would take the last.
    """
    first, *parts = _split_description(description)
    kind = first[0].lower()
    if len(first) == 2 or description.partition(":")[0].lower() != kind:
        raise ValueError("does not begin with the kind of an endpoint, such as tcp:8080")
    names = _FIELDS.get(kind)
    fields: dict[str, str] = {}
    for number, part in enumerate(parts):
        if len(part) == 2:
            name, value = part
        elif names is None:
            continue
        elif number < len(names) and all(len(before) == 1 for before in parts[:number]):
            name, value = names[number], part[0]
        else:
            raise ValueError(f"has {part[0]!r}, which needs the name of a field and = in front of it")
        if names is not None and name not in names:
            raise ValueError(f"has a field {name!r}, which endpoints of the kind {kind} do not have")
        if name in fields:
            raise ValueError(f"has {name} twice")
        fields[name] = value
    return kind, fields


def _split_description(description: str) -> list[list[str]]:
    """The parts between colons, each as its value, or as its name and value; a backslash escapes the next character."""
    parts: list[list[str]] = [[]]
    text: list[str] = []

    def end() -> None:
        parts[-1].append("".join(text))
        text.clear()

    characters = iter(description)
    for character in characters:
        if character == ":":
            end()
            parts.append([])
        elif character == "=" and not parts[-1]:
            end()
        elif character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                raise ValueError("ends in a backslash that escapes nothing")
            text.append(escaped)
        else:
            text.append(character)
    end()
    return parts
