"""SoftHSM tokens below a folder of the test run, and what can go wrong with them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.crypto.pkcs11_module import Pkcs11Module
from strongroom.crypto.pkcs11_uri import Pkcs11Uri
from strongroom.crypto.secret import Secret
from strongroom.crypto.token import TokenKeyring
from strongroom.crypto.token_keys import make_key
from strongroom.crypto.token_objects import KeyLabel, TokenKey

MODULE: Final = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN: Final = Secret(b"token pin 0815")
_SO_PIN: Final = "officer pin 4711"
_UTIL: Final = "softhsm2-util"
RSA_BITS: Final = 2048  # as fast as it gets


@dataclass(frozen=True, slots=True)
class SoftToken:
    """A token of SoftHSM. `shelf` is the folder with all tokens of the test run, and `uri` names this one."""

    shelf: "Shelf"
    uri: Pkcs11Uri

    @property
    def setting(self) -> str:
        """The URI with the file of its PIN, as in STRONGROOM_KEYRING."""
        return f"{self.uri}&pin-source=file:{self.shelf.pin_file}"

    def make(self, label: KeyLabel) -> TokenKey:
        """Make a key on it."""
        return make_key(self.uri, PIN, label, bits=RSA_BITS)

    def keyring(self) -> TokenKeyring:
        """Open it."""
        return TokenKeyring(self.uri, PIN)


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of tokens, with SoftHSM's configuration that says so."""

    folder: Path

    @property
    def config(self) -> Path:
        """What SOFTHSM2_CONF names."""
        return self.folder / "softhsm2.conf"

    @property
    def tokens(self) -> Path:
        """Where SoftHSM keeps the tokens."""
        return self.folder / "tokens"

    @property
    def pin_file(self) -> Path:
        """The file with the PIN of every token."""
        return self.folder / "pin"

    def write(self) -> None:
        """Make the folder, without tokens."""
        self.tokens.mkdir(mode=0o700, parents=True)
        self.config.write_text(
            f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        self.pin_file.write_bytes(PIN.expose() + b"\n")
        self.pin_file.chmod(0o600)

    def add(self, label: str) -> SoftToken:
        """Put a new token on the shelf, by SoftHSM's own tool; there may be several of one label."""
        arguments = (
            "--init-token",
            "--free",
            "--label",
            label,
            "--pin",
            PIN.expose().decode(),
            "--so-pin",
            _SO_PIN,
        )
        self.util(*arguments)
        return SoftToken(self, Pkcs11Uri(MODULE, token=label))

    def util(self, *arguments: str) -> str:
        """Run SoftHSM's tool and return what it says."""
        done = subprocess.run(
            [_UTIL, *arguments],
            env={"PATH": os.environ["PATH"], "SOFTHSM2_CONF": str(self.config)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    @contextmanager
    def away(self) -> Iterator[None]:
        """Take the whole shelf away for a while: every token is gone, in the middle of whatever it does."""
        aside = self.folder / "aside"
        self.tokens.rename(aside)
        try:
            yield
        finally:
            aside.rename(self.tokens)

    def reset(self) -> None:
        """Close every session of this process behind everybody's back."""
        module = Pkcs11Module.load(MODULE)
        with module.lock:
            module.restart()


@contextmanager
def shelf_in(folder: Path) -> Iterator[Shelf]:
    """Give a new shelf, and let the module of this process look at it: SoftHSM reads where at its start alone."""
    made = Shelf(folder)
    made.write()
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(made.config)
    try:
        made.reset()
        yield made
    finally:
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before
