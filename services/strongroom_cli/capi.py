"""Commands for what CryptoAPI programs left behind: capi show, capi derive."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, assert_never

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import StrongroomError, UsageError
from strongroom.formats.alg_id import RsaUse, SessionAlgorithm
from strongroom.formats.cryptderivekey import BaseHash, Salt, derive_key, with_odd_parity
from strongroom_cli.destination import check_destination, destination, is_stdout
from strongroom_cli.options import output_option
from strongroom_cli.output import Output, somebody_is_there

if TYPE_CHECKING:
    from strongroom.crypto.rsa import RsaPublicKey
    from strongroom.formats.cryptoapi import KeyBlob

PASSWORD_BYTES_MAX: Final = 65_536

_ALGORITHMS: Final = {algorithm.label.lower(): algorithm for algorithm in SessionAlgorithm}


@click.group()
def capi() -> None:
    """Read key blobs of Windows CryptoAPI, and derive keys of passwords as CryptDeriveKey does."""


@capi.command()
@click.argument("file", type=click.File("rb"))
@output_option
def show(file: BinaryIO, output: Output) -> None:
    """Say what the key blob in FILE is: SIMPLEBLOB, PUBLICKEYBLOB, PRIVATEKEYBLOB or PLAINTEXTKEYBLOB.

    Every field is checked. What is secret in a blob is never shown, nor a digest of it.

    Example: `strongroom capi show session.blob`
    """
    from strongroom.formats.cryptoapi import KEY_BLOB_BYTES_MAX, RSA_BITS_LEGACY_MIN, parse_key_blob

    # Short keys can be looked at, too; what they may still be used for is said below.
    blob = parse_key_blob(Secret(file.read(KEY_BLOB_BYTES_MAX + 1)), rsa_bits_min=RSA_BITS_LEGACY_MIN)
    described = _described(blob)
    if output.json:
        output.document("key-blob", described)
    for name, value in described.items():
        output.line(f"{name.replace('_', ' '):<19}{value}")


def _described(blob: "KeyBlob") -> dict[str, object]:
    from strongroom.formats.cryptoapi import PlaintextKeyBlob, PrivateKeyBlob, PublicKeyBlob, SimpleBlob

    common = {"type": blob.TYPE.name, "version": 2}
    match blob:
        case SimpleBlob():
            return {
                **common,
                "algorithm": blob.algorithm.label,
                "new_keys": _new_keys(blob.algorithm),
                "modulus_bytes": len(blob.ciphertext),
                "padding": "PKCS #1 v1.5 or OAEP: no blob says which",
                "ciphertext_sha256": blob.ciphertext_digest,
            }
        case PlaintextKeyBlob():
            parity = {"parity": _parity(blob.key)} if blob.algorithm.is_des else {}
            return {
                **common,
                "algorithm": blob.algorithm.label,
                "new_keys": _new_keys(blob.algorithm),
                "key_bits": 8 * len(blob.key),
                **parity,
                "holds": "a key in the clear",
            }
        case PublicKeyBlob():
            return {**common, **_rsa(blob.use, blob.key)}
        case PrivateKeyBlob():
            return {**common, **_rsa(blob.use, blob.key.public), "holds": "a private key in the clear"}
        case _:
            assert_never(blob)


def _rsa(use: RsaUse, key: "RsaPublicKey") -> dict[str, object]:
    return {
        "algorithm": f"RSA, {use.name.lower()}",
        "modulus_bits": key.bits,
        "exponent": key.exponent,
        "modulus_sha256": key.fingerprint,
        "new_keys": _recipient(use, key),
    }


def _recipient(use: RsaUse, key: "RsaPublicKey") -> str:
    """Say whether new keys may be wrapped for this one, or why not."""
    from strongroom.crypto.rsa import check_recipient

    if use is not RsaUse.EXCHANGE:
        return "no: it is for signatures"
    try:
        check_recipient(key)
    except StrongroomError as error:
        return f"no: {error.message}"
    return "yes"


def _new_keys(algorithm: SessionAlgorithm) -> str:
    return "yes" if algorithm.is_aes else "no: good for reading old data alone"


def _parity(key: Secret) -> str:
    return "odd" if with_odd_parity(key) == key else "not set"


@capi.command()
@click.option(
    "--hash",
    "base_hash",
    type=click.Choice([each.value for each in BaseHash]),
    required=True,
    help="Of the password.",
)
@click.option("--algorithm", type=click.Choice(list(_ALGORITHMS)), required=True, help="Of the key.")
@click.option("--bits", type=int, help="Length of an RC2 or RC4 key: 40 to 128. The others have but one.")
@click.option(
    "--salt",
    type=click.Choice([each.value for each in Salt]),
    default=Salt.ZERO.value,
    show_default=True,
    help="What follows a key of 40 bits: 11 zero bytes, 11 bytes of the hash (CRYPT_CREATE_SALT), nothing.",
)
@click.option(
    "--parity",
    type=click.Choice(["odd", "as-is"]),
    default="odd",
    show_default=True,
    help="Of DES keys, for which it makes no difference: as Windows or as Wine gives them.",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="File whose first line is the password. Default: ask for it, or the first line of standard input.",
)
@click.option(
    "--encoding",
    type=click.Choice(["as-is", "utf-16-le"]),
    default="as-is",
    show_default=True,
    help="What was hashed: these bytes, or the UTF-16 of this UTF-8, as programs built for Unicode do.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the key to this new file, mode 0600; `-` for standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@output_option
def derive(
    *,
    base_hash: str,
    algorithm: str,
    bits: int | None,
    salt: str,
    parity: str,
    password_file: Path | None,
    encoding: str,
    out: Path | None,
    force: bool,
    output: Output,
) -> None:
    """Derive the key that CryptDeriveKey makes of a password, for data that was encrypted with it.

    The key is what the cipher takes: that of RC2 or RC4 with 40 bits is followed by its salt. RC2 takes it with as
    many effective bits as --bits says. Protect nothing new this way: passwords are tried as fast as hashed.

    Example: `strongroom capi derive --hash sha-1 --algorithm aes-256 --out old.key`
    """
    chosen = _ALGORITHMS[algorithm]
    if bits is None and len(chosen.key_bytes) > 1:
        raise UsageError(f"--bits: say how many bits the {chosen.label} key has", hint="often 40 or 128")
    check_destination(out, force=force, json=output.json)
    derived = derive_key(
        _password(password_file, encoding),
        BaseHash(base_hash),
        chosen,
        bits=8 * chosen.key_bytes[0] if bits is None else bits,
        odd_parity=parity == "odd",
        salt=Salt(salt),
    )
    with destination(out, force=force) as stream:
        stream.write(derived.cipher_key.expose())
    if output.json:
        output.document(
            "derived-key",
            {
                "hash": base_hash,
                "algorithm": chosen.label,
                "key_bits": 8 * len(derived.key),
                "salt_bytes": len(derived.salt),
                "out": str(out),
            },
        )
    salted = f" and {len(derived.salt)} bytes of salt" if derived.salt else ""
    where = "" if is_stdout(out) else f", written to {out}"
    if not output.json:
        click.echo(f"derived a key: {chosen.label}, {8 * len(derived.key)} bits{salted}{where}", err=True)


def _password(file: Path | None, encoding: str) -> Secret:
    from strongroom.crypto.key_file import read_passphrase

    password = _entered() if file is None else read_passphrase(file)
    if encoding == "as-is":
        return password
    try:
        return Secret(password.expose().decode("utf-8").encode("utf-16-le"))
    except UnicodeDecodeError:
        raise UsageError(
            "the password is not UTF-8", hint="leave --encoding out: its bytes are hashed then"
        ) from None


def _entered() -> Secret:
    if somebody_is_there():
        # An empty answer is given back at once; without a default click would ask for ever.
        entered = Secret(
            click.prompt("Password", hide_input=True, err=True, default="", show_default=False).encode()
        )
    else:
        line = Secret(sys.stdin.buffer.readline(PASSWORD_BYTES_MAX + 1))
        entered = Secret(line.expose().removesuffix(b"\n").removesuffix(b"\r"))
    if not entered:
        raise UsageError("the password is empty", hint="name its file with --password-file, or pipe it in")
    if len(entered) > PASSWORD_BYTES_MAX:
        raise UsageError(f"the password has more than {PASSWORD_BYTES_MAX:,} bytes")
    return entered
