"""What the commands share that ask a running foreman, without what it takes to ask: they are imported for each help."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

url_option = click.option(
    "--url",
    envvar="FOREMAN_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="Where foreman is. Its token is taken from FOREMAN_TOKEN, or else from FOREMAN_AUTH_TOKEN.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")


class Unanswered(Exception):
    """Why there is no answer that is worth anything.

    :ivar status: what the command ends with.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Unreached(Unanswered):
    """There is no answer since there is no connection, or it broke: asking again later could help."""


def usable(url: str) -> str:
    """The address of a foreman as paths can be put behind it.

    :raises click.UsageError: when it is none.
    """
    url = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        is_one = urlsplit(url).scheme in {"http", "https"} and bool(urlsplit(url).hostname)
        _ = urlsplit(url).port
    except ValueError:
        is_one = False
    if not is_one:
        raise click.UsageError(f"{url!r} is not the address of a foreman, such as http://127.0.0.1:8080")
    return url


def said(body: object) -> str:
    """The words of an error in any family's shape, or of a problem (RFC 9457), with a colon in front."""
    error = (body.get("error") or body.get("detail")) if isinstance(body, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return f": {error}" if isinstance(error, str) else ""
