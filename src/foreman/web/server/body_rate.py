"""How fast the body of a request arrives, and whether that is too slow."""

from __future__ import annotations

from math import inf

from attrs import define, field

from foreman.web.server.blob_upload import BlobUpload

#: The least average rate of a body, in bytes a second; of a model file anything above 0 is enough.
MIN_RATE = 1000
#: The rate of a body is measured over at least this long, in seconds.
GRACE = 1.0


@define(eq=False)
class BodyRate:
    """The rate at which the body of one request arrives.

    :ivar started_at: in seconds of the reactor's clock; :ivar upload: the upload of a body that goes on to the target while
        it arrives, else None.
    """

    started_at: float
    upload: BlobUpload | None
    _bytes: int = field(default=0, init=False)
    _recent: int = field(default=0, init=False)
    _paused_for: float = field(default=0.0, init=False)
    _measured_at: float = field(init=False)
    _bytes_measured: int = field(default=0, init=False)
    _rate: float = field(default=inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._measured_at = self.started_at

    def add(self, count: int) -> None:
        """``count`` bytes have arrived."""
        self._bytes += count
        self._recent += count

    def rate(self, now: float) -> float:
        """Bytes a second since the last measurement, if that is at least ``GRACE`` ago; else the result of that.

        Infinite where the client is not to blame: at the beginning, and while the target is slow. It is not an average since
        the beginning, so that a body that began fast and then stops is found to be slow.
        """
        if self.upload is not None and self.upload.paused:
            return inf
        if now - self._measured_at >= GRACE:
            self._rate = (self._bytes - self._bytes_measured) / (now - self._measured_at)
            self._measured_at, self._bytes_measured = now, self._bytes
        return self._rate

    def problem(self, limit: float, silence: float) -> tuple[int, str] | None:
        """Whether too little arrived in the last ``limit`` seconds; to be called once after each of these periods.

        :param silence: how long the target may read nothing, in seconds.
        :return: the status and the text to refuse the request with; None: the body arrives fast enough.
        """
        recent, self._recent = self._recent, 0
        was_paused = self.upload is not None and self.upload.was_paused()
        self._paused_for = self._paused_for + limit if was_paused and not recent else 0.0
        minimum = 1 if self.upload is not None else MIN_RATE * limit
        if self._paused_for >= silence:
            return 502, f"the target read nothing of this body for {self._paused_for:g} s"
        if recent >= minimum or was_paused:
            return None
        return 408, f"the body arrived too slowly: less than {minimum:g} bytes in {limit:g} s"
