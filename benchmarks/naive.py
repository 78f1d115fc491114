"""A proxy as one would write it on the first evening with Klein and treq: a subject of every run.

It forwards everything, lets chats through one at a time, and streams. It is deliberately untuned.
"""

from __future__ import annotations

import sys

import treq
from klein import Klein
from twisted.internet.defer import DeferredLock
from twisted.web.iweb import IRequest

GATED = {"api/chat", "api/generate"}


class Naive:
    """Forwards to ``target`` (a URL without a slash at its end)."""

    app = Klein()

    def __init__(self, target: str) -> None:
        self._target = target
        self._lock = DeferredLock()

    @app.route("/<path:path>", methods=["GET", "HEAD", "POST", "DELETE"])
    async def forward(self, request: IRequest, path: str) -> None:
        """Forward one request; chats wait for each other."""
        if path not in GATED:
            return await self._pass_on(request)
        await self._lock.acquire()
        try:
            return await self._pass_on(request)
        finally:
            self._lock.release()

    async def _pass_on(self, request: IRequest) -> None:
        headers = request.requestHeaders.copy()
        headers.removeHeader(b"host")
        response = await treq.request(
            request.method.decode(),
            self._target + request.uri.decode(),
            headers=headers,
            data=request.content.read(),
            unbuffered=True,
        )
        request.setResponseCode(response.code)
        for value in response.headers.getRawHeaders(b"content-type", []):
            request.setHeader(b"content-type", value)
        await treq.collect(response, request.write)


if __name__ == "__main__":
    port, url = sys.argv[1:]
    Naive(url).app.run("127.0.0.1", int(port))
