"""Who may read a file with a secret in it: its owner alone.

A key file or a passphrase file has no permission bit for group or others. The one exception is for passphrases and
PINs: a secret that the service manager mounted, which means that it lies (symbolic links followed) below
$CREDENTIALS_DIRECTORY or /run/secrets, belongs to root or to this process's user, and has read bits and no others
(0400, 0440, 0444).
"""

import os
import shlex
import stat
from pathlib import Path
from typing import Final

from strongroom.crypto.secret import Secret
from strongroom.errors import KeyFileInvalid

KEY_FILE_BYTES_MAX: Final = 64 * 1024
MOUNTED_SECRETS: Final = Path("/run/secrets")


def read_guarded(path: Path, *, mounted_accepted: bool) -> Secret:
    """Give the content of a regular file that nobody else may read and that is at most 64 KiB.

    `mounted_accepted`: a secret that the service manager mounted will do. Raises KeyFileInvalid.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error, "check the path and its permissions") from None
    try:
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise invalid(path, "this is not a regular file", "name a file")
        if mode & 0o077 and not (mounted_accepted and _is_mounted(path.resolve(), mode, status.st_uid)):
            raise invalid(
                path, f"others may use this file (mode {mode:04o})", f"chmod 600 {shlex.quote(str(path))}"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = Secret(stream.read(KEY_FILE_BYTES_MAX + 1))
    except OSError as error:
        raise unreadable(path, error, "see to the file system") from None
    finally:
        os.close(descriptor)
    if len(content) > KEY_FILE_BYTES_MAX:
        raise invalid(path, f"this file is larger than {KEY_FILE_BYTES_MAX} bytes", "name a key file")
    return content


def _is_mounted(real_path: Path, mode: int, owner: int) -> bool:
    """Tell whether the service manager mounted this secret; the rule stands at the head of this module."""
    folders = [MOUNTED_SECRETS]
    credentials = Path(os.environ.get("CREDENTIALS_DIRECTORY", ""))
    if credentials.is_absolute():
        folders.append(credentials)
    return (
        mode & ~0o444 == 0
        and owner in (0, os.geteuid())
        and any(real_path.is_relative_to(folder.resolve()) for folder in folders)
    )


def invalid(path: Path, cause: str, hint: str) -> KeyFileInvalid:
    """Return the error that names a file, what is wrong with it, and what to do."""
    return KeyFileInvalid(f"{path}: {cause}", hint=hint)


def unreadable(path: Path, error: OSError, hint: str) -> KeyFileInvalid:
    """Return the error for what the file system said."""
    return invalid(path, error.strerror or type(error).__name__, hint)
