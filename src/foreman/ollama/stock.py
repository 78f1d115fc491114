"""What the target had at one moment; a value, which any thread may ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import frozen

from foreman import errors, names
from foreman.names import Key
from foreman.ollama.wire import Installed, Running


class Standing(Enum):
    """What is known of a model name."""

    INSTALLED = "installed"
    MISSING = "missing"
    CLOUD = "cloud"
    UNKNOWN = "unknown"


@frozen
class Stock:
    """The models of the target.

    :ivar installed: by folded name, None where the target has not listed them yet; :ivar running: as listed.
    """

    installed: Mapping[Key, Installed] | None
    running: Sequence[Running]

    def find(self, typed: str) -> Standing:
        """What is known of the model that ``typed`` names.

        :raises errors.InvalidName: when Ollama would refuse the name.
        """
        name = names.parse(typed)
        if name.is_cloud:
            return Standing.CLOUD
        if self.installed is None:
            return Standing.UNKNOWN
        model = self.installed.get(name.key)
        if model is None:
            return Standing.MISSING
        return Standing.CLOUD if model.remote_host or model.remote_model else Standing.INSTALLED

    def is_running(self, typed: str) -> bool:
        """Whether the model is loaded."""
        try:
            key = names.parse(typed).key
            return any(names.parse(model.name).key == key for model in self.running)
        except errors.InvalidName:
            return False
