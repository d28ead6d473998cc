"""`python -m strongroom_recovery`: the recovery worker as a process; `strongroom worker recovery` is the same."""

import sys

from strongroom import worker
from strongroom_recovery import wiring
from strongroom_recovery.settings import RecoverySettings


def main() -> int:
    """Run the recovery worker with settings from the environment; return the exit code."""
    return worker.main("recovery", RecoverySettings, wiring.serve)


if __name__ == "__main__":
    sys.exit(main())
