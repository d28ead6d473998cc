"""How long the command takes to start: people type it, and timers run it on every host."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 15


def bench_start(tmp_path: Path) -> None:
    """`strongroom --help` and `strongroom status` (on a home without keys), against a bare interpreter."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "strongroom --help": [sys.executable, "-m", "strongroom_cli", "--help"],
        "strongroom status": [sys.executable, "-m", "strongroom_cli", "status", "--home", str(tmp_path / "home")],
    }
    print()
    for name, command in commands.items():
        times = []
        for _ in range(RUNS + 1):
            began = time.perf_counter()
            subprocess.run(command, capture_output=True, check=False, env=dict(os.environ))
            times.append((time.perf_counter() - began) * 1000)
        del times[0]
        print(f"{name:20}  ms  median {statistics.median(times):.0f}  ({min(times):.0f} to {max(times):.0f})")
