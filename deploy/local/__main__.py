"""`python -m deploy.local up|down|status`: the local Strongroom in `.local`; `make up` and `make down` call this.

Exit codes: 0 done, or all running; 1 failed; 2 usage; 3 (`status`) not all of it is running; 130 interrupted.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from deploy.local.server import StackError
from deploy.local.stack import NOT_RUNNING
from deploy.local.trial import Trial

_INTERRUPTED = 128 + signal.SIGINT


def main() -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("--folder", type=Path, default=Path(".local"), help="default: .local")
    parser.add_argument("--purge", action="store_true", help="with down: delete all data and keys too")
    arguments = parser.parse_args()
    if arguments.purge and arguments.command != "down":
        parser.error("--purge belongs to down")
    try:
        trial = Trial(arguments.folder, os.environ)
        if arguments.command == "up":
            began = time.monotonic()
            trial.up(lambda step: print(f"up: {step} ({time.monotonic() - began:.1f} s)", flush=True))
            print(f"up: next, in a shell: . {arguments.folder}/env")
        elif arguments.command == "down":
            trial.down(purge=arguments.purge)
            print("down: everything that `up` started has ended")
        else:
            status = trial.status()
            for name, words in status.items():
                print(f"{name}: {words}")
            return NOT_RUNNING if "stopped" in status.values() else 0
    except StackError as error:
        sys.stderr.write(f"{arguments.command}: {error}\n")
        return 1
    except KeyboardInterrupt:
        # What is under way in threads ends by itself before the program does, and a second Ctrl-C changes nothing.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write(f"{arguments.command}: interrupted; run it again, it goes on where it was\n")
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
