"""The head of a request as it arrived, and what admission decided about it: values without a connection."""

from __future__ import annotations

from urllib.parse import quote

from attrs import field, frozen

from foreman.auth.tokens import Holder
from foreman.protocol.endpoints import Lane
from foreman.protocol.headers import RawHeaders
from foreman.protocol.routes import Route
from foreman.web.server.responses import Reply

_NONE: RawHeaders = []  # shared by all that have none: never added to


@frozen
class RequestHead:
    """The head of one request.

    :ivar version: as in the request line, ``HTTP/1.1``; :ivar headers: names and values as they were written;
    :ivar client_address: empty for a client on a Unix socket; :ivar own_address: the address that the client connected to;
    :ivar received_at: when the head was whole, in seconds of the reactor's clock;
    :ivar by_name: the values of the headers by their names in lower case, in order.
    """

    method: bytes
    uri: bytes
    version: bytes
    headers: RawHeaders
    client_address: str = ""
    own_address: str = ""
    received_at: float = 0.0
    by_name: dict[bytes, list[bytes]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "by_name", index_headers(self.headers))

    def headers_named(self, name: bytes) -> list[bytes]:
        """The values of every header ``name`` (lower case), in order."""
        return self.by_name.get(name, [])


@frozen(eq=False, weakref_slot=False)
class RequestContext:
    """The id, route and caller of a request. Small, since thousands of requests may wait.

    :ivar id: a ULID; :ivar route: lane, family and decoded path; :ivar target: raw path and query without a credential in
        front; :ivar caller: the name of the token, without one the client's address; :ivar holder: whose token the request
        came with, None without one; :ivar prefix: the credential in front of the path.
    """

    id: str
    route: Route
    target: bytes
    caller: str
    holder: Holder | None = None
    prefix: bytes | None = None

    @property
    def request_id(self) -> str:
        """24 hex digits for Anthropic's error format."""
        return self.id.encode("ascii").hex()[-24:]

    def own_path(self, path: str) -> str:
        """A path of foreman's own as this client has to request it: with the credential in front, if it has one there."""
        return path if self.prefix is None else f"/k/{quote(self.prefix, safe='')}{path}"


#: Of a request whose head has not been read.
UNREAD = RequestContext("", Route(Lane.FOREMAN, "ollama", "-"), b"/", "")


@frozen(eq=False)
class Admitted:
    """The request is admitted.

    :ivar headers: those of the request, without copies of its token; :ivar response_headers: added to whatever is answered;
    :ivar expects_continue: the client waits for ``100 Continue`` before it sends the body.
    """

    context: RequestContext
    headers: RawHeaders
    response_headers: RawHeaders = _NONE
    expects_continue: bool = False


@frozen(eq=False)
class Refused:
    """The request is answered with ``reply`` instead.

    :ivar response_headers: added to the answer; :ivar must_close: it is uncertain where the request ends or what
        follows it, so that the connection must be closed after the answer.
    """

    context: RequestContext
    reply: Reply
    response_headers: RawHeaders = _NONE
    must_close: bool = False


Decision = Admitted | Refused


def index_headers(headers: RawHeaders) -> dict[bytes, list[bytes]]:
    """The values of ``headers`` by their names in lower case."""
    by_name: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        by_name.setdefault(name.lower(), []).append(value)
    return by_name
