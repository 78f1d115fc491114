"""Which settings would count, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from attrs import frozen

from foreman.config.parsers import unquoted
from foreman.config.settings import DATABASE, MASK, SETTINGS, Setting, state_folder


@frozen
class EffectiveSetting:
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


def effective_settings(environ: Mapping[str, str], options: Mapping[str, str | None]) -> list[EffectiveSetting]:
    """Every setting, in the order in which people are shown them; the rules are those of ``config.load``.

    :param options: what was given on the command line, by setting name.
    """
    return [_one(setting, environ, options.get(setting.name) or "") for setting in SETTINGS]


def _one(setting: Setting, environ: Mapping[str, str], option: str) -> EffectiveSetting:
    if text := _unquoted(option):
        return EffectiveSetting(setting.variable, setting.shown(text), f"--{setting.option}")
    if text := _unquoted(environ.get(setting.variable, "")):
        return EffectiveSetting(setting.variable, setting.shown(text), "environment")
    file = _unquoted(environ.get(f"{setting.variable}_FILE", "")) if setting.secret else ""
    if file:
        return EffectiveSetting(setting.variable, MASK, f"file {file}")
    if setting.attribute == "db_path":  # its default is another one for each person
        with suppress(ValueError):
            return EffectiveSetting(setting.variable, str(state_folder(environ) / DATABASE), "default")
    return EffectiveSetting(setting.variable, setting.default, "default")


def _unquoted(text: str) -> str:
    try:
        return unquoted(text)
    except ValueError:
        return text  # it is reported as a problem
