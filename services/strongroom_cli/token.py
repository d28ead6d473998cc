"""Options of commands that make keys on a PKCS #11 token."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from strongroom_cli.options import Command

if TYPE_CHECKING:
    from strongroom.crypto.token_objects import TokenKey
    from strongroom.key_cards import KeyCard, KeyUse


def pkcs11_options(meaning: str) -> Callable[[Command], Command]:
    """Add --pkcs11 and --pin-file; the command receives `pkcs11`, the URI or None, and `pin_file`."""

    def decorate(function: Command) -> Command:
        made: Any = click.option(
            "--pin-file",
            type=click.Path(path_type=Path),
            envvar="STRONGROOM_KEYRING_PIN_FILE",
            metavar="FILE",
            help="The token's PIN, where the URI has no pin-source.  [env: STRONGROOM_KEYRING_PIN_FILE]",
        )(function)
        made = click.option("--pkcs11", metavar="URI", help=meaning)(made)
        decorated: Command = made
        return decorated

    return decorate


def sealing_key_on(pkcs11: str | None, pin_file: Path | None) -> "Callable[[], TokenKey] | None":
    """Return what makes a sealing key on the token of this URI, once it is called; None without a token.

    Raises ConfigurationInvalid and KeyFileInvalid for the URI and the file of the PIN.
    """
    if pkcs11 is None:
        return None
    from strongroom.crypto.keyring import read_pin
    from strongroom.crypto.pkcs11_uri import Pkcs11Uri
    from strongroom.crypto.token_keys import make_key
    from strongroom.crypto.token_objects import KeyLabel

    uri = Pkcs11Uri.parse(pkcs11)
    pin = read_pin(uri, pin_file)
    return lambda: make_key(uri, pin, KeyLabel.SEALING)


def card_on(pkcs11: str, pin_file: Path | None, use: "KeyUse", transport_bits: int) -> "KeyCard":
    """Make a sealing or transport key on a token and return its card.

    Raises ConfigurationInvalid, KeyFileInvalid, KeyDeviceUnavailable.
    """
    from strongroom.crypto.keyring import read_pin
    from strongroom.crypto.pkcs11_uri import Pkcs11Uri
    from strongroom.crypto.sealing import Suite
    from strongroom.crypto.token_keys import make_key
    from strongroom.crypto.token_objects import KeyLabel
    from strongroom.key_cards import KeyCard, KeyUse

    uri = Pkcs11Uri.parse(pkcs11)
    is_sealing = use is KeyUse.SEALING
    label = KeyLabel.SEALING if is_sealing else KeyLabel.TRANSPORT
    key = make_key(uri, read_pin(uri, pin_file), label, bits=transport_bits)
    return KeyCard(use=use, id=key.kid, suite=Suite.P256 if is_sealing else None, public_key=key.public_key)
