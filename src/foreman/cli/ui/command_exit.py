"""Run a command and end the process: an exit status, and for every error one sentence on standard error."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click
from click.exceptions import Abort, ClickException, NoArgsIsHelpError, UsageError

from foreman.cli.ui.exit_status import FAILED, SUCCESS
from foreman.cli.ui.standard_streams import MAX_MESSAGE, OutputLost, abandon_output, echo_stderr
from foreman.errors import one_line

#: The statuses that a shell reports for a process ended by a signal: 128 plus its number.
INTERRUPTED, BROKEN_PIPE = 128 + signal.SIGINT, 128 + signal.SIGPIPE


def run_and_exit(work: Callable[[], object]) -> NoReturn:
    """Run ``work``, a click command outside standalone mode, and exit the process with its status."""
    try:
        status = _status(work)
        _flush()
    except OutputLost as problem:
        status = _output_lost(problem)
    except BaseException:
        # The process is ending already, mostly by SystemExit: output that cannot be written does not change the status.
        try:
            _flush()
        except OutputLost:
            abandon_output()
        raise
    sys.exit(status)


def _status(work: Callable[[], object]) -> int:
    try:
        status = work()
    except ClickException as problem:
        return _click_error(problem)
    except Abort as problem:
        if isinstance(problem.__cause__, KeyboardInterrupt):  # click has ended the line of the ^C
            return INTERRUPTED
        return _print_error("stopped: the question was not answered")
    except KeyboardInterrupt:
        return INTERRUPTED
    except (OutputLost, SystemExit):
        raise
    except OSError as problem:
        return _print_error(_os_error_message(problem))
    except Exception as problem:  # noqa: BLE001 - a person always gets a sentence
        return _print_error(_defect_message(problem))
    # Outside of its standalone mode click returns the status of ctx.exit().
    return status if isinstance(status, int) else SUCCESS


def _click_error(problem: ClickException) -> int:
    """Print the error of click or of a command; return the exit status."""
    if isinstance(problem, NoArgsIsHelpError):  # its message is the help text
        problem.show()
        return problem.exit_code
    if isinstance(problem, UsageError) and problem.ctx is not None:
        click.echo(f"{problem.ctx.get_usage()}\nTry '{problem.ctx.command_path} --help' for help.\n", err=True)
    _print_error(problem.format_message())
    return problem.exit_code


def _output_lost(problem: OutputLost) -> int:
    abandon_output()
    if problem.errno == errno.EPIPE:  # not a failure: foreman jobs | head
        return BROKEN_PIPE
    if problem.errno == errno.EBADF:
        return _print_error("standard output is closed: nothing can be printed")
    return _print_error(f"standard output cannot be written: {problem.reason}")


def _os_error_message(problem: OSError) -> str:
    reason = problem.strerror or str(problem) or type(problem).__name__
    return reason if problem.filename is None else f"{os.fsdecode(problem.filename)}: {reason}"


def _defect_message(problem: Exception) -> str:
    """The message about a bug in foreman: what and where, so that a report is useful without a traceback."""
    import traceback

    if sys.flags.dev_mode:
        traceback.print_exc()
    where = traceback.extract_tb(problem.__traceback__)
    ours = [frame for frame in where if f"{os.sep}foreman{os.sep}" in frame.filename] or where
    place = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    return (
        f"unexpected error: {type(problem).__name__}: {problem}{place}; "
        "please report it; PYTHONDEVMODE=1 adds a traceback"
    )


def _print_error(sentence: str) -> int:
    echo_stderr(f"foreman: {one_line(sentence, MAX_MESSAGE)}")
    return FAILED


def _flush() -> None:
    with contextlib.suppress(ValueError):  # a stream that a test has closed
        sys.stdout.flush()
