"""The models that the target had at one moment: a value that any thread may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum

from attrs import field, frozen

from foreman import errors
from foreman.protocol import model_names
from foreman.protocol.model_names import Key
from foreman.target.listings import Installed, Running


class Availability(Enum):
    """What is known of a model name."""

    INSTALLED = "installed"
    MISSING = "missing"
    CLOUD = "cloud"
    UNKNOWN = "unknown"


@frozen
class ModelSnapshot:
    """The models of the target.

    :ivar installed: by folded name, None where the target has not listed them; :ivar running: as listed;
    :ivar is_complete: every listed model is in ``installed``, so that a model that is not there is missing;
    :ivar loaded: the folded names of ``running``.
    """

    installed: Mapping[Key, Installed] | None
    running: Sequence[Running]
    is_complete: bool = True
    loaded: frozenset[Key] = field(init=False)

    @loaded.default
    def _loaded(self) -> frozenset[Key]:
        keys = set()
        for model in self.running:
            with suppress(errors.InvalidName):
                keys.add(model_names.parse(model.name).key)
        return frozenset(keys)

    def find(self, typed: str) -> Availability:
        """What is known of the model that ``typed`` names.

        :raises errors.InvalidName: when Ollama would refuse the name.
        """
        name = model_names.parse(typed)
        if name.is_cloud:
            return Availability.CLOUD
        if self.installed is None:
            return Availability.UNKNOWN
        model = self.installed.get(name.key)
        if model is None:
            return Availability.MISSING if self.is_complete else Availability.UNKNOWN
        return Availability.CLOUD if model.remote_host or model.remote_model else Availability.INSTALLED

    def is_running(self, typed: str) -> bool:
        """Whether the model is loaded."""
        try:
            return model_names.parse(typed).key in self.loaded
        except errors.InvalidName:
            return False

    def digest_of(self, typed: str) -> str:
        """The digest of an installed model, empty where that is not known."""
        with suppress(errors.InvalidName):
            model = (self.installed or {}).get(model_names.parse(typed).key)
            return "" if model is None else model.digest
        return ""


def installed_of(models: Sequence[Installed]) -> tuple[dict[Key, Installed], list[str]]:
    """The listed models by folded name, and the names that cannot be parsed."""
    installed: dict[Key, Installed] = {}
    unreadable = []
    for model in models:
        try:
            name = model_names.parse(model.name)
        except errors.InvalidName:
            unreadable.append(model.name)
            continue
        # The stub of a cloud model is listed as "x:cloud". A request for that name goes to the cloud in any case, and
        # the stub's folded name would hide a local "x".
        if not name.is_cloud:
            installed[name.key] = model
    return installed, unreadable
