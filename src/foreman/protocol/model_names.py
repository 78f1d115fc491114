"""Parse model names as Ollama does (contract 2.8)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from attrs import frozen

from foreman.errors import InvalidName

#: Where a model runs, as the suffix of its name says: unspecified, on this machine, or at ollama.com.
Source = Literal["", "local", "cloud"]

#: Host, namespace, model and tag in lower case: two names with the same key are one model.
Key = tuple[str, str, str, str]

_DEFAULT_HOST, _DEFAULT_NAMESPACE, _DEFAULT_TAG = "registry.ollama.ai", "library", "latest"
_CLOUD_ENDING = "-cloud"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")

#: What Go's ``strings.TrimSpace`` removes; ``str.strip`` would also remove U+001C to U+001F.
_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


@frozen
class ModelName:
    """The parts of a name as it was typed, with defaults filled in.

    :ivar source: from the suffix ``:local``, ``:cloud`` or ``-cloud``, which is not part of the tag.
    """

    host: str
    namespace: str
    model: str
    tag: str
    source: Source = ""

    @property
    def key(self) -> Key:
        """Identifies the model: Ollama compares each part without regard to case."""
        return self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower()

    @property
    def is_cloud(self) -> bool:
        """Whether the name means a model that runs at ollama.com, installed or not."""
        return self.source == "cloud"


@lru_cache(maxsize=1024)
def parse(typed: str) -> ModelName:
    """Parse a name as a user or a program wrote it.

    :raises InvalidName: where Ollama would refuse it, with Ollama's text.
    """
    text = typed.strip(_SPACE)
    if not text:
        raise InvalidName("model is required")
    rest, source = _without_source(text)
    if source and _without_source(rest)[1]:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        raise InvalidName(f'use either :local or :cloud, not both: "{quoted}"')
    return _split(rest, source)


def _without_source(text: str) -> tuple[str, Source]:
    before, colon, last = text.rpartition(":")
    last = last.strip(_SPACE)
    folded = last.lower()
    if not colon:
        return text, ""
    if folded == "cloud":
        return before, "cloud"
    if folded == "local":
        return before, "local"
    if "/" not in last and folded.endswith(_CLOUD_ENDING):
        return f"{before}:{last[: -len(_CLOUD_ENDING)]}", "cloud"
    return text, ""


def _split(text: str, source: Source) -> ModelName:
    rest, tag = text, _DEFAULT_TAG
    if text.rfind(":") > text.rfind("/"):
        rest, _, tag = text.rpartition(":")
    host, namespace = _DEFAULT_HOST, _DEFAULT_NAMESPACE
    rest, slash, model = rest.rpartition("/")
    if slash:
        rest, slash, namespace = rest.rpartition("/")
    if slash:
        if not rest:
            raise InvalidName("invalid model name")
        host = rest.split("://", 1)[-1] or _DEFAULT_HOST
    parts = ((_HOST, host), (_NAMESPACE, namespace), (_PART, model), (_PART, tag))
    if not all(pattern.fullmatch(part) for pattern, part in parts):
        raise InvalidName("invalid model name")
    return ModelName(host, namespace, model, tag, source)


def format_name(key: Key, source: Source = "") -> str:
    """The canonical name of the model ``key``: ``[[host/]namespace/]model:tag``, then ``:cloud`` or ``:local`` for a source."""
    host, namespace, model, tag = key
    before = ""
    if host != _DEFAULT_HOST:
        before = f"{host}/{namespace}/"
    elif namespace != _DEFAULT_NAMESPACE:
        before = f"{namespace}/"
    return f"{before}{model}:{tag}" + (f":{source}" if source else "")


def canonical(typed: str) -> str:
    """The canonical name of a model; a name that is invalid is returned behind a ``?``."""
    try:
        name = parse(typed)
    except InvalidName:
        return f"?{typed}"
    return format_name(name.key, name.source)


def same_model(first: str, second: str) -> bool:
    """Whether two names, as typed, mean the same model; an invalid name means none."""
    try:
        return parse(first).key == parse(second).key
    except InvalidName:
        return False
