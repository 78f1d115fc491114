"""Simulated power cuts: what was not synced is lost, wholly or in part, as on a disk."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from attrs import define, field

#: What a disk writes as a whole or not at all, in bytes.
SECTOR = 512
_ENDS = ("", "-wal", "-journal")


@define(eq=False)
class PowerCuts:
    """Power cuts for one database.

    :ivar cuts: how many there were; :ivar undone: how many written bytes they have undone.
    """

    database: Path
    preload: Mapping[str, str]
    cuts: int = field(default=0, init=False)
    undone: int = field(default=0, init=False)

    @classmethod
    def of(cls, database: Path, cc: str) -> PowerCuts:
        """Compile the library that the daemons preload.

        :raises subprocess.CalledProcessError: the compiler failed.
        """
        library = database.parent / "power_cut.so"
        source = Path(__file__).with_name("power_cut.c")
        subprocess.run([cc, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        return cls(database, {"LD_PRELOAD": str(library), "CRASH_DURABLE": str(database)})

    def cut(self, rng: random.Random) -> None:
        """Give the files the content that the disk holds, once the daemon has ended.

        Of what was written but not synced, either nothing survives or randomly chosen sectors do.
        """
        survives = rng.choice((0.0, 0.0, 0.5, 0.95))
        self.cuts += 1
        for end in _ENDS:
            path = self.database.with_name(self.database.name + end)
            durable = path.with_name(f"{path.name}.durable")
            if path.exists():
                self._cut(path, durable, rng, survives)
            else:
                durable.unlink(missing_ok=True)
        # It is memory shared between processes, which is never synced.
        self.database.with_name(f"{self.database.name}-shm").unlink(missing_ok=True)

    def _cut(self, path: Path, durable: Path, rng: random.Random, survives: float) -> None:
        written = path.read_bytes()
        synced = b""
        with suppress(FileNotFoundError):
            synced = durable.read_bytes()
        if not synced and not survives:
            path.unlink()
            return
        content = bytearray(synced)
        for start in range(0, max(len(written), len(synced)), SECTOR):
            sector = written[start : start + SECTOR]
            if sector == synced[start : start + SECTOR]:
                continue
            if survives and rng.random() < survives and sector:
                if len(content) < start:  # the gap was never written
                    content.extend(bytes(start - len(content)))
                content[start : start + len(sector)] = sector
            else:
                self.undone += len(sector)
        path.write_bytes(content)
        durable.write_bytes(content)
