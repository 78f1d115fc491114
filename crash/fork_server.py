"""A fork server: it imports everything once, and each daemon is a fork that becomes ``foreman serve``.

It reads commands from stdin, one JSON object a line: ``{"env", "log", "stopped", "unlocked"}`` starts a daemon and prints its
process id, ``{"wait": pid}`` waits for its end and prints its exit status. At the end of its input it kills all daemons.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
from contextlib import suppress
from typing import Any

#: So that no daemon outlives the fork server (prctl(2)).
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Execute commands until the input ends."""
    if len(sys.argv) > 1:
        from crash.mutations import MUTATIONS

        MUTATIONS[sys.argv[1]]()
    _import_all()
    living: set[int] = set()
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            _, status = os.waitpid(command["wait"], 0)
            living.discard(command["wait"])
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if not pid:
            _be_foreman(command)
        living.add(pid)
        print(pid, flush=True)
    for pid in living:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _import_all() -> None:
    import foreman.cli.commands.serve
    import foreman.cli.main
    import foreman.tap
    from foreman.cli.reactor import choose_reactor

    choose_reactor()
    import foreman.service  # noqa: F401 - it needs the reactor


def _be_foreman(command: dict[str, Any]) -> None:
    """Become the daemon; never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, mine in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, mine)
        os.environ.update(command["env"])
        if command["stopped"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        if command["unlocked"]:
            from foreman.store.sqlite import locking

            vars(locking)["_OPEN_FILE_LOCK"] = None
        _renew_reactor()
        random.seed()
        sys.argv = ["foreman", "serve"]
        from foreman.cli.commands import serve
        from foreman.cli.main import main as be_foreman

        vars(serve)["choose_reactor"] = lambda: None  # it was installed before the fork
        be_foreman()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(status)


def _renew_reactor() -> None:
    """Initialise the reactor again: its descriptors are shared by all forks, and only imports have used it so far."""
    from twisted.internet import reactor

    old: Any = reactor
    old.waker = None
    type(old).__init__(old)


if __name__ == "__main__":
    main()
