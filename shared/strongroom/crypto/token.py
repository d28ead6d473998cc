"""A PKCS #11 token as a keyring: private keys that never leave it.

What leaves it is, for each blob, the shared point of the Diffie-Hellman that opens this blob alone, and for each
transported key that key. Whoever controls this process can have the token open any blob for as long as the session
lasts; he cannot take the key along.

A session belongs to one thread, which the keyring owns; callers wait for it. When the token fails, the session is
closed and opened again once, and the work repeated; if that fails, too, it is trouble that may pass, and nothing is
said about the blob. A PIN that was refused is never tried again: tokens lock themselves.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, final

from strongroom.crypto.hpke_opening import open_with
from strongroom.crypto.pkcs11_module import DeviceFault
from strongroom.crypto.pkcs11_uri import Pkcs11Uri
from strongroom.crypto.rsa import Padding, RsaPublicKey, check_ciphertext
from strongroom.crypto.sealing import Opener, Suite
from strongroom.crypto.secret import Secret
from strongroom.crypto.token_objects import KeyLabel, TokenKey
from strongroom.crypto.token_session import PinRefused, TokenSession
from strongroom.errors import BlobInvalid, ConfigurationInvalid, Denied, KeyDeviceUnavailable, KeyUnknown

ANSWER_SECONDS_MAX: Final = 60.0

_HINT: Final = "see to the token and its service; this is tried again"

T = TypeVar("T")


@final
class TokenKeyring:
    """A Keyring of all Strongroom keys of a token (`token_session` says which those are).

    Its keys may be used by several threads at once. It belongs to the process that made it.
    """

    def __init__(self, uri: Pkcs11Uri, pin: Secret) -> None:
        """Log in once, find the keys and try each of them.

        Raises ConfigurationInvalid, which says what to do, for a missing module or token, for a key that cannot be
        used, and for a PIN that the token refuses; KeyDeviceUnavailable when the token fails.
        """
        self._device: Final = _Device(uri, pin)
        try:
            keys = self._device.start()
        except BaseException:
            self._device.close()
            raise
        self._sealing: Final = {
            key.kid: TokenSealingKey(self._device, key) for key in keys if key.label is KeyLabel.SEALING
        }
        self._transport: Final = {
            key.kid: TokenTransportKey(self._device, key) for key in keys if key.label is KeyLabel.TRANSPORT
        }

    @property
    def kids(self) -> frozenset[str]:
        """The ids of all sealing keys of the token."""
        return frozenset(self._sealing)

    @property
    def transport_kids(self) -> frozenset[str]:
        """The ids of all transport keys of the token."""
        return frozenset(self._transport)

    def opener(self, kid: str) -> Opener:
        """Give the sealing key with this id, or raise KeyUnknown."""
        if kid not in self._sealing:
            raise KeyUnknown(f"the token does not hold the sealing key {kid}")
        return self._sealing[kid]

    def transport(self, kid: str) -> "TokenTransportKey":
        """Give the transport key with this id, or raise KeyUnknown."""
        if kid not in self._transport:
            raise KeyUnknown(f"the token does not hold the transport key {kid}")
        return self._transport[kid]

    def close(self) -> None:
        """Log out and end the thread, once the work in hand is done; idempotent."""
        self._device.close()

    def __repr__(self) -> str:
        """Show the number of keys."""
        return f"<TokenKeyring: {len(self._sealing)} sealing keys, {len(self._transport)} transport keys>"


@final
class TokenSealingKey:
    """A P-256 sealing key on a token (an Opener); its repr shows suite and kid only."""

    __slots__ = ("_device", "_public_key", "kid", "suite")

    def __init__(self, device: "_Device", key: TokenKey) -> None:
        """Take a key that `_Device.start` found."""
        self.kid: Final[str] = key.kid
        self.suite: Final = Suite.P256
        self._public_key: Final = key.public_key
        self._device: Final = device

    def open(self, blob: bytes, info: bytes) -> Secret:
        """Give the plaintext of a blob as Opener says; KeyDeviceUnavailable when the token does not answer.

        A token that computes something wrong looks like a bad blob. So it has to open one of our making before a
        blob is called bad.
        """
        try:
            return open_with(self._ecdh, self._public_key, blob, info)
        except BlobInvalid:
            pass
        if not self._device.ask(lambda session: session.works(self.kid)):
            raise KeyDeviceUnavailable(f"the token gives wrong results for the sealing key {self.kid}", hint=_HINT)
        return open_with(self._ecdh, self._public_key, blob, info)

    def _ecdh(self, point: bytes) -> Secret:
        return self._device.ask(lambda session: session.shared_secret(self.kid, point))

    def __repr__(self) -> str:
        """Show suite and kid, which are public."""
        return f"<TokenSealingKey {self.suite} {self.kid}>"


@final
class TokenTransportKey:
    """An RSA transport key on a token (an Unwrapper), for RSA-OAEP with SHA-1 alone.

    PKCS #1 v1.5 is refused here. It may only be opened with implicit rejection, which many tokens lack: they answer
    bad padding with an error, and whoever can see or time that can decrypt with the key. A transport key for v1.5
    lies in a key file.
    """

    __slots__ = ("_device", "kid", "public_key")

    def __init__(self, device: "_Device", key: TokenKey) -> None:
        """Take a key that `_Device.start` found."""
        self.kid: Final[str] = key.kid
        self.public_key: Final = RsaPublicKey.from_spki(key.public_key)
        self._device: Final = device

    def unwrap(self, ciphertext: bytes, padding: Padding, lengths: range) -> Secret:
        """Give the wrapped key as Unwrapper says; Denied for Padding.PKCS1, KeyDeviceUnavailable."""
        check_ciphertext(self.public_key, ciphertext)
        if padding is Padding.PKCS1:
            raise Denied(
                f"transport key {self.kid}: is on a token, which would tell bad PKCS #1 v1.5 padding from good",
                hint="keys wrapped so need a transport key in a key file",
            )
        opened = self._device.ask(lambda session: session.decrypted(self.kid, ciphertext))
        if opened is None or len(opened) not in lengths:
            raise BlobInvalid("the wrapped key does not open with this key and padding")
        return opened

    def __repr__(self) -> str:
        """Show size and fingerprint, which are public."""
        return f"<TokenTransportKey: {self.public_key.bits} bits, {self.public_key.fingerprint}>"


class _Device:
    """The thread of a session, and the session in it, which comes and goes."""

    def __init__(self, uri: Pkcs11Uri, pin: Secret) -> None:
        self._uri: Final = uri
        self._pin: Final = pin
        self._pid: Final = os.getpid()
        self._is_closed = False
        self._thread: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="token")
        # Of the thread alone:
        self._session: TokenSession | None = None
        self._refusal: PinRefused | None = None

    def start(self) -> tuple[TokenKey, ...]:
        """Open the session and return its keys. Raises ConfigurationInvalid, KeyDeviceUnavailable."""

        def opened() -> tuple[TokenKey, ...]:
            try:
                return tuple(self._connected().keys.values())
            except DeviceFault as fault:
                raise self._unavailable(f"its module says {fault.name}") from None

        return self._in_thread(opened)

    def ask(self, question: Callable[[TokenSession], T]) -> T:
        """Put a question to the session, a second time to a new one if need be; raises KeyDeviceUnavailable."""

        def asked() -> T:
            try:
                return question(self._connected())
            except (DeviceFault, ConfigurationInvalid, KeyError):
                self._disconnect()
            try:
                return question(self._connected())
            except DeviceFault as fault:
                cause = f"its module says {fault.name}"
            except ConfigurationInvalid as error:
                cause = error.message
            except KeyError:
                cause = "a key is not there any more"
            self._disconnect()
            raise self._unavailable(cause)

        return self._in_thread(asked)

    def close(self) -> None:
        if os.getpid() == self._pid and not self._is_closed:
            self._is_closed = True
            self._thread.submit(self._disconnect)
            self._thread.shutdown(wait=True)

    def _in_thread(self, work: Callable[[], T]) -> T:
        if os.getpid() != self._pid:
            raise RuntimeError("a TokenKeyring belongs to the process that made it")
        future = self._thread.submit(work)
        try:
            return future.result(ANSWER_SECONDS_MAX)
        except TimeoutError:
            future.cancel()
            raise self._unavailable(f"no answer within {ANSWER_SECONDS_MAX:.0f} s") from None

    def _connected(self) -> TokenSession:
        if self._session is not None and self._session.is_current:
            return self._session
        if self._refusal is not None:
            raise self._refusal
        try:
            session = TokenSession.open(self._uri, self._pin)
        except PinRefused as refusal:
            self._refusal = refusal.with_traceback(None)
            raise
        try:
            session.find_keys()
        except BaseException:
            session.close()
            raise
        self._session = session
        return session

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _unavailable(self, cause: str) -> KeyDeviceUnavailable:
        return KeyDeviceUnavailable(f"token with {self._uri.description}: {cause}", hint=_HINT)
