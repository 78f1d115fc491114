"""The effective settings, and the source of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from attrs import frozen

from foreman.config.parsers import unquoted
from foreman.config.settings import DATABASE, MASK, SETTINGS, Setting, state_folder


@frozen
class EffectiveSetting:
    """One setting.

    :ivar value: as it was written, masked if it is a secret, empty if there is none;
    :ivar source: ``default``, ``environment``, the option, or the file of a secret.
    """

    variable: str
    value: str
    source: str

    @property
    def is_default(self) -> bool:
        """Whether the value is the default."""
        return self.source == "default"


def effective_settings(environ: Mapping[str, str], options: Mapping[str, str | None]) -> list[EffectiveSetting]:
    """Every setting, in the order of the output; the rules are those of ``config.load``.

    :param options: the options of the command line, by setting name.
    """
    return [_one(setting, environ, options.get(setting.name) or "") for setting in SETTINGS]


def _one(setting: Setting, environ: Mapping[str, str], option: str) -> EffectiveSetting:
    if text := _unquoted(option):
        return EffectiveSetting(setting.variable, setting.masked(text), f"--{setting.option}")
    if text := _unquoted(environ.get(setting.variable, "")):
        return EffectiveSetting(setting.variable, setting.masked(text), "environment")
    file = _unquoted(environ.get(f"{setting.variable}_FILE", "")) if setting.secret else ""
    if file:
        return EffectiveSetting(setting.variable, MASK, f"file {file}")
    if setting.attribute == "db_path":  # its default depends on the user
        with suppress(ValueError):
            return EffectiveSetting(setting.variable, str(state_folder(environ) / DATABASE), "default")
    return EffectiveSetting(setting.variable, setting.default, "default")


def _unquoted(text: str) -> str:
    try:
        return unquoted(text)
    except ValueError:
        return text  # it is reported as a problem
