"""A session with a PKCS #11 token: logged in, its Strongroom keys found and tried. For one thread at a time.

A key is a pair of objects with one CKA_ID: a private key with CKA_LABEL `strongroom-sealing` (P-256) or
`strongroom-transport` (RSA), and its public key. What it is called decides nothing: its kid is computed from the
public key, and that both belong together is tried. A private key that could leave the token is refused.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from strongroom.crypto import token_objects as objects
from strongroom.crypto.pkcs11_module import DeviceFault, Pkcs11Module, faults, library
from strongroom.crypto.pkcs11_uri import Pkcs11Uri
from strongroom.crypto.rsa import RSA_BITS_MAX, RSA_BITS_MIN
from strongroom.crypto.secret import Secret
from strongroom.crypto.token_objects import KeyLabel, TokenKey
from strongroom.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from pkcs11 import Session, Token


class PinRefused(ConfigurationInvalid):
    """The token refused the PIN: it must not be tried again."""


class TokenSession:
    """An open session. Every method takes the module's lock, and raises DeviceFault when the module refuses."""

    def __init__(self, module: Pkcs11Module, session: "Session") -> None:
        """Take a session that is logged in; use `open`."""
        self._module: Final = module
        self._session: Final = session
        self._generation: Final = module.generation
        self._private: Final[dict[str, Any]] = {}
        self._keys: Final[dict[str, TokenKey]] = {}

    @classmethod
    def open(cls, uri: Pkcs11Uri, pin: Secret, *, writing: bool = False) -> Self:
        """Find the token and log in, once; keys are found by `find_keys`.

        Raises ConfigurationInvalid, which says what to do, for a module that cannot be used, and for a token that
        is missing or one of two, and for a login that is not to be had; PinRefused when it was tried in vain;
        DeviceFault for anything else.
        """
        module = Pkcs11Module.load(uri.module_path)
        with module.lock:
            return cls(module, _logged_in(_found(module, uri), uri, pin, writing=writing))

    def close(self) -> None:
        """Log out and close, as far as the token is still there."""
        with self._module.lock:
            if self.is_current:
                with suppress(DeviceFault), faults():
                    self._session.close()

    @property
    def is_current(self) -> bool:
        """Whether the module has not been restarted since."""
        return self._generation == self._module.generation

    @property
    def keys(self) -> Mapping[str, TokenKey]:
        """The keys that `find_keys` found, by kid."""
        return self._keys

    def find_keys(self) -> None:
        """Find all keys and try each: it opens what is sealed to its public key.

        Raises ConfigurationInvalid for a key that cannot be used; DeviceFault.
        """
        with self._module.lock:
            for label in KeyLabel:
                for private in self._objects("PRIVATE_KEY", label=label):
                    found = self._key(label, private)
                    if found.kid in self._keys:
                        raise objects.unusable(
                            label, private, "is there twice", "delete one of the two from the token"
                        )
                    self._keys[found.kid] = found
                    self._private[found.kid] = private
                    self._try(found, private)

    def shared_secret(self, kid: str, point: bytes) -> Secret:
        """Give the x-coordinate of the private key times a point, which was checked to be on the curve.

        It opens one blob and nothing else; the private key stays where it is.
        """
        with self._module.lock:
            self._check_current()
            return objects.derived(self._private[kid], point)

    def decrypted(self, kid: str, ciphertext: bytes) -> Secret | None:
        """Give what a ciphertext holds by RSA-OAEP with SHA-1, and None if that is in no way possible.

        Tokens have one and the same word for a bad ciphertext and for a fault of their own. So a refusal counts
        only when the key has opened a ciphertext of our making afterwards, and then refuses again.
        """
        key = self._keys[kid]
        with self._module.lock:
            self._check_current()
            private = self._private[kid]
            with suppress(DeviceFault):
                return objects.decrypted(private, ciphertext)
            if not objects.works(key, private):
                raise DeviceFault("WrongResult")
            try:
                return objects.decrypted(private, ciphertext)
            except DeviceFault:
                return None

    def works(self, kid: str) -> bool:
        """Say whether a key still opens what is sealed to its public key."""
        with self._module.lock:
            self._check_current()
            return objects.works(self._keys[kid], self._private[kid])

    def make_key(self, label: KeyLabel, bits: int) -> TokenKey:
        """Make a key pair that stays on the token, and return its public half; `bits` is for RSA alone.

        The private key is sensitive and cannot be extracted; CKA_ID is the kid. Raises as `find_keys`; nothing is
        left on the token then.
        """
        with self._module.lock:
            self._check_current()
            pair = objects.generated(self._session, label, bits)
            try:
                found = self._key(label, pair[1])
                for each in pair:
                    objects.set_id(each, bytes.fromhex(found.kid))
                self._try(found, pair[1])
            except BaseException:
                for each in pair:
                    with suppress(DeviceFault), faults():
                        each.destroy()
                raise
            return found

    # ---- finding ----------------------------------------------------------------------------------

    def _check_current(self) -> None:
        # Its numbers may be those of another session by now, and of other keys.
        if not self.is_current:
            raise DeviceFault("SessionClosed")

    def _objects(self, kind: str, **attributes: object) -> list[Any]:
        pkcs11 = library()
        wanted = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass[kind]}
        wanted |= {pkcs11.Attribute[name.upper()]: value for name, value in attributes.items()}
        with faults():
            return list(self._session.get_objects(wanted))

    def _key(self, label: KeyLabel, private: Any) -> TokenKey:
        """Return the public half of a private key that may be used."""
        needed = {
            "SENSITIVE": (True, "is not marked as sensitive: the token gives it out"),
            "EXTRACTABLE": (False, "can be extracted from the token"),
            **(
                {"DERIVE": (True, "may not derive: CKA_DERIVE is not set")}
                if label is KeyLabel.SEALING
                else {"DECRYPT": (True, "may not decrypt: CKA_DECRYPT is not set")}
            ),
        }
        for name, (value, lack) in needed.items():
            if objects.attribute(private, name) is not value:
                raise objects.unusable(
                    label, private, lack, "make a new key with `strongroom authority add-key --pkcs11`"
                )
        public = self._objects("PUBLIC_KEY", id=objects.attribute(private, "ID"))
        if len(public) != 1:
            raise objects.unusable(
                label,
                private,
                f"has {len(public) or 'no'} public key objects of the same CKA_ID on the token",
                "put its public key there, under the same CKA_ID, and no other",
            )
        read = objects.sealing_public if label is KeyLabel.SEALING else objects.transport_public
        try:
            return read(public[0])
        except (ValueError, TypeError):
            what = "P-256" if label is KeyLabel.SEALING else f"RSA of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits"
            raise objects.unusable(label, private, f"has no public key of {what}", "make a new key") from None

    def _try(self, key: TokenKey, private: Any) -> None:
        """Raise ConfigurationInvalid unless the private key opens what is sealed to the public one."""
        try:
            if objects.works(key, private):
                return
            cause = "does not open what is sealed to its public key"
        except DeviceFault as fault:
            cause = f"cannot be used ({fault.name})"
        hint = "make a new key; the token must know ECDH1_DERIVE or RSA_PKCS_OAEP"
        raise objects.unusable(key.label, private, cause, hint)


# ---- the token -------------------------------------------------------------------------------------


def _found(module: Pkcs11Module, uri: Pkcs11Uri) -> "Token":
    """Return the one token that the URI describes."""
    tokens: list[Token] = []
    with suppress(DeviceFault):
        tokens = module.tokens(uri)
    if not tokens:
        # Modules may list what was there when they began.
        module.restart()
        tokens = module.tokens(uri)
    if not tokens:
        raise ConfigurationInvalid(
            f"token: the module {module.path} has no token with {uri.description}",
            hint="plug it in or start its service; `pkcs11-tool --module MODULE --list-slots` shows what there is",
        )
    if len(tokens) > 1:
        serials = ", ".join(sorted(token.serial.decode("utf-8", "replace") for token in tokens))
        raise ConfigurationInvalid(
            f"token: {len(tokens)} tokens have {uri.description}", hint=f"add serial=…, one of {serials}"
        )
    return tokens[0]


def _logged_in(token: "Token", uri: Pkcs11Uri, pin: Secret, *, writing: bool) -> "Session":
    pkcs11 = library()
    flags = pkcs11.TokenFlag
    if not token.flags & flags.USER_PIN_INITIALIZED:
        raise ConfigurationInvalid(
            f"token with {uri.description}: has no user PIN yet", hint="set one with the token's own tool"
        )
    if token.flags & flags.USER_PIN_LOCKED:
        raise _locked(uri)
    if token.flags & flags.USER_PIN_FINAL_TRY:
        raise ConfigurationInvalid(
            f"token with {uri.description}: one more wrong PIN would lock it, so none is tried",
            hint="correct the PIN file, and log in once with the token's own tool",
        )
    if not _is_text(pin):
        raise ConfigurationInvalid(
            f"PIN of the token with {uri.description}: is no UTF-8", hint="correct the PIN file"
        )
    refusal: ConfigurationInvalid
    try:
        with faults():
            return token.open(rw=writing, user_pin=pin.expose().decode())
    except DeviceFault as fault:
        match fault.name:
            case "UserAlreadyLoggedIn":  # by another session of this process, which has one login in all
                with faults():
                    return token.open(rw=writing)
            case "PinIncorrect" | "PinInvalid" | "PinLenRange":
                refusal = PinRefused(
                    f"token with {uri.description}: refused the PIN, which was tried once",
                    hint="correct the file that pin-source or STRONGROOM_KEYRING_PIN_FILE names;"
                    " a token locks itself after a few wrong ones",
                )
            case "PinLocked":
                refusal = _locked(uri)
            case "PinExpired":
                refusal = PinRefused(f"token with {uri.description}: its PIN has expired", hint="set a new one")
            case _:
                raise
    raise refusal


def _is_text(pin: Secret) -> bool:
    try:
        pin.expose().decode()
    except UnicodeDecodeError:
        return False
    return True


def _locked(uri: Pkcs11Uri) -> ConfigurationInvalid:
    return ConfigurationInvalid(
        f"token with {uri.description}: its PIN is locked after too many wrong ones",
        hint="unlock it with the security officer's PIN and the token's own tool",
    )
