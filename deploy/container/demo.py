"""The story of `deploy/local/demo.py` inside a container, with the trial officers that `setup` made.

Usage: `python -m deploy.container.demo OFFICERS_FOLDER FILE`. Everything it makes goes into a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

from deploy.local.demo import tell

USAGE = 2


def main() -> int:
    """Tell the story; return the exit code."""
    if len(sys.argv) != 1 + 2:
        sys.stderr.write(f"{__doc__}\n")
        return USAGE
    officers, source = (Path(argument).resolve() for argument in sys.argv[1:])
    homes = sorted(officers.glob("officer-*"))
    if not homes:
        sys.stderr.write(f"there are no trial officers in {officers}: this authority has officers of its own\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder)
        for home in homes:
            (local / home.name).symlink_to(home)
        tell(local, source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
