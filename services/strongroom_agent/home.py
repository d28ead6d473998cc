"""The folder in which an agent or an officer keeps everything (STRONGROOM_HOME).

    config.toml      who this is, the pinned root key, the broker; written last, so a folder without it is no home
    checks.toml      where the live keys are that `sync` and `attest` compare with the records; may be absent
    broker-ca.pem    the CA that signed the broker's certificate; absent where the system's own CAs are meant
    broker.pem       the certificate by which this home logs in to the broker, if it does
    keys/            signing.key (strongroom-key/v1); for an agent age.key (an ordinary age identity file);
                     broker.key, which belongs to broker.pem
    one-time.key     what a host's enrolment card was made for; until it is enrolled
    requests/        requests that wait, with their one-time keys
    exports/         an officer's exports to other authorities that wait
    state.db         rosters, checkpoints, the enrolment, the spool and what was imported
    lock             held while something is being sent

This module imports nothing slow: `strongroom status` starts with it.
"""

import errno
import fcntl
import json
import os
import shlex
import stat
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from strongroom import private_file
from strongroom.errors import Busy, ConfigurationInvalid, TransientError

FORMAT: Final = "strongroom-home/v1"
CONFIG_BYTES_MAX: Final = 65_536

BROKER_CERTIFICATE: Final = "broker.pem"

_CONFIG: Final = "config.toml"
_BROKER_KEY: Final = "keys/broker.key"
_OTHERS: Final = 0o077
_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


class Role(StrEnum):
    """In which capacity the owner of a home asks."""

    PRINCIPAL = "principal"
    OFFICER = "officer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What `config.toml` says.

    key_id, public_key: of the signing key. authority, root_key (32 bytes, pinned), broker_url: absent from an
    officer's home until the first roster is attached. agents_broker_url: what an officer's invitations hand out;
    without it that is `broker_url`. The URLs may hold passwords and are left out of the repr. broker_certificate,
    broker_key: PEM files in the home, both or neither; with them the broker knows this host by the certificate's
    common name, and user and password of `broker_url` are not used.
    """

    name: str
    role: Role
    key_id: str
    public_key: bytes
    authority: str | None = None
    root_key: bytes | None = None
    broker_url: str | None = field(default=None, repr=False)
    agents_broker_url: str | None = field(default=None, repr=False)
    broker_certificate: str | None = None
    broker_key: str | None = None

    def to_toml(self) -> bytes:
        """Write the document. Raises ConfigurationInvalid for text that TOML cannot hold."""
        lines = [f"format = {_toml(FORMAT)}"]
        for member in fields(self):
            value = getattr(self, member.name)
            if value is not None:
                text = b64encode(value).decode() if isinstance(value, bytes) else str(value)
                lines.append(f"{member.name} = {_toml(text)}")
        return "\n".join([*lines, ""]).encode()

    @classmethod
    def from_toml(cls, content: bytes, *, where: str) -> Self:
        """Read the document; `where` names it in errors. Raises ConfigurationInvalid naming the member."""
        try:
            document = tomllib.loads(content.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            raise ConfigurationInvalid(f"{where}: is not TOML") from None
        if document.pop("format", None) != FORMAT:
            raise ConfigurationInvalid(f"{where}: format: must be {FORMAT!r}")
        known = {member.name for member in fields(cls)}
        for name, value in document.items():
            if name not in known or not isinstance(value, str) or not value:
                raise ConfigurationInvalid(f"{where}: {name}: is unknown, empty or not text")
        missing = {"name", "role", "key_id", "public_key"} - document.keys()
        if missing:
            raise ConfigurationInvalid(f"{where}: {min(missing)}: is missing")
        try:
            role = Role(document.pop("role"))
            public_key = b64decode(document.pop("public_key"), validate=True)
            root_key = document.pop("root_key", None)
            root_key = None if root_key is None else b64decode(root_key, validate=True)
        except ValueError:
            raise ConfigurationInvalid(f"{where}: role or a key: has a wrong value") from None
        return cls(role=role, public_key=public_key, root_key=root_key, **document)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLogin:
    """A host's own login to the broker, in place of the one that its invitation hands out.

    url: AMQP URL. certificate, key: PEM, both or neither.
    """

    url: str | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)

    def keep(self, path: Path, config: Config) -> Config:
        """Write certificate and key (0600) into the home at `path`; return `config` with this login.

        Raises as `write_atomically`.
        """
        if self.url is not None:
            config = replace(config, broker_url=self.url)
        if self.certificate is None or self.key is None:
            return config
        write_atomically(path / _BROKER_KEY, self.key)
        write_atomically(path / BROKER_CERTIFICATE, self.certificate)
        return replace(config, broker_certificate=BROKER_CERTIFICATE, broker_key=_BROKER_KEY)


@dataclass(frozen=True, slots=True)
class Home:
    """An existing home, its folder and configuration checked."""

    path: Path
    config: Config

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the home at `path`.

        Raises ConfigurationInvalid when there is none, when folder or configuration belong to somebody else or
        are open to others, or when the configuration is wrong.
        """
        try:
            (path / _CONFIG).stat()
            check_private(path)
            check_private(path / _CONFIG)
            with (path / _CONFIG).open("rb") as stream:
                content = stream.read(CONFIG_BYTES_MAX)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigurationInvalid(
                f"{path}: there is no Strongroom home here",
                hint="run `strongroom enrol` with an officer's invitation, or name the right folder",
            ) from None
        except OSError as error:
            raise os_error(path, error) from None
        return cls(path, Config.from_toml(content, where=str(path / _CONFIG)))

    @property
    def keys(self) -> Path:
        """The folder of private keys."""
        return self.path / "keys"

    @property
    def signing_key_file(self) -> Path:
        """The signing key."""
        return self.keys / "signing.key"

    @property
    def age_key_file(self) -> Path:
        """The owner's age identity."""
        return self.keys / "age.key"

    @property
    def state_file(self) -> Path:
        """The SQLite database of everything that changes."""
        return self.path / "state.db"

    @property
    def broker_ca(self) -> Path | None:
        """The CA of the broker's certificate; None means the system's own."""
        path = self.path / "broker-ca.pem"
        return path if path.exists() else None

    def broker_certificate(self) -> tuple[Path, Path] | None:
        """Return certificate and private key by which this home logs in to the broker; None: by the URL alone.

        Raises ConfigurationInvalid for one without the other, and for a key that is missing or open to others.
        """
        certificate, key = self.config.broker_certificate, self.config.broker_key
        if certificate is None or key is None:
            if certificate or key:
                raise ConfigurationInvalid(f"{self.path / _CONFIG}: broker_certificate and broker_key go together")
            return None
        try:
            check_private(self.path / key)
        except OSError as error:
            raise os_error(self.path / key, error) from None
        return self.path / certificate, self.path / key

    def authority(self) -> tuple[str, bytes]:
        """Return the authority's id and its pinned root key; ConfigurationInvalid if there is none yet."""
        if self.config.authority is None or self.config.root_key is None:
            raise ConfigurationInvalid(
                f"{self.path}: no roster was attached to this home yet",
                hint="give this home's public key to the authority, and attach the roster that names it",
            )
        return self.config.authority, self.config.root_key

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for sending. Raises Busy at once while another process or task holds it."""
        with lock_folder(self.path):
            yield

    def write_config(self, config: Config) -> "Home":
        """Replace the configuration atomically; on disk when it returns. Returns the home as it is now."""
        write_atomically(self.path / _CONFIG, config.to_toml())
        return Home(self.path, config)


def default_home() -> Path:
    """Return the home of this user: $STRONGROOM_HOME, else `strongroom` in the XDG state folder."""
    named = os.environ.get("STRONGROOM_HOME", "")
    if named:
        return Path(named)
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    # The XDG base directory specification has relative paths ignored.
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "strongroom"


def check_private(path: Path) -> None:
    """Raise ConfigurationInvalid unless this user owns `path` and nobody else may use it; OSError without it."""
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise ConfigurationInvalid(f"{path}: belongs to another user", hint="run this as the owner of the home")
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS:
        raise ConfigurationInvalid(
            f"{path}: others may use it (mode {mode:04o})", hint=f"chmod go= {shlex.quote(str(path))}"
        )


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Hold the lock of a folder that is, or will be, a home. Raises Busy at once while it is held."""
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise os_error(path / "lock", error) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{path}: another strongroom process is using this home") from None
        yield
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by one of mode 0600 with this content; on disk when it returns.

    Raises ConfigurationInvalid for a place that cannot be written, TransientError for a full or failing disk.
    """
    try:
        with private_file.replacing(path, by=path.with_name(f"{path.name}.partial")) as stream:
            stream.write(content)
    except OSError as error:
        raise os_error(path, error) from None


def os_error(path: Path, error: OSError) -> ConfigurationInvalid | TransientError:
    """Say in our words what the operating system refused: TransientError for a full or failing disk."""
    kind = TransientError if error.errno in _DISK_ERRORS else ConfigurationInvalid
    return kind(f"{path}: {error.strerror}", hint="see to the folder, its owner and its file system")


def _toml(text: str) -> str:
    # A JSON string without its escapes above ASCII is a TOML basic string, but for DEL.
    if "\x7f" in text:
        raise ConfigurationInvalid("a control character where text is expected")
    return json.dumps(text, ensure_ascii=False)
