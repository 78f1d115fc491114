"""What the supervisor is told, and that nothing goes wrong where there is none."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from foreman.system import sd_notify


@pytest.fixture
def supervisor() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        yield listening


Tell = Callable[[Mapping[str, str]], bool]


@pytest.mark.parametrize(("tell", "said"), [(sd_notify.ready, b"READY=1"), (sd_notify.stopping, b"STOPPING=1")])
def test_the_supervisor_is_told_at_its_socket(
    tell: Tell, said: bytes, supervisor: socket.socket, tmp_path: Path
) -> None:
    where = str(tmp_path / "notify")
    supervisor.bind(where)
    assert tell({"NOTIFY_SOCKET": where})
    assert supervisor.recv(100) == said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")
def test_a_socket_without_a_file_is_found_by_its_abstract_name(supervisor: socket.socket) -> None:
    name = f"foreman-test-{uuid4()}"
    supervisor.bind(f"\0{name}")
    assert sd_notify.ready({"NOTIFY_SOCKET": f"@{name}"})
    assert supervisor.recv(100) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_supervisor_that_can_be_reached_nothing_is_opened(environ: dict[str, str]) -> None:
    def no_socket(*_: object) -> Any:
        raise AssertionError("a socket was made")

    assert not sd_notify.ready(environ, no_socket)
    assert not sd_notify.stopping(environ, no_socket)


def test_a_supervisor_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    assert not sd_notify.ready({"NOTIFY_SOCKET": str(tmp_path / "nobody")})


def test_a_supervisor_that_does_not_read_makes_nobody_wait_for_ever(supervisor: socket.socket, tmp_path: Path) -> None:
    where = str(tmp_path / "notify")
    supervisor.bind(where)
    assert not all(sd_notify.ready({"NOTIFY_SOCKET": where}) for _ in range(10_000))
