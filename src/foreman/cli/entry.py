"""Where the ``foreman`` program begins: it imports nothing before ctrl-C ends it without a traceback."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command that was typed; ends with SystemExit."""
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from foreman.cli.main import main as run

    # From here on ctrl-C is an exception again, so that files that were begun are removed. A process that was started
    # with SIGINT ignored (a shell's "command &") goes on ignoring it.
    signal.signal(signal.SIGINT, interrupt)
    run()
