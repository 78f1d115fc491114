"""What foreman says at its start: where it is and in front of what, which models are there, and a line to try it with."""

from __future__ import annotations

import json
from collections.abc import Collection
from importlib.metadata import version

from attrs import define, field
from twisted.logger import Logger

from foreman import DISTRIBUTION
from foreman.config.listen_address import url_of
from foreman.config.settings import Config, warnings
from foreman.target.listings import Installed, Running

#: How many models are named; who has more has seen enough.
MAX_NAMES = 20


@define(eq=False)
class Banner:
    """A few lines in the log, once in a life: what comes back later has been introduced."""

    _config: Config
    _introduced: bool = field(default=False, init=False)
    _log = Logger()

    def listens(self) -> None:
        """The door is open."""
        self._log.info(
            "foreman {version} listens on {listen}, in front of {target}",
            version=version(DISTRIBUTION),
            listen=self._config.listen,
            target=self._config.target.shown,
        )
        for warning in warnings(self._config):
            self._log.warn("{warning}", warning=warning)

    def target_is_there(self, installed: Collection[Installed], running: Collection[Running]) -> None:
        """The target has told what it has."""
        if self._introduced:
            return
        self._introduced = True
        names = sorted(model.name for model in installed)
        if not names:
            self._log.info("no model is installed at the target yet")
            return
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        self._log.info(
            "{count} models are installed: {names}", count=len(names), names=", ".join(names[:MAX_NAMES]) + more
        )
        model = model_to_try(installed, running)
        url = url_of(self._config.listen)
        if model is not None and url is not None:
            self._log.info("try it: {command}", command=self._command(url, model))

    def _command(self, url: str, model: str) -> str:
        token = ""
        if self._config.auth_token or self._config.admin_token or self._config.tokens_file is not None:
            # As the shell would fill it in: the log knows no tokens.
            token = f' -H "Authorization: Bearer ${"FOREMAN_AUTH_TOKEN" if self._config.auth_token else "TOKEN"}"'
        chat = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
        return f"curl {url}/api/chat{token} -d '{chat}'"


def model_to_try(installed: Collection[Installed], running: Collection[Running]) -> str | None:
    """A model that can chat, rather one that is loaded; None where there is none."""
    able = sorted(model.name for model in installed if can_chat(model))
    loaded = {model.name for model in running}
    return next((name for name in able if name in loaded), able[0] if able else None)


def can_chat(model: Installed) -> bool:
    """Whether it says so; of an Ollama that does not list what its models can, every one might."""
    return not isinstance(model.capabilities, list) or "completion" in model.capabilities
