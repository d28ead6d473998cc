"""Sealing: how long the command takes for a large file, against the age program on the same file.

`make bench` runs this with an authority of its own on this machine and prints figures; nothing asserts a time. It
is the whole command that is measured: from its start until its file is on disk, its session key in escrow and the
receipt verified. The age program does none of that, and does not wait for the disk. `STRONGROOM_BENCH_MIB` sets
another size.
"""

import os
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import check_output

import pytest
from deploy.local.trial import Trial
from tests.support.command import Command
from tests.support.servers import lent
from tests.support.site import PROGRAMS

MIB = int(os.environ.get("STRONGROOM_BENCH_MIB", "1024"))
PAIRS = 7


_MEASURE = """
import os, sys, time
began = time.perf_counter()
output = os.open(os.devnull, os.O_WRONLY)
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, output, 1)])
_, status, usage = os.wait4(process, 0)
print(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a program: seconds on the clock and of the processor, the most memory in MiB."""

    seconds: float
    processor: float
    memory: float


@pytest.fixture
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """An authority with both workers."""
    with lent(tmp_path_factory.mktemp("bench")) as folder:
        made = Trial(folder, {})
        made.up(lambda _step: None)
        yield made


def run(arguments: list[str | Path], folder: Path) -> Run:
    """Run a program to its end, which must be a good one."""
    # A small process in between: a child's most memory begins with what its parent had.
    return Run(*map(float, check_output([sys.executable, "-IS", "-c", _MEASURE, *arguments], cwd=folder).split()))


def show(name: str, runs: list[Run]) -> None:
    """Print medians and spread."""
    times = sorted(each.seconds for each in runs)
    median = statistics.median(times)
    print(
        f"{name:16} {MIB / median:6.0f} MiB/s, median {median:.2f} s ({times[0]:.2f} to {times[-1]:.2f}),"
        f" processor {statistics.median(each.processor for each in runs):.2f} s,"
        f" memory at most {max(each.memory for each in runs):.0f} MiB"
    )


def bench_sealing_against_the_age_program(trial: Trial, tmp_path: Path) -> None:
    """`seal` and `age -r` by turns on a file that was read before; then `open` and `age -d` on what `seal` made."""
    (tmp_path / ".local").symlink_to(trial.folder)
    strongroom = Command(tmp_path)
    (tmp_path / "invitation").write_bytes(strongroom("invite", "bench", home=".local/officer-1").done().out)
    strongroom("enrol", "invitation", home="home").done()
    identity = tmp_path / "home" / "keys" / "age.key"
    recipient = check_output(["age-keygen", "-y", identity], text=True).strip()
    chance = random.Random(4711)  # noqa: S311 - what is sealed is no secret
    with (tmp_path / "large").open("wb") as stream:
        for _ in range(MIB):
            stream.write(chance.randbytes(1_048_576))

    home: list[str | Path] = ["--home", "home"]
    commands: dict[str, list[str | Path]] = {
        "strongroom seal": [PROGRAMS / "strongroom", "seal", "large", "--output-file", "one", *home],
        "age -r": ["age", "-r", recipient, "-o", "two", "large"],
        "strongroom open": [PROGRAMS / "strongroom", "open", "one", "--output-file", "three", *home],
        "age -d": ["age", "-d", "-i", identity, "-o", "three", "one"],
    }
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    print(f"\n{MIB:,} MiB, {PAIRS} pairs by turns, after one pair that does not count")
    for pair in (("strongroom seal", "age -r"), ("strongroom open", "age -d")):
        for turn in range(PAIRS + 1):
            for name in pair if turn % 2 else pair[::-1]:
                for left in ("three", *(("one", "two") if "seal" in pair[0] else ())):
                    (tmp_path / left).unlink(missing_ok=True)
                os.sync()
                done = run(commands[name], tmp_path)
                if turn:
                    runs[name].append(done)
        if "seal" in pair[0]:
            run([*commands["strongroom seal"], "--force"], tmp_path)
        for name in pair:
            show(name, runs[name])
        ratios = sorted(
            100 * theirs.seconds / ours.seconds for ours, theirs in zip(*map(runs.get, pair), strict=True)
        )
        median = statistics.median(ratios)
        print(f"{pair[0]} runs at {median:.0f} % of the speed of {pair[1]} ({ratios[0]:.0f} to {ratios[-1]:.0f})")
