"""An import that is killed at any moment and begun again: every key once, and none is missing."""

import asyncio
import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGKILL

import pytest
from tests.support.site import PROGRAMS, SYSTEM_PATH, Site
from tests.support.waiting import until

ROWS = 4_000
KILLS = 10


def begin(home: Path, table: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [PROGRAMS / "strongroom", "import", table, "-o", "json", "--wait", "60"],
        env={"PATH": f"{PROGRAMS}:{SYSTEM_PATH}", "LANG": "C.UTF-8", "STRONGROOM_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def spooled(home: Path) -> int:
    """Return how many records are in the home by now."""
    with closing(sqlite3.connect(f"file:{home}/state.db?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM records").fetchone()[0])


async def kill_at(home: Path, table: Path, point: int) -> None:
    """Begin the import, and kill it when so many records are in the home, or it has ended."""
    process = begin(home, table)
    await until(lambda: spooled(home) > point or process.poll() is not None, f"{point} records")
    os.kill(process.pid, SIGKILL)
    await asyncio.to_thread(process.communicate)


@pytest.fixture
def seeds() -> Iterator[int]:
    """Seeds that are printed with a failure."""
    return iter(random.SystemRandom().sample(range(10**6), KILLS))


async def test_an_import_killed_at_ten_moments_stores_every_key_once(
    site: Site, tmp_path: Path, seeds: Iterator[int]
) -> None:
    """Each time somewhere else, before or after what it was doing took effect; counts are equal at the end."""
    table = tmp_path / "keys.csv"
    names = [f"key {number}" for number in range(ROWS)]
    table.write_text("name,text\n" + "".join(f"{name},secret of {name}\n" for name in names))
    home = await site.enrol("imports")
    async with site.worker("escrow").running():
        points = sorted(random.Random(seed).randrange(ROWS) for seed in seeds)  # noqa: S311
        for point in points:
            await kill_at(home, table, point)
        last = begin(home, table)
        out, errors = await asyncio.to_thread(last.communicate)
        assert last.returncode == 0, (points, out, errors)
        assert f'"stored": {ROWS}' in out.decode()
    stored = await site.rows("SELECT name, count(*) AS count FROM records GROUP BY name")
    assert {row["name"]: row["count"] for row in stored} == dict.fromkeys(names, 1), points
    assert spooled(home) == ROWS
