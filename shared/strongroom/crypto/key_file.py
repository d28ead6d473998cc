"""Key files: how private keys lie on disk, and who may read them.

One JSON format, "strongroom-key/v1", holds every kind of private key, plain or under a passphrase. With a
passphrase, Argon2id (RFC 9106) makes an AES-256-GCM key, and every other field is bound as associated data.
Files are made with mode 0600, are never overwritten, and are on disk when the writer returns;
`secret_file` says who may read them.
"""

import base64
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from strongroom.crypto.sealing import PrivateSealingKey, Suite, encode_context
from strongroom.crypto.secret import Secret
from strongroom.crypto.secret_file import invalid, read_guarded, unreadable
from strongroom.crypto.signing import SigningKey
from strongroom.errors import KeyFileInvalid
from strongroom.private_file import appearing

FORMAT: Final = "strongroom-key/v1"
KDF_ITERATIONS_MAX: Final = 16
KDF_LANES_MAX: Final = 16
KDF_MEMORY_KIB_MAX: Final = 1024 * 1024

K = TypeVar("K")

_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_AES_KEY_BYTES: Final = 32
_KDF: Final = "argon2id"
_CIPHER: Final = "aes-256-gcm"
_SIGNING_ALGORITHM: Final = "ed25519"


@dataclass(frozen=True, slots=True)
class KdfCost:
    """What one guess of a passphrase costs: Argon2id passes, lanes, and memory in KiB (RFC 9106 section 3.1).

    Raises ValueError outside 1 to 16 iterations, 1 to 16 lanes, 8 KiB a lane to 1 GiB of memory: a key file
    must not be able to stop the process that reads it.
    """

    iterations: int = 3
    lanes: int = 1
    memory_kib: int = 32 * 1024

    def __post_init__(self) -> None:
        """Refuse a cost outside the limits."""
        if not 1 <= self.iterations <= KDF_ITERATIONS_MAX:
            raise ValueError(f"the key derivation takes 1 to {KDF_ITERATIONS_MAX} iterations")
        if not 1 <= self.lanes <= KDF_LANES_MAX:
            raise ValueError(f"the key derivation takes 1 to {KDF_LANES_MAX} lanes")
        if not 8 * self.lanes <= self.memory_kib <= KDF_MEMORY_KIB_MAX:
            raise ValueError(f"the key derivation takes 8 KiB a lane to {KDF_MEMORY_KIB_MAX} KiB of memory")


DEFAULT_KDF_COST: Final = KdfCost()


class KeyKind(StrEnum):
    """What a key is for; the value is the word for people."""

    SIGNING = "signing"
    SEALING = "sealing"
    TRANSPORT = "transport"


@dataclass(frozen=True, slots=True)
class Public:
    """The public half of a key file: the name of its algorithm, its id (32 hex digits), the public key."""

    algorithm: str
    id: str
    public_key: bytes


def write_signing_key(
    path: Path, key: SigningKey, passphrase: Secret | None, *, cost: KdfCost = DEFAULT_KDF_COST
) -> None:
    """Write a new key file, under the passphrase if there is one; it is on disk when this returns.

    Raises KeyFileInvalid when the path is taken or cannot be written, or the passphrase is empty.
    """
    public = Public(_SIGNING_ALGORITHM, key.key_id, key.public_key)
    write_key(path, public, key.seed(), passphrase, cost)


def write_sealing_key(
    path: Path, key: PrivateSealingKey, passphrase: Secret | None, *, cost: KdfCost = DEFAULT_KDF_COST
) -> None:
    """Write a new key file for a sealing key; the contract is that of `write_signing_key`."""
    public = Public(key.suite.value, key.kid, key.public_key)
    write_key(path, public, key.private_bytes(), passphrase, cost)


def read_signing_key(path: Path, passphrase: Secret | None) -> SigningKey:
    """Read a signing key; the passphrase is not used when the file is not protected.

    Raises KeyFileInvalid for everything that is wrong: permissions, format, passphrase, a public key or an id
    that is not that of the private key, a key of another kind.
    """
    return read_key(path, passphrase, {KeyKind.SIGNING: _signing_key})


def read_sealing_key(path: Path, passphrase: Secret | None) -> PrivateSealingKey:
    """Read a sealing key; the contract is that of `read_signing_key`."""
    return read_key(path, passphrase, {KeyKind.SEALING: load_sealing_key})


def read_passphrase(path: Path) -> Secret:
    """Give the first line of a file without its line end (LF, CR or CR LF).

    Raises KeyFileInvalid when the line is empty, or when others may read the file and it is not a mounted
    secret (the rule stands at the head of `secret_file`).
    """
    content = read_guarded(path, mounted_accepted=True)
    line = Secret((content.expose().splitlines() or [b""])[0])
    if not line:
        raise invalid(path, "the first line is empty", "put the passphrase, or the PIN, on the first line")
    return line


def _signing_key(_algorithm: str, private: Secret) -> tuple[Public, SigningKey]:
    key = SigningKey.from_seed(private)
    return Public(_SIGNING_ALGORITHM, key.key_id, key.public_key), key


def load_sealing_key(algorithm: str, private: Secret) -> tuple[Public, PrivateSealingKey]:
    """Build a sealing key, for `read_key`; ValueError if these bytes are none."""
    key = PrivateSealingKey.from_bytes(Suite(algorithm), private)
    return Public(algorithm, key.kid, key.public_key), key


# ---- any kind of key ---------------------------------------------------------------------------


_KINDS: Final = {_SIGNING_ALGORITHM: KeyKind.SIGNING, "rsa": KeyKind.TRANSPORT}


def write_key(path: Path, public: Public, private: Secret, passphrase: Secret | None, cost: KdfCost) -> None:
    """Write a new key file; the contract is that of `write_signing_key`."""
    _create(path, _encode(path, public, private, passphrase, cost))


def read_key(
    path: Path,
    passphrase: Secret | None,
    loaders: Mapping[KeyKind, Callable[[str, Secret], tuple[Public, K]]],
) -> K:
    """Read a key of one of these kinds, as the loader of its kind builds it.

    A loader is given the algorithm and the private bytes and gives the public half that goes with them; ValueError
    where there is none. The contract is that of `read_signing_key`.
    """
    file = _parse(path)
    kind = _KINDS.get(file.algorithm, KeyKind.SEALING)
    if kind not in loaders:
        wanted = " or ".join(loaders)
        raise invalid(path, f"this is a {kind} key ({file.algorithm})", f"name a {wanted} key file")
    try:
        public, key = loaders[kind](file.algorithm, _unprotect(path, file, passphrase))
    except ValueError:
        raise _mismatch(path) from None
    if (file.id, file.public_key) != (public.id, public.public_key):
        raise _mismatch(path)
    return key


# ---- the format --------------------------------------------------------------------------------


def _from_base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("not text")  # noqa: TRY004 - pydantic reports ValueError, and lets TypeError through
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != text:
        raise ValueError("not canonical")
    return raw


_Base64: TypeAlias = Annotated[bytes, BeforeValidator(_from_base64)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )


class _Unprotected(_Strict):
    kdf: Literal["none"]


class _Protected(_Strict):
    kdf: Literal["argon2id"]
    iterations: int
    lanes: int
    memory_kib: int
    salt: Annotated[_Base64, Field(min_length=_SALT_BYTES, max_length=_SALT_BYTES)]
    cipher: Literal["aes-256-gcm"]
    nonce: Annotated[_Base64, Field(min_length=_NONCE_BYTES, max_length=_NONCE_BYTES)]


class _KeyFile(_Strict):
    format: Literal["strongroom-key/v1"]
    algorithm: Literal["ed25519", "x-wing", "dhkem-p256", "rsa"]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    public_key: _Base64
    protection: Annotated[_Unprotected | _Protected, Field(discriminator="kdf")]
    private_key: Secret


def _encode(path: Path, public: Public, private: Secret, passphrase: Secret | None, cost: KdfCost) -> Secret:
    """Give the bytes of a key file."""
    protection: dict[str, str | int] = {"kdf": "none"}
    stored = private
    if passphrase is not None:
        if not passphrase:
            raise invalid(path, "the passphrase is empty", "give a passphrase, or none at all")
        salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
        protection = {
            "kdf": _KDF,
            "iterations": cost.iterations,
            "lanes": cost.lanes,
            "memory_kib": cost.memory_kib,
            "salt": base64.b64encode(salt).decode(),
            "cipher": _CIPHER,
            "nonce": base64.b64encode(nonce).decode(),
        }
        cipher = _cipher(passphrase, cost, salt)
        stored = Secret(cipher.encrypt(nonce, private.expose(), _bound(public, cost, salt, nonce)))
    head = {
        "format": FORMAT,
        "algorithm": public.algorithm,
        "id": public.id,
        "public_key": base64.b64encode(public.public_key).decode(),
        "protection": protection,
    }
    return Secret(
        json.dumps({**head, "private_key": base64.b64encode(stored.expose()).decode()}, indent=2).encode() + b"\n"
    )


def _parse(path: Path) -> _KeyFile:
    found = _read_document(read_guarded(path, mounted_accepted=False))
    if isinstance(found, str):
        raise _damaged(path, found)
    return found


def _read_document(content: Secret) -> _KeyFile | str:
    """Give the key file, or what is wrong with it.

    It raises nothing, because the exceptions of the parsers and the frames below this one hold the document.
    """
    try:
        return _KeyFile.model_validate(json.loads(content.expose(), object_pairs_hook=_members))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        if first["type"] == "extra_forbidden":
            return "a field is unknown"
        field = ".".join(str(part) for part in first["loc"] if part != _KDF)
        return f"the field {field or 'format'} is missing or wrong"
    except _DuplicateMemberError:
        return "a field stands twice"
    except (ValueError, RecursionError):
        return "this is not JSON"


class _DuplicateMemberError(ValueError):
    """A member of a JSON object stands twice."""


def _members(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; the private key becomes a Secret before anything else can see it."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise _DuplicateMemberError
        members[name] = Secret(value.encode()) if name == "private_key" and isinstance(value, str) else value
    return members


def _unprotect(path: Path, file: _KeyFile, passphrase: Secret | None) -> Secret:
    try:
        stored = Secret(_from_base64(file.private_key.expose().decode()))
    except ValueError:
        stored = Secret(b"")
    if not stored:
        raise _damaged(path, "the field private_key is missing or wrong")
    protection = file.protection
    if isinstance(protection, _Unprotected):
        return stored
    try:
        cost = KdfCost(protection.iterations, protection.lanes, protection.memory_kib)
    except ValueError as error:
        raise _damaged(path, f"its cost is out of range: {error}") from None
    if passphrase is None:
        raise invalid(path, "this key is under a passphrase", "give the passphrase")
    cipher = _cipher(passphrase, cost, protection.salt)
    public = Public(file.algorithm, file.id, file.public_key)
    bound = _bound(public, cost, protection.salt, protection.nonce)
    try:
        return Secret(cipher.decrypt(protection.nonce, stored.expose(), bound))
    except (InvalidTag, ValueError):
        raise invalid(
            path,
            "the passphrase is wrong, or the file was changed",
            "try the passphrase again, or restore the file from its backup",
        ) from None


def _cipher(passphrase: Secret, cost: KdfCost, salt: bytes) -> AESGCM:
    kdf = Argon2id(
        salt=salt,
        length=_AES_KEY_BYTES,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    )
    return AESGCM(kdf.derive(passphrase.expose()))


def _bound(public: Public, cost: KdfCost, salt: bytes, nonce: bytes) -> bytes:
    """Give the associated data: every field but the private key, in order, numbers as 4 bytes big-endian."""
    numbers = (number.to_bytes(4, "big") for number in (cost.iterations, cost.lanes, cost.memory_kib))
    names = (public.algorithm.encode(), public.id.encode(), public.public_key, _KDF.encode())
    return encode_context(FORMAT.encode(), *names, *numbers, salt, _CIPHER.encode(), nonce)


# ---- the file ----------------------------------------------------------------------------------


def _create(path: Path, content: Secret) -> None:
    try:
        with appearing(path, overwrite=False) as (_, stream):
            stream.write(content.expose())
    except FileExistsError:
        raise invalid(
            path, "this file exists already, and a key file is never overwritten", "choose another path"
        ) from None
    except OSError as error:
        raise unreadable(path, error, "choose a folder that this user may write, on a disk with room") from None


# ---- what to tell ------------------------------------------------------------------------------


def _damaged(path: Path, cause: str) -> KeyFileInvalid:
    return invalid(path, f"not a key file: {cause}", "name a key file, or restore it from its backup")


def _mismatch(path: Path) -> KeyFileInvalid:
    return _damaged(path, "its id, public key and private key do not belong together")
