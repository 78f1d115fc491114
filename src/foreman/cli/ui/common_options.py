"""The options of all commands that talk to a running foreman; importing them for a help text imports no HTTP client."""

from __future__ import annotations

from typing import Any

import click

url_option = click.option(
    "--url",
    envvar="FOREMAN_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="URL of foreman. The token is read from FOREMAN_TOKEN, or else from FOREMAN_AUTH_TOKEN.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

#: The shortest end of an id that a command which changes something accepts: a shorter one is more likely a mistake.
MIN_ID_LENGTH = 4


class IdParam(click.ParamType[str]):
    """A full id or the last characters of one; never empty, as an unset shell variable would be.

    :param changes: the command changes something, so an id needs at least ``MIN_ID_LENGTH`` characters.
    """

    name = "id"

    def __init__(self, *, changes: bool = False) -> None:
        self._changes = changes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id without surrounding blanks; a usage error if it is too short."""
        id_ = str(value).strip()
        if not id_:
            self.fail("the ID is empty", param, ctx)
        if self._changes and len(id_) < MIN_ID_LENGTH:
            self.fail(f"{id_!r} is too short; give at least the last {MIN_ID_LENGTH} characters of the ID", param, ctx)
        return id_
