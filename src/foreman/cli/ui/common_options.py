"""What the commands share that ask a running foreman, without what it takes to ask: they are imported for each help."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import click

from foreman.errors import one_line
from foreman.protocol.error_text import error_member

url_option = click.option(
    "--url",
    envvar="FOREMAN_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="Where foreman is. Its token is taken from FOREMAN_TOKEN, or else from FOREMAN_AUTH_TOKEN.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")

#: The fewest characters of an id that a command which changes something takes: fewer are more likely a mistake.
FEWEST_OF_ID = 4


class Id(click.ParamType[str]):
    """An id, whole or its last characters; never empty, which is what a variable of a shell is that was not set.

    :param changes: the command changes something, so that it takes no fewer than ``FEWEST_OF_ID`` characters.
    """

    name = "id"

    def __init__(self, *, changes: bool = False) -> None:
        self._changes = changes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id without blanks around it; a usage error for one that is too short."""
        id_ = str(value).strip()
        if not id_:
            self.fail("the ID is empty", param, ctx)
        if self._changes and len(id_) < FEWEST_OF_ID:
            self.fail(f"{id_!r} is too short: give at least the last {FEWEST_OF_ID} characters of the ID", param, ctx)
        return id_


_EXAMPLE = "http://127.0.0.1:8080"
#: What stands in a path as it is: what is escaped already stays so.
_OF_PATH = "/%:@!$&'()*+,;=~-._"
#: The longest sentence, and the longest reason that a foreman gives, in characters: others write into them.
LONGEST, LONGEST_REASON = 2_000, 500


class Unanswered(Exception):
    """Why there is no answer that is worth anything.

    :ivar status: what the command ends with.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(one_line(sentence, LONGEST))
        self.status = status


class Unreached(Unanswered):
    """There is no answer since there is no connection, or it broke: asking again later could help."""


def usable(url: str) -> str:
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
        host, port = _host(parts.hostname or ""), parts.port
        sound = parts.scheme in {"http", "https"} and not (parts.query or parts.fragment)
        sound = sound and port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        sound = False
    if "@" in url.partition("://")[2].partition("/")[0] or (not sound and "@" in url):
        raise click.UsageError(
            f"{without_password(url)!r} has a user name in it; the token of a foreman is given in FOREMAN_TOKEN"
        )
    if not sound:
        raise click.UsageError(f"{url!r} is not the address of a foreman, such as {_EXAMPLE}")
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{quote(parts.path, safe=_OF_PATH)}"


def without_password(url: str) -> str:
    """An address that may be shown: what stands in front of its host is left out."""
    scheme, separator, rest = url.partition("://")
    in_front, at, behind = rest.rpartition("@")
    return f"{scheme}{separator}{'***@' if in_front or at else ''}{behind}"


def _host(name: str) -> str:
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


def token_from(environ: Mapping[str, str]) -> str | None:
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


def said(body: object) -> str:
    """The text of an error in any family's shape, or of a problem (RFC 9457), with a colon in front."""
    error = error_member(body) or (body.get("detail") if isinstance(body, dict) else None)
    return f": {one_line(error, LONGEST_REASON)}" if isinstance(error, str) else ""
