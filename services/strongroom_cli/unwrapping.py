"""What `recover` writes of a key that another program wrapped, and what it says of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from strongroom.crypto.secret import Secret
from strongroom.errors import UsageError

if TYPE_CHECKING:
    from strongroom.crypto.rsa import Padding
    from strongroom.formats.cryptoapi import PublicKeyBlob
    from strongroom.messages import ReleasedRecord
    from strongroom_agent.recovery import RecoveredKey

_KEY: Final = "key"
_PLAINTEXT: Final = "cryptoapi-plaintext"
_SIMPLE: Final = "cryptoapi-simple"
FORMS: Final = (_KEY, _PLAINTEXT, _SIMPLE)
"""The values of --as."""


@dataclass(frozen=True, slots=True)
class Wish:
    """In which form a key is wanted: None as it was escrowed, else one of FORMS."""

    form: str | None
    recipient: "PublicKeyBlob | None" = None
    padding: "Padding | None" = None

    @property
    def unwrap(self) -> bool:
        """Whether what is inside is asked for."""
        return self.form is not None

    def content(self, recovered: "RecoveredKey") -> Secret:
        """Return the bytes to write; UsageError for a key that cannot be given in this form."""
        if self.form is None:
            return recovered.material
        from strongroom_agent.unwrapped import content, plaintext_blob, simple_blob

        if self.recipient is not None:
            return Secret(simple_blob(recovered, self.recipient, self.padding).encode())
        return content(recovered) if self.form == _KEY else plaintext_blob(recovered).encode()


def wish_of(form: str | None, recipient: Path | None, padding: str | None, *, unwrap: bool) -> Wish:
    """Judge --unwrap, --as, --to and --padding together, before anything is asked for.

    Raises UsageError for options that do not go together, and what reading the public key raises.
    """
    form = form or (_KEY if unwrap else None)
    if form != _SIMPLE:
        if recipient is not None or padding is not None:
            raise UsageError("--to and --padding go with --as cryptoapi-simple alone")
        return Wish(form)
    if recipient is None:
        raise UsageError(
            "--as cryptoapi-simple: for which public key?",
            hint="--to FILE, the PUBLICKEYBLOB that the importing program has exported",
        )
    from strongroom.crypto.rsa import Padding, check_recipient
    from strongroom.formats.alg_id import RsaUse
    from strongroom.formats.cryptoapi import KEY_BLOB_BYTES_MAX, PublicKeyBlob

    with recipient.open("rb") as stream:
        blob = PublicKeyBlob.parse(stream.read(KEY_BLOB_BYTES_MAX + 1))
    if blob.use is not RsaUse.EXCHANGE:
        raise UsageError(
            f"{recipient}: is a key for signatures",
            hint="export the key exchange key (AT_KEYEXCHANGE) of that program",
        )
    check_recipient(blob.key)
    return Wish(form, blob, None if padding is None else Padding(padding))


def wrapping_lines(record: "ReleasedRecord", wish: Wish) -> list[str]:
    """Say what was written of a wrapped key; nothing for one that is the key itself."""
    wrapping = record.wrapping
    if wrapping is None:
        return []
    what = f"{wrapping.format.value}, {wrapping.padding}"
    if not wish.unwrap:
        return [
            f"  wrapped     still, as it was escrowed ({what}), for the authority's transport key",
            f"              {wrapping.kid}",
            "  next: for the key inside, the same command with --unwrap; an officer has to approve it",
        ]
    return [
        f"  unwrapped   from {what}; written as {wish.form}",
        "  Nobody has signed for what was inside. Try it: a wrapped key that was damaged before it",
        "  was escrowed may give another key, and no error.",
    ]
