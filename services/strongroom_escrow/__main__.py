"""`python -m strongroom_escrow`: the escrow worker as a process; `strongroom worker escrow` is the same."""

import sys

from strongroom import worker
from strongroom_escrow import wiring
from strongroom_escrow.settings import EscrowSettings


def main() -> int:
    """Run the escrow worker with settings from the environment; return the exit code."""
    return worker.main("escrow", EscrowSettings, wiring.serve)


if __name__ == "__main__":
    sys.exit(main())
