"""A whole foreman in this process, on loopback sockets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from attrs import define
from twisted.internet import reactor as installed_reactor
from twisted.internet.interfaces import IListeningPort
from ulid import ULID

from foreman.config.settings import Config, load
from foreman.config.target_address import TargetAddress
from foreman.proxy.observer import Observer
from foreman.service import Foreman
from foreman.store.job_store import JobStore
from foreman.target.client import TargetClient
from foreman.target.connector import endpoint_for

reactor: Any = installed_reactor


def listen(factory: Any) -> IListeningPort:
    """Listen with ``factory`` on a free loopback port."""
    port: IListeningPort = reactor.listenTCP(0, factory, interface="127.0.0.1")
    return port


def port_of(listening: Any) -> int:
    """The number of a port."""
    return int(listening.getHost().port)


async def artifact_bytes(store: JobStore, id_: str, name: str) -> bytes | None:
    """All bytes of an artifact, or None."""
    found = await store.get_artifact(id_, name)
    return None if found is None else await store.read_artifact(found, 0, found.info.bytes, "")


@define
class RunningForeman:
    """A foreman that listens on ``port``."""

    service: Foreman
    port: int

    async def stop(self) -> None:
        """Stop it as SIGTERM does."""
        await self.service.stopService()


def settings(target_port: int, **variables: str) -> Config:
    """A configuration in front of ``target_port``; ``variables`` by their name without FOREMAN_, lower case."""
    given = {
        "listen": "tcp:0:interface=127.0.0.1",
        "target_url": f"http://127.0.0.1:{target_port}",
        "poll_interval": "1h",
        "drain_timeout": "0",
        **variables,
    }
    state = {name: os.environ[name] for name in ("XDG_STATE_HOME",) if name in os.environ}
    return load(state | {f"FOREMAN_{name.upper()}": value for name, value in given.items()})


async def start_foreman(target_port: int, observers: Sequence[Observer] = (), /, **variables: str) -> RunningForeman:
    """A foreman in front of ``target_port`` that has listed the target's models once."""
    wall_clock = reactor.seconds
    foreman = Foreman(settings(target_port, **variables), reactor, wall_clock, ULID, lambda: 0.0, observers)
    if "db_path" in variables:  # other tests do not need jobs
        foreman.open_store()
    foreman.privilegedStartService()
    foreman.startService()
    await foreman.target.inventory.refresh()
    return RunningForeman(foreman, foreman.port)


def target_client(port: int, url: str = "http://127.0.0.1", token: str | None = None) -> TargetClient:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    address = TargetAddress(scheme, host, port, f"/{path}" if path else "")
    return TargetClient(reactor, endpoint_for(reactor, address, 2), address, token)
