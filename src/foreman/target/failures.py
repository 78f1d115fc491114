"""Why the target gave no answer: Twisted's failures as ``errors.ConnectionError``."""

from __future__ import annotations

from twisted.internet import error
from twisted.python.failure import Failure

from foreman import errors


def broken_off(reason: Failure) -> errors.ConnectionError:
    """An established connection has ended before the head of an answer was complete."""
    if reason.check(error.ConnectionDone):
        return errors.ConnectionError("reset", "the target closed the connection without an answer")
    if _is_tls(reason):
        return errors.ConnectionError("tls", f"TLS with the target failed: {tls_problem(reason.value)}")
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
        return errors.ConnectionError("tls", f"TLS with the target failed: {tls_problem(reason.value)}")
    return errors.ConnectionError("refused", f"the target cannot be reached: {reason.getErrorMessage()}")


def _is_tls(reason: Failure) -> bool:
    return is_tls(reason.value)


def is_tls(problem: BaseException | None) -> bool:
    """Whether it is TLS that failed, and not the connection below it."""
    return type(problem).__module__.startswith(("OpenSSL", "service_identity"))


def tls_problem(problem: BaseException | None) -> str:
    """What OpenSSL, or the check of the name, objects to, and what to do."""
    if type(problem).__module__.startswith("service_identity"):
        return "its certificate is for another name than the one in the address"
    text = str(problem)
    if "certificate verify failed" in text:
        return (
            "its certificate is not trusted here; if it is self-signed, or of an authority of your own, name a file with "
            "that certificate (PEM) in SSL_CERT_FILE"
        )
    if any(words in text for words in ("wrong version number", "record layer", "unknown protocol", "http request")):
        return "the server does not speak TLS; is its address http:// instead of https://?"
    return text
