"""Importing: keys a second into escrow, what an unchanged source costs, and memory, by the command itself.

`make bench` runs these against servers of their own on this machine and prints figures; nothing asserts a time.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.site import Site
from tests.support.workers import Brokers, Databases

KEYS = 10_000
DRY_ROWS = (20_000, 200_000)

# Run by a process of its own, so that the peak is that of one command.
MEASURED = """
import json, resource, sys, time
from strongroom_cli.app import cli
began = time.perf_counter()
try:
    cli(sys.argv[1:])
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {"seconds": time.perf_counter() - began, "cpu": used.ru_utime + used.ru_stime}
    print(json.dumps({**figures, "mb": used.ru_maxrss / 1024}), file=sys.stderr)
"""


def measured(home: Path, *words: str) -> tuple[dict[str, Any], float, str]:
    """Run `strongroom import`; return its document, its seconds after the start of Python, CPU time and memory."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, "import", *words, "-o", "json", "--home", str(home)],
        capture_output=True,
        check=True,
        env=dict(os.environ),
    )
    figures = json.loads(result.stderr.splitlines()[-1])
    spent = f"{figures['cpu']:.1f} s CPU of its own, peak {figures['mb']:.0f} MB"
    return json.loads(result.stdout), figures["seconds"], spent


def table(path: Path, rows: int) -> Path:
    """Write a table of random 32-byte keys."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write("name,hex,kind,serial_number\n")
        stream.writelines(f"host {row}/disk,{secrets.token_hex(32)},disk-key,SN{row:08}\n" for row in range(rows))
    return path


@pytest.fixture
def site(database: Databases, broker: Brokers, tmp_path: Path) -> Iterator[Site]:
    with Site.found(tmp_path / "site", database, broker).in_force() as made:
        yield made


async def bench_import(site: Site, tmp_path: Path) -> None:
    """10,000 keys into escrow, each with a verified receipt; the same table again; dry runs for memory."""
    await site.purge()
    keys = table(tmp_path / "keys.csv", KEYS)
    print()
    async with site.worker("recovery").running(), site.worker("escrow").running():
        home = await site.enrol("imports")
        document, seconds, spent = measured(home, str(keys))
        assert document["stored"] == KEYS
        print(f"import of {KEYS:,} new keys       {KEYS / seconds:8,.0f} keys/s   {spent}")
        document, seconds, spent = measured(home, str(keys))
        assert document["unchanged"] == KEYS
        print(f"the same again, unchanged     {KEYS / seconds:8,.0f} keys/s   {spent}")
    for rows in DRY_ROWS:
        large = table(tmp_path / f"{rows}.csv", rows)
        document, seconds, spent = measured(home, str(large), "--dry-run")
        assert document["fresh"] == rows
        print(f"dry run of {rows:,} rows    {rows / seconds:8,.0f} rows/s   {spent}")
