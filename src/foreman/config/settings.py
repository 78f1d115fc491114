"""Turn ``FOREMAN_*`` settings into one frozen ``Config``, or say everything that is wrong with them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from attrs import Attribute, evolve, field, fields, frozen

from foreman.config import parsers
from foreman.config.listen_address import endpoint, is_known, is_private, leads_back
from foreman.config.target_address import TargetAddress as TargetAddress  # noqa: PLC0414 - the type of a field is part of this module's face
from foreman.config.target_address import target
from foreman.errors import ConfigError, shortened
from foreman.util.file_permissions import written_by_anybody

T = TypeVar("T")

_PREFIX = "FOREMAN_"
#: The name of the file of jobs in the state folder.
DATABASE = "foreman.db"
#: What the command line reads for itself; not a setting of the daemon.
_NOT_SETTINGS = frozenset({"FOREMAN_URL", "FOREMAN_TOKEN"})
#: What Kubernetes puts into every container's environment for a service that is called foreman.
_KUBERNETES = re.compile(r"FOREMAN_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP)(_\w+)?)")


#: What stands for a secret that is set.
MASK = "***"
#: An address with one of these may have a password in it, or a token in its query or its path.
_MAY_HAVE_PASSWORD = re.compile(r"[@?#]|/k/")
#: How much of a wrong value is repeated, and of what is said of it.
_LONGEST_SHOWN = 200
_LONGEST_PROBLEM = 450
#: A token of fewer characters could be found by trying, from another machine.
SHORTEST_TOKEN = 8


@frozen
class Setting:
    """One variable that foreman reads.

    :ivar name: its name in lower case without ``FOREMAN_``; :ivar attribute: where ``Config`` keeps it;
    :ivar default: as a person would write it, empty where there is none;
    :ivar parse: from text to value, ``ValueError`` with a phrase where that is impossible;
    :ivar help: what it is, in a few words; :ivar secret: never shown, and has a ``_FILE`` variable instead of an option.
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

    def shown(self, text: str) -> str:
        """What people may see of its value as it was written: no secret, and no password in an address."""
        is_secret = self.secret or (self.attribute == "target" and _MAY_HAVE_PASSWORD.search(text))
        return MASK if is_secret and text else text


def _setting(default: str, parse: Callable[[str], T], help: str, *, name: str = "", secret: bool = False) -> T:  # noqa: A002
    """A field of ``Config`` that carries its own line of the table."""
    show = (lambda value: "None" if value is None else "'***'") if secret else True
    metadata = {"setting": (name, default, parse, help, secret)}
    value: T = field(factory=lambda: parse(default), repr=show, metadata=metadata)
    return value


@frozen(kw_only=True)
class Config:
    """What foreman was told. Durations are in seconds, sizes in bytes.

    ``listen`` is a Twisted endpoint description; ``target`` is where Ollama is; a token that was not given is None.
    """

    listen: str = _setting(
        "tcp:8080:interface=127.0.0.1", endpoint, "where to listen: host:port, or a Twisted endpoint description"
    )
    target: TargetAddress = _setting(
        "http://127.0.0.1:11434", target, "the Ollama server, written as for OLLAMA_HOST", name="target_url"
    )
    target_token: str | None = _setting(
        "", parsers.optional(parsers.token), "bearer token sent to the target", secret=True
    )
    auth_token: str | None = _setting("", parsers.optional(parsers.token), "token required of clients", secret=True)
    admin_token: str | None = _setting(
        "", parsers.optional(parsers.token), "accepted everywhere, and alone for managing models", secret=True
    )
    tokens_file: Path | None = _setting(
        "", parsers.optional(parsers.tokens_file), "file of named tokens (foreman token new)"
    )
    allow_open: bool = _setting("0", parsers.flag, "1: listen beyond this machine although no token is required")
    allowed_hosts: tuple[str, ...] = _setting(
        "", parsers.host_names, "names for the Host header, beside Ollama's own list"
    )
    origins: tuple[str, ...] = _setting("", parsers.origins, "origins of web pages, beside Ollama's own list")
    poll_interval: float = _setting("30s", parsers.some_seconds, "how often the target is asked for its models")
    embedder_model: str | None = _setting("", parsers.optional(parsers.model), "model kept loaded for embeddings")
    turns: int = _setting("1", parsers.count, "chats at once at the target")
    embed_cap: int = _setting("8", parsers.count, "embeddings at once at the target")
    max_queue: int = _setting("512", parsers.count, "chats that may wait; beyond: 503")
    wait_notice: float = _setting("5s", parsers.seconds, "a stream that waits longer is told that it waits; 0: never")
    wait_notice_unary: float = _setting("240s", parsers.seconds, "the same for an answer in one piece; 0: never")
    wait_filler: str = _setting("space", parsers.space_or_object, "what is sent meanwhile on NDJSON: space, or object")
    target_wait: float = _setting("0", parsers.seconds, "how long a chat is held while the target is away")
    connect_timeout: float = _setting("5s", parsers.some_seconds, "for a connection to the target")
    silence_timeout: float = _setting("10m", parsers.some_seconds, "the target says nothing between two lines")
    stall_timeout: float = _setting("60s", parsers.some_seconds, "a reader takes nothing while its buffer is full")
    buffer: int = _setting("8MiB", parsers.size, "one answer held for a slow reader")
    buffer_total: int = _setting("512MiB", parsers.size, "all answers held for slow readers")
    max_body: int = _setting("256MiB", parsers.size, "one request body, blobs excepted; beyond: 413")
    body_budget: int = _setting("2GiB", parsers.size, "all request bodies that wait; beyond: 503")
    head_timeout: float = _setting("30s", parsers.some_seconds, "for the head of a request; beyond: 408")
    body_timeout: float = _setting(
        "60s", parsers.some_seconds, "silence, or less than 1 kB/s, within a body; beyond: 408"
    )
    idle_timeout: float = _setting("75s", parsers.some_seconds, "between two requests of a connection")
    max_connections: int = _setting("10000", parsers.count, "connections at once; beyond: 503")
    drain_timeout: float = _setting("30s", parsers.seconds, "how long running answers may take at shutdown")
    db_path: Path | None = _setting(
        "",
        parsers.optional(parsers.path),
        "the SQLite file of the jobs; default: foreman/foreman.db in the XDG state folder",
    )
    max_jobs: int = _setting("100000", parsers.count, "jobs that may wait; beyond: 429")
    max_payload: int = _setting("32MiB", parsers.size, "the request of one job; beyond: 413")
    max_artifact: int = _setting("64MiB", parsers.size, "one artifact of a job, its answer among them")
    job_patience: float = _setting(
        "30m", parsers.seconds, "people pass a job that has waited for less; then it gets every fourth turn"
    )
    job_silence: float = _setting(
        "1h", parsers.some_seconds, "a job whose answer has not begun after so long is broken off, and tried again"
    )
    keep_succeeded: float = _setting("7d", parsers.seconds, "how long jobs are kept that succeeded; 0: for good")
    keep_cancelled: float = _setting("3d", parsers.seconds, "the same for those that were cancelled")
    keep_failed: float = _setting("30d", parsers.seconds, "the same for those that failed or were discarded")
    disk_reserve: int = _setting("256MiB", parsers.size, "free room on the disk below which no jobs are taken: 507")
    log_format: str = _setting("text", parsers.text_or_json, "form of the log: text, or json")
    log_level: str = _setting("info", parsers.info_or_debug, "info, or debug, which logs probes of /healthz too")


def _row(attribute: Attribute[object]) -> Setting:
    name, default, parse, help_, secret = attribute.metadata["setting"]
    return Setting(name or attribute.name, attribute.name, default, parse, help_, secret)


#: Every setting, in the order in which people are shown them.
SETTINGS: tuple[Setting, ...] = tuple(_row(attribute) for attribute in fields(Config))


def load(environ: Mapping[str, str], options: Mapping[str, str | None] | None = None) -> Config:
    """Read the settings; an option wins over its variable. What is empty or None counts as not given, and one pair of
    quotation marks around a value does not count, wherever it comes from.

    :param environ: the environment, most often ``os.environ``.
    :param options: what was given on the command line, by option name, with dashes or underscores.
    :raises ConfigError: with every problem at once, each beginning with the variable's name.
    """
    given = {name.replace("-", "_"): text for name, text in (options or {}).items() if text}
    values: dict[str, object] = {}
    problems: list[str] = []
    for setting in SETTINGS:
        said, text = f"{setting.variable} (--{setting.option})", given.get(setting.name, "")
        try:
            value = parsers.unquoted(text)
            if not value:
                said, text = setting.variable, environ.get(setting.variable, "")
                value = _from_environment(setting, environ)
            values[setting.attribute] = setting.parse(value or setting.default)
        except ValueError as problem:
            shown = setting.shown(text)
            quoted = "" if shown in {MASK, ""} else f"{shortened(repr(shown), _LONGEST_SHOWN)} "
            problems.append(f"{said}: {quoted}{shortened(str(problem), _LONGEST_PROBLEM)}")
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
    """Where foreman keeps what must last: what systemd gives it, or its place in the XDG state folder.

    :raises ValueError: with a phrase, if there is no such place.
    """
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: what is not absolute is to be ignored.
    return (Path(base) if base.startswith("/") else _home(environ) / ".local" / "state") / "foreman"


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ.get("HOME") or "~").expanduser()
    except RuntimeError:  # a container's user, most often
        raise ValueError("there is no default: HOME is not set, and this user has no home directory") from None


def _from_environment(setting: Setting, environ: Mapping[str, str]) -> str:
    """What the variable says; for a secret also what stands in the file that its ``_FILE`` variable names."""
    text = parsers.unquoted(environ.get(setting.variable, ""))
    file = parsers.unquoted(environ.get(f"{setting.variable}_FILE", "")) if setting.secret else ""
    if not file:
        return text
    if text:
        raise ValueError(f"is given twice, by {setting.variable}_FILE too")
    try:
        path = parsers.path(file)
    except ValueError as problem:
        raise ValueError(f"cannot be taken from {file!r}, which {problem}") from None
    if (why := written_by_anybody(path)) is not None:
        raise ValueError(f"cannot be taken from {file!r}: {why}")
    try:
        text = parsers.unquoted(parsers.read_text(path))
    except ValueError as problem:
        raise ValueError(f"in the file {file!r}: {problem}") from None
    if not text:
        raise ValueError(f"in the file {file!r}: the file is empty")
    return text


def _contradictions(config: Config, broken: Collection[str]) -> Iterator[str]:
    """What is wrong between settings that are each well written; those that are ``broken`` are not judged twice."""

    def sound(*attributes: str) -> bool:
        return not set(attributes) & set(broken)

    if sound("listen", "auth_token", "admin_token", "tokens_file", "allow_open"):
        closed = config.auth_token or config.admin_token or config.tokens_file
        if not (closed or config.allow_open or is_private(config.listen)):
            can = "can be reached from other machines"
            if not is_known(config.listen):
                can = (
                    "is neither host:port nor an endpoint of Twisted's own, so that it could be reached from anywhere,"
                )
            yield (
                f"FOREMAN_LISTEN: {config.listen!r} {can} and no token is required; "
                "set FOREMAN_AUTH_TOKEN, or FOREMAN_ALLOW_OPEN=1 if everybody may use it"
            )
    if sound("listen", "target") and leads_back(config.listen, config.target):
        yield (
            f"FOREMAN_TARGET_URL: {config.target.url} is where foreman itself listens (FOREMAN_LISTEN), so that every "
            "request would come back to it; give the address of Ollama, and another port to one of the two"
        )
    if sound("listen", "auth_token", "admin_token") and not is_private(config.listen):
        for variable in _short_tokens(config):
            yield (
                f"{variable}: has fewer than {SHORTEST_TOKEN} characters, so that others could guess it; "
                f"{config.listen!r} can be reached from other machines"
            )
    if sound("auth_token", "admin_token") and config.auth_token and config.auth_token == config.admin_token:
        yield "FOREMAN_ADMIN_TOKEN: is the same as FOREMAN_AUTH_TOKEN, so that everybody could manage models"
    if sound("buffer", "buffer_total") and config.buffer > config.buffer_total:
        yield "FOREMAN_BUFFER_TOTAL: is smaller than FOREMAN_BUFFER"
    if sound("max_body", "body_budget") and config.max_body > config.body_budget:
        yield "FOREMAN_BODY_BUDGET: is smaller than FOREMAN_MAX_BODY"


def warnings(config: Config) -> Iterator[str]:
    """What can be used but should not be, in the same form as a problem."""
    for variable in _short_tokens(config):
        yield f"{variable}: has fewer than {SHORTEST_TOKEN} characters, so that others could guess it"


def _short_tokens(config: Config) -> Iterator[str]:
    for variable, token in (("FOREMAN_AUTH_TOKEN", config.auth_token), ("FOREMAN_ADMIN_TOKEN", config.admin_token)):
        if token is not None and len(token) < SHORTEST_TOKEN:
            yield variable


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables that look like settings and are none: most often a slip of the pen that would go unnoticed."""
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
        # Without what all names share, which would make every name look like every other.
        words = {name.removeprefix(_PREFIX): name for name in sorted(known)}
        meant = difflib.get_close_matches(variable.removeprefix(_PREFIX), words, n=1)
        yield f"{variable}: is not a setting of foreman" + (f"; did you mean {words[meant[0]]}?" if meant else "")
