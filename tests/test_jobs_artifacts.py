"""The artifacts of a job: uploads, and downloads of the whole or a range, at the pace of the reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from foreman.jobs.artifacts import Artifact, ArtifactFile, StoredArtifact
from foreman.store.errors import ArtifactsTooLarge, TooMuchStored
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.statements import user_actions
from foreman.store.sqlite.statements.user_actions import MAX_ARTIFACTS
from foreman.store.sqlite.store import SQLiteJobStore
from foreman.web.jobs import artifacts
from foreman.web.jobs.artifact_reader import LINES_PIECE_BYTES, MAX_READERS_PER_CALLER, PIECE_BYTES
from foreman.web.server.request import ClientRequest
from support import raw_http
from support.jobs_api import ADMIN, BOB, LARGE, LIMITS, JobsApiHarness, jobs_api_harness, problem, until
from support.live_foreman import artifact_bytes, reactor

DATA = bytes(range(256)) * 4


async def kept(bench: JobsApiHarness, name: str = "notes.txt", data: bytes = DATA) -> str:
    """The path of an artifact of a new job."""
    id_ = await bench.submit()
    path = f"/jobs/{id_}/artifacts/{name}"
    assert (await bench.ask("PUT", path, data, ("Content-Type", "text/plain"))).status == 201
    return path


@pytest_twisted.ensureDeferred
async def test_an_artifact_is_kept_replaced_listed_and_downloaded(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        path = f"/jobs/{id_}/artifacts/caf%C3%A9%20%22x%22"
        first = await bench.ask("PUT", path, DATA)
        again = await bench.ask("PUT", path, b"shorter", ("Content-Type", "text/html; charset=utf-8"))
        assert (first.status, again.status, first.header("Location")) == (201, 200, path)
        info = json.loads(again.body)
        assert list(info) == ["name", "type", "bytes", "sha256", "created_at"]
        assert (info["name"], info["bytes"]) == ('café "x"', 7)
        assert json.loads(first.body)["type"] == "application/octet-stream"
        listed = json.loads((await bench.ask("GET", f"/jobs/{id_}/artifacts")).body)
        assert listed == {"artifacts": [info]}
        answer = await bench.ask("GET", path)
        assert (answer.status, answer.body) == (200, b"shorter")
        assert {name: answer.header(name) for name in ("Content-Type", "Content-Length", "X-Content-Type-Options")} == {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": "7",
            "X-Content-Type-Options": "nosniff",
        }
        assert answer.header("Content-Disposition") == "attachment; filename*=UTF-8''caf%C3%A9%20%22x%22"
        assert answer.header("ETag") == f'"{sha256(b"shorter").hexdigest()}"'
        head = await bench.ask("HEAD", path)
        assert (head.status, head.body, head.header("Content-Length")) == (200, b"", "7")


@pytest_twisted.ensureDeferred
async def test_invalid_names_and_data_that_is_too_large_are_refused(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path, limits=evolve(LIMITS, max_artifact=1000)) as bench:
        id_ = await bench.submit()
        for name, status in (
            ("response", 409), ("stream", 409), ("error", 409), ("partial", 409), ("x" * 129, 400), ("%C2%85", 400), ("%20", 400),
            ("%E2%80%A8", 400), ("x%0A", 400), ("x" * 128, 201), ("%C3%A9" * 128, 201), ("100%25", 201), ("a%3Fb", 201),
        ):  # fmt: skip
            answer = await bench.ask("PUT", f"/jobs/{id_}/artifacts/{name}", b"x")
            assert answer.status == status, name
            if status == 201:
                assert (await bench.ask("GET", answer.header("Location") or "")).body == b"x"
            else:
                problem(answer)
        assert (await bench.ask("PUT", f"/jobs/{id_}/artifacts/x", bytes(1001))).status == 413
        assert (await bench.ask("PUT", f"/jobs/{id_}/artifacts/x", bytes(1000))).status == 201
        gzipped = await bench.ask("PUT", f"/jobs/{id_}/artifacts/x", b"x", ("Content-Encoding", "gzip"))
        assert problem(gzipped)["status"] == 415
        assert (await bench.ask("PUT", f"/jobs/{id_}/artifacts/x", b"x", token=BOB)).status == 404


@pytest_twisted.ensureDeferred
async def test_a_part_is_given_where_one_is_asked_for(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        path = await kept(bench)
        for asked, start, stop in (
            ("bytes=0-0", 0, 1), ("bytes=0-1023", 0, 1024), ("bytes=1000-", 1000, 1024), ("bytes=-24", 1000, 1024),
            ("bytes=1000-99999", 1000, 1024), ("bytes=-99999", 0, 1024), ("BYTES = 5-9", 5, 10),
        ):  # fmt: skip
            answer = await bench.ask("GET", path, b"", ("Range", asked))
            assert (answer.status, answer.body) == (206, DATA[start:stop]), asked
            assert answer.header("Content-Range") == f"bytes {start}-{stop - 1}/1024"
            assert answer.header("Content-Length") == str(stop - start)
        for asked in ("bytes=1024-", "bytes=2000-3000", "bytes=-0"):
            answer = await bench.ask("GET", path, b"", ("Range", asked))
            assert (answer.status, answer.header("Content-Range")) == (416, "bytes */1024")
            problem(answer)
        for asked in ("bytes=0-1,5-6", "bytes=9-5", "lines=1-2", "bytes=", "bytes=x-y", "bytes=-"):
            answer = await bench.ask("GET", path, b"", ("Range", asked))
            assert (answer.status, answer.body) == (200, DATA), asked


@pytest_twisted.ensureDeferred
async def test_what_a_client_has_already_is_not_sent_again(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        path = await kept(bench)
        etag = (await bench.ask("GET", path)).header("ETag") or ""
        for known in (etag, f'"x", W/{etag}', "*"):
            answer = await bench.ask("GET", path, b"", ("If-None-Match", known))
            assert (answer.status, answer.body, answer.header("ETag")) == (304, b"", etag)
        assert (await bench.ask("GET", path, b"", ("If-None-Match", '"x"'))).status == 200
        part = ("Range", "bytes=0-9")
        assert (await bench.ask("GET", path, b"", part, ("If-Range", etag))).status == 206
        assert (await bench.ask("GET", path, b"", part, ("If-Range", '"older"'))).status == 200


@pytest_twisted.ensureDeferred
async def test_an_empty_artifact_is_one(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        path = await kept(bench, data=b"")
        answer = await bench.ask("GET", path)
        assert (answer.status, answer.header("Content-Length"), answer.body) == (200, "0", b"")
        assert (await bench.ask("GET", path, b"", ("Range", "bytes=0-"))).status == 416


async def slow_reader(bench: JobsApiHarness, path: str) -> tuple[Any, list[int]]:
    """A client that asks and takes nothing; and how much foreman has written for it so far."""
    client = await raw_http.connect(bench.port)
    client.transport.pauseProducing()  # type: ignore[union-attr]
    written = [0]
    from foreman.web.server.request import ClientRequest

    write = ClientRequest.write

    def counted(self: ClientRequest, data: bytes) -> None:
        written[0] += len(data)
        write(self, data)

    ClientRequest.write = counted  # type: ignore[method-assign]
    client.send(bench.request("GET", path))
    await until(lambda: written[0])
    last = -1
    while last != written[0]:
        last = written[0]
        await deferLater(reactor, 0.05)
    ClientRequest.write = write  # type: ignore[method-assign]
    return client, written


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_gets_everything_and_nothing_is_buffered_for_it(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        path = await kept(bench, data=bytes(LARGE))
        client, written = await slow_reader(bench, path)
        assert written[0] < LARGE
        client.transport.resumeProducing()
        answer = await client.done
        assert (answer.status, len(answer.body), answer.torn) == (200, LARGE, False)
        client.leave()
        await client.gone


@pytest_twisted.ensureDeferred
async def test_a_reader_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path, limits=evolve(LIMITS, stall_timeout=0.2)) as bench:
        path = await kept(bench, data=bytes(LARGE))
        client, _ = await slow_reader(bench, path)
        await deferLater(reactor, 0.4)
        client.transport.resumeProducing()
        answer = await client.done
        assert answer.torn
        await client.gone


@contextmanager
def pieces_read() -> Iterator[list[tuple[int, int]]]:
    """From where to where the store was read."""
    read: list[tuple[int, int]] = []
    piece = SQLiteJobStore.read_artifact

    async def counted(store: SQLiteJobStore, stored: StoredArtifact, start: int, stop: int, caller: str) -> bytes:
        read.append((start, stop))
        return await piece(store, stored, start, stop, caller)

    with patch.object(SQLiteJobStore, "read_artifact", counted):
        yield read


@pytest_twisted.ensureDeferred
async def test_only_what_is_asked_for_is_read_from_the_store(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        path = await kept(bench, data=DATA * 1000)
        for asked, start, stop in (("bytes=700000-700000", 700_000, 700_001), ("bytes=-3", 1_023_997, 1_024_000)):
            with pieces_read() as read:
                answer = await bench.ask("GET", path, b"", ("Range", asked))
            assert answer.body == (DATA * 1000)[start:stop]
            assert read == [(start, stop)]
        etag = answer.header("ETag") or ""
        with pieces_read() as read:
            assert (await bench.ask("HEAD", path)).status == 200
            assert (await bench.ask("GET", path, b"", ("If-None-Match", etag))).status == 304
            assert (await bench.ask("GET", path, b"", ("Range", "bytes=2000000-"))).status == 416
        assert read == []


@pytest_twisted.ensureDeferred
async def test_many_readers_who_take_nothing_hold_a_piece_each(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        path = await kept(bench, data=bytes(LARGE))
        with pieces_read() as read:
            clients = [await raw_http.connect(bench.port) for _ in range(15)]
            for client in clients:
                client.transport.pauseProducing()  # type: ignore[union-attr]
                client.send(bench.request("GET", path))
            seen = -1
            while seen != len(read):
                seen = len(read)
                await deferLater(reactor, 0.1)
        assert all(stop - start <= PIECE_BYTES for start, stop in read)
        # What the sockets hold, and a piece: nothing near to what they asked for.
        assert sum(stop - start for start, stop in read) < 15 * LARGE // 2
        for client in clients:
            client.leave()
            await client.gone


@pytest.mark.parametrize("change", ["deleted", "replaced"])
@pytest_twisted.ensureDeferred
async def test_an_artifact_that_is_gone_while_it_is_read_never_looks_whole(tmp_path: Path, change: str) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        path = await kept(bench, data=bytes(LARGE))
        client, _ = await slow_reader(bench, path)
        id_ = path.split("/")[2]
        if change == "replaced":
            assert (await bench.ask("PUT", path, bytes(LARGE - 1) + b"x")).status == 200
        else:
            await bench.ask("POST", f"/jobs/{id_}/cancel")
            assert (await bench.ask("DELETE", f"/jobs/{id_}")).status == 204
        client.transport.resumeProducing()
        answer = await client.done
        assert (answer.status, answer.torn) == (200, True)
        await client.gone


@pytest_twisted.ensureDeferred
async def test_so_many_artifacts_are_read_at_once_and_one_caller_cannot_take_all_places(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        path = await kept(bench, data=bytes(LARGE))
        clients = [await raw_http.connect(bench.port) for _ in range(MAX_READERS_PER_CALLER)]
        for client in clients:
            client.transport.pauseProducing()  # type: ignore[union-attr]
            client.send(bench.request("GET", path))
        readers = bench.api._reader_limit
        await until(lambda: readers._by_caller.total() == MAX_READERS_PER_CALLER)
        answer = await bench.ask("GET", path)
        assert (problem(answer)["status"], answer.header("Retry-After")) == (503, "5")
        assert (await bench.ask("HEAD", path)).status == 200
        others = await bench.ask("GET", path, b"", ("Range", "bytes=0-0"), token=ADMIN)
        assert (others.status, others.body) == (206, b"\0")
        clients[0].leave()
        await until(lambda: readers._by_caller.total() == MAX_READERS_PER_CALLER - 1)
        assert (await bench.ask("GET", path, b"", ("Range", "bytes=0-0"))).status == 206
        for client in clients[1:]:
            client.leave()
        await until(lambda: not readers._by_caller)


@pytest_twisted.ensureDeferred
async def test_the_lines_of_a_job_that_has_ended_are_read_in_pieces_and_resumed(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        claim, output = await bench.run(id_)
        lines = [b'{"response":"%s","n":%d}\n' % (b"x" * (number % 300), number) for number in range(4000)]
        lines[2000] = b'{"response":"%s"}\n' % (b"y" * 300_000)
        for one in lines:
            output.add(one)
        await bench.succeed(claim, output)
        with pieces_read() as read:
            answer = await bench.ask("GET", f"/jobs/{id_}/stream")
        assert answer.body == b"".join(lines)
        assert len(read) > 10
        assert all(stop - start <= LINES_PIECE_BYTES for start, stop in read)
        rest = await bench.ask("GET", f"/jobs/{id_}/stream?after=1-1990")
        assert rest.body == b"".join(lines[1990:])


@pytest_twisted.ensureDeferred
async def test_a_large_upload_is_stored_from_its_file_in_pieces(tmp_path: Path) -> None:
    class Watched(BytesIO):
        sizes: ClassVar[list[int]] = []

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.sizes.append(len(data))
            return data

    async with jobs_api_harness(tmp_path) as bench:
        data = bytes(range(256)) * 20_000
        path = await kept(bench, data=data)
        answer = await bench.ask("GET", path)
        assert (answer.body == data, answer.header("ETag")) == (True, f'"{sha256(data).hexdigest()}"')
        id_ = path.split("/")[2]
        info, is_new = await bench.store.put_artifact(id_, ArtifactFile("notes.txt", "text/plain", Watched(data[:-5])))
        assert (info.bytes, info.sha256, is_new) == (len(data) - 5, sha256(data[:-5]).hexdigest(), False)
        assert max(Watched.sizes) <= 256 * 1024
        assert await artifact_bytes(bench.store, id_, "notes.txt") == data[:-5]
        empty, _ = await bench.store.put_artifact(id_, ArtifactFile("empty", "text/plain", Watched(b"")))
        assert (empty.bytes, await artifact_bytes(bench.store, id_, "empty")) == (0, b"")


@pytest_twisted.ensureDeferred
async def test_an_upload_whose_file_is_gone_stores_nothing(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        file = BytesIO(b"x" * 1000)
        file.close()
        for _ in range(2):
            try:
                await bench.store.put_artifact(id_, ArtifactFile("notes.txt", "text/plain", file))
            except ValueError:
                assert await bench.store.get_artifact(id_, "notes.txt") is None
            else:
                raise AssertionError("stored")


@pytest_twisted.ensureDeferred
async def test_an_upload_is_stored_whole_although_its_request_closes_its_body(tmp_path: Path) -> None:
    received = artifacts.from_request

    def left(request: ClientRequest, name: str) -> Artifact | ArtifactFile:
        artifact = received(request, name)
        request.content.close()
        return artifact

    async with jobs_api_harness(tmp_path) as bench:
        data = bytes(range(256)) * 8_000
        with patch.object(artifacts, "from_request", left):
            path = await kept(bench, data=data)
        assert (await bench.ask("GET", path)).body == data


class Held(BytesIO):
    """A file of which one read waits until the test lets it go on."""

    def __init__(self, data: bytes, passes: int) -> None:
        super().__init__(data)
        self.passes, self.begun, self.goes_on, self.taken = passes, Event(), Event(), 0

    def seek(self, *position: int) -> int:
        self.passes -= 1
        return super().seek(*position)

    def read(self, size: int | None = -1, /) -> bytes:
        if self.passes == 0:
            self.begun.set()
            self.goes_on.wait(20)
        data = super().read(size)
        self.taken += len(data)
        return data


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("passes", [1, 2])
async def test_the_file_of_a_client_who_leaves_stays_open_while_a_thread_reads_it(tmp_path: Path, passes: int) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        data = b"x" * 300_000
        file = Held(data, passes)
        asked = Deferred.fromCoroutine(bench.store.put_artifact(id_, ArtifactFile("notes.txt", "text/plain", file)))
        asked.addErrback(lambda failure: failure.trap(CancelledError) and None)
        await until(file.begun.is_set)
        asked.cancel()
        await asked
        assert not file.closed
        file.goes_on.set()
        await until(lambda: file.closed)
        assert file.taken == passes * len(data)
        stored = await bench.store.put_artifact(id_, Artifact("other", "text/plain", b""))
        assert stored[1]
        assert (await bench.store.get_artifact(id_, "notes.txt") is None) == (passes == 1)


@pytest_twisted.ensureDeferred
async def test_the_upload_of_a_client_who_left_before_it_was_stored_is_closed_at_once(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        first = Held(b"x" * 1000, 2)
        storing = Deferred.fromCoroutine(bench.store.put_artifact(id_, ArtifactFile("first", "text/plain", first)))
        await until(first.begun.is_set)
        second = ArtifactFile("second", "text/plain", BytesIO(b"y" * 1000))
        asked = Deferred.fromCoroutine(bench.store.put_artifact(id_, second))
        asked.addErrback(lambda failure: failure.trap(CancelledError) and None)
        await until(lambda: second._size_and_digest is not None)
        await deferLater(reactor, 0.01)  # it waits for the writer now
        asked.cancel()
        assert second._file.closed
        first.goes_on.set()
        await storing
        await bench.store.put_artifact(id_, Artifact("other", "text/plain", b""))
        assert await bench.store.get_artifact(id_, "second") is None


@pytest_twisted.ensureDeferred
async def test_an_upload_that_is_refused_is_not_copied_into_the_store(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        data = b"x" * 300_000
        await bench.store.put_artifact(id_, Artifact("notes.txt", "text/plain", data))
        with patch.object(user_actions, "put_artifact", side_effect=AssertionError("copied")):
            for most, room, refusal in (
                (2 * len(data) - 1, 10**12, ArtifactsTooLarge),
                (None, 0, TooMuchStored),
            ):
                with patch.object(Database, "check_free_space", return_value=room):
                    for artifact in (Artifact("more", "text/plain", data), ArtifactFile("more", "", BytesIO(data))):
                        with pytest.raises(refusal):
                            await bench.store.put_artifact(id_, artifact, most)
        # What takes the place of an older one counts only by how much it is larger.
        file = ArtifactFile("notes.txt", "text/plain", BytesIO(data))
        assert not (await bench.store.put_artifact(id_, file, len(data)))[1]
        assert await artifact_bytes(bench.store, id_, "notes.txt") == data


@pytest_twisted.ensureDeferred
async def test_the_artifacts_of_a_job_are_bounded_in_number_and_together(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path, limits=evolve(LIMITS, max_artifact=1000)) as bench:
        id_ = await bench.submit()
        for number in range(MAX_ARTIFACTS):
            assert (await bench.ask("PUT", f"/jobs/{id_}/artifacts/{number}", b"x")).status == 201
        one_more = await bench.ask("PUT", f"/jobs/{id_}/artifacts/more", b"x")
        assert (problem(one_more)["status"], str(MAX_ARTIFACTS) in problem(one_more)["detail"]) == (409, True)
        assert (await bench.ask("PUT", f"/jobs/{id_}/artifacts/3", b"xy")).status == 200
        other = await bench.submit()
        for number in range(10):
            assert (await bench.ask("PUT", f"/jobs/{other}/artifacts/{number}", bytes(1000))).status == 201
        assert problem(await bench.ask("PUT", f"/jobs/{other}/artifacts/more", b"x"))["status"] == 413
        assert (await bench.ask("GET", f"/jobs/{other}/artifacts/more")).status == 404
        assert (await bench.ask("PUT", f"/jobs/{other}/artifacts/9", b"")).status == 200
        assert (await bench.ask("PUT", f"/jobs/{other}/artifacts/more", b"x")).status == 201
