"""What benchmarks of processes share: how one is started, its processor time, and figures in words."""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from strongroom.settings import EnvironmentSettings


def environment_of(settings: EnvironmentSettings) -> dict[str, str]:
    """Return the environment in which a process finds these settings, beside all that this one has."""
    ours = {
        f"STRONGROOM_{name.upper()}": str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)
        for name, value in settings
        if value is not None
    }
    return {**os.environ, **ours}


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has had."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(figures: Sequence[float]) -> str:
    """Return the median of figures, and their range."""
    return f"median {statistics.median(figures):,.0f}  (min {min(figures):,.0f}, max {max(figures):,.0f})"
