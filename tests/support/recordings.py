"""The recorded exchanges of a real Ollama, and a target that replays them byte by byte."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory, Protocol

FOLDER = Path(__file__).parents[1] / "golden"
#: The recorded versions, the newest first.
VERSIONS = ("v0.34.4", "v0.33.0-rc2", "v0.24.0")
NEWEST = VERSIONS[0]


def load(name: str) -> dict[str, Any]:
    """One recording, by its name, of the newest version, or by ``version/name``."""
    version, slash, rest = name.partition("/")
    path = Path(version, rest) if slash else Path(NEWEST, name)
    recording: dict[str, Any] = json.loads((FOLDER / f"{path}.json").read_text(encoding="utf-8"))
    return recording


def names(version: str = NEWEST) -> list[str]:
    """The recordings in the folder of a version; an empty folder is an error, since nothing would be tested."""
    found = sorted(path.stem for path in (FOLDER / version).glob("*.json"))
    assert found, f"no recordings in {FOLDER / version}"
    return found


def everything() -> list[str]:
    """All recordings of all versions, as ``version/name``; what did not change between versions is included once."""
    return [f"{version}/{name}" for version in VERSIONS for name in names(version)]


def unchanged(version: str) -> list[str]:
    """The exchanges of a version that are the same in the next newer one."""
    return (FOLDER / version / "same.txt").read_text(encoding="utf-8").split()


def as_bytes(text: str | dict[str, str]) -> bytes:
    """A recorded body."""
    return base64.b64decode(text["base64"]) if isinstance(text, dict) else text.encode("utf-8")


def request_bytes(recording: dict[str, Any]) -> bytes:
    """The recorded request as it went over the wire."""
    said = recording["request"]
    lines = [f"{said['method']} {said['path']} {said['version']}"]
    lines += [f"{name}: {value}" for name, value in said["headers"]]
    body = as_bytes(said["body"])
    if said.get("framing") == "chunked":
        half = len(body) // 2
        pieces = [piece for piece in (body[:half], body[half:]) if piece]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def response_bytes(recording: dict[str, Any], *, with_cors: bool = False) -> bytes:
    """The recorded response as it came over the wire, as far as it came.

    ``with_cors``: with the headers that Ollama adds for an Origin, which foreman does not forward.
    """
    heard = recording["response"]
    if heard["status"] is None:
        return b""
    lines = [heard["status_line"], *(f"{name}: {value}" for name, value in heard["headers"])]
    if not with_cors:
        lines = [line for line in lines if not line.startswith(("Access-Control-", "Vary: Origin"))]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    if heard["framing"] != "chunked":
        return head + as_bytes(heard["body"])
    chunks = [as_bytes(text) for _, text in heard["chunks"]]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + body + (b"" if heard.get("torn") or heard.get("aborted_by_client") else b"0\r\n\r\n")


def _listed() -> bytes:
    names_ = ("golden/Case:Q4", "golden-slow:latest")
    models = [
        model for name in ("tags-get", "names-tags") for model in json.loads(load(name)["response"]["body"])["models"]
    ]
    body = json.dumps({"models": [*models, *({"name": name, "model": name} for name in names_)]}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


_LISTED = _listed()


class ReplayTarget(Factory):
    """Responds to the lists with ``tags-get`` and ``ps-loaded``, and to everything else with one recording.

    :ivar seen: heads and bodies of the other requests, in order.
    """

    noisy = False

    def __init__(self) -> None:
        self.recording: dict[str, Any] = {}
        self.seen: list[tuple[bytes, bytes]] = []

    def buildProtocol(self, addr: object) -> Protocol:
        return _Replaying(self)

    def answer_to(self, head: bytes) -> tuple[bytes, bool]:
        """What to send, and whether the connection ends after it."""
        method, path = head.split(b" ", 2)[:2]
        inventory = {
            b"/api/tags": "tags-get",
            b"/api/ps": "ps-loaded",
        }  # of the newest, which has all models of the others
        asked = self.recording.get("request", {})
        ours = asked.get("path", "").encode() == path and asked.get("method", "").encode() == method
        if path in inventory and method == b"GET" and not ours:
            # Some recordings are of models that were made for them.
            made = self.recording.get("name", "").startswith(("names-", "crash-"))
            return (_LISTED if made and path == b"/api/tags" else response_bytes(load(inventory[path]))), False
        heard = self.recording["response"]
        ends = heard["framing"] in ("close", "closed-without-response") or bool(
            heard.get("torn") or heard.get("aborted_by_client")
        )
        return response_bytes(self.recording), ends


class _Replaying(Protocol):
    def __init__(self, target: ReplayTarget) -> None:
        self._target = target
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(body) < length:
            return
        self._received = b""
        answer, ends = self._target.answer_to(head)
        if not head.startswith((b"GET /api/tags ", b"GET /api/ps ")):
            self._target.seen.append((head, body))
        assert self.transport is not None
        self.transport.write(answer)
        if ends:
            self.transport.loseConnection()
