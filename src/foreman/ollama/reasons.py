"""Why the target gave no answer: what Twisted reports, in one word and a sentence."""

from __future__ import annotations

from twisted.internet import error
from twisted.python.failure import Failure

from foreman import errors


def broken_off(reason: Failure) -> errors.ConnectionError:
    """A connection that was made has ended before the head of an answer was whole."""
    if reason.check(error.ConnectionDone):
        return errors.ConnectionError("reset", "the target closed the connection without an answer")
    if _is_tls(reason):
        return errors.ConnectionError("tls", f"TLS with the target failed: {reason.getErrorMessage()}")
    return errors.ConnectionError("reset", "the target broke the connection without an answer")


def unreachable(reason: Failure) -> errors.ConnectionError:
    """No connection could be made."""
    if reason.check(error.ConnectionRefusedError):
        return errors.ConnectionError("refused", "the target refuses connections: is Ollama running there?")
    if reason.check(error.TimeoutError, error.TCPTimedOutError):
        return errors.ConnectionError("timeout", "the target does not accept the connection in time")
    if reason.check(error.DNSLookupError):
        return errors.ConnectionError("dns", f"the target's name cannot be resolved: {reason.getErrorMessage()}")
    if _is_tls(reason):
        return errors.ConnectionError("tls", f"TLS with the target failed: {reason.getErrorMessage()}")
    return errors.ConnectionError("refused", f"the target cannot be reached: {reason.getErrorMessage()}")


def _is_tls(reason: Failure) -> bool:
    return type(reason.value).__module__.startswith(("OpenSSL", "service_identity"))
