"""Pulling, pushing, making, copying and deleting models (contract 2.5).

The simulated registry has every model except those whose names begin with ``nope``; no other host can be reached.
"""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.internet.task import deferLater

from foreman.simulator.api.blobs import digest_in
from foreman.simulator.api.progress import Progress
from foreman.simulator.engine.catalogue import chat_model, models_named
from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.fields import NO_TYPICAL_P, Fields
from foreman.simulator.engine.go_json import dumps
from foreman.simulator.engine.model_names import HOST, Name, parse_reference, split_name
from foreman.simulator.engine.models import STORE, Model, digest_of
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.exchange import Exchange

_STEPS = 10


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _name_for(model_name: str) -> Name:
    name = split_name(model_name.strip())
    if name is None:
        raise Refused(400, "invalid model name")
    return name


def _manifest(name: Name) -> str:
    return f"{STORE}/manifests/{name.path}"


def _unreachable(name: Name, *, plain_http: bool) -> str | None:
    """Why a model cannot be pulled, or ``None``."""
    if name.host.lower() != HOST:
        scheme = "http" if plain_http else "https"
        url = f"{scheme}://{name.host}/v2/{name.namespace}/{name.model}/manifests/{name.tag}"
        address = name.host if ":" in name.host else f"{name.host}:{80 if plain_http else 443}"
        return f'pull model manifest: Get "{url}": dial tcp {address}: connect: connection refused'
    return "pull model manifest: file does not exist" if name.model.lower().startswith("nope") else None


async def _fetch(state: SimulatorState, progress: Progress, name: Name, *, plain_http: bool = False) -> bool:
    """Pull and install a model; returns whether that succeeded."""
    progress.report("pulling manifest")
    failure = _unreachable(name, plain_http=plain_http)
    if failure is not None:
        progress.fail(failure)
        return False
    model = state.inventory.find(name) or models_named([name.short])[0]
    await _transfer(state, progress, "pulling", model)
    for status in ("verifying sha256 digest", "writing manifest"):
        progress.report(status)
    state.inventory.add([model])
    return True


async def _transfer(state: SimulatorState, progress: Progress, doing: str, model: Model) -> None:
    """Report the progress of each layer; takes as long as loading a model."""
    layers = [(model.weights, model.size), (_hash(model.template), len(model.template))]
    for digest, size in layers:
        for step in range(_STEPS + 1):
            if step and state.settings.load_time > 0:
                await deferLater(state.clock, state.settings.load_time / _STEPS / len(layers))
            part: dict[str, Any] = {"completed": size * step // _STEPS} if step else {}
            progress.report(f"{doing} {digest[:12]}", digest=f"sha256:{digest}", total=size, **part)


def _task(struct: str, exchange: Exchange) -> tuple[Fields, str, Progress]:
    fields = Fields.read(struct, exchange.body)
    model_name = fields.string("model") or fields.string("name")
    return fields, model_name, Progress(exchange, fields.boolean("stream") is not False)


async def pull(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/pull``."""
    fields, model_name, progress = _task("PullRequest", exchange)
    name = _name_for(model_name)
    plain_http = bool(fields.boolean("insecure")) and model_name.startswith("http://")
    if await _fetch(state, progress, name, plain_http=plain_http):
        progress.succeed()


async def push(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/push``."""
    _, model_name, progress = _task("PushRequest", exchange)
    if not model_name.strip():
        raise Refused(400, "model is required")
    name = _name_for(model_name)
    progress.report("retrieving manifest")
    model = state.inventory.find(name)
    if model is None:
        progress.report("couldn't retrieve manifest")
        progress.fail(f"open {_manifest(name)}: no such file or directory")
        return
    await _transfer(state, progress, "pushing", model)
    progress.report("pushing manifest")
    progress.succeed()


async def create(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/create``, from an installed model, from one that must be pulled first, or from an uploaded file."""
    fields, model_name, progress = _task("CreateRequest", exchange)
    name = _name_for(model_name)
    if state.settings.newer:
        _check_no_longer_supported(fields)
    source, files, system = fields.string("from"), fields.object("files"), fields.string("system")
    template = fields.string("template")
    if source:
        base = parse_reference(source).name
        if state.inventory.find(base) is None and not await _fetch(state, progress, base):
            return
        model = state.inventory.find(base)
        assert model is not None
    elif files:
        new_model = _from_file(state, progress, name, str(next(iter(files.values()))))
        if new_model is None:
            return
        model = new_model
    else:
        progress.fail("neither 'from' or 'files' was specified", 400)
        return
    changes: dict[str, Any] = {"system": system or model.system, "template": template or model.template}
    for layer, new in _layers(model, system, template, newer=state.settings.newer):
        progress.report(f"{'creating new' if new else 'using existing'} layer sha256:{layer}")
    progress.report("writing manifest")
    now = state.now()
    digest = digest_of(dumps([model.digest, *map(str, changes.values()), name.full]))
    nanos = state.timestamp().partition(".")[2].rstrip("Z")
    state.inventory.copy(model, name, digest=digest, seconds=int(now), nanos=nanos, **changes)
    progress.succeed()


def _check_no_longer_supported(fields: Fields) -> None:
    """Refuse what v0.34 no longer supports."""
    if fields.object("adapters"):
        raise Refused(400, "LoRA adapters are no longer supported")
    if fields.string("quantize") or fields.string("quantization"):
        why = "create-time quantization is only supported for safetensors imports"
        raise Refused(400, f"{why}; quantize GGUF models with llama.cpp tools before importing")
    if fields.object("parameters").get("typical_p") is not None:
        raise Refused(400, NO_TYPICAL_P)


def _from_file(state: SimulatorState, progress: Progress, name: Name, digest: str) -> Model | None:
    """The model in an uploaded file, or ``None`` after an error was sent."""
    progress.report("parsing GGUF")
    digits = digest_in(digest)
    blob = state.blobs.get(digits)
    if blob is None:
        progress.fail(f"open {STORE}/blobs/sha256-{digits}: no such file or directory")
    elif blob.start != b"GGUF":
        numbers = " ".join(map(str, blob.start))
        older = "supplied file was not in GGUF format"
        progress.fail(f"unsupported file type [{numbers}]" if state.settings.newer else older)
    else:
        return chat_model(name.short, weights=digits, size=blob.size)
    return None


def _layers(model: Model, system: str, template: str, *, newer: bool) -> list[tuple[str, bool]]:
    """The layers of a new model, and which of them are new."""
    layers = [(model.weights, False), (_hash(template or model.template), bool(template))]
    if system or model.system:
        layers.append((_hash(system or model.system), bool(system)))
    if model.parameters:
        names = dict.fromkeys(name for name, _ in model.parameters)
        values = {n: [v for name, v in model.parameters if name == n] for n in names}
        by_name = {n: v if n == "stop" else int(v[0]) for n, v in values.items()}
        layers.insert(2 if newer else len(layers), (_hash(dumps(by_name) + "\n"), False))
    return layers


async def copy(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/copy``."""
    fields = Fields.read("CopyRequest", exchange.body)
    names = {}
    for field in ("source", "destination"):
        model_name = fields.string(field)
        name = split_name(model_name.strip()) if model_name.strip() else None
        if name is None:
            raise Refused(400, f'{field} "{model_name}" is invalid')
        names[field] = name
    model = state.inventory.find(names["source"])
    if model is None:
        raise Refused(404, f'model "{fields.string("source")}" not found')
    destination = names["destination"]
    state.inventory.copy(
        model, state.inventory.with_installed_spelling(destination) if state.settings.newer else destination
    )
    exchange.respond(200)


async def delete(state: SimulatorState, exchange: Exchange) -> None:
    """``DELETE /api/delete``."""
    _, model_name, _ = _task("DeleteRequest", exchange)
    if not model_name.strip():
        raise Refused(400, "model is required")
    name = split_name(model_name.strip())
    if name is None:
        raise Refused(400, f'name "{model_name}" is invalid')
    model = state.inventory.find(name)
    if model is None:
        raise Refused(404, f"model '{model_name}' not found")
    state.scheduler.expire(model)
    state.inventory.remove(name)
    exchange.respond(200)
