"""Key files: how private keys lie on disk, and who may read them.

One JSON format, "strongroom-key/v1", holds every kind of private key, plain or under a passphrase. With a
passphrase, Argon2id (RFC 9106) makes an AES-256-GCM key, and every other field is bound as associated data.
Files are made with mode 0600, are never overwritten, and are on disk when the writer returns.

Who may read: a key file or a passphrase file has no permission bit for group or others. The one exception is
for passphrases: a secret that the service manager mounted, which means that it lies (symbolic links followed)
below $CREDENTIALS_DIRECTORY or /run/secrets, belongs to root or to this process's user, and has read bits and
no others (0400, 0440, 0444).
"""

import base64
import json
import os
import secrets
import shlex
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from strongroom.crypto.sealing import PrivateSealingKey, Suite, encode_context
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import KeyFileInvalid
from strongroom.private_file import appearing

FORMAT: Final = "strongroom-key/v1"
KEY_FILE_BYTES_MAX: Final = 64 * 1024
KDF_ITERATIONS_MAX: Final = 16
KDF_LANES_MAX: Final = 16
KDF_MEMORY_KIB_MAX: Final = 1024 * 1024
MOUNTED_SECRETS: Final = Path("/run/secrets")

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


def write_signing_key(
    path: Path, key: SigningKey, passphrase: Secret | None, *, cost: KdfCost = DEFAULT_KDF_COST
) -> None:
    """Write a new key file, under the passphrase if there is one; it is on disk when this returns.

    Raises KeyFileInvalid when the path is taken or cannot be written, or the passphrase is empty.
    """
    public = _Public(_SIGNING_ALGORITHM, key.key_id, key.public_key)
    _create(path, _encode(path, public, key.seed(), passphrase, cost))


def write_sealing_key(
    path: Path, key: PrivateSealingKey, passphrase: Secret | None, *, cost: KdfCost = DEFAULT_KDF_COST
) -> None:
    """Write a new key file for a sealing key; the contract is that of `write_signing_key`."""
    public = _Public(key.suite.value, key.kid, key.public_key)
    _create(path, _encode(path, public, key.private_bytes(), passphrase, cost))


def read_signing_key(path: Path, passphrase: Secret | None) -> SigningKey:
    """Read a signing key; the passphrase is not used when the file is not protected.

    Raises KeyFileInvalid for everything that is wrong: permissions, format, passphrase, a public key or an id
    that is not that of the private key, a key of another kind.
    """
    file = _parse(path)
    if file.algorithm != _SIGNING_ALGORITHM:
        raise _invalid(path, f"this is a sealing key ({file.algorithm})", "name a signing key file")
    private = _unprotect(path, file, passphrase)
    try:
        key = SigningKey.from_seed(private)
    except ValueError:
        raise _mismatch(path) from None
    _check_public(path, file, key.key_id, key.public_key)
    return key


def read_sealing_key(path: Path, passphrase: Secret | None) -> PrivateSealingKey:
    """Read a sealing key; the contract is that of `read_signing_key`."""
    file = _parse(path)
    if file.algorithm == _SIGNING_ALGORITHM:
        raise _invalid(path, "this is a signing key (ed25519)", "name a sealing key file")
    private = _unprotect(path, file, passphrase)
    try:
        key = PrivateSealingKey.from_bytes(Suite(file.algorithm), private)
    except ValueError:
        raise _mismatch(path) from None
    _check_public(path, file, key.kid, key.public_key)
    return key


def read_passphrase(path: Path) -> Secret:
    """Give the first line of a file without its line end (LF, CR or CR LF).

    Raises KeyFileInvalid when the line is empty, or when others may read the file and it is not a mounted
    secret (the rule stands at the head of this module).
    """
    content = _read(path, mounted_accepted=True)
    line = Secret((content.expose().splitlines() or [b""])[0])
    if not line:
        raise _invalid(path, "the first line is empty", "put the passphrase on the first line")
    return line


# ---- the format --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Public:
    """The public half of a key file."""

    algorithm: str
    id: str
    public_key: bytes


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
    algorithm: Literal["ed25519", "x-wing", "dhkem-p256"]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    public_key: _Base64
    protection: Annotated[_Unprotected | _Protected, Field(discriminator="kdf")]
    private_key: Secret


def _encode(path: Path, public: _Public, private: Secret, passphrase: Secret | None, cost: KdfCost) -> Secret:
    """Give the bytes of a key file."""
    protection: dict[str, str | int] = {"kdf": "none"}
    stored = private
    if passphrase is not None:
        if not passphrase:
            raise _invalid(path, "the passphrase is empty", "give a passphrase, or none at all")
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
    found = _read_document(_read(path, mounted_accepted=False))
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
        raise _invalid(path, "this key is under a passphrase", "give the passphrase")
    cipher = _cipher(passphrase, cost, protection.salt)
    public = _Public(file.algorithm, file.id, file.public_key)
    bound = _bound(public, cost, protection.salt, protection.nonce)
    try:
        return Secret(cipher.decrypt(protection.nonce, stored.expose(), bound))
    except (InvalidTag, ValueError):
        raise _invalid(
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


def _bound(public: _Public, cost: KdfCost, salt: bytes, nonce: bytes) -> bytes:
    """Give the associated data: every field but the private key, in order, numbers as 4 bytes big-endian."""
    numbers = (number.to_bytes(4, "big") for number in (cost.iterations, cost.lanes, cost.memory_kib))
    names = (public.algorithm.encode(), public.id.encode(), public.public_key, _KDF.encode())
    return encode_context(FORMAT.encode(), *names, *numbers, salt, _CIPHER.encode(), nonce)


def _check_public(path: Path, file: _KeyFile, key_id: str, public_key: bytes) -> None:
    if (file.id, file.public_key) != (key_id, public_key):
        raise _mismatch(path)


# ---- the file ----------------------------------------------------------------------------------


def _create(path: Path, content: Secret) -> None:
    try:
        with appearing(path, overwrite=False) as (_, stream):
            stream.write(content.expose())
    except FileExistsError:
        raise _invalid(
            path, "this file exists already, and a key file is never overwritten", "choose another path"
        ) from None
    except OSError as error:
        raise _unreadable(path, error, "choose a folder that this user may write, on a disk with room") from None


def _read(path: Path, *, mounted_accepted: bool) -> Secret:
    """Give the content of a regular file that nobody else may read and that is at most 64 KiB."""
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error, "check the path and its permissions") from None
    try:
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise _invalid(path, "this is not a regular file", "name a file")
        if mode & 0o077 and not (mounted_accepted and _is_mounted(path.resolve(), mode, status.st_uid)):
            raise _invalid(
                path, f"others may use this file (mode {mode:04o})", f"chmod 600 {shlex.quote(str(path))}"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = Secret(stream.read(KEY_FILE_BYTES_MAX + 1))
    except OSError as error:
        raise _unreadable(path, error, "see to the file system") from None
    finally:
        os.close(descriptor)
    if len(content) > KEY_FILE_BYTES_MAX:
        raise _invalid(path, f"this file is larger than {KEY_FILE_BYTES_MAX} bytes", "name a key file")
    return content


def _is_mounted(real_path: Path, mode: int, owner: int) -> bool:
    """Tell whether the service manager mounted this secret; the rule stands at the head of this module."""
    folders = [MOUNTED_SECRETS]
    credentials = Path(os.environ.get("CREDENTIALS_DIRECTORY", ""))
    if credentials.is_absolute():
        folders.append(credentials)
    return (
        mode & ~0o444 == 0
        and owner in (0, os.geteuid())
        and any(real_path.is_relative_to(folder.resolve()) for folder in folders)
    )


# ---- what to tell ------------------------------------------------------------------------------


def _invalid(path: Path, cause: str, hint: str) -> KeyFileInvalid:
    return KeyFileInvalid(f"{path}: {cause}", hint=hint)


def _damaged(path: Path, cause: str) -> KeyFileInvalid:
    return _invalid(path, f"not a key file: {cause}", "name a key file, or restore it from its backup")


def _mismatch(path: Path) -> KeyFileInvalid:
    return _damaged(path, "its id, public key and private key do not belong together")


def _unreadable(path: Path, error: OSError, hint: str) -> KeyFileInvalid:
    return _invalid(path, error.strerror or type(error).__name__, hint)
