"""Content that other programs encrypted in CBC mode with PKCS #7 padding: for reading their messages, never own.

CBC vouches for nothing. That content came out says neither that the key was right, of which about one wrong key in
256 gives some, nor that nobody changed it. Whoever can see again and again whether changed content opens can read
it (a padding oracle). Source: RFC 3565, RFC 3370 section 5.1, RFC 5652 section 6.3.
"""

from enum import StrEnum
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid

_DOES_NOT_OPEN: Final = "the content does not open with this key"


class ContentCipher(StrEnum):
    """The ciphers that content can be read in; the value is the name for people.

    3DES is there because `openssl cms -encrypt` takes it before OpenSSL 3.5 when nothing is said, and because
    macOS has taken it, too.
    """

    AES_128_CBC = "AES-128-CBC"
    AES_192_CBC = "AES-192-CBC"
    AES_256_CBC = "AES-256-CBC"
    TRIPLE_DES_CBC = "3DES-CBC"

    @property
    def key_bytes(self) -> int:
        """The length of the key; that of 3DES includes the parity bits, which are not looked at."""
        return _KEY_BYTES[self]

    @property
    def block_bytes(self) -> int:
        """The length of a block and of the initialisation vector."""
        return 16 if self.is_aes else 8

    @property
    def is_aes(self) -> bool:
        """Whether new messages may be in this cipher; the other is there to be read, and no longer safe."""
        return self is not ContentCipher.TRIPLE_DES_CBC


_KEY_BYTES: Final = {
    ContentCipher.AES_128_CBC: 16,
    ContentCipher.AES_192_CBC: 24,
    ContentCipher.AES_256_CBC: 32,
    ContentCipher.TRIPLE_DES_CBC: 24,
}


def decrypt_content(cipher: ContentCipher, key: Secret, vector: bytes, ciphertext: bytes) -> Secret:
    """Decrypt and unpad; BlobInvalid, always in the same words, for what does not end in padding.

    Arguments: `key` and `vector` have the cipher's lengths, `ciphertext` is one or more whole blocks; ValueError
    otherwise.
    """
    if len(key) != cipher.key_bytes or len(vector) != cipher.block_bytes:
        raise ValueError("key and initialisation vector must have the lengths of the cipher")
    if not ciphertext or len(ciphertext) % cipher.block_bytes:
        raise ValueError("ciphertext must be whole blocks")
    algorithm = algorithms.AES(key.expose()) if cipher.is_aes else TripleDES(key.expose())
    decryptor = Cipher(algorithm, modes.CBC(vector)).decryptor()
    padded = Secret(decryptor.update(ciphertext) + decryptor.finalize())
    unpadder = padding.PKCS7(8 * cipher.block_bytes).unpadder()
    try:
        return Secret(unpadder.update(padded.expose()) + unpadder.finalize())
    except ValueError:
        raise BlobInvalid(_DOES_NOT_OPEN) from None
