"""`python -m strongroom_recovery.prover`: the prover as a process; `strongroom worker prover` is the same."""

import sys

from strongroom import worker
from strongroom_recovery.prover import wiring
from strongroom_recovery.settings import ProverSettings


def main() -> int:
    """Run the prover with settings from the environment; return the exit code."""
    return worker.main("prover", ProverSettings, wiring.serve)


if __name__ == "__main__":
    sys.exit(main())
