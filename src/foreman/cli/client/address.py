"""The URL of a running foreman, and the token that is sent to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import click

_EXAMPLE_URL = "http://127.0.0.1:8080"
#: What stands in a path as it is: what is escaped already stays so.
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"


def normalize_url(url: str) -> str:
    """The address of a foreman as paths can be put behind it: in ASCII, with a scheme, without a slash at its end.

    :raises click.UsageError: when it is none.
    """
    from foreman.config.parsers import unquoted

    try:
        url = unquoted(url)
    except ValueError as problem:
        raise click.UsageError(f"the address of a foreman {problem}") from None
    if url.startswith(("unix:", "http+unix:")):
        raise click.UsageError(
            "foreman's commands cannot connect to a Unix socket, only to http://host:port; "
            "curl can: curl --unix-socket /run/foreman.sock http://localhost/queue"
        )
    url = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parts = urlsplit(url)
        host, port = _ascii_host(parts.hostname or ""), parts.port
        sound = parts.scheme in {"http", "https"} and not (parts.query or parts.fragment)
        sound = sound and port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        sound = False
    if "@" in url.partition("://")[2].partition("/")[0] or (not sound and "@" in url):
        raise click.UsageError(
            f"{without_password(url)!r} has a user name in it; the token of a foreman is given in FOREMAN_TOKEN"
        )
    if not sound:
        raise click.UsageError(f"{url!r} is not the address of a foreman, such as {_EXAMPLE_URL}")
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{quote(parts.path, safe=_PATH_SAFE)}"


def without_password(url: str) -> str:
    """An address that may be shown: what stands in front of its host is left out."""
    scheme, separator, rest = url.partition("://")
    in_front, at, behind = rest.rpartition("@")
    return f"{scheme}{separator}{'***@' if in_front or at else ''}{behind}"


def _ascii_host(name: str) -> str:
    """A host as it is asked for: an IPv6 address in brackets, a name in the ASCII of DNS.

    :raises ValueError: when it is none.
    """
    if ":" in name:
        import ipaddress

        return f"[{ipaddress.IPv6Address(name.replace('%25', '%', 1))}]"
    ascii_name = name.encode("idna").decode("ascii")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", ascii_name):
        raise ValueError(name)
    return ascii_name


def token_from_environment(environ: Mapping[str, str]) -> str | None:
    """The token that is sent to a foreman, read as the settings are; None where there is none.

    :raises click.UsageError: when no header can carry it.
    """
    from foreman.config import parsers

    for variable in ("FOREMAN_TOKEN", "FOREMAN_AUTH_TOKEN"):
        try:
            if text := parsers.unquoted(environ.get(variable, "")):
                return parsers.token(text)
        except ValueError as problem:
            raise click.UsageError(f"{variable}: {problem}") from None
    return None
