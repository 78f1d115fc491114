"""The daemon as a whole: how its parts are built, and in which order they start and stop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from ulid import ULID

from foreman import errors
from foreman.auth.policy import AuthPolicy
from foreman.auth.tokens import Tokens
from foreman.config.settings import Config
from foreman.config.token_file import TokenFile, tokens_of
from foreman.jobs.job import State
from foreman.proxy.inference import Inference
from foreman.proxy.observer import Observer, Observers
from foreman.proxy.relay import Limits
from foreman.proxy.target import Target
from foreman.scheduling.estimates import Estimates
from foreman.scheduling.gate import Gate
from foreman.scheduling.queue_status import QueueStatus
from foreman.store.job_store import JobStore
from foreman.store.notifications import Notifications
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.store import SQLiteJobStore
from foreman.system.banner import Banner
from foreman.system.listening import port_for, require_loopback
from foreman.target.client import TargetClient
from foreman.target.connector import endpoint_for
from foreman.target.inventory import Inventory
from foreman.target.warmup import Warmer
from foreman.util.byte_budget import ByteBudget
from foreman.util.cooperator import cooperator
from foreman.util.deadline import Deadline
from foreman.web.api.routes import Api
from foreman.web.jobs.routes import JobsApi
from foreman.web.jobs.submit import JobLimits
from foreman.web.server.access_log import AccessLog
from foreman.web.server.admission import Admission
from foreman.web.server.factory import ConnectionFactory
from foreman.web.server.heartbeat import HeartbeatPolicy
from foreman.web.server.origins import OriginPolicy
from foreman.web.server.responses import HttpDate
from foreman.web.server.revocation import end_revoked
from foreman.worker.attempt import Bounds
from foreman.worker.due_jobs import DueJobs
from foreman.worker.retention import Retention
from foreman.worker.worker import Worker

#: How long the last bytes may take to reach their readers once everything is answered, in seconds; and after a second signal.
FLUSH_TIMEOUT, FLUSH_TIMEOUT_IN_A_HURRY = 5.0, 0.2


@frozen(eq=False)
class Web:
    """What answers HTTP.

    :ivar connections: accepts connections, and knows those that are open; :ivar api: every URL but those of jobs;
    :ivar jobs: the URLs of jobs.
    """

    connections: ConnectionFactory
    api: Api
    jobs: JobsApi


def build_target(config: Config, reactor: Any, mark: bytes) -> Target:
    """The Ollama server of ``config``; ``mark`` is foreman's pseudonym in ``Via``."""
    endpoint = endpoint_for(reactor, config.target, config.connect_timeout)
    client = TargetClient(reactor, endpoint, config.target, config.target_token, mark)
    inventory = Inventory(reactor, client, config.poll_interval)
    gate, embeddings = Gate(reactor, config.turns, config.max_queue), Gate(reactor, config.embed_cap, config.max_queue)
    estimates = Estimates()
    queue_status = QueueStatus(reactor, gate, inventory, estimates)
    return Target(client, inventory, gate, embeddings, estimates, queue_status)


def build_store(
    config: Config,
    reactor: Any,
    wall_clock: Callable[[], float],
    new_id: Callable[[], ULID],
    observer: Observer,
) -> JobStore:
    """The store of jobs, which ``Foreman.open_store`` opens; ``observer`` is notified of each commit."""
    assert config.db_path is not None  # ``config.load`` finds one where none was named
    notifications = Notifications(on_committed=observer.committed)
    database = Database(reactor, config.db_path, str(new_id()), wall_clock, notifications, config.disk_reserve)
    return SQLiteJobStore(database, new_id, config.max_jobs)


def build_web(
    config: Config,
    reactor: Any,
    wall_clock: Callable[[], float],
    new_id: Callable[[], ULID],
    *,
    mark: bytes,
    auth: AuthPolicy,
    target: Target,
    inference: Inference,
    store: JobStore,
    worker: Worker,
    large_bodies: Cooperator,
    observer: Observer,
) -> Web:
    """All routes, and the factory of the connections that lead there.

    :param large_bodies: runs the reading of large bodies in slices; :param observer: is notified of each request.
    """
    limits = JobLimits(config.max_payload, config.max_artifact, config.stall_timeout)
    jobs = JobsApi(reactor, store, worker, target.inventory, observer, limits, auth, large_bodies)
    heartbeats = HeartbeatPolicy(config.wait_notice, config.wait_notice_unary, config.wait_filler == "object")
    api = Api(
        reactor,
        wall_clock,
        target,
        inference,
        large_bodies,
        observer,
        config.poll_interval,
        heartbeats,
        jobs=jobs,
        store=store,
    )
    origins = OriginPolicy(frozenset(config.allowed_hosts), config.origins, socket.gethostname())
    admission = Admission(config, auth, origins, new_id, mark)
    date = HttpDate(wall_clock)
    connections = ConnectionFactory(api.app.resource(), reactor, config, admission, date, observer, jobs.resource())
    return Web(connections, api, jobs)


class Foreman(Service):
    """The whole daemon.

    :ivar target: the Ollama server behind it; :ivar inference: runs requests there; :ivar store: the jobs;
    :ivar worker: runs them; :ivar connections: the open connections of clients.
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
        observers: Sequence[Observer] = (),
    ) -> None:
        """Build everything, and start nothing.

        :param reactor: ``tap.py`` alone takes it from Twisted; :param wall_clock: seconds since the epoch;
        :param new_id: makes ids; :param random: from 0 to 1; :param observers: are notified of finished work.
        """
        self._config = config
        self._clock = reactor
        self._banner = Banner(config)
        self._access_log = AccessLog(reactor)
        observer = Observers((self._access_log, *observers))
        mark = f"foreman-{new_id()}".encode("ascii")  # unique, so that foreman recognises its own requests
        self.target = build_target(config, reactor, mark)
        self.target.inventory.on_recovery = self._target_recovered
        self._warmer = Warmer(self.target.client, config.embedder_model, self.target.inventory.verify)
        limits = Limits(config.buffer, config.silence_timeout, config.stall_timeout)
        self.inference = Inference(reactor, self.target, limits, config.target_wait, ByteBudget(config.buffer_total))
        self.store = build_store(config, reactor, wall_clock, new_id, observer)
        large_bodies = cooperator(reactor)
        bounds = Bounds(config.max_artifact, config.job_silence)
        self.worker = Worker(
            reactor,
            self.store,
            self.target,
            self.inference,
            large_bodies,
            random,
            config.job_patience,
            bounds,
            observer,
        )
        self._due_jobs = DueJobs(reactor, self.store)
        self._retention = Retention(reactor, self.store, retention_times(config))
        # Made before the file is read, so that no change is missed.
        self._token_file = TokenFile(reactor, config, self._replace_tokens)
        self._auth = AuthPolicy(tokens_of(config))
        web = build_web(
            config,
            reactor,
            wall_clock,
            new_id,
            mark=mark,
            auth=self._auth,
            target=self.target,
            inference=self.inference,
            store=self.store,
            worker=self.worker,
            large_bodies=large_bodies,
            observer=observer,
        )
        self.api, self.connections, self._jobs = web.api, web.connections, web.jobs
        self._port = port_for(config.listen, self.connections, reactor)
        self._end_wait: Callable[[], None] | None = None
        self._in_a_hurry = False

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
        if not (self._auth.tokens.required or self._config.allow_open):
            require_loopback(self._port, self._config.listen)

    def startService(self) -> None:
        """Start everything, and accept connections."""
        super().startService()
        self.store.start()
        self.target.inventory.start()
        self._due_jobs.start()
        self._retention.start()
        self.worker.start()
        self._token_file.start()
        self._port.startService()
        listening: Any = self._port._waitingForPort  # noqa: SLF001 - strports offers no other way
        listening.addCallback(self.connections.accept_limiter.add_port)
        self._banner.log_address()

    def _target_recovered(self) -> None:
        inventory = self.target.inventory
        if inventory.tags is not None:
            self._banner.log_models(inventory.installed.values(), inventory.running)
        self._warmer.warm()
        self.worker.nudge()

    def stopService(self) -> Deferred[None]:
        """Accept nothing more, let what runs finish within the drain time, then stop the rest."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def reload(self) -> None:
        """Read the token file again; where it cannot be read, the tokens stay as they are."""
        self._token_file.read()

    def _replace_tokens(self, tokens: Tokens) -> None:
        """From now on only ``tokens`` are valid; requests under way whose token no longer is are ended."""
        self._auth.replace(tokens)
        tokens = self._auth.tokens
        if tokens.only_admins_manage and not tokens.has_admin:
            self._log.warn("no admin is left: models cannot be managed until there is one, or foreman is restarted")
        ended = end_revoked(self.connections.open, tokens, self._stop_request, self.connections.observer)
        self._log.info(
            "{count} tokens are known now{ended}",
            count=len(tokens.holders),
            ended=f"; requests that were ended, since their token was revoked: {ended}" if ended else "",
        )

    def _stop_request(self, id_: str, why: errors.ForemanError) -> bool:
        return self.inference.cancel(id_, lambda _caller: True, why)

    def hurry(self) -> None:
        """Break off what still runs now, without waiting for the drain time."""
        self._in_a_hurry = True
        if self._end_wait is not None:
            self._end_wait()

    async def _stop(self) -> None:
        running, waiting = len(self.target.gate.running), len(self.target.gate.waiting)
        self._log.info("stopping: {running} running, {waiting} queued", running=running, waiting=waiting)
        self.api.draining = True
        self._token_file.stop()
        await self._port.stopService()
        self.connections.drain()
        self._jobs.close()
        self.worker.close()
        self.inference.close()
        self._warmer.stop()
        await self.target.inventory.stop()
        if not await self._wait(self.inference.when_idle(), self._config.drain_timeout):
            self._log.warn("FOREMAN_DRAIN_TIMEOUT is over: cutting off the requests that still run")
            self.inference.stop()
        # The outcome of the jobs that ran is stored within a moment, or not at all.
        await self.worker.when_idle()
        if not await self._wait(self.connections.open.when_empty(), FLUSH_TIMEOUT, hurried=FLUSH_TIMEOUT_IN_A_HURRY):
            for connection in list(self.connections.open):
                connection.abort()
            await self.connections.open.when_empty()
        self._access_log.flush()
        await self._retention.stop()
        await self._due_jobs.stop()
        await self.store.stop()
        self._log.info("stopped")

    async def _wait(self, done: Deferred[None], at_most: float, *, hurried: float = 0.0) -> bool:
        """Wait for ``done``, at most ``at_most`` seconds, and from ``hurry`` on at most ``hurried`` seconds.

        :return: whether it fired in time.
        """
        timed_out = False

        def note_timeout(_: object) -> None:
            nonlocal timed_out
            timed_out = True

        done.addErrback(note_timeout)
        limit = Deadline(self._clock)
        limit.set(hurried if self._in_a_hurry else at_most, done.cancel)
        self._end_wait = lambda: limit.set(hurried, done.cancel)
        await done
        self._end_wait = None
        limit.clear()
        return not timed_out


def retention_times(config: Config) -> dict[State, float]:
    """How long jobs are kept after they have ended, in seconds, by their state; without an entry: for good."""
    settings: dict[State, float] = {
        "succeeded": config.keep_succeeded,
        "cancelled": config.keep_cancelled,
        "failed": config.keep_failed,
        "discarded": config.keep_failed,
    }
    return {state: seconds for state, seconds in settings.items() if seconds}
