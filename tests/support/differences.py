"""Where foreman responds differently from its target on purpose (docs/differences.md)."""

from __future__ import annotations

from support import recordings

#: What foreman adds to answers of the target on purpose (docs/differences.md).
ADDED_HEADERS = {"server-timing", "x-accel-buffering", "cache-control", "access-control-expose-headers"}


UNMARKED = "a stream without its end marker ends with an error line or event"


#: Exchanges where foreman answers something else on purpose (docs/differences.md): the status that it gives. Of all
#: versions, where none stands in front.
DIFFERENT_ANSWERS = {
    "host-foreign": (403, "the answer says which setting allows the name"),
    "host-foreign-post": (403, "the answer says which setting allows the name"),
    "host-public-ip": (403, "the answer says which setting allows the name"),
    "host-missing": (400, "the refusal is JSON"),
    "slash-forwarded-prefix": (301, "X-Forwarded-Prefix of strangers is not believed"),
    "wire-bad-version": (400, "the refusal is JSON"),
    "wire-big-header": (431, "a head may have 64 KiB, not 1 MiB, and the refusal is JSON"),
    "wire-connect-path": (404, "nobody gets a tunnel, and the refusal is JSON"),
    "options-no-origin-foreign-host": (403, "the answer says which setting allows the name"),
    "chat-think-number-missing-model": (404, "that the model is missing is said first"),
    "v1-chat-reasoning-effort-bogus-missing-model": (404, "that the model is missing is said first"),
    # All but what is refused by its Origin, in the same way.
    **dict.fromkeys(
        (name for name in recordings.names() if name.startswith("codex-") and name != "codex-foreign-origin"),
        (403, "nobody may go there through foreman"),
    ),
    "wire-length-and-chunked": (400, "ambiguous framing is refused (RFC 9112 section 6.3)"),
    "wire-two-content-lengths": (400, "the refusal is JSON"),
    "stop-midstream-chat": (200, "a torn NDJSON stream ends with an error line"),
    "disconnect-midstream": (200, "the recording ends where the client left, so the target seems to have died"),
    "v0.33.0-rc2/chat-stream-repetition": (200, UNMARKED),
    "v0.33.0-rc2/generate-stream-repetition": (200, UNMARKED),
    "v1-chat-stream-repetition-long": (200, UNMARKED),
    "v1-completions-stream-repetition-long": (200, UNMARKED),
    "v1-responses-stream-repetition-long": (200, UNMARKED),
    "messages-stream-repetition-long": (200, UNMARKED),
    "crash-midstream-v1-chat": (200, UNMARKED),
    "crash-midstream-v1-completions": (200, UNMARKED),
    "crash-midstream-v1-responses": (200, UNMARKED),
    "crash-midstream-messages": (200, UNMARKED),
}
