"""What the commands share that ask a running foreman, without what it takes to ask: they are imported for each help."""

from __future__ import annotations

from typing import Any

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

#: The fewest characters of an id that a command which changes something takes: fewer are more likely a mistake.
MIN_ID_LENGTH = 4


class IdParam(click.ParamType[str]):
    """An id, whole or its last characters; never empty, which is what a variable of a shell is that was not set.

    :param changes: the command changes something, so that it takes no fewer than ``MIN_ID_LENGTH`` characters.
    """

    name = "id"

    def __init__(self, *, changes: bool = False) -> None:
        self._changes = changes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id without blanks around it; a usage error for one that is too short."""
        id_ = str(value).strip()
        if not id_:
            self.fail("the ID is empty", param, ctx)
        if self._changes and len(id_) < MIN_ID_LENGTH:
            self.fail(f"{id_!r} is too short: give at least the last {MIN_ID_LENGTH} characters of the ID", param, ctx)
        return id_
