"""The URL of a running foreman, and the token that is sent to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import click

_EXAMPLE_URL = "http://127.0.0.1:8080"
#: The characters of a path that are not escaped; % is one of them, so that escapes stay as they are.
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"


def normalize_url(url: str) -> str:
    """The URL of foreman in the form to which paths are appended: ASCII, with a scheme, without a slash at the end.

    :raises click.UsageError: if it is not a URL of HTTP, or has a user name in it.
    """
    from foreman.config.parsers import unquoted

    try:
        url = unquoted(url)
    except ValueError as problem:
        raise click.UsageError(f"the URL of foreman {problem}") from None
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
            f"{without_password(url)!r} contains a user name; give the token of foreman in FOREMAN_TOKEN"
        )
    if not sound:
        raise click.UsageError(f"{url!r} is not a URL of foreman, such as {_EXAMPLE_URL}")
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{quote(parts.path, safe=_PATH_SAFE)}"


def without_password(url: str) -> str:
    """The URL with the user name and password masked, for messages."""
    scheme, separator, rest = url.partition("://")
    in_front, at, behind = rest.rpartition("@")
    return f"{scheme}{separator}{'***@' if in_front or at else ''}{behind}"


def _ascii_host(name: str) -> str:
    """The host as it stands in a URL: an IPv6 address in brackets, a name in ASCII (IDNA).

    :raises ValueError: if it is neither.
    """
    if ":" in name:
        import ipaddress

        return f"[{ipaddress.IPv6Address(name.replace('%25', '%', 1))}]"
    ascii_name = name.encode("idna").decode("ascii")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", ascii_name):
        raise ValueError(name)
    return ascii_name


def token_from_environment(environ: Mapping[str, str]) -> str | None:
    """The token to send to foreman, read like a setting; None if there is none.

    :raises click.UsageError: if a header cannot carry it.
    """
    from foreman.config import parsers

    for variable in ("FOREMAN_TOKEN", "FOREMAN_AUTH_TOKEN"):
        try:
            if text := parsers.unquoted(environ.get(variable, "")):
                return parsers.token(text)
        except ValueError as problem:
            raise click.UsageError(f"{variable}: {problem}") from None
    return None
