"""Which settings would count, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from attrs import frozen

from foreman.config.parsers import unquoted
from foreman.config.settings import DATABASE, MASK, SETTINGS, Setting, state_folder


@frozen
class Effective:
    """One setting.

    :ivar value: as it was written, a secret masked, empty where there is none;
    :ivar source: ``default``, ``environment``, the option, or the file of a secret.
    """

    variable: str
    value: str
    source: str

    @property
    def is_default(self) -> bool:
        """Whether nobody has chosen it."""
        return self.source == "default"


def effective(environ: Mapping[str, str], options: Mapping[str, str | None]) -> list[Effective]:
    """Every setting, in the order in which people are shown them; the rules are those of ``config.load``.

    :param options: what was given on the command line, by setting name.
    """
    return [_one(setting, environ, options.get(setting.name) or "") for setting in SETTINGS]


def _one(setting: Setting, environ: Mapping[str, str], option: str) -> Effective:
    if text := _meant(option):
        return Effective(setting.variable, setting.shown(text), f"--{setting.option}")
    if text := _meant(environ.get(setting.variable, "")):
        return Effective(setting.variable, setting.shown(text), "environment")
    file = _meant(environ.get(f"{setting.variable}_FILE", "")) if setting.secret else ""
    if file:
        return Effective(setting.variable, MASK, f"file {file}")
    if setting.attribute == "db_path":  # its default is another one for each person
        with suppress(ValueError):
            return Effective(setting.variable, str(state_folder(environ) / DATABASE), "default")
    return Effective(setting.variable, setting.default, "default")


def _meant(text: str) -> str:
    try:
        return unquoted(text)
    except ValueError:
        return text  # it is reported as a problem
