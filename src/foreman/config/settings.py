"""The table of the settings, and how ``FOREMAN_*`` variables and options become one frozen ``Config``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from attrs import Attribute, evolve, field, fields, frozen

from foreman.config import parsers
from foreman.config.listen_address import endpoint_description, is_known, is_private, would_loop
from foreman.config.target_address import TargetAddress as TargetAddress  # noqa: PLC0414 - the type of a field is part of this module's face
from foreman.config.target_address import parse_target
from foreman.errors import ConfigError, shortened
from foreman.util.file_permissions import why_writable_by_others

T = TypeVar("T")

_PREFIX = "FOREMAN_"
#: The name of the file of jobs in the state folder.
DATABASE = "foreman.db"
#: What the command line reads for itself; not a setting of the daemon.
_NOT_SETTINGS = frozenset({"FOREMAN_URL", "FOREMAN_TOKEN"})
#: What Kubernetes puts into every container's environment for a service that is called foreman.
_KUBERNETES = re.compile(r"FOREMAN_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP)(_\w+)?)")


#: Shown in the place of a secret that is set.
MASK = "***"
#: An address that has one of these may contain a password, or a token in its query or its path.
_MAY_HAVE_PASSWORD = re.compile(r"[@?#]|/k/")
#: How much of a wrong value, and of the sentence about it, an error message has, in characters.
_LONGEST_SHOWN = 200
_LONGEST_PROBLEM = 450
#: A shorter token could be guessed from another machine, in characters.
SHORTEST_TOKEN = 8


@frozen
class Setting:
    """One variable that foreman reads.

    :ivar name: its name in lower case without ``FOREMAN_``; :ivar attribute: where ``Config`` keeps it;
    :ivar default: as a person would write it, empty where there is none;
    :ivar parse: from text to value, ``ValueError`` with a phrase where that is impossible;
    :ivar help: what it is, in a few words; :ivar secret: never shown, and with a ``_FILE`` variable instead of an option.
    """

    name: str
    attribute: str
    default: str
    parse: Callable[[str], object]
    help: str
    secret: bool

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return _PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """The name of its option, without the dashes in front; a secret has none."""
        return "" if self.secret else self.name.replace("_", "-")

    def masked(self, text: str) -> str:
        """The value for people to see: a secret, and an address that may have a password in it, is masked."""
        is_secret = self.secret or (self.attribute == "target" and _MAY_HAVE_PASSWORD.search(text))
        return MASK if is_secret and text else text


def _setting(default: str, parse: Callable[[str], T], help: str, *, name: str = "", secret: bool = False) -> T:  # noqa: A002
    """A field of ``Config`` that carries its own row of the table."""
    show = (lambda value: "None" if value is None else "'***'") if secret else True
    metadata = {"setting": (name, default, parse, help, secret)}
    value: T = field(factory=lambda: parse(default), repr=show, metadata=metadata)
    return value


@frozen(kw_only=True)
class Config:
    """The settings, read and checked. Durations are in seconds, sizes in bytes.

    ``listen`` is a Twisted endpoint description; ``target`` is the address of Ollama; a token that is not set is None.
    """

    listen: str = _setting(
        "tcp:8080:interface=127.0.0.1",
        endpoint_description,
        "address to listen on: host:port, or a Twisted endpoint description",
    )
    target: TargetAddress = _setting(
        "http://127.0.0.1:11434",
        parse_target,
        "address of the Ollama server, in any form that OLLAMA_HOST allows",
        name="target_url",
    )
    target_token: str | None = _setting(
        "", parsers.optional(parsers.token), "bearer token sent to the target", secret=True
    )
    auth_token: str | None = _setting("", parsers.optional(parsers.token), "token that clients must send", secret=True)
    admin_token: str | None = _setting(
        "",
        parsers.optional(parsers.token),
        "token of the admin; where there is an admin, only admins may manage models",
        secret=True,
    )
    tokens_file: Path | None = _setting(
        "", parsers.optional(parsers.tokens_file), "file of named tokens, which foreman token new writes"
    )
    allow_open: bool = _setting("0", parsers.flag, "1: allow listening beyond this machine without requiring a token")
    allowed_hosts: tuple[str, ...] = _setting(
        "", parsers.host_names, "names accepted in the Host header, in addition to those that Ollama accepts"
    )
    origins: tuple[str, ...] = _setting(
        "", parsers.origins, "origins of web pages that may send requests, in addition to those that Ollama allows"
    )
    poll_interval: float = _setting("30s", parsers.positive_seconds, "how often foreman asks the target for its models")
    embedder_model: str | None = _setting(
        "", parsers.optional(parsers.model), "embedding model that foreman keeps loaded"
    )
    turns: int = _setting("1", parsers.count, "chats that run at the target at once")
    embed_cap: int = _setting("8", parsers.count, "embedding requests that run at the target at once")
    max_queue: int = _setting("512", parsers.count, "chats that may wait in the queue; more are refused with 503")
    wait_notice: float = _setting(
        "5s", parsers.seconds, "a stream that has waited this long gets heartbeats; 0: no heartbeats at all"
    )
    wait_notice_unary: float = _setting(
        "240s", parsers.seconds, "an answer that is not a stream gets heartbeats after this time; 0: never"
    )
    wait_filler: str = _setting(
        "space", parsers.heartbeat_filler, "heartbeat of an NDJSON stream: space, or object (a line with empty content)"
    )
    target_wait: float = _setting("0", parsers.seconds, "how long a chat waits for a target that cannot be reached")
    connect_timeout: float = _setting("5s", parsers.positive_seconds, "time limit for connecting to the target")
    silence_timeout: float = _setting(
        "10m", parsers.positive_seconds, "longest silence of the target between two lines of an answer"
    )
    stall_timeout: float = _setting(
        "60s", parsers.positive_seconds, "longest time in which a client reads nothing while its buffer is full"
    )
    buffer: int = _setting("8MiB", parsers.size, "buffer for one answer to a slow client")
    buffer_total: int = _setting("512MiB", parsers.size, "buffers for all answers to slow clients together")
    max_body: int = _setting(
        "256MiB", parsers.size, "largest request body, except for model files (blobs); larger ones are refused with 413"
    )
    body_budget: int = _setting(
        "2GiB", parsers.size, "all waiting request bodies together; beyond that, requests are refused with 503"
    )
    head_timeout: float = _setting(
        "30s", parsers.positive_seconds, "time limit for receiving the head of a request; then 408"
    )
    body_timeout: float = _setting(
        "60s", parsers.positive_seconds, "longest silence within a request body, or time below 1 kB/s; then 408"
    )
    idle_timeout: float = _setting(
        "75s", parsers.positive_seconds, "how long a connection may be idle between two requests"
    )
    max_connections: int = _setting("10000", parsers.count, "client connections at once; more are refused with 503")
    drain_timeout: float = _setting("30s", parsers.seconds, "how long running requests may take to finish at shutdown")
    db_path: Path | None = _setting(
        "",
        parsers.optional(parsers.path),
        "SQLite database of the jobs; default: foreman/foreman.db in the XDG state directory",
    )
    max_jobs: int = _setting("100000", parsers.count, "jobs that may wait; more are refused with 429")
    max_payload: int = _setting("32MiB", parsers.size, "largest request of a job; larger ones are refused with 413")
    max_artifact: int = _setting("64MiB", parsers.size, "largest artifact of a job, including its answer")
    job_patience: float = _setting(
        "30m",
        parsers.seconds,
        "interactive chats go before a job until it has waited this long; then jobs get every fourth turn",
    )
    job_silence: float = _setting(
        "1h", parsers.positive_seconds, "a job whose answer has not begun after this time is aborted, and tried again"
    )
    keep_succeeded: float = _setting("7d", parsers.seconds, "how long succeeded jobs are kept; 0: forever")
    keep_cancelled: float = _setting("3d", parsers.seconds, "how long cancelled jobs are kept; 0: forever")
    keep_failed: float = _setting("30d", parsers.seconds, "how long failed and discarded jobs are kept; 0: forever")
    disk_reserve: int = _setting("256MiB", parsers.size, "free disk space below which new jobs are refused with 507")
    log_format: str = _setting("text", parsers.log_format, "format of the log: text or json")
    log_level: str = _setting(
        "info", parsers.log_level, "level of the log: info, or debug, which also logs requests for /healthz"
    )


def _row(attribute: Attribute[object]) -> Setting:
    name, default, parse, help_, secret = attribute.metadata["setting"]
    return Setting(name or attribute.name, attribute.name, default, parse, help_, secret)


#: Every setting, in the order in which they are listed.
SETTINGS: tuple[Setting, ...] = tuple(_row(attribute) for attribute in fields(Config))


def load(environ: Mapping[str, str], options: Mapping[str, str | None] | None = None) -> Config:
    """Read the settings. An option overrides its variable; empty text and None count as not set, and one pair of
    quotation marks around a value is removed.

    :param environ: the environment, most often ``os.environ``.
    :param options: those of the command line, by option name, with dashes or underscores.
    :raises ConfigError: with all problems, each beginning with the name of its variable.
    """
    given = {name.replace("-", "_"): text for name, text in (options or {}).items() if text}
    values: dict[str, object] = {}
    problems: list[str] = []
    for setting in SETTINGS:
        source, text = f"{setting.variable} (--{setting.option})", given.get(setting.name, "")
        try:
            value = parsers.unquoted(text)
            if not value:
                source, text = setting.variable, environ.get(setting.variable, "")
                value = _from_environment(setting, environ)
            values[setting.attribute] = setting.parse(value or setting.default)
        except ValueError as problem:
            quotable = setting.masked(text)
            quoted = "" if quotable in {MASK, ""} else f"{shortened(repr(quotable), _LONGEST_SHOWN)} "
            problems.append(f"{source}: {quoted}{shortened(str(problem), _LONGEST_PROBLEM)}")
    # The types were checked by each setting's own parser.
    config = evolve(Config(), **values)  # type: ignore[arg-type]
    if config.db_path is None and "db_path" in values:
        try:
            config = evolve(config, db_path=state_folder(environ) / DATABASE)
        except ValueError as problem:
            problems.append(f"FOREMAN_DB_PATH: is not set, and {problem}")
    problems += _contradictions(config, broken={setting.attribute for setting in SETTINGS} - values.keys())
    problems += _unknown(environ)
    if problems:
        raise ConfigError(problems)
    return config


def state_folder(environ: Mapping[str, str]) -> Path:
    """The directory of the jobs: the one that systemd gives, or foreman's own in the XDG state directory.

    :raises ValueError: with a phrase, if there is no such directory.
    """
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a path that is not absolute is to be ignored.
    return (Path(base) if base.startswith("/") else _home(environ) / ".local" / "state") / "foreman"


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ.get("HOME") or "~").expanduser()
    except RuntimeError:  # most often the user of a container
        raise ValueError("there is no default: HOME is not set, and this user has no home directory") from None


def _from_environment(setting: Setting, environ: Mapping[str, str]) -> str:
    """The text of the variable; for a secret, also of the file that its ``_FILE`` variable names."""
    text = parsers.unquoted(environ.get(setting.variable, ""))
    file = parsers.unquoted(environ.get(f"{setting.variable}_FILE", "")) if setting.secret else ""
    if not file:
        return text
    if text:
        raise ValueError(f"is set twice: {setting.variable}_FILE is set, too")
    try:
        path = parsers.path(file)
    except ValueError as problem:
        raise ValueError(f"cannot be read from {file!r}, which {problem}") from None
    if (why := why_writable_by_others(path)) is not None:
        raise ValueError(f"cannot be read from {file!r}: {why}")
    try:
        text = parsers.unquoted(parsers.read_text(path))
    except ValueError as problem:
        raise ValueError(f"in the file {file!r}: {problem}") from None
    if not text:
        raise ValueError(f"in the file {file!r}: the file is empty")
    return text


def _contradictions(config: Config, broken: Collection[str]) -> Iterator[str]:
    """Problems between settings that are each valid; settings in ``broken`` have been reported, and are left out."""

    def sound(*attributes: str) -> bool:
        return not set(attributes) & set(broken)

    if sound("listen", "auth_token", "admin_token", "tokens_file", "allow_open"):
        closed = config.auth_token or config.admin_token or config.tokens_file
        if not (closed or config.allow_open or is_private(config.listen)):
            can = "can be reached from other machines"
            if not is_known(config.listen):
                can = (
                    "is neither host:port nor an endpoint of Twisted's own, so that it might be reached from anywhere,"
                )
            yield (
                f"FOREMAN_LISTEN: {config.listen!r} {can} and no token is required; "
                "set FOREMAN_AUTH_TOKEN, or FOREMAN_ALLOW_OPEN=1 if everybody may use foreman"
            )
    if sound("listen", "target") and would_loop(config.listen, config.target):
        yield (
            f"FOREMAN_TARGET_URL: {config.target.url} is where foreman itself listens (FOREMAN_LISTEN), so that every "
            "request would come back to it; set it to the address of Ollama, and use different ports for the two"
        )
    if sound("listen", "auth_token", "admin_token") and not is_private(config.listen):
        for variable in _short_tokens(config):
            yield (
                f"{variable}: has fewer than {SHORTEST_TOKEN} characters, so that others could guess it; "
                f"{config.listen!r} can be reached from other machines"
            )
    if sound("auth_token", "admin_token") and config.auth_token and config.auth_token == config.admin_token:
        yield "FOREMAN_ADMIN_TOKEN: is the same as FOREMAN_AUTH_TOKEN, so that everybody could manage models; set different ones"
    if sound("buffer", "buffer_total") and config.buffer > config.buffer_total:
        yield "FOREMAN_BUFFER_TOTAL: is smaller than FOREMAN_BUFFER"
    if sound("max_body", "body_budget") and config.max_body > config.body_budget:
        yield "FOREMAN_BODY_BUDGET: is smaller than FOREMAN_MAX_BODY"


def warnings(config: Config) -> Iterator[str]:
    """Settings that work but should be changed, in the same form as problems."""
    for variable in _short_tokens(config):
        yield f"{variable}: has fewer than {SHORTEST_TOKEN} characters, so that others could guess it"


def _short_tokens(config: Config) -> Iterator[str]:
    for variable, token in (("FOREMAN_AUTH_TOKEN", config.auth_token), ("FOREMAN_ADMIN_TOKEN", config.admin_token)):
        if token is not None and len(token) < SHORTEST_TOKEN:
            yield variable


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables that look like settings and are not: most often typing mistakes, which would go unnoticed."""
    known = {setting.variable for setting in SETTINGS}
    known |= {f"{setting.variable}_FILE" for setting in SETTINGS if setting.secret} | _NOT_SETTINGS
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or variable in known or _KUBERNETES.fullmatch(variable):
            continue
        if variable == "FOREMAN_PORT" and environ[variable].startswith(("tcp://", "udp://")):
            continue  # Kubernetes again
        if len(variable) > _LONGEST_SHOWN or not variable.isprintable():
            yield f"{shortened(repr(variable), _LONGEST_SHOWN)}: is not a setting of foreman"
            continue
        # Compared without the prefix, which would make all names look alike.
        words = {name.removeprefix(_PREFIX): name for name in sorted(known)}
        closest = difflib.get_close_matches(variable.removeprefix(_PREFIX), words, n=1)
        yield f"{variable}: is not a setting of foreman" + (f"; did you mean {words[closest[0]]}?" if closest else "")
