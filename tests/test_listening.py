"""The port that foreman listens on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as installed_reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from foreman.errors import ConfigError
from foreman.service import Foreman
from foreman.system.listening import listen_error, port_for, require_loopback
from support.live_foreman import settings

reactor: Any = installed_reactor


class Opened:
    """A port that is bound to ``address``."""

    def __init__(self, address: Any) -> None:
        self._address = address
        self.stopped = False

    def getHost(self) -> Any:
        return self._address

    def stopListening(self) -> None:
        self.stopped = True


class Service:
    """A service whose endpoint has given ``opened``."""

    def __init__(self, opened: Any) -> None:
        self._waitingForPort = succeed(opened)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "::ffff:0.0.0.0", "fe80::1%eth0"])
def test_a_port_that_others_can_reach_is_closed_whatever_its_description_says(host: str) -> None:
    kind: Any = IPv6Address if ":" in host else IPv4Address
    opened = Opened(kind("TCP", host, 8080))
    with pytest.raises(ConfigError, match=f"is bound to {host}"):
        require_loopback(Service(opened), "tcp:8080:interface=localhost")  # type: ignore[arg-type]
    assert opened.stopped


@pytest.mark.parametrize(
    "address",
    [
        IPv4Address("TCP", "127.0.0.1", 1),
        IPv4Address("TCP", "127.9.9.9", 1),
        IPv6Address("TCP", "::1", 1),
        IPv6Address("TCP", "::ffff:127.0.0.1", 1),
        UNIXAddress("/run/foreman.sock"),
    ],
)
def test_a_port_of_this_machine_stays_open(address: Any) -> None:
    opened = Opened(address)
    require_loopback(Service(opened), "x")  # type: ignore[arg-type]
    require_loopback(Service(object()), "stdio:")  # type: ignore[arg-type]
    assert not opened.stopped


def test_foreman_itself_looks_at_what_was_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreman.config.settings.is_private", lambda _: True)  # as if the description deceived it
    for more in ({}, {"auth_token": "correct-horse-battery"}, {"allow_open": "1"}):
        foreman = Foreman(settings(1, listen="tcp:0", **more), reactor, reactor.seconds, lambda: None, lambda: 0.0)  # type: ignore[arg-type, return-value]
        if more:
            foreman.privilegedStartService()
            opened: Any = foreman._port._waitingForPort
            opened.result.stopListening()
        else:
            with pytest.raises(ConfigError, match="no token is set"):
                foreman.privilegedStartService()


@pytest.mark.parametrize(
    "listen",
    ["onion:80:x=1", "ssl:0:privateKey=no-such-file.pem", "tcp:0:backlog=x", "unix:x:lockfile=x", "tls:nowhere:x"],
)
def test_what_cannot_be_listened_on_is_one_sentence(listen: str) -> None:
    with pytest.raises(ConfigError) as caught:
        port_for(listen, Factory(), reactor)
    (problem,) = caught.value.problems
    assert problem.startswith(f"FOREMAN_LISTEN: {listen!r} cannot be used: ")
    assert "\n" not in problem


def refused(number: int) -> CannotListenError:
    return CannotListenError("127.0.0.1", 8080, OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    ("listen", "problem", "sentence"),
    [
        (
            "tcp:8080:interface=127.0.0.1",
            refused(errno.EADDRINUSE),
            "127.0.0.1:8080: Address already in use; another program listens there; FOREMAN_LISTEN=127.0.0.1:9090",
        ),
        ("tcp:80", refused(errno.EACCES), "127.0.0.1:80: Permission denied; ports below 1024"),
        ("tcp:80:interface=192.0.2.7", refused(errno.EADDRNOTAVAIL), "this machine has no such address"),
        (
            "unix:/nowhere/foreman.sock",
            FileNotFoundError(2, "No such file or directory", "1234", None, "/nowhere/foreman.sock.lock"),
            "unix:/nowhere/foreman.sock: the directory of the socket does not exist; create it",
        ),
        (
            "unix:/run/foreman.sock",
            CannotListenError(None, "/run/foreman.sock", "Cannot acquire lock"),
            "unix:/run/foreman.sock: the socket is in use; another program listens there",
        ),
        (
            "nonsense:1",
            ValueError("Unknown endpoint type: 'nonsense'"),
            "nonsense:1: Unknown endpoint type: 'nonsense';",
        ),
    ],
)
def test_a_port_that_cannot_be_opened_is_told_with_what_to_do(listen: str, problem: Exception, sentence: str) -> None:
    said = listen_error(listen, problem)
    assert sentence in said
    assert "FOREMAN_LISTEN" in said
    assert "Errno" not in said


@pytest.mark.parametrize("listen", ["tcp:0:127.0.0.1:50", "unix:{}:660:50", "haproxy:tcp:0:127.0.0.1:50"])
def test_a_backlog_may_stand_without_its_name(tmp_path: Path, listen: str) -> None:
    port = port_for(listen.format(tmp_path / "socket"), Factory(), reactor)
    port.privilegedStartService()
    opened: Any = port._waitingForPort
    opened.result.stopListening()
