"""The entry point of the ``foreman`` program: it makes ctrl-C end the process quietly while the rest is imported."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command of ``sys.argv``; raises SystemExit."""
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from foreman.cli.main import main as run

    # From here on ctrl-C raises KeyboardInterrupt again, so that temporary files are removed. A process that was
    # started with SIGINT ignored (a shell's "command &") keeps ignoring it.
    signal.signal(signal.SIGINT, interrupt)
    run()
