"""PKCS #11 modules: the shared libraries through which tokens are reached, each loaded once in a process.

A module has one state for the whole process: who is logged in, which sessions are open. It is initialised without
threads of its own in mind, so whoever calls into it holds its lock. After a fork the child has none of that.

Everything that a module complains of leaves here as a DeviceFault: what it means is for the caller to say.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from strongroom.crypto.pkcs11_uri import Pkcs11Uri
from strongroom.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from pkcs11 import Token

_guard: Final = threading.Lock()
_modules: Final[dict[Path, "Pkcs11Module"]] = {}


class DeviceFault(Exception):
    """A module refused or failed; `name` is PKCS #11's name of it, in the spelling of the library."""

    def __init__(self, name: str) -> None:
        """Keep the name."""
        super().__init__(name)
        self.name = name


@contextmanager
def faults() -> Iterator[None]:
    """Turn the library's exceptions into DeviceFault; their frames may hold what was derived or decrypted."""
    pkcs11 = library()
    name = ""
    try:
        yield
    except pkcs11.PKCS11Error as error:
        name = type(error).__name__
    if name:
        raise DeviceFault(name)


def library() -> ModuleType:
    """Import python-pkcs11. Raises ConfigurationInvalid where it is not installed."""
    try:
        import pkcs11  # noqa: PLC0415  installed with the hsm extra only
    except ImportError:
        raise ConfigurationInvalid(
            "keys on a PKCS #11 token need the package python-pkcs11", hint="install strongroom[hsm]"
        ) from None
    return pkcs11


class Pkcs11Module:
    """A loaded module. Its methods, and whatever is done with what they return, need `lock`.

    `generation` grows with every restart; what was opened in an earlier one is gone, and its numbers may be in use
    for something else.
    """

    def __init__(self, path: Path) -> None:
        """Load and initialise it. Raises ConfigurationInvalid for a file that is no such module."""
        pkcs11 = library()
        self.path: Final = path
        self.lock: Final = threading.RLock()
        self.generation = 0
        self._pid: Final = os.getpid()
        try:
            self._lib: Final = pkcs11.lib(str(path))
        except pkcs11.PKCS11Error as error:
            raise ConfigurationInvalid(
                f"PKCS #11 module {path}: cannot be loaded ({str(error) or type(error).__name__})",
                hint="name the token's PKCS #11 module in module-path; is its package installed?",
            ) from None

    @classmethod
    def load(cls, path: Path) -> "Pkcs11Module":
        """Give the module of this file, loaded at the first call. Raises ConfigurationInvalid."""
        with _guard:
            if path not in _modules:
                _modules[path] = cls(path)
            module = _modules[path]
        module.check_process()
        return module

    def check_process(self) -> None:
        """Raise RuntimeError in a child process: threads, sessions and logins stayed with the parent."""
        if os.getpid() != self._pid:
            raise RuntimeError("a PKCS #11 module belongs to the process that loaded it")

    def restart(self) -> None:
        """Begin anew: only so do modules see a token that came later. All sessions of the process end.

        Raises DeviceFault; then nothing can be opened until another restart succeeds.
        """
        self.generation += 1
        with faults():
            with suppress(library().PKCS11Error):
                self._lib.finalize()
            self._lib.initialize()

    def tokens(self, uri: Pkcs11Uri) -> "list[Token]":
        """Give every initialised token that the URI describes. Raises DeviceFault."""
        initialised = library().TokenFlag.TOKEN_INITIALIZED
        with faults():
            return [
                token for token in self._lib.get_tokens() if token.flags & initialised and _is_meant(token, uri)
            ]


def _is_meant(token: "Token", uri: Pkcs11Uri) -> bool:
    said = (
        (uri.token, token.label),
        (uri.serial, token.serial.decode("utf-8", "replace")),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
        (uri.slot_id, token.slot.slot_id),
    )
    return all(wanted is None or wanted == found for wanted, found in said)
