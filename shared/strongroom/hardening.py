"""Keep secrets of this process out of core files, debuggers and other users' reach (Linux)."""

import ctypes
import os
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def harden_process() -> None:
    """Forbid core files and attaching debuggers, and make new files private by default.

    Raises OSError where the kernel refuses: then secrets would not be safe, and the process must not go on.
    Python cannot wipe the memory of every secret; this keeps that memory inside the process.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
