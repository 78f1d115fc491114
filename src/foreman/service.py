"""What runs, and in which order it starts and stops."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from ulid import ULID

from foreman import errors
from foreman.auth.tokens import Tokens
from foreman.config.settings import Config
from foreman.config.token_file import TokenFile, tokens_of
from foreman.jobs.job import State
from foreman.proxy.inference import Inference
from foreman.proxy.relay import Limits
from foreman.scheduling.gate import Gate
from foreman.store.job_store import JobStore
from foreman.store.notifications import Notifications
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.store import SQLiteJobStore
from foreman.system.banner import Banner
from foreman.system.listening import port_for, refuse_strangers
from foreman.target.client import TargetClient
from foreman.target.connector import endpoint_for
from foreman.target.inventory import Inventory
from foreman.target.warmup import Warmer
from foreman.util.byte_budget import ByteBudget
from foreman.util.deadline import Deadline
from foreman.web.api.routes import Api
from foreman.web.jobs.routes import JobsApi
from foreman.web.jobs.submit import JobLimits
from foreman.web.server.access_log import AccessLog
from foreman.web.server.admission import Admission
from foreman.web.server.factory import ConnectionFactory
from foreman.web.server.heartbeat import HeartbeatPolicy
from foreman.web.server.origins import OriginPolicy
from foreman.web.server.revocation import end_revoked
from foreman.worker.attempt import Bounds
from foreman.worker.due_jobs import DueJobs
from foreman.worker.retention import Retention
from foreman.worker.worker import Worker

#: How long the last bytes may take to reach their readers once everything is answered, in seconds.
FLUSH_PATIENCE = 5.0
FLUSH_IN_A_HURRY = 0.2


class Foreman(Service):
    """The whole daemon.

    :ivar reactor: the only place where it comes from is ``tap.py``; :ivar wall_clock: seconds since the epoch;
    :ivar new_id: makes ids; :ivar random: from 0 to 1.
    """

    name = "foreman"
    _log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: Any,
        wall_clock: Callable[[], float],
        new_id: Callable[[], ULID],
        random: Callable[[], float],
    ) -> None:
        self._config = config
        self._clock = reactor
        self._banner = Banner(config)
        endpoint = endpoint_for(reactor, config.target, config.connect_timeout)
        mark = f"foreman-{new_id()}".encode("ascii")  # nobody else's, so that a request that comes back is known
        client = TargetClient(reactor, endpoint, config.target, config.target_token, mark)
        self.inventory = Inventory(reactor, client, config.poll_interval)
        self._warmer = Warmer(client, config.embedder_model, self.inventory.doubt)
        self.inventory.on_recovery = self._target_is_there
        self.inference = Inference(
            reactor,
            client,
            self.inventory,
            Gate(reactor, config.turns, config.max_queue),
            Gate(reactor, config.embed_cap, config.max_queue),
            Limits(config.buffer, config.silence_timeout, config.stall_timeout),
            config.target_wait,
            ByteBudget(config.buffer_total),
        )
        assert config.db_path is not None  # ``config.load`` finds one where none was named
        database = Database(reactor, config.db_path, str(new_id()), wall_clock, Notifications(), config.disk_reserve)
        self.store: JobStore = SQLiteJobStore(database, new_id, config.max_jobs)
        self.worker = Worker(
            reactor,
            self.store,
            self.inference,
            random,
            config.job_patience,
            Bounds(config.max_artifact, config.job_silence),
        )
        self._due_jobs = DueJobs(reactor, self.store)
        self._retention = Retention(reactor, self.store, keeping(config))
        self._access_log = AccessLog(reactor)
        notices = HeartbeatPolicy(config.wait_notice, config.wait_notice_unary, config.wait_filler == "object")
        limits = JobLimits(config.max_payload, config.max_artifact, config.stall_timeout)
        self._jobs = JobsApi(
            reactor,
            self.store,
            self.worker,
            self.inventory,
            self._access_log,
            limits,
            sees_all=lambda: not self._admission.tokens.required,
            cooperator=self.inference.cooperator,
        )
        self.api = Api(
            reactor,
            wall_clock,
            self.inference,
            self._access_log,
            config.poll_interval,
            notices,
            jobs=self._jobs,
            store=self.store,
        )
        self._token_file = TokenFile(reactor, config, self._take_tokens)  # before it is read: no change goes unseen
        guards = OriginPolicy(frozenset(config.allowed_hosts), config.origins, socket.gethostname())
        self._admission = Admission(config, tokens_of(config), guards, wall_clock, new_id, self._access_log, mark)
        self.connections = ConnectionFactory(
            self.api.app.resource(), reactor, config, self._admission, self._jobs.resource()
        )
        self._port = port_for(config.listen, self.connections, reactor)
        self._hasten: Callable[[], None] | None = None
        self._hurried = False

    @property
    def port(self) -> int:
        """The number of the TCP port that is listened on, which the system chose where the settings say 0."""
        listening: Any = self._port._waitingForPort  # noqa: SLF001 - strports offers no other way
        return int(listening.result.getHost().port)

    def open_store(self) -> None:
        """Open the database of the jobs; blocks, and is for the time before the reactor runs and before a fork.

        :raises StoreRefused: when it is not to be used.
        """
        self.store.open()

    def privilegedStartService(self) -> None:
        """Listen; a port that is taken ends the start.

        :raises errors.ConfigError: when others can connect although no token is required.
        """
        self._port.privilegedStartService()
        if not (self._admission.tokens.required or self._config.allow_open):
            refuse_strangers(self._port, self._config.listen)

    def startService(self) -> None:
        """Ask the target what it has, and open the door."""
        super().startService()
        self.store.start()
        self.inventory.start()
        self._due_jobs.start()
        self._retention.start()
        self.worker.start()
        self._token_file.start()
        self._port.startService()
        listening: Any = self._port._waitingForPort  # noqa: SLF001 - strports offers no other way
        listening.addCallback(self.connections.accepting.listens)
        self._banner.listens()

    def _target_is_there(self) -> None:
        if self.inventory.tags is not None:
            self._banner.target_is_there(self.inventory.installed.values(), self.inventory.running)
        self._warmer.warm()
        self.worker.nudge()

    def stopService(self) -> Deferred[None]:
        """Close the door, let what runs finish within the drain time, then stop the rest."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def reload(self) -> None:
        """Read the file of tokens again; what cannot be read leaves the tokens as they are."""
        self._token_file.read()

    def _take_tokens(self, tokens: Tokens) -> None:
        """From now on ``tokens`` open the door; what is under way for others ends."""
        tokens = self._admission.tokens = tokens.replacing(self._admission.tokens)
        if tokens.only_admins_manage and not tokens.has_admin:
            self._log.warn(
                "there is no admin any more: nobody manages models until there is one, or foreman is restarted"
            )
        ended = end_revoked(self.connections.open, tokens, self._stop_request, self._access_log)
        self._log.info(
            "{count} tokens are known now{ended}",
            count=len(tokens.holders),
            ended=f"; requests that were ended, since their token was revoked: {ended}" if ended else "",
        )

    def _stop_request(self, id_: str, why: errors.ForemanError) -> bool:
        return self.inference.cancel(id_, lambda _caller: True, why)

    def hurry(self) -> None:
        """No more patience: what still runs is broken off now."""
        self._hurried = True
        if self._hasten is not None:
            self._hasten()

    async def _stop(self) -> None:
        running, waiting = len(self.inference.gate.running), len(self.inference.gate.waiting)
        self._log.info("stopping: {running} running, {waiting} waiting", running=running, waiting=waiting)
        self.api.draining = True
        self._token_file.stop()
        await self._port.stopService()
        self.connections.drain()
        self._jobs.close()
        self.worker.close()
        self.inference.close()
        self._warmer.stop()
        await self.inventory.stop()
        if not await self._wait(self.inference.when_idle(), self._config.drain_timeout):
            self._log.warn("the drain time is over: breaking off what still runs")
            self.inference.stop()
        # What became of the job that ran is written down within a moment, or not at all.
        await self.worker.when_idle()
        if not await self._wait(self.connections.open.when_empty(), FLUSH_PATIENCE, hurried=FLUSH_IN_A_HURRY):
            for connection in list(self.connections.open):
                connection.abort()
            await self.connections.open.when_empty()
        self._access_log.flush()
        await self._retention.stop()
        await self._due_jobs.stop()
        await self.store.stop()
        self._log.info("stopped")

    async def _wait(self, done: Deferred[None], patience: float, *, hurried: float = 0.0) -> bool:
        """Wait for ``done``, but not longer than ``patience`` seconds, and ``hurried`` seconds in a hurry."""
        gave_up = False

        def impatient(_: object) -> None:
            nonlocal gave_up
            gave_up = True

        done.addErrback(impatient)
        limit = Deadline(self._clock)
        limit.set(hurried if self._hurried else patience, done.cancel)
        self._hasten = lambda: limit.set(hurried, done.cancel)
        await done
        self._hasten = None
        limit.clear()
        return not gave_up


def keeping(config: Config) -> dict[State, float]:
    """How long jobs are kept after they have ended, in seconds; those that are not there, for good."""
    settings: dict[State, float] = {
        "succeeded": config.keep_succeeded,
        "cancelled": config.keep_cancelled,
        "failed": config.keep_failed,
        "discarded": config.keep_failed,
    }
    return {state: seconds for state, seconds in settings.items() if seconds}
