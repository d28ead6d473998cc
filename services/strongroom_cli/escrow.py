"""The command that hands keys over: escrow."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import rich_click as click
from click.core import ParameterSource
from click.globals import get_current_context

from strongroom import limits
from strongroom.crypto.secret import Secret
from strongroom.errors import UsageError
from strongroom_cli.arguments import check_key_id
from strongroom_cli.delivery import nothing_spooled_is_no_75, show_delivery, until_options
from strongroom_cli.options import EXISTING_FILE, home_option, output_option, passphrase_option
from strongroom_cli.output import Output, carry_out

if TYPE_CHECKING:
    from strongroom_agent.checks import Check
    from strongroom_agent.wrapping import Wrapped

_OF_SEALED: Final = frozenset(
    {"sealed", "identity_file", "home", "passphrase", "until_proven", "wait_seconds", "output"}
)


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--name", help="Name to recover it by, e.g. `disk`. New keys may come under an old name.")
@click.option(
    "--file",
    "sealed",
    type=EXISTING_FILE,
    metavar="F.age",
    help="An age file that is there already: escrow its session key, so that `recover --file` finds it. Goes with"
    " --identity-file, and without FILE and --name.",
)
@click.option(
    "--identity-file",
    type=EXISTING_FILE,
    help="The age identity that opens it (X25519). Whoever recovers it opens all that it opens.",
)
@click.option(
    "--kind",
    help="What it is, in a word: `disk-key`, `session-key` … Bytes are checked to be of the kind for `pkcs8`,"
    " `openssh`, `age-identity`, `recovery-password-bitlocker`, `cms` and `volume-key`; `raw` are any.  [default:"
    " `key`, or the --format]",
)
@click.option(
    "--format",
    "wrapped_format",
    type=click.Choice(["cryptoapi-simple", "cms", "volume-key"]),
    help="FILE is a key that another program wrapped for the authority's transport key (`authority export`): a"
    " SIMPLEBLOB, a CMS message, an asymmetric volume_key packet. `recover --unwrap` gives back what is inside.",
)
@click.option(
    "--padding",
    type=click.Choice(["pkcs1", "oaep"]),
    help="Of the RSA encryption: `oaep` for CRYPT_OAEP. A SIMPLEBLOB does not say it, and nobody can see that it is"
    " wrong before the key is needed; CMS says it itself.",
)
@click.option(
    "--transport-key",
    metavar="KID",
    help="The key that a SIMPLEBLOB is for, where it can be for several: after the authority's was changed.",
)
@click.option("--description", default="", help="For people, at most 1,024 characters. The database sees it.")
@click.option("--serial-number", default="", help="Of the device or file it opens, at most 256 characters.")
@click.option(
    "--algorithm",
    default="",
    help="What the key is for, e.g. `AES-256-XTS`.  [default: what its kind or format says]",
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="May be repeated, at most 32 times.")
@click.option(
    "--live",
    type=click.Choice(["file", "age"]),
    help="FILE stays where it is and is the key in use: its exact bytes, or the one identity in an age identity"
    " file; `sync` and `attest` compare it with the record (checks.toml in the home).",
)
@home_option
@passphrase_option
@until_options
@output_option
def escrow(
    *,
    file: BinaryIO,
    name: str | None,
    sealed: Path | None,
    identity_file: Path | None,
    kind: str | None,
    wrapped_format: str | None,
    padding: str | None,
    transport_key: str | None,
    description: str,
    serial_number: str,
    algorithm: str,
    labels: tuple[str, ...],
    live: str | None,
    home: Path,
    passphrase: Secret | None,
    until_proven: bool,
    wait_seconds: float,
    output: Output,
) -> None:
    """Give the key in FILE (default: standard input) to the authority.

    The key is sealed first; only the sealed blob is written to the spool and sent. Exit code 0 means that a
    verified receipt is here; 75 means that the sealed key is safe in the spool and `sync` will send it again.
    With `--until proven`: 6 means that it is stored and was not proven in time, 1 that the authority cannot give
    it back.

    It takes the place of records of that name which `status` shows as unprovable, missing, stale or disclosed.

    A key whose bytes are not of its kind or format is refused before it is sealed, with what is wrong. Without
    --format, CMS messages and volume_key packets are kept and given back as they are, whomever they are for.

    Example: `strongroom escrow k --name disk --kind disk-key --serial-number C02XYZ --until proven` or
    `strongroom escrow session.blob --name archive --format cryptoapi-simple --padding pkcs1` or
    `strongroom escrow --file F.age --identity-file session.key`
    """
    from strongroom_agent.agent import Agent, KeyToEscrow

    if sealed is not None or identity_file is not None:
        pair = _sealed_alone(sealed, identity_file)
        with nothing_spooled_is_no_75(), Agent.open(home, passphrase=passphrase) as agent:
            giving = agent.escrow_session_key(*pair, wait_seconds=wait_seconds, until_proven=until_proven)
            delivery = carry_out("Waiting for the proof" if until_proven else "Waiting for the receipt", giving)
        show_delivery(delivery, output)
    if name is None:
        raise UsageError("--name is missing", hint="the name to recover it by, e.g. --name disk")
    path = getattr(file, "name", "-")
    wrapped = _wrapped(wrapped_format, padding, transport_key)
    if wrapped is not None and live is not None:
        raise UsageError(
            "--live: a wrapped key is not the key in use, and is another one each time", hint="leave --live out"
        )
    checks = _checks(path, name, live)
    material = file.read(limits.KEY_MATERIAL_BYTES_MAX + 1)
    if not 1 <= len(material) <= limits.KEY_MATERIAL_BYTES_MAX:
        found = "is empty" if not material else "is too long"
        raise UsageError(
            f"FILE: {found}; a key has 1 to {limits.KEY_MATERIAL_BYTES_MAX:,} bytes",
            hint="for a whole file, `strongroom seal FILE`: it escrows the session key alone",
        )
    key = KeyToEscrow(
        material=_identity(path) if live == "age" else Secret(material),
        name=name,
        kind=kind or wrapped_format or "key",
        description=description,
        serial_number=serial_number,
        algorithm=algorithm,
        labels=labels_of(labels),
        wrapped=wrapped,
    )
    with nothing_spooled_is_no_75(), Agent.open(home, passphrase=passphrase) as agent:
        work = agent.escrow([key], wait_seconds=wait_seconds, until_proven=until_proven, checks=checks)
        delivery = carry_out("Waiting for the proof" if until_proven else "Waiting for the receipt", work)
    show_delivery(delivery, output)


def _sealed_alone(sealed: Path | None, identity_file: Path | None) -> tuple[Path, Path]:
    if sealed is None or identity_file is None:
        raise UsageError("--file and --identity-file go together", hint="--file F.age --identity-file session.key")
    context = get_current_context()
    others = context.params.keys() - _OF_SEALED
    given = [name for name in others if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise UsageError(
            "--file: name, kind and all else of the record come from the age file",
            hint="leave out everything but --identity-file, --home, --until, --wait and --output",
        )
    return sealed, identity_file


def _wrapped(wrapped_format: str | None, padding: str | None, transport_key: str | None) -> "Wrapped | None":
    if wrapped_format is None:
        if padding is not None or transport_key is not None:
            raise UsageError("--padding and --transport-key go with --format")
        return None
    from strongroom.crypto.rsa import Padding
    from strongroom.messages import WrappedFormat
    from strongroom_agent.wrapping import Wrapped

    check_key_id("--transport-key", transport_key)
    if wrapped_format == WrappedFormat.CRYPTOAPI_SIMPLE and padding is None:
        raise UsageError(
            "--padding: a SIMPLEBLOB does not say it",
            hint="--padding oaep if it was exported with CRYPT_OAEP, otherwise --padding pkcs1",
        )
    return Wrapped(WrappedFormat(wrapped_format), None if padding is None else Padding(padding), transport_key)


def _checks(file: str, name: str, live: str | None) -> "list[Check]":
    if live is None:
        return []
    from strongroom_agent.checks import Check, Kind

    if not Path(file).is_file():
        raise UsageError("--live: FILE must be a file that stays there", hint="without --live it may be a pipe")
    # Links are followed when the key is looked at, and not now: where one points may change with the key.
    return [Check(name, Kind(live), (os.path.abspath(file),))]  # noqa: PTH100


def _identity(file: str) -> Secret:
    from strongroom_agent.live_keys import read_identity

    return read_identity(Path(file))


def labels_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Return what `--label NAME=VALUE`, given several times, says; raises UsageError."""
    labels: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name in labels:
            raise UsageError(f"--label {pair!r}: must be NAME=VALUE, and each name once")
        labels[name] = value
    return labels
