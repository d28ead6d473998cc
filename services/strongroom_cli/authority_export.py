"""The command that gives other programs the authority's transport key: authority export."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rich_click as click

from strongroom.errors import KeyUnknown, UsageError
from strongroom_cli.arguments import check_key_id
from strongroom_cli.destination import is_stdout
from strongroom_cli.options import EXISTING_FILE, home_option, output_option
from strongroom_cli.output import Output

if TYPE_CHECKING:
    from strongroom.mandates import TransportKey
    from strongroom.roster import Roster

_PUBLICKEYBLOB: Final = "publickeyblob"
_CERTIFICATE: Final = "certificate"
_PEM: Final = "pem"


@click.command("export")
@click.argument("roster", metavar="[FOLDER|ROSTER]", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--as",
    "form",
    type=click.Choice([_PUBLICKEYBLOB, _CERTIFICATE, _PEM]),
    required=True,
    help="For CryptoAPI's CryptImportKey; an X.509 certificate in PEM, for `openssl cms -encrypt`, volume_key and"
    " FileVault; the bare public key in PEM.",
)
@click.option("--kid", metavar="KID", help="Which transport key.  [default: the first active one]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Write it to this new file; `-` for standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option(
    "--root-key",
    type=EXISTING_FILE,
    help="The pinned root public key.  [default: root.pub beside the roster]",
)
@home_option
@output_option
def export(
    *,
    roster: Path | None,
    form: str,
    kid: str | None,
    out: Path,
    force: bool,
    root_key: Path | None,
    home: Path,
    output: Output,
) -> None:
    """Give other programs the RSA key that they wrap keys for, from a roster verified under the root key.

    The roster is that of a FOLDER which `authority init` made, a file, or without either the newest one that this
    home has seen. What is wrapped for the key goes into escrow by `escrow --format`; keep its KID for
    `--transport-key`. The certificate is the same each time, and nobody has signed it: zeros stand in the place of
    the signature. Programs that encrypt to it do not look; whoever gets it has to get it from you.

    Example: `strongroom authority export keys --as certificate --out authority.pem` or, on a host,
    `strongroom authority export --as publickeyblob --out authority.blob`
    """
    if is_stdout(out) and output.json:
        raise UsageError("standard output has room for one of the two", hint="use --out FILE with -o json")
    check_key_id("--kid", kid)
    verified = _of_file(roster, root_key) if roster is not None else _of_home(home, root_key)
    verified.check_current(int(time.time()))
    key = _chosen(verified, kid)
    content = _encoded(key, verified.body.authority, form)
    if is_stdout(out):
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        _write(out, content, force=force)
    _say(key, verified, form, out, output)


def _of_file(path: Path, root_key: Path | None) -> "Roster":
    from strongroom.roster import Roster
    from strongroom.settings import read_root_key, read_roster

    file = path / "roster.json" if path.is_dir() else path
    return Roster.verified(read_roster(file), read_root_key(root_key or file.parent / "root.pub"))


def _of_home(home: Path, root_key: Path | None) -> "Roster":
    from strongroom_agent.home import Home
    from strongroom_agent.trust import newest_roster

    if root_key is not None:
        raise UsageError("--root-key goes with a FOLDER or ROSTER", hint="a home has pinned its own")
    return newest_roster(Home.open(home))


def _chosen(roster: "Roster", kid: str | None) -> "TransportKey":
    from strongroom.mandates import SealingKeyState

    if kid is not None:
        return roster.accepted_transport_key(kid)
    active = [key for key in roster.body.transport_keys if key.state is SealingKeyState.ACTIVE]
    if not active:
        raise KeyUnknown(
            f"roster version {roster.body.version} has no active transport key",
            hint="`strongroom authority add-key --help` says how one is made",
        )
    return active[0]


def _encoded(key: "TransportKey", authority: str, form: str) -> bytes:
    from strongroom.crypto.certificates import make_certificate, public_key_pem
    from strongroom.crypto.rsa import RsaPublicKey
    from strongroom.formats.alg_id import RsaUse
    from strongroom.formats.cryptoapi import PublicKeyBlob

    try:
        if form == _CERTIFICATE:
            return make_certificate(key.public_key, authority)
        if form == _PEM:
            return public_key_pem(key.public_key)
        return PublicKeyBlob(RsaUse.EXCHANGE, RsaPublicKey.from_spki(key.public_key)).encode()
    except ValueError:
        raise KeyUnknown(f"transport key {key.kid}: is not an RSA public key") from None


def _write(out: Path, content: bytes, *, force: bool) -> None:
    if out.exists() and not (force and out.is_file()):
        raise UsageError(f"{out} exists", hint="choose another file, or overwrite a file with --force")
    try:
        out.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}", hint="choose a folder that this user may write") from None


def _say(key: "TransportKey", roster: "Roster", form: str, out: Path, output: Output) -> None:
    from strongroom.crypto.rsa import RsaPublicKey

    public_key = RsaPublicKey.from_spki(key.public_key)
    if output.json:
        output.document(
            "transport-key",
            {
                "authority": roster.body.authority,
                "roster_version": roster.body.version,
                "kid": key.kid,
                "state": key.state.value,
                "modulus_bits": public_key.bits,
                "modulus_sha256": public_key.fingerprint,
                "as": form,
                "out": str(out),
            },
        )
        return
    where = "" if is_stdout(out) else f", written to {out}"
    lines = [
        f"exported transport key {key.kid} ({key.state.value}){where}",
        f"  authority   {roster.body.authority}, roster version {roster.body.version}",
        f"  RSA         {public_key.bits} bits, modulus sha256:{public_key.fingerprint}",
    ]
    click.echo("\n".join(lines), err=True)
