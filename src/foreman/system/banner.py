"""The lines that foreman logs at its start: its address, its target, the models, and a command to try it with."""

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

#: How many models are named.
MAX_NAMES = 20


@define(eq=False)
class Banner:
    """Logs each of its lines once in the life of the process; the models are not listed again after a recovery."""

    _config: Config
    _models_logged: bool = field(default=False, init=False)
    _log = Logger()

    def log_address(self) -> None:
        """foreman listens now."""
        self._log.info(
            "foreman {version} listens on {listen}, in front of {target}",
            version=version(DISTRIBUTION),
            listen=self._config.listen,
            target=self._config.target.masked_url,
        )
        for warning in warnings(self._config):
            self._log.warn("{warning}", warning=warning)

    def log_models(self, installed: Collection[Installed], running: Collection[Running]) -> None:
        """The target has listed its models."""
        if self._models_logged:
            return
        self._models_logged = True
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
            # As a variable of the shell: tokens are never logged.
            token = f' -H "Authorization: Bearer ${"FOREMAN_AUTH_TOKEN" if self._config.auth_token else "TOKEN"}"'
        chat = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
        return f"curl {url}/api/chat{token} -d '{chat}'"


def model_to_try(installed: Collection[Installed], running: Collection[Running]) -> str | None:
    """A model that can chat, preferably a loaded one; None where there is none."""
    capable = sorted(model.name for model in installed if can_chat(model))
    loaded = {model.name for model in running}
    return next((name for name in capable if name in loaded), capable[0] if capable else None)


def can_chat(model: Installed) -> bool:
    """Whether it has the capability; from an Ollama that lists no capabilities, every model counts."""
    return not isinstance(model.capabilities, list) or "completion" in model.capabilities
