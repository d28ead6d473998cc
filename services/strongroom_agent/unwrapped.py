"""What was inside a wrapped key, in the forms in which other programs take it. Pure."""

from strongroom.crypto.rsa import Padding
from strongroom.crypto.secret import Secret
from strongroom.errors import UsageError
from strongroom.formats.cryptoapi import PlaintextKeyBlob, PublicKeyBlob, SimpleBlob
from strongroom.messages import WrappedFormat
from strongroom_agent.recovery import RecoveredKey


def content(recovered: RecoveredKey) -> Secret:
    """Return the session key of a SIMPLEBLOB, or the content of a message; UsageError where that was not asked."""
    if recovered.unwrapped is None:
        raise UsageError(f"record {recovered.record.id}: what is inside was not asked for")
    return recovered.unwrapped


def plaintext_blob(recovered: RecoveredKey) -> PlaintextKeyBlob:
    """Return the session key with the algorithm that its SIMPLEBLOB names.

    Raises UsageError for what came in another format, which says of no algorithm what its content is a key for.
    """
    wrapping = recovered.record.wrapping
    if wrapping is None or wrapping.format is not WrappedFormat.CRYPTOAPI_SIMPLE:
        found = "is not wrapped" if wrapping is None else f"came as {wrapping.format.value}"
        raise UsageError(
            f"record {recovered.record.id}: {found}; only the session key of a SIMPLEBLOB can be written as a blob",
            hint="give the same command with --as key in its place: the same release is given again",
        )
    return PlaintextKeyBlob(SimpleBlob.parse(recovered.material.expose()).algorithm, content(recovered))


def simple_blob(recovered: RecoveredKey, recipient: PublicKeyBlob, padding: Padding | None) -> SimpleBlob:
    """Wrap the session key anew, for another program's public key.

    Arguments: `padding`, by default that of the blob which was escrowed, so that the program which made that can
    import this. Raises as `plaintext_blob` and `SimpleBlob.seal`.
    """
    key = plaintext_blob(recovered)
    wrapping = recovered.record.wrapping
    as_before = Padding.OAEP if wrapping is None else Padding(wrapping.padding)
    return SimpleBlob.seal(key, recipient, padding or as_before)
