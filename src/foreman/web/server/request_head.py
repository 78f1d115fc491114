"""What the door finds out about one request from its head."""

from __future__ import annotations

from attrs import define, field

from foreman.auth.tokens import Holder
from foreman.protocol.endpoints import Family, Lane
from foreman.protocol.headers import RawHeaders
from foreman.protocol.routes import Route
from foreman.web.server.responses import Reply
from foreman.web.server.upload import Upload

#: Paths that are answered on standby, where all places for connections are taken: supervisors and probes ask for them.
ALWAYS_ANSWERED = ("/", "/healthz")
TOO_MANY = "too many connections; try again soon (FOREMAN_MAX_CONNECTIONS)"
_UNREAD = Route(Lane.FOREMAN, "ollama", "-")
_NONE: RawHeaders = []  # shared by all that have none: replaced, never added to


@define(eq=False, repr=False, weakref_slot=False)
class RequestHead:
    """A part of every visit, in slots: Twisted's part has nearly all the attributes that an instance may have in its
    dictionary before that takes 1.3 kB more, and thousands may wait.

    :ivar raw_headers: names and values as they were written; :ivar route: lane, family and decoded path;
    :ivar target: raw path and query without a credential in front; :ivar prefix: that credential; :ivar authority: the
        server that its client meant to ask; :ivar caller: who asks;
    :ivar holder: whose token it came in with, None without one; :ivar id: a ULID; :ivar upload: a body that is passed
        on while it comes; :ivar extra_headers: for whatever is answered;
    :ivar refusal: what the door answers instead of letting the request in; :ivar doubtful: where the request ends, or
        what follows it, is in doubt, so that the connection must end with it.
    """

    raw_headers: RawHeaders = field(factory=list, init=False)
    route: Route = field(default=_UNREAD, init=False)
    target: bytes = field(default=b"/", init=False)
    prefix: bytes | None = field(default=None, init=False)
    authority: bytes = field(default=b"", init=False)
    caller: str = field(default="", init=False)
    holder: Holder | None = field(default=None, init=False)
    id: str = field(default="", init=False)
    began_at: float = field(default=0.0, init=False)
    refusal: Reply | None = field(default=None, init=False)
    doubtful: bool = field(default=False, init=False)
    expects_continue: bool = field(default=False, init=False)
    has_length: bool = field(default=False, init=False)
    upload: Upload | None = field(default=None, init=False)
    extra_headers: RawHeaders = field(default=_NONE, init=False)
    _by_name: dict[bytes, list[bytes]] | None = field(default=None, init=False)

    def headers_named(self, name: bytes) -> list[bytes]:
        """The values of every header ``name`` (lower case), in order; asked only once the head is whole."""
        if self._by_name is None:
            self._by_name = {}
            for key, value in self.raw_headers:
                self._by_name.setdefault(key.lower(), []).append(value)
        return self._by_name.get(name, [])

    @property
    def admin(self) -> bool:
        """Whether it came in with the token of an admin."""
        return self.holder is not None and self.holder.admin

    @property
    def family(self) -> Family:
        """Whose errors this request's route speaks."""
        return self.route.family

    @property
    def request_id(self) -> str:
        """24 hex digits for Anthropic's shape of an error."""
        return self.id.encode("ascii").hex()[-24:]
