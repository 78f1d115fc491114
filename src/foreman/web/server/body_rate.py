"""How fast the body of a request arrives."""

from __future__ import annotations

from math import inf

from attrs import define, field

from foreman.web.server.upload import Upload

#: The least that a body must bring on average, bytes a second (blobs: anything at all).
BODY_RATE = 1000
#: A body is not called slow before it has had this long to arrive, in seconds.
TIME_TO_BEGIN = 1.0


@define(eq=False)
class BodyRate:
    """The body of one request on its way.

    :ivar began_at: by the reactor's clock; :ivar upload: where the body goes on while it arrives, else None.
    """

    began_at: float
    upload: Upload | None
    _bytes: int = field(default=0, init=False)
    _lately: int = field(default=0, init=False)
    _held_up: float = field(default=0.0, init=False)
    _asked_at: float = field(init=False)
    _bytes_then: int = field(default=0, init=False)
    _rate: float = field(default=inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._asked_at = self.began_at

    def add(self, count: int) -> None:
        """``count`` bytes have come."""
        self._bytes += count
        self._lately += count

    def rate(self, now: float) -> float:
        """Bytes a second since it was asked before, or at the beginning, if that is some time ago; else what it said then.

        Infinite where its client is not to blame: at the beginning, and while the target is slow. A body that began fast is
        not fast for that.
        """
        if self.upload is not None and self.upload.paused:
            return inf
        if now - self._asked_at >= TIME_TO_BEGIN:
            self._rate = (self._bytes - self._bytes_then) / (now - self._asked_at)
            self._asked_at, self._bytes_then = now, self._bytes
        return self._rate

    def problem(self, limit: float, silence: float) -> tuple[int, str] | None:
        """Judge the last ``limit`` seconds, and begin the next; asked once after each.

        :param silence: how long the target may take nothing, in seconds.
        :return: the status and the text to refuse the request with; None: it comes fast enough.
        """
        lately, self._lately = self._lately, 0
        held_up = self.upload is not None and self.upload.was_held_up()
        self._held_up = self._held_up + limit if held_up and not lately else 0.0
        least = 1 if self.upload is not None else BODY_RATE * limit
        if self._held_up >= silence:
            return 502, f"the target read nothing of this body for {self._held_up:g} s"
        if lately >= least or held_up:
            return None
        return 408, f"the body came too slowly: less than {least:g} bytes in {limit:g} s"
