"""Feeds a target with what atheris makes of its seeds: `python -m tests.fuzz.run TARGET [--seconds N]`.

`all` goes through every target, one after the other. It does not end with 0 where something was found; the input
that found it is in the folder then, as `TARGET.crash-…`, and `--replay FILE` runs it again. Needs atheris.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]

MEMORY_MIB_MAX = 1_024
SECONDS_PER_INPUT_MAX = 10
INPUT_BYTES_MAX = 16_384


def main() -> int:
    """Run one target in this process, or all of them in one process each; return the exit code."""
    with atheris.instrument_imports(include=["strongroom", "strongroom_agent", "pamqp"]):
        from tests.fuzz.targets import TARGETS, judge
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("--seconds", type=int, default=30, help="how long for each target (default: 30)")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where findings go (default: here)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this input and nothing else")
    asked = parser.parse_args()
    if asked.target == "all":
        command = [sys.executable, "-m", "tests.fuzz.run"]
        options = ["--seconds", str(asked.seconds), "--folder", str(asked.folder)]
        found = [name for name in TARGETS if subprocess.run([*command, name, *options], check=False).returncode]
        print(f"findings in: {', '.join(found)}" if found else f"nothing found in {len(TARGETS)} targets")
        return bool(found)
    if asked.replay is not None:
        print("read" if judge(asked.target, asked.replay.read_bytes()) else "refused")
        return 0
    asked.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(TARGETS[asked.target].seeds()):
            (Path(corpus) / str(number)).write_bytes(seed)
        limits = {
            "max_total_time": asked.seconds,
            "max_len": INPUT_BYTES_MAX,
            "rss_limit_mb": MEMORY_MIB_MAX,
            "timeout": SECONDS_PER_INPUT_MAX,
            "artifact_prefix": asked.folder / f"{asked.target}.",
            "print_final_stats": 1,
            "verbosity": 0,
        }
        arguments = [f"-{name}={value}" for name, value in limits.items()]
        atheris.Setup([sys.argv[0], *arguments, corpus], lambda data: judge(asked.target, data))
        print(f"{asked.target}: {asked.seconds} s", flush=True)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
